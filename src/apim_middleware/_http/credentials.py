"""What in a request may tell one caller from another, so that the response may be for that caller only."""

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from apim_middleware._http.headers import NAME

Credential: TypeAlias = Literal["authorization", "certificate", "cookie", "key", "principal", "subscription"]
"""What came in a field of the request, or was established from whatever came."""

CREDENTIALS: frozenset[Credential] = frozenset(
    ("authorization", "certificate", "cookie", "key", "principal", "subscription")
)

CARRIERS: dict[bytes, Credential] = {
    b"authorization": "authorization",
    b"proxy-authorization": "authorization",
    b"cookie": "cookie",
}
"""The request fields credentials come in by their standards; others are known by how they are called."""

_END = rb"[0-9]*(?:$|[-_.])"
"""Where a word ends; where it begins is not asked, for ``authtoken`` says what ``auth-token`` does."""

_KEYS = re.compile(
    rb"token|secret(?!ar)|credential|passw(?:or)?d|passphrase|passcode|passkey|jwt|oauth|oidc|saml|macaroon"
    rb"|authori[sz]ation|authenticat(?:ion|or)|(?:api|access|auth|subscription|functions?|master)[-_.]?key"
    rb"|(?:auth|authn|authz|assertion|dpop|principal|session|sessionid|signature|sid|pwd|otp|csrf|xsrf|crumb)"
    + _END
    + rb"|(?:key|(?:^|[-_.])(?:cookie|nonce|pass|pin|sig|ticket))s?[0-9]*$"
)
_CERTIFICATES = re.compile(
    rb"(?:^|[-_.])(?:(?:client)?cert(?:s|ificates?)?|dn)(?:$|[-_.])|(?:ssl|tls)[-_]client|mtls|spiffe"
)
_USERS = re.compile(
    rb"(?:user|login)(?:[-_.]?(?:id|uid|uuid|guid|sub|upn|name|display[-_.]?name|login|account(?:[-_.]?id)?|e?mail|info"
    rb"|data|claims?|groups?|roles?|scopes?))?$"
    rb"|^(?:x[-_])?(?:uid|ssn|msisdn|(?:act|run)[-_.]as|(?:account|customer|member|employee|caller|actor)(?:[-_.]?id)?)$"
    rb"|(?:authenticated|remote|forwarded)[-_.](?:user|name|e?mail|group|role|extra)|preferred[-_.]?username|userinfo"
    rb"|(?:^|[-_.])(?:consumer|e?mail|entitlements|eppn|groups|identity|impersonate|permissions|roles?|scopes?|sub"
    rb"|subject|sudo|upn)$|(?:^|[-_.])(?:claims?|consumer|impersonate|on-behalf-of)(?:$|[-_.])|client[-_.]?id$"
    rb"|^(?:x[-_])?(?:authentik|cf[-_]access|goog[-_](?:authenticated|iap)|iv|mellon|oam|pomerium|shib|sm|tailscale"
    rb"|vouch)[-_]"
)
"""Names that a front tells of the caller under, as single sign-on, access proxies and meshes document them."""

_HARMLESS = re.compile(
    rb"sec-fetch-user|(?:.*[-_.])?(?:(?:cache|correlation|dedup(?:e|lication)?|idempoten(?:cy|t)|message|object|order"
    rb"|partition|public|request|routing|shard|sort|surrogate|websocket)[-_.]?keys?"
    rb"|(?:limit|max|remaining|reset|total|used|completion|prompt|input|output)[-_.]tokens|tokens?[-_.]count"
    rb"|tokeni[sz]er|(?:rum|faro)[-_.]session[-_.]id)"
    rb"|(?:x[-_])?(?:(?:build|feature|locale|region)[-_]key|hotkey|monkey|csp[-_]nonce|session[-_]replay)"
    rb"|cf[-_](?:client[-_])?cert[-_](?:presented|revoked|verified)|cf[-_]tls[-_]client[-_]hello[-_]random"
    rb"|x[-_](?:client[-_]cert[-_](?:chain[-_]verified|error|present)|akamai[-_]session[-_]info"
    rb"|ms[-_]client[-_]session[-_]id|sm[-_]region)"
)
"""Names with such a word in them that tell nobody from others: what tells requests apart, numbers of tokens, whether
there was a certificate, and visits as those who measure them count."""

_REMEMBERED = 2048


class _Carried(dict[bytes, Credential | None]):
    """What each field name carries, worked out when it is first met; bounded, for callers invent names."""

    def __init__(self) -> None:
        """Begin with none met."""
        self.harmless: set[bytes] = set()
        """Those met that carry nothing."""

    def __missing__(self, name: bytes) -> Credential | None:
        if len(self) >= _REMEMBERED:
            self.clear()
            self.harmless.clear()
        carried = self[name] = CARRIERS.get(name) or _by_name(name)
        if carried is None:
            self.harmless.add(name)
        return carried


def _by_name(name: bytes) -> Credential | None:
    if _HARMLESS.fullmatch(name):
        return None
    if _KEYS.search(name):
        return "key"
    if _CERTIFICATES.search(name):
        return "certificate"
    return "principal" if _USERS.search(name) else None


CARRIED = _Carried()
"""The credential that comes in the field of a name, if any does."""

_FOR_ANOTHER = re.compile(rb"(?:act|run)[-_.]as|impersonate|on-behalf-of|sudo")


def speaks_for_another(name: bytes) -> bool:
    """Whether a caller says in this field whom they act for, so that it is not settled by who they are."""
    return _FOR_ANOTHER.search(name) is not None


_NONE: frozenset[Credential] = frozenset()


def carried_in(lines: Sequence[tuple[bytes, bytes]]) -> frozenset[Credential]:
    """The credentials a request with these header lines carries."""
    if CARRIED.harmless.issuperset(map(NAME, lines)):  # as those of most who do not say who they are
        return _NONE
    return frozenset([carried for name, _ in lines if (carried := CARRIED[name]) is not None])
