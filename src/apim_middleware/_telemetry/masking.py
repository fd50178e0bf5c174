"""What callers sent, without the values of secret parameters."""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

LONGEST = 1024
"""Characters kept of a text that a caller chose."""

SECRET_PARAMETERS = (
    "access_token", "api-key", "api_key", "apikey", "assertion", "auth", "authorization", "awsaccesskeyid",
    "client_assertion", "client_secret", "code", "code_verifier", "credential", "credentials", "id_token", "jwt", "key",
    "ocp-apim-subscription-key", "passwd", "password", "pwd", "refresh_token", "secret", "session", "session_id",
    "sessionid", "sid", "sig", "signature", "subscription-key", "subscription_key", "ticket", "token",
    "x-amz-credential", "x-amz-security-token", "x-amz-signature", "x-api-key", "x-goog-credential", "x-goog-signature",
)  # fmt: skip

SECRET_HEADER = re.compile(
    r"(^|[-_])(auth|authorization|cookie2?|credentials?|dpop|jwt|passwd|password|secret|session|sessionid|signature"
    r"|token|assertion)($|[-_])|(api|access|subscription|functions?)[-_]?key|client[-_]cert"
)
_PAIR = re.compile(rb"(?<![^?&;#\s])([^?&;#=\s]*)=([^?&;#\s]*)")


class Mask:
    """Writes down what a caller sent without the values of secret parameters.

    Their names are compared as an app reads them, escapes and case undone, also in a URL that is itself a value.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.encode("utf-8", "replace").lower() for name in names)
        within = b"|".join(map(re.escape, self._names))
        self._within = re.compile(rb"(?:^|[?&;#])(?:%s)=" % within, re.IGNORECASE)

    def __call__(self, raw: bytes) -> str:
        """Any text: a query, a path, a header that may hold a URL."""
        raw = raw[:LONGEST]
        return (_PAIR.sub(self._pair, raw) if b"=" in raw else raw).decode("latin-1")

    def _pair(self, pair: re.Match[bytes]) -> bytes:
        name, value = pair.groups()
        plain = unquote_to_bytes(name.replace(b"+", b" ")).strip().lower()
        if plain in self._names or (b"%" in value and self._within.search(unquote_to_bytes(value))):
            return name + b"=REDACTED"
        return pair[0]
