"""The LLM gateway, tried with the very lines it prints, and asked what its docs page promises."""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from .test_gateway import Session, running

EXAMPLE = Path(__file__).parents[2] / "examples" / "llm_gateway.py"


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with running(EXAMPLE) as session:
        yield session


def test_every_line_it_prints_shows_what_it_says(session: Session) -> None:
    assert len(session.lines) == 6
    seen = {}
    for what, (status, command) in session.lines.items():
        answer = seen[what] = session.run(command)
        assert re.findall(r"^HTTP/1.1 (\d{3})\b", answer, re.MULTILINE) == [str(status)], (what, answer)
    assert seen["word by word, and what it used at the end"].count("data: ") == 7
    assert '"code": "json-invalid"' in seen["what could be read in two ways"]
    assert '"code": "rate-limit-exceeded"' in seen["more tokens than a minute has for the product free"]


class House:
    """The gateway in this process from the start of its server to the end, in front of servers of its own."""

    def __init__(self, app: Any, lines: list[Any], free: str, pro: str) -> None:
        self.client, self.lines, self.free, self.pro = TestClient(app), lines, free, pro

    def chat(self, key: str, **said: Any) -> Any:
        headers = {"Authorization": f"Bearer {key}"}
        call = {"messages": [{"content": "a secret"}], **said}
        return self.client.post("/v1/chat/completions", headers=headers, json=call)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    example = runpy.run_path(str(EXAMPLE))
    keys, free, pro = example["subscriptions"]()
    small, large = (example["start"](example["model_server"](name)) for name in ("small", "large"))
    lines: list[Any] = []
    app = example["gateway"](small, large, keys, write=lambda line: lines.append(json.loads(line)))
    house = House(app, lines, free, pro)
    with house.client:
        yield house


def left(response: Any) -> int:
    return int(response.headers["x-remaining-tokens"])


def test_what_was_reserved_is_settled_by_what_was_used(house: House) -> None:
    first = house.chat(house.pro, model="small", max_tokens=1000)
    second = house.chat(house.pro, model="small", max_tokens=1000, stream=True)
    third = house.chat(house.pro, model="small", max_tokens=1000)
    assert 1000 < 100_000 - left(first) < 1100
    used = first.json()["usage"]["total_tokens"]
    assert f'"total_tokens": {used}' in second.text
    assert left(third) == left(first) - 2 * used
    assert [line["llm.tokens"] for line in house.lines[-3:]] == [used] * 3


def test_each_product_and_each_model_has_its_limits(house: House) -> None:
    asked = [house.chat(house.free, model="large", max_tokens=1).status_code for _ in range(6)]
    assert asked == [200] * 5 + [429]
    assert house.chat(house.free, model="small", max_tokens=1).status_code == 200
    assert house.chat(house.free, model="small", max_tokens=3_000).status_code == 429
    assert house.chat(house.pro, model="small", max_tokens=3_000).status_code == 200


@pytest.mark.parametrize("said", [{"model": ["small"]}, {"model": "huge"}, {}, {"model": "small", "max_tokens": "9"}])
def test_what_is_no_call_of_a_chat_is_refused_and_uses_nothing(house: House, said: dict[str, Any]) -> None:
    before = left(house.chat(house.pro, model="small"))
    assert house.chat(house.pro, **said).status_code in (400, 404)
    assert before - left(house.chat(house.pro, model="small")) < 100


def test_nothing_of_a_prompt_is_in_the_log(house: House) -> None:
    house.chat(house.pro, model="small")
    assert "secret" not in json.dumps(house.lines)
    assert house.lines[-1]["llm.model"] == "small"


def test_who_leaves_a_stream_has_used_what_was_estimated(session: Session) -> None:
    """Over a real connection, which the client closes in the midst of the stream."""
    key = re.findall(r"PRO='Authorization: Bearer (.*)'", session.printed)[0]
    url = re.findall(r"CHAT='(.*)'", session.printed)[0]
    call = {"model": "small", "max_tokens": 500, "messages": [{"content": "word " * 20}]}
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}) as client:
        before = int(client.post(url, json=call).headers["x-remaining-tokens"])
        with client.stream("POST", url, json={**call, "stream": True}) as stream:
            next(stream.iter_lines())
        while json.loads(line := session.read())["outcome"] != "client-left":
            pass
        after = int(client.post(url, json=call).headers["x-remaining-tokens"])
    assert before - after > 500
    assert "llm.tokens" not in line
