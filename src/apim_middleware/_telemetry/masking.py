"""What callers sent, without the values of secret parameters."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote_to_bytes

from apim_middleware._http.credentials import CARRIED, Credential

LONGEST = 1024
"""Characters kept of a text that a caller chose."""

REDACTED = "REDACTED"

SECRET_PARAMETERS = (
    "access_token", "api-key", "api_key", "apikey", "assertion", "auth", "authorization", "awsaccesskeyid",
    "client_assertion", "client_secret", "code", "code_verifier", "credential", "credentials", "id_token", "jwt", "key",
    "ocp-apim-subscription-key", "passwd", "password", "pwd", "refresh_token", "secret", "session", "session_id",
    "sessionid", "sid", "sig", "signature", "subscription-key", "subscription_key", "ticket", "token",
    "x-amz-credential", "x-amz-security-token", "x-amz-signature", "x-api-key", "x-goog-credential", "x-goog-signature",
)  # fmt: skip

_NO_SECRETS: frozenset[Credential | None] = frozenset((None, "certificate", "principal"))
_SECRET_BESIDES = re.compile(r"(?:^|[-_])cookie2?(?:$|[-_])|client[-_]?cert")
_SECRET_ENDING = re.compile(
    rb"(?:credentials?|jwt|(?<!mon|tur|don|hoc|joc)key|(?<!com)(?<!by)pass|pass(?:code|phrase|wd|word)|pwd|secret|signature"
    rb"|token)$"
)

_REMEMBERED = 1024
_PAIR = re.compile(rb"(?<![^?&;#\s])([^?&;#=\s]*)=([^?&;#\s]*)")
_NAME = re.compile(rb"(?<![^?&;#])([^?&;#=]*)=")
_BRACKETS = re.compile(rb"[\[\]]")

_WITHHELD: dict[str, set[bytes]] = {"header": set(), "query": set()}
"""Names of headers and parameters in which the policies made in this process look for secrets.

It is one for all, as loggers are: who writes a request down may stand anywhere in front of who reads it, and in front
of what refuses it before.
"""


def withhold(place: Literal["header", "query"], name: str) -> None:
    """Have the values under this name written down nowhere, for a policy looks for a secret there."""
    _WITHHELD[place].add(_folded(name))


def is_withheld(header: bytes) -> bool:
    """Whether a policy looks for a secret in the header of this lower-case name."""
    return header in _WITHHELD["header"]


def is_secret_header(name: str) -> bool:
    """Whether a header of this name carries a credential: whoever sees it could come in with it."""
    name = name.lower()
    return CARRIED[name.encode("latin-1", "replace")] not in _NO_SECRETS or _SECRET_BESIDES.search(name) is not None


class Mask:
    """Writes down what a caller sent without the values of secret parameters.

    Their names are compared as an app reads them, escapes and case undone, also in a URL that is itself a value.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Besides these names those known to be secret, and those that policies look for secrets under."""
        self._names = frozenset(map(_folded, (*SECRET_PARAMETERS, *names)))
        self._judged = lru_cache(maxsize=_REMEMBERED)(self._judge)

    def __call__(self, raw: bytes) -> str:
        """Any text: a query, a path, a header that may hold a URL."""
        raw = raw[:LONGEST]
        return (_PAIR.sub(self._pair, raw) if b"=" in raw else raw).decode("latin-1")

    def _pair(self, pair: re.Match[bytes]) -> bytes:
        name, value = pair.groups()
        if self._hides(name) or (b"%" in value and any(map(self._hides, _NAME.findall(unquote_to_bytes(value))))):
            return name + b"=" + REDACTED.encode()
        return pair[0]

    def _hides(self, name: bytes) -> bool:
        """Whether a parameter is secret; what was found before counts until another name is withheld."""
        return self._judged(name, len(_WITHHELD["query"]))

    def _judge(self, name: bytes, withheld: int) -> bool:
        """Of ``user[password]`` every part is looked at."""
        plain = unquote_to_bytes(name.replace(b"+", b" ")).strip().lower()
        return any(map(self._is_secret, (plain, *_BRACKETS.split(plain))))

    def _is_secret(self, name: bytes) -> bool:
        known = name in self._names or name in _WITHHELD["query"]
        return known or _SECRET_ENDING.search(name) is not None


def _folded(name: str) -> bytes:
    return name.encode("utf-8", "replace").lower()
