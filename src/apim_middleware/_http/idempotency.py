"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header), and what is remembered under one."""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

from apim_middleware._http.fields import Token, parse_list
from apim_middleware._http.headers import raw_headers
from apim_middleware.types import RawHeaders

LONGEST_KEY = 255
_BARE = re.compile(r"[A-Za-z0-9!#$%&'*+./:=@^_`|~-]+")
_DIGEST = 32

Phase: TypeAlias = Literal["working", "done", "lost"]
_PHASES: dict[bytes, Phase] = {b"w": "working", b"d": "done", b"l": "lost"}
_LETTERS = {phase: letter for letter, phase in _PHASES.items()}


def parse_key(value: bytes) -> str:
    """The key of 1 to 255 characters in a field value; ValueError when it is none.

    By the draft it is a String, ``"8e03978e-40d5"``; most clients leave the quotes out, which means the same.
    """
    text = value.decode("ascii").strip(" \t")
    key = _quoted(text) if text.startswith('"') else text if _BARE.fullmatch(text) else ""
    if not 1 <= len(key) <= LONGEST_KEY:
        raise ValueError("it has no characters, too many, or some that it may not have")
    return key


def _quoted(text: str) -> str:
    items = parse_list(text)
    if len(items) != 1 or not isinstance(items[0][0], str) or isinstance(items[0][0], Token):
        raise ValueError("it is not one String")
    return items[0][0]


def digest_of(parts: Iterable[str | bytes]) -> bytes:
    """32 bytes that are equal only for equal parts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"%d:" % len(data) + data)
    return digest.digest()


class Record(NamedTuple):
    """What is remembered of a request: by its digest, and how far it came.

    ``working`` has a token that tells its holder from others, ``done`` the response, ``lost`` nothing: the work was
    done, and its response could not be kept.
    """

    phase: Phase
    request: bytes
    content: bytes = b""

    def pack(self) -> bytes:
        """The record as bytes."""
        return _LETTERS[self.phase] + self.request + self.content


def unpack(data: bytes) -> Record:
    """The record these bytes are; ValueError when they are none."""
    phase = _PHASES.get(data[:1])
    if phase is None or len(data) <= _DIGEST:
        raise ValueError("these bytes are no record")
    return Record(phase, data[1 : 1 + _DIGEST], data[1 + _DIGEST :])


def pack_response(status: int, headers: RawHeaders, body: bytes) -> bytes:
    """A response as bytes."""
    lines = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]
    return json.dumps([status, lines], separators=(",", ":")).encode() + b"\n" + body


def unpack_response(data: bytes) -> tuple[int, RawHeaders, bytes]:
    """Status, header lines and body of a response; ValueError when these bytes are none."""
    head, newline, body = data.partition(b"\n")
    try:
        status, lines = json.loads(head)
        headers = raw_headers([(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines])
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError("these bytes are no response") from error
    if not newline or not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError("these bytes are no response")
    return status, headers, body
