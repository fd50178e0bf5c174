"""What tests of tokens share: an app behind a check, with a clock and an issuer."""

import json
from typing import Any

from tests.jose.issuer import AUDIENCE, ISSUER, NOW, Published, jwk, rsa_key

from apim_middleware.env import Env
from apim_middleware.identity import Principal
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policy import Policy, Stack
from apim_middleware.testing import Answer, FakeClock, call
from apim_middleware.types import Receive, Scope, Send

URL = "https://issuer.example/keys"
KEY = jwk(rsa_key(), "one")


class House:
    """An app behind a token check, with a clock and an issuer; keeps what reached the app."""

    def __init__(self, *, remote: bool = False, policy: Policy | None = None, **fields: Any) -> None:
        self.clock = FakeClock(NOW)
        self.issuer = Published(KEY)
        self.seen: list[Scope] = []
        keys: dict[str, Any] = {"jwks_url": URL} if remote else {"keys": KEY}
        usual: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, **keys}
        self.policy: Any = JWTAuth(**{**usual, **fields}) if policy is None else policy
        self.env = Env(clock=self.clock, transport=self.issuer)
        self.app = Stack(self.policy, env=self.env)(self.inner)

    async def inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in", "more_body": True})
        await send({"type": "http.response.body", "body": b"side"})

    async def ask(self, text: bytes | None = None, **more: Any) -> Answer:
        headers = [] if text is None else [(b"authorization", b"Bearer " + text)]
        return await call(self.app, headers=[*more.pop("headers", []), *headers], **more)

    async def renewed(self, text: bytes) -> None:
        """Somebody has come with a token, and what that set off in the background has come to its end."""
        await self.ask(text)
        await self.env.bind(self.policy)._source._job.over()

    @property
    def principal(self) -> Principal:
        found: Principal = self.seen[-1]["user"]
        return found


def code(answer: Answer) -> str:
    found: str = json.loads(answer.body)["code"]
    return found


def challenge(answer: Answer) -> bytes:
    lines = answer.all(b"www-authenticate")
    assert len(lines) == 1
    return lines[0]
