"""What a policy asks of callers and may answer, as a value that OpenAPI documents are made of.

Documentation is put together as layers are: ``outer.before(inner)`` is that of both, the outer one outside.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

_TOKENS = frozenset({"oauth2", "openIdConnect", "http"})


class Scheme(NamedTuple):
    """One credential that must be sent: an OpenAPI security scheme, and the scopes it must grant."""

    name: str
    """What the document calls it, where nothing else has that name."""

    definition: Mapping[str, Any]
    """The Security Scheme Object (OpenAPI 3.1 §4.8.27)."""

    scopes: tuple[str, ...] = ()

    @property
    def grants(self) -> bool:
        """Whether it is of a kind that can grant scopes."""
        kind = self.definition.get("type")
        return kind in _TOKENS and self.definition.get("scheme") != "basic"


class Answer(NamedTuple):
    """One status a policy may answer with in the place of the app."""

    status: int
    codes: tuple[str, ...] = ()
    """The ``code`` of a problem; none for an answer that is no problem."""

    headers: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    """The methods it is for; none for all."""


class Told(NamedTuple):
    """A header field of the responses that pass a policy."""

    name: str
    methods: tuple[str, ...] = ()


class Asked(NamedTuple):
    """A header field of requests that a policy reads."""

    name: str
    required: bool = False
    values: tuple[str, ...] = ()
    """The values it may have; none for any."""

    methods: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Documentation:
    """What callers must know of a policy: what to send, what they may be answered, and what responses tell besides."""

    security: tuple[tuple[Scheme, ...], ...] = ((),)
    """Alternatives, each of credentials that are needed together; an empty one lets in who brings nothing."""

    scopes: tuple[str, ...] = ()
    """Scopes that credentials checked further out must grant."""

    answers: tuple[Answer, ...] = ()
    headers: tuple[Told, ...] = ()
    """Told on what comes from further in, whoever answers there, and on refusals that name them besides."""

    asks: tuple[Asked, ...] = ()

    def before(self, inner: "Documentation") -> "Documentation":
        """That of this and what stands behind it."""
        ours = tuple(_granting(each, inner.scopes) for each in self.security)
        return Documentation(
            security=_unique(_both(one, other) for one in ours for other in inner.security),
            scopes=_unique((*self.scopes, *inner.scopes)),
            answers=(*self.answers, *(_telling(each, self.headers) for each in inner.answers)),
            headers=_unique((*self.headers, *inner.headers)),
            asks=_unique((*self.asks, *inner.asks)),
        )

    def optional(self) -> Self:
        """The same where it does not meet every request."""
        return replace(
            self,
            security=_unique((*self.security, ())),
            scopes=(),
            asks=tuple(each._replace(required=False) for each in self.asks),
        )

    def only(self, *methods: str) -> Self:
        """The same where it is about these methods alone."""
        return replace(
            self,
            answers=tuple(each._replace(methods=methods) for each in self.answers),
            headers=tuple(each._replace(methods=methods) for each in self.headers),
            asks=tuple(each._replace(methods=methods) for each in self.asks),
        )

    def of(self, method: str) -> Self:
        """What of it is about one method."""
        return replace(
            self,
            answers=tuple(each for each in self.answers if not each.methods or method in each.methods),
            headers=tuple(each for each in self.headers if not each.methods or method in each.methods),
            asks=tuple(each for each in self.asks if not each.methods or method in each.methods),
        )


def together(layers: Iterable[Documentation]) -> Documentation:
    """That of several, the outermost first."""
    found = Documentation()
    for each in layers:
        found = found.before(each)
    return found


def either(ways: Iterable[Documentation]) -> Documentation:
    """That of a fork: a request takes one of these ways."""
    found = tuple(ways)
    return Documentation(
        security=_unique(each for way in found for each in way.security) or ((),),
        scopes=tuple(each for each in found[0].scopes if all(each in way.scopes for way in found)) if found else (),
        answers=_unique(each for way in found for each in way.answers),
        headers=_unique(each for way in found for each in way.headers),
        asks=_unique(
            each if all(each in way.asks for way in found) else each._replace(required=False)
            for way in found
            for each in way.asks
        ),
    )


def documentation_of(layer: object) -> Documentation:
    """That of a layer, empty for one that says nothing of itself."""
    found = getattr(layer, "documentation", None)
    return found if isinstance(found, Documentation) else Documentation()


def api_key(name: str, place: str, key: str, description: str = "") -> Scheme:
    """A credential in a header, in the query or in a cookie."""
    definition = {"type": "apiKey", "in": place, "name": key}
    return Scheme(name, {**definition, "description": description} if description else definition)


def challenged(status: int, *codes: str) -> Answer:
    """A refusal that says in ``WWW-Authenticate`` what to bring."""
    return Answer(status, codes, ("www-authenticate",))


def _granting(alternative: tuple[Scheme, ...], scopes: tuple[str, ...]) -> tuple[Scheme, ...]:
    """The same credentials, those that can grant scopes with these besides."""
    if not scopes:
        return alternative
    return tuple(
        each._replace(scopes=_unique((*each.scopes, *scopes))) if each.grants else each for each in alternative
    )


def _both(outer: tuple[Scheme, ...], inner: tuple[Scheme, ...]) -> tuple[Scheme, ...]:
    """Two alternatives that are needed together; the same credential twice is one with the scopes of both."""
    found = list(outer)
    for scheme in inner:
        for number, known in enumerate(found):
            if known.name == scheme.name and known.definition == scheme.definition:
                found[number] = known._replace(scopes=_unique((*known.scopes, *scheme.scopes)))
                break
        else:
            found.append(scheme)
    return tuple(found)


def _telling(answer: Answer, headers: tuple[Told, ...]) -> Answer:
    """An answer as it comes through a policy that tells something on every response."""
    fitting = [
        each.name
        for each in headers
        if not each.methods or (answer.methods and set(answer.methods) <= set(each.methods))
    ]
    return answer._replace(headers=_unique((*answer.headers, *fitting))) if fitting else answer


def _unique(items: Iterable[Any]) -> tuple[Any, ...]:
    """Each once, in order; equal ones need not be hashable."""
    found: list[Any] = []
    for each in items:
        if each not in found:
            found.append(each)
    return tuple(found)
