"""Scopes: the policies of a gateway, product, API, version or operation, bound once and used in many plans."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias
from weakref import WeakValueDictionary

from apim_middleware._alike import alike
from apim_middleware._http.hygiene import Scrub
from apim_middleware._order import check_counts, check_guards
from apim_middleware._ring import Ring, Seat
from apim_middleware.env import Env
from apim_middleware.model import Fragment
from apim_middleware.policy import Composable, Policy, Stack, policies_in
from apim_middleware.types import ASGIApp, Layer, Receive, Send
from apim_middleware.types import Scope as ASGIScope


class Front(Protocol):
    """Something that is put in front of an app in each plan."""

    layer: Layer
    lives: bool
    """Whether it may want to know when the server starts and stops; rings of this environment do not."""

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """Put the layer in front of an app."""
        ...


Piece: TypeAlias = tuple[Seat, ...] | Front
"""Policies that only have hooks, or something that is put in front of an app."""

_serial = itertools.count(1)


class Scope:
    """The layers of one scope at its place.

    A policy is bound here once, so that it counts once however many plans it stands in, and is fused with its
    neighbours in each of them. What is no policy, and what answers from memory, is built here once: it passes requests
    on to the plan they came by.
    """

    def __init__(self, place: str, layers: Sequence[Layer], env: Env, *, inherit: bool = True) -> None:
        """Bind everything now, so that mistakes show now. Raises ConfigError."""
        self.place = place
        self.inherit = inherit
        self.layers: tuple[Layer, ...] = tuple(_flat(layers))
        self.policies: list[Policy] = [policy for layer in self.layers for policy in policies_in(layer)]
        self.signature: tuple[object, ...] = (
            inherit,
            tuple((each.needs, each.provides, each.guards, each.answers) for each in self.policies),
        )
        """Equal for scopes whose policies work in the same orders."""

        self._scrub = env.scrub
        check_counts([layer for layer in self.layers if isinstance(layer, Policy)])
        self.pieces: tuple[Piece, ...] = tuple(_pieces(self.layers, env.at(place), _shared_layers(env)))
        """What plans are assembled of, outermost first; they keep the bound policies, for environments do not."""

        apart = [piece for piece in self.pieces if not isinstance(piece, tuple) and piece.lives]
        self.living: list[tuple[Layer, Front]] = [(piece.layer, piece) for piece in apart]
        """The layers that may want to know when the server starts and stops, as pieces."""

        self.before(_nowhere)  # the rings find mistakes of their own

    def before(self, app: ASGIApp) -> ASGIApp:
        """The layers in front of an app."""
        return assemble(self.pieces, app, self._scrub)


def assemble(pieces: Sequence[Piece], app: ASGIApp, scrub: Scrub) -> ASGIApp:
    """Put pieces in front of an app, outermost first; policies next to each other become one ring."""
    seats: tuple[Seat, ...] = ()
    for piece in reversed(pieces):
        if not isinstance(piece, tuple):
            app = piece(_ringed(seats, app, scrub))
            seats = ()
        elif any(seat.hooks == other.hooks for seat in piece for other in seats):  # they would mix up their state
            app, seats = _ringed(seats, app, scrub), piece
        else:
            seats = piece + seats
    return _ringed(seats, app, scrub)


def _ringed(seats: tuple[Seat, ...], app: ASGIApp, scrub: Scrub) -> ASGIApp:
    if not seats:
        return app
    check_guards([seat.policy for seat in seats])
    return Ring(seats, app, scrub)


def _pieces(layers: Sequence[Layer], env: Env, shared: "_SharedLayers") -> list[Piece]:
    """The layers as pieces: bound now, the innermost first, as a stack does it."""
    pieces: list[Piece] = []
    for layer in reversed(layers):
        if _fuses(layer) and isinstance(layer, Composable):
            start = env.again()
            built = layer.build(_nowhere, env)
            if isinstance(built, Ring) and built.app is _nowhere and not built.closed and not _lives(built, env):
                pieces.append(built.seats)
            else:
                pieces.append(_Anew(layer, start, built))
        else:
            pieces.append(shared.of(layer, env))
    return pieces[::-1]


def _lives(built: ASGIApp, env: Env) -> bool:
    """Whether it may want to know of the lifespan; the gateway itself ends what its environment has made."""
    return not isinstance(built, Ring) or not built.endings <= {env.ending}


class _Anew:
    """A policy that is built anew for each plan, for there is more to it than hooks; what it binds is the same."""

    def __init__(self, layer: Composable, env: Env, built: ASGIApp) -> None:
        self.layer: Layer = layer
        self._build, self._env = layer.build, env
        self.lives = _lives(built, env)
        self._kept = built  # and with it what was bound

    def __call__(self, app: ASGIApp) -> ASGIApp:
        return self._build(app, self._env.again())


def _flat(layers: Iterable[Layer]) -> Iterable[Layer]:
    """The layers, with fragments and plain stacks as if they were written out."""
    for layer in layers:
        if isinstance(layer, Fragment):
            yield from _flat(layer.policies)
        elif isinstance(layer, Stack) and layer.env is None and not layer.place:
            yield from _flat(layer.layers)
        else:
            yield layer


def _fuses(layer: Layer) -> bool:
    """Whether it can be built anew for each plan and still be one: its hooks are what it keeps things in."""
    if isinstance(layer, Stack):
        return all(map(_fuses, layer.layers))
    return isinstance(layer, Policy) and not layer.answers


async def _nowhere(scope: ASGIScope, receive: Receive, send: Send) -> None:
    raise RuntimeError("no request comes this way")


class _Shared:
    """A layer that is built once, in front of whatever the plan of a request goes on with."""

    def __init__(self, layer: Layer, env: Env) -> None:
        self.layer = layer
        self._key = f"apim_middleware.onward.{next(_serial)}"
        self._app = layer.build(self._onward, env) if isinstance(layer, Composable) else layer(self._onward)
        self.lives = _lives(self._app, env)

    async def _onward(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        await scope[self._key](scope, receive, send)

    def __call__(self, app: ASGIApp) -> ASGIApp:
        key, shared = self._key, self._app

        async def enter(scope: ASGIScope, receive: Receive, send: Send) -> None:
            scope[key] = app
            await shared(scope, receive, send)

        return enter


class _SharedLayers:
    """All that are in use, so that equal ones at one place keep what they know when a gateway is built anew."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[str, _Shared] = WeakValueDictionary()

    def of(self, layer: Layer, here: Env) -> _Shared:
        env = here.within(getattr(type(layer), "__name__", "layer"))
        known = self._known.get(env.place)
        if known is None or not alike(known.layer, layer):
            known = self._known[env.place] = _Shared(layer, env)
        return known


def _shared_layers(env: Env) -> _SharedLayers:
    return env.kept("gateway.layers", _SharedLayers)
