"""Whose keys count: issuers as they are configured become a source of keys."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from apim_middleware._http.reach import is_public
from apim_middleware._jose.discovery import can_be_discovered, metadata_urls
from apim_middleware._jose.fields import texts_in
from apim_middleware._jose.issuers import Issuer, StaticKey
from apim_middleware._jose.keys import keys_from_configuration
from apim_middleware._jose.publishers import At, Discovered, Means, Publisher
from apim_middleware._jose.remote import RemoteKeys, Times
from apim_middleware._jose.sources import Source, Sources, StaticKeys, StaticKeysOfMany
from apim_middleware._jose.urls import Allowance, Fault, fault_of, is_here
from apim_middleware.env import Env
from apim_middleware.protocols import Transport
from apim_middleware.transports.default import DefaultTransport


class Asking(NamedTuple):
    """How keys elsewhere are asked for, in seconds, and what is allowed of where they are."""

    life: float
    stale_if_error: float
    cooldown: float
    timeout: float
    allowed: Allowance


def issuers_of(
    given: str | Issuer | tuple[str | Issuer, ...], keys: StaticKey | tuple[StaticKey, ...] | None, jwks_url: str | None
) -> tuple[Issuer, ...]:
    """All issuers as values; those given as text have the keys, or the URL of keys, that are given beside."""
    several = given if isinstance(given, tuple) else (given,)
    return tuple(Issuer(each, keys=keys, jwks_url=jwks_url) if isinstance(each, str) else each for each in several)


def fault_in(issuer: Issuer, allowed: Allowance) -> tuple[str, Fault] | None:
    """What is wrong with where an issuer's keys are, and the field it is wrong in."""
    if issuer.keys is not None:
        return None
    for field in ("jwks_url", "metadata_url"):
        url = getattr(issuer, field)
        if url is not None:
            fault = fault_of(url, allowed)
            return None if fault is None else (field, fault)
    fault = fault_of(issuer.name, allowed)
    if fault is None and not can_be_discovered(issuer.name):
        fault = Fault("is no URL to discover keys at", "Give keys or jwks_url")
    if fault is None:
        return None
    cure = "Give keys or jwks_url, or an issuer whose keys can be discovered"
    return "issuer", Fault(f"{fault.problem}, so no keys can be discovered there", cure, fault.secret)


def source_of(
    issuers: Iterable[Issuer],
    algorithms: Collection[str],
    asking: Asking,
    env: Env,
    withdrawn: Callable[[frozenset[str]], None],
) -> Source:
    """The source of the keys of these issuers; those that share their keys share one. Raises BadKey."""
    made: dict[object, Source] = {}
    by_name: dict[str, Source] = {}
    for issuer in issuers:
        shared = id(issuer.keys) if issuer.keys is not None else issuer.jwks_url or issuer.name
        if shared not in made:
            made[shared] = _one(issuer, algorithms, asking, env, withdrawn)
        by_name[issuer.name] = made[shared]
    if len(made) == 1:
        return next(iter(made.values()))
    if all(isinstance(each, StaticKeys) for each in made.values()):
        return StaticKeysOfMany({name: each for name, each in by_name.items() if isinstance(each, StaticKeys)})
    return Sources(by_name, env.clock)


def _one(
    issuer: Issuer,
    algorithms: Collection[str],
    asking: Asking,
    env: Env,
    withdrawn: Callable[[frozenset[str]], None],
) -> Source:
    if issuer.keys is not None:
        return StaticKeys(keys_from_configuration(issuer.keys, algorithms))
    publisher, times = _publisher(issuer, algorithms, asking, env), Times(asking.cooldown, asking.stale_if_error)

    def failed() -> None:
        env.count("apim.jwt.keys_not_fetched", {"apim.jwt.origin": publisher.name})

    return RemoteKeys(publisher, clock=env.clock, times=times, withdrawn=withdrawn, failed=failed)


def _publisher(issuer: Issuer, algorithms: Collection[str], asking: Asking, env: Env) -> Publisher:
    url = issuer.jwks_url or issuer.metadata_url or issuer.name
    anywhere = asking.allowed.private or is_here(url)
    transport = callouts(env, anywhere=anywhere)
    means = Means(transport, env.clock, asking.timeout, asking.life, frozenset(algorithms))
    if issuer.jwks_url is not None:
        return At(issuer.jwks_url, means)
    metadata = metadata_urls(issuer.name) if issuer.metadata_url is None else (issuer.metadata_url,)
    allowed = Allowance(http=asking.allowed.http, private=anywhere, here=is_here(url))
    return Discovered(issuer.name, metadata, allowed, means)


def callouts(env: Env, *, anywhere: bool) -> Transport:
    """The transport to ask issuers over, which reaches public addresses only unless it may go ``anywhere``.

    Ours dials no address but those it has judged, so a name that leads elsewhere the next time it is looked up (DNS
    rebinding) gains nothing; a transport that the environment was given decides for itself.
    """
    return env.callouts(lambda: DefaultTransport(admits=None if anywhere else is_public), public=not anywhere)


def audiences_of(issuers: Iterable[Issuer], audience: str | tuple[str, ...]) -> Mapping[str, frozenset[str]]:
    """Whom the tokens of each issuer may be made for."""
    return {each.name: frozenset(texts_in(audience if each.audience is None else each.audience)) for each in issuers}
