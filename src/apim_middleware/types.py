"""The shapes everything else is written in: ASGI as Starlette types it, and our few words on top."""

from collections.abc import Callable
from typing import TypeAlias

from starlette.types import ASGIApp as ASGIApp
from starlette.types import Message as Message
from starlette.types import Receive as Receive
from starlette.types import Scope as Scope
from starlette.types import Send as Send

Layer: TypeAlias = Callable[[ASGIApp], ASGIApp]
"""Any ASGI middleware: a function from app to app."""

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]
"""Header lines as ASGI carries them: lower-case names, in the order sent, repeated names kept."""

Tap: TypeAlias = Callable[[bytes, bool], bytes]
"""Sees the response body pass: called with each chunk and whether it is the last, gives the chunk to pass on."""
