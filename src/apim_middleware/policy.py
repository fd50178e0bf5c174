"""Policies and stacks: ``Stack(a, b, c)(app)`` behaves as ``a(b(c(app)))``."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from apim_middleware._config import Configured, shown
from apim_middleware._ring import Ring, Seat
from apim_middleware.env import Env, default_env
from apim_middleware.errors import ConfigError
from apim_middleware.types import ASGIApp, Layer


class Composable:
    """A layer that is told the environment it is built in."""

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """Put this layer in front of an app."""
        raise TypeError(f"{type(self).__name__} does not say how it is built: define build(app, env)")

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """The guarded app: the layer used alone, as ``add_middleware`` does."""
        return self.build(app, default_env)


class Policy(Composable, Configured):
    """A rule in front of an app: a frozen dataclass that is a layer and has hooks.

    The hooks, all optional, stand on the object that ``bind`` returns:

    - ``on_request(exchange)``, may be async: before the app, outermost first; returns nothing, or an ASGI app that
      answers instead. Raise ``Refusal`` to refuse.
    - ``on_response(exchange)``, may be async: status and headers are known, innermost first; returns nothing, or a tap
      ``(chunk, last) -> chunk`` on the body when the object says ``taps_body = True``.
    - ``on_sent(exchange)``, may be async: the last byte was handed on.
    - ``on_end(exchange)``: once for every exchange that ``on_request`` let in, whatever became of it; never awaits.

    An error of a hook that is no Refusal is logged and refused with 500 ``policy-failed``: what fails, fails closed.
    """

    taps_body: ClassVar[bool] = False
    """Whether ``on_response`` may return a tap; ways to send a file past it are then hidden from the app."""

    provides: ClassVar[frozenset[str]] = frozenset()
    """What this policy establishes for those further in: ``client``, ``principal``, ``subscription``."""

    guards: ClassVar[bool] = False
    """Whether it decides who may come in, so that nothing further out may answer from memory."""

    answers: ClassVar[bool] = False
    """Whether it may answer from memory what the app answered somebody before."""

    @property
    def needs(self) -> frozenset[str]:
        """What must be established further out for this policy to work."""
        return frozenset()

    def bind(self, env: Env) -> Any:  # noqa: ANN401 - whatever has the hooks
        """The object whose hooks run. A policy that keeps nothing between requests is its own."""
        return self

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring of this policy around the app, one with the ring that is there already."""
        return ring(self, env.bind(self), app, env)


def ring(policy: Policy, hooks: Any, app: ASGIApp, env: Env, *, closed: bool = False) -> Ring:  # noqa: ANN401
    """Seat a policy in front of an app and check that the order with its neighbours can work."""
    built = Ring([Seat(policy, hooks)], app, env.scrub, closed=closed)
    check_order([seat.policy for seat in built.seats])
    return built


class Stack(Composable):
    """Several layers as one, in the order written: the first is the outermost.

    ``env`` gives clock, stores and transport to the policies in it (also to stacks within, unless they have their own);
    ``place`` names where the stack stands, so that its counters survive a reload and are shared by processes.
    """

    def __init__(self, *layers: Layer, env: Env | None = None, place: str = "") -> None:
        """Check that everything given is a layer and that the order can work."""
        for number, layer in enumerate(layers, 1):
            if not callable(layer):
                problem = f"number {number} is {shown(layer)}, which is no layer"
                raise ConfigError("Stack", "layers", problem, "Give policies, stacks, or functions from app to app")
        if env is not None and not isinstance(env, Env):
            raise ConfigError("Stack", "env", f"{shown(env)} is not an Env", "Write Stack(..., env=Env(...))")
        if not isinstance(place, str):
            raise ConfigError("Stack", "place", f"{shown(place)} is not a str", 'Write Stack(..., place="orders")')
        self.layers: tuple[Layer, ...] = layers
        self.env = env
        self.place = place
        check_order(self.policies())

    def __repr__(self) -> str:
        """The call that would make it again."""
        return f"Stack({', '.join(map(repr, self.layers))})"

    def policies(self) -> list[Policy]:
        """The policies of this stack and of the stacks in it, outermost first."""
        found: list[Policy] = []
        for layer in self.layers:
            if isinstance(layer, Stack):
                found += layer.policies()
            elif isinstance(layer, Policy):
                found.append(layer)
        return found

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """Put the layers in front of the app, innermost first; policies join the ring they meet."""
        env = self.env or env
        if self.place:
            env = env.at(f"{env.place}/{self.place}" if env.place else self.place)
        occurrences = Counter[str]()
        for layer in reversed(self.layers):
            if isinstance(layer, Policy) and type(layer).build is Policy.build:
                same = repr(layer)
                app = ring(layer, env.bind(layer, occurrences[same]), app, env)
                occurrences[same] += 1
            else:
                app = layer.build(app, env) if isinstance(layer, Composable) else layer(app)
        return app


def check_order(policies: Sequence[Policy]) -> None:
    """Refuse an order that cannot work: a need established only further in, a guard behind a memory of answers."""
    for place, policy in enumerate(policies):
        name = type(policy).__name__
        outside = frozenset[str]().union(*(each.provides for each in policies[:place]))
        for need in sorted(policy.needs - outside):
            for later in policies[place + 1 :]:
                if need in later.provides:
                    provider = type(later).__name__
                    problem = f"relies on the {need}, which {provider} establishes only behind it"
                    raise ConfigError(name, "", problem, f"Write {provider} before {name}")
        for earlier in policies[:place] if policy.guards else ():
            if earlier.answers:
                front = type(earlier).__name__
                problem = f"stands behind {front}, which would answer from memory without asking it"
                raise ConfigError(name, "", problem, f"Write {name} before {front}")
