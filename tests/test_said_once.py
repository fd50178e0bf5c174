"""What callers and the environment say is a value wherever it is put: nobody reads it a second time."""

import json
from typing import Literal
from urllib.parse import quote

import pytest

from apim_middleware import RewritePath, SetHeader, SetQuery, by
from apim_middleware._http import queries
from apim_middleware.configuration.files import loads
from apim_middleware.testing import call
from apim_middleware.types import Receive, Scope, Send

SAID = '{{secret}} ${HOME} $$ @(1+1) {name} {0.__class__} %(name)s %s <%= x %> "}], "title": "\']'


class App:
    """Keeps the request it got."""

    def __init__(self) -> None:
        self.scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = dict(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.anyio
async def test_a_header_made_of_another_holds_what_that_says() -> None:
    app = App()
    policy = SetHeader(name="x-copy", value=by.header("x-said"), on="request")
    await call(policy(app), headers=[(b"x-said", SAID.encode())])
    assert dict(app.scope["headers"])[b"x-copy"] == SAID.encode()


@pytest.mark.anyio
async def test_a_parameter_made_of_a_header_holds_what_that_says() -> None:
    app = App()
    await call(SetQuery(name="copy", value=by.header("x-said"))(app), headers=[(b"x-said", SAID.encode())])
    assert queries.values(app.scope["query_string"], "copy") == [SAID]


@pytest.mark.anyio
async def test_a_segment_that_looks_like_a_template_is_none() -> None:
    app = App()
    policy = RewritePath(match="/a/{name}/{other}", to="/b/{other}/{name}?q={name}")
    sent = [quote("{other}", safe=""), quote("{name}{rest:path}", safe="")]
    await call(policy(app), path="/a/{other}/{name}{rest:path}", raw_path=f"/a/{sent[0]}/{sent[1]}".encode())
    assert app.scope["raw_path"] == f"/b/{sent[1]}/{sent[0]}".encode()
    assert queries.values(app.scope["query_string"], "q") == ["{other}"]


FILES: dict[Literal["json", "toml", "yaml"], str] = {
    "json": '{"apis": [{"name": "a", "backend": "http://a", "subscription_required": false, "title": "${TOLD}"}]}',
    "toml": "[[apis]]\nname = 'a'\nbackend = 'http://a'\nsubscription_required = false\ntitle = '${TOLD}'",
    "yaml": "apis: [{name: a, backend: 'http://a', subscription_required: false, title: '${TOLD}'}]",
}


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("said", [SAID, f"{SAID}\n[[apis]]\nname = 'b'\n- name: b", json.dumps({"name": "b"})])
def test_a_variable_of_the_environment_is_a_text_in_its_place(
    form: Literal["json", "toml", "yaml"], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLD", said)
    assert [(api.name, api.title) for api in loads(FILES[form], form).apis] == [("a", said)]
