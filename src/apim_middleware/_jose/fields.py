"""Mistakes in the fields that those who check tokens have in common."""

import math
import re
from collections.abc import Mapping
from typing import Protocol

from apim_middleware._config import Configured
from apim_middleware._http.challenges import is_quotable
from apim_middleware._jose.claims import Path, names_a_claim
from apim_middleware._jose.places import is_place
from apim_middleware._jose.proofs import DPoP
from apim_middleware._jose.rules import Wanted
from apim_middleware._jose.tokens import can_come
from apim_middleware._jose.urls import Allowance, fault_of, mistake_of
from apim_middleware._telemetry.masking import withhold
from apim_middleware.errors import ConfigError

_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3


class ChecksTokens(Protocol):
    """A policy that checks tokens, as far as its mistakes are told here."""

    @property
    def required_claims(self) -> Mapping[str | tuple[str, ...], Wanted]: ...
    @property
    def scopes(self) -> str | tuple[str, ...]: ...
    @property
    def subject_claim(self) -> str: ...
    @property
    def roles(self) -> str | tuple[str, ...]: ...
    @property
    def roles_claim(self) -> Path: ...
    @property
    def client_ids(self) -> str | tuple[str, ...]: ...
    @property
    def token_from(self) -> str | tuple[str, ...]: ...
    @property
    def dpop(self) -> DPoP | None: ...
    @property
    def realm(self) -> str: ...
    @property
    def leeway(self) -> float: ...

    def mistake(self, field: str, problem: str, cure: str) -> ConfigError:
        """A ConfigError about one field."""
        ...


def texts_in(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """One text or several, as several."""
    return (value,) if isinstance(value, str) else value


def words_in(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Scopes, which one text can hold several of."""
    return tuple(value.split()) if isinstance(value, str) else value


def check_wishes(policy: ChecksTokens) -> None:
    """What is asked of a token must be such that a token could have it. Raises ConfigError."""
    for name, wanted in policy.required_claims.items():
        if wanted == ():
            raise policy.mistake("required_claims", f"accepts no value of {name}", "Give at least one value")
        if "" in (name, *name):
            raise policy.mistake("required_claims", "names no claim", 'Write {"tid": "..."}')
        if not can_come(wanted):
            raise policy.mistake("required_claims", f"wants a {name} that no token can have", "Give finite numbers")
    if not policy.subject_claim:
        raise policy.mistake("subject_claim", "names no claim", 'Write "sub"')
    if isinstance(policy.scopes, str) and not policy.scopes.strip():
        raise policy.mistake("scopes", "names no scope", "Name one, or leave it out")
    if not all(map(_SCOPE.fullmatch, words_in(policy.scopes))):
        raise policy.mistake("scopes", "holds what is no scope", 'Write scopes=("orders.read", "orders.write")')
    for field, names in (("roles", policy.roles), ("client_ids", policy.client_ids)):
        if "" in texts_in(names):
            raise policy.mistake(field, "holds an empty name", "Give the exact text")
    if not names_a_claim(policy.roles_claim):
        raise policy.mistake("roles_claim", "names no claim", 'Write "roles" or "realm_access.roles"')
    if not 0 <= policy.leeway <= 300:
        raise policy.mistake("leeway", "is no tolerance for clocks", "Give 0 to 300 seconds")


def check_places(policy: ChecksTokens) -> None:
    """Tokens must be somewhere, and the realm writable. Raises ConfigError."""
    places = texts_in(policy.token_from)
    if not all(map(is_place, places or ("",))):
        cure = 'Write "header:x-token", "cookie:token" or "query:access_token"'
        raise policy.mistake("token_from", "names no place in a request", cure)
    for kind, _, name in (place.partition(":") for place in places):
        if kind != "cookie":
            withhold("query" if kind == "query" else "header", name)
    if not is_quotable(policy.realm):
        cure = "Use printable ASCII without quotes and backslashes"
        raise policy.mistake("realm", "cannot stand in a challenge", cure)
    if policy.dpop is not None and "header:authorization" not in map(str.lower, places):
        problem = "expects proofs for tokens that only come in Authorization, after DPoP"
        raise policy.mistake("dpop", problem, 'Have "header:authorization" in token_from')


def check_numbers(policy: ChecksTokens, least: Mapping[str, float]) -> None:
    """Fields that count something must have at least these values, and end. Raises ConfigError."""
    for name, lowest in least.items():
        if not lowest <= getattr(policy, name) < math.inf:
            raise policy.mistake(name, "is too small or no number", f"Give at least {lowest}")


def check_timeout(policy: ChecksTokens, field: str) -> None:
    """A time to wait is one. Raises ConfigError."""
    if not 0 < getattr(policy, field) <= 60:
        raise policy.mistake(field, "is no time to wait", "Give more than 0 and at most 60 seconds")


def check_url(policy: Configured, field: str, url: str, allowed: Allowance) -> None:
    """A URL to ask is one that may be asked; one with a password in it is not shown. Raises ConfigError."""
    fault = fault_of(url, allowed)
    if fault is not None:
        raise mistake_of(policy, field, fault)
