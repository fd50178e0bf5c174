"""Policies and stacks: ``Stack(a, b, c)(app)`` behaves as ``a(b(c(app)))``."""

import inspect
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from functools import lru_cache
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from apim_middleware._config import Configured, awaits, check_named, shown
from apim_middleware._lifespan import Ending
from apim_middleware._order import check_counts, check_guards, check_met, check_needs, check_readers
from apim_middleware._ring import Ring, Seat, seats_of
from apim_middleware._together import living
from apim_middleware._unseen_reads import look_at_functions
from apim_middleware.documentation import Documentation, documentation_of, together
from apim_middleware.env import Env, default_env
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange
from apim_middleware.types import ASGIApp, Layer, Tap

T = TypeVar("T")

_HOOKS = ("on_request", "on_response", "on_sent", "on_end")


def stated(method: Callable[[Any], T]) -> T:
    """A property that a subclass may have as a property, or as a plain attribute of the class; checkers see its value.

    ``guards = True`` in a class of yours, or ``@stated`` before a method where it depends on the fields.
    """
    return property(method)  # type: ignore[return-value]


class Composable:
    """A layer that is told the environment it is built in."""

    @stated
    def documentation(self) -> Documentation:
        """What it asks of callers and may answer, for OpenAPI documents; nothing unless a layer says so."""
        return Documentation()

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """Put this layer in front of an app."""
        raise TypeError(f"{type(self).__name__} does not say how it is built: define build(app, env)")

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """The guarded app: the layer used alone, as ``add_middleware`` does."""
        check_app(type(self).__name__, app)
        built = self.build(app, default_env)
        check_needs(_seated(built))  # put on one by one, layers are easily put on in the wrong order
        check_readers(_seated(built))
        return living(built, app)


class Hooks:
    """The hooks as type checkers see them: base of what ``bind`` returns, where that is not the policy itself.

    A hook is held to its argument and to what it gives back; one under ``typing.override`` to its name, too. At run
    time there is nothing here: a hook that a class does not have is not called.
    """

    __slots__ = ("__weakref__",)

    if TYPE_CHECKING:

        def on_request(self, exchange: Exchange, /) -> ASGIApp | Awaitable[ASGIApp | None] | None:
            """Before the app; what is returned answers in its place."""

        def on_response(self, exchange: Exchange, /) -> Tap | Awaitable[Tap | None] | None:
            """Status and headers are known; what is returned is a tap on the body."""

        def on_sent(self, exchange: Exchange, /) -> Awaitable[None] | None:
            """The last byte was handed on."""

        def on_end(self, exchange: Exchange, /) -> None:
            """All is over."""


class Policy(Hooks, Composable, Configured):
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

    @stated
    def provides(self) -> frozenset[str]:
        """What this policy establishes for those further in: ``client``, ``principal``, ``subscription``."""
        return frozenset()

    @stated
    def guards(self) -> bool | None:
        """Whether it decides who may come in, so that nothing further out may answer from memory.

        None where a class that could refuse does not say: nothing may answer from memory before it either, but no
        route is guarded by it. A policy of your own says ``guards = True`` or ``guards = False``.
        """
        kind = type(self)
        idle = kind.bind is Policy.bind and kind.build is Policy.build and not hasattr(kind, "on_request")
        return False if idle else None

    @stated
    def answers(self) -> bool:
        """Whether it may answer from memory what the app answered somebody before."""
        return False

    @stated
    def leads_to(self) -> tuple[ASGIApp, ...]:
        """Other apps that it sends requests to: they have their lifespan with the one behind."""
        return ()

    @stated
    def needs(self) -> frozenset[str]:
        """What must be established further out for this policy to work."""
        return frozenset()

    @stated
    def counts(self) -> frozenset[str]:
        """What its counters are called at a place: two different policies of one stack must not share any."""
        return frozenset()

    def bind(self, env: Env) -> Any:  # noqa: ANN401 - whatever has the hooks
        """The object whose hooks run. A policy that keeps nothing between requests is its own."""
        return self

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring of this policy around the app, one with the ring that is there already."""
        return ring(self, env.bind(self), app, env)


def ring(
    policy: Policy,
    hooks: Any,  # noqa: ANN401
    app: ASGIApp,
    env: Env,
    *,
    closed: bool = False,
    endings: frozenset[Ending] = frozenset(),
) -> Ring:
    """Seat a policy in front of an app, and check that no guard stands behind what answers from memory.

    ``endings`` are run at the end of the lifespan, besides that of the environment.
    """
    _check_names(hooks)
    _check_calls(policy, hooks)
    look_at_functions(policy, env)
    built = Ring([Seat(policy, hooks, env)], app, env.scrub, closed=closed, endings=endings | {env.ending})
    check_guards(_seated(built))
    return built


def _check_names(hooks: object) -> None:
    """Refuse a hook with its name misspelt, which would never be called."""
    kind = type(hooks)
    given = {name for each in kind.__mro__ for name in vars(each) if name.startswith("on_")}
    for name in sorted(given.difference(_HOOKS)):
        if near := get_close_matches(name, _HOOKS, n=1, cutoff=0.85):
            raise ConfigError(kind.__name__, name, "is no hook", f"Did you mean {near[0]}?")


def _check_calls(policy: Policy, hooks: object) -> None:
    """Refuse a hook that could not be called with an exchange, and an ``on_end`` that nobody would await."""
    within = "" if hooks is policy else f"of {type(hooks).__name__} "
    for name in _HOOKS:
        hook = getattr(hooks, name, None)
        if misfit := _misfit(hook):
            problem = f"{within}cannot be called with the exchange alone: {misfit}"
            raise ConfigError(type(policy).__name__, name, problem, f"Write def {name}(self, exchange)")
    if awaits(getattr(hooks, "on_end", None)):
        problem = f"{within}is async, and would never be awaited"
        raise ConfigError(type(policy).__name__, "on_end", problem, "Write a plain function")


def _misfit(hook: object) -> str:
    """Why a hook cannot be called with an exchange; nothing where it can be, or does not say."""
    if hook is None:
        return ""
    if isinstance(hook, MethodType) and isinstance(hook.__func__, FunctionType):  # as most: looked at once for a class
        return _misfit_of_method(hook.__func__)
    return _misfit_of(hook, object())


@lru_cache(maxsize=1024)
def _misfit_of_method(function: FunctionType) -> str:
    return _misfit_of(function, object(), object())


def _misfit_of(function: Any, *given: object) -> str:  # noqa: ANN401 - whatever is called
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:  # it does not say, or its annotations fail
        return ""
    try:
        signature.bind(*given)
    except TypeError as error:
        return str(error)
    return ""


def _seated(built: ASGIApp) -> list[Policy]:
    """The policies that are seen from in front of what was built."""
    return [seat.policy for seat in seats_of(built)]


def check_place(policy: Policy, env: Env) -> None:
    """Refuse to keep things in a store that others see, or that outlives us, at a place without a name.

    Such places are numbered as they are built: after the next change, or in another app, the number is somebody else's.
    """
    if not env.named:
        problem = "stands at a place without a name, but its store is seen by others"
        cure = 'Write name="orders" in the gateway or guard' if env.place else 'Write Stack(..., place="orders")'
        raise ConfigError(type(policy).__name__, "", problem, f'{cure}, or Env(..., place="orders")')


def check_app(front: str, app: object) -> None:
    """Refuse to stand in front of what is no app, such as the name of one: every request would fail."""
    if not callable(app):
        raise ConfigError(front, "", f"was put in front of {shown(app)}, which is no ASGI app", "Give the app itself")


class Stack(Composable):
    """Several ``layers`` as one, in the order written: the first is the outermost.

    ``env`` gives clock, stores and transport to the policies in it (also to stacks within, unless they have their own);
    ``place`` names where the stack stands, so that its counters survive a reload and are shared by processes.
    """

    def __new__(cls, *layers: Layer, **given: object) -> Self:
        """Check the names of what was given."""
        check_named(cls, given)
        return super().__new__(cls)

    def __init__(self, *layers: Layer, env: Env | None = None, place: str = "") -> None:
        """Check that everything given is a layer and that the order can work."""
        for number, layer in enumerate(layers, 1):
            if isinstance(layer, type) and issubclass(layer, Composable):  # which can be called, and makes no app
                problem = f"number {number} is the class {layer.__name__}, and an object of it is wanted"
                raise ConfigError("Stack", "layers", problem, f"Write Stack({layer.__name__}(...))")
            if not callable(layer):
                problem = f"number {number} is {shown(layer)}, which is no layer"
                several = isinstance(layer, list | tuple)
                cure = "Write Stack(*layers)" if several else "Give policies, stacks, or functions from app to app"
                raise ConfigError("Stack", "layers", problem, cure)
        if env is not None and not isinstance(env, Env):
            raise ConfigError("Stack", "env", f"{shown(env)} is not an Env", "Write Stack(..., env=Env(...))")
        if not isinstance(place, str):
            raise ConfigError("Stack", "place", f"{shown(place)} is not a str", 'Write Stack(..., place="orders")')
        self.layers: tuple[Layer, ...] = layers
        self.env = env
        self.place = place
        check_needs(self.policies())
        check_readers(self.policies())
        check_guards(self.policies())

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """The guarded app. Raises ConfigError where a policy needs what none before it establishes."""
        check_met(self.policies())
        return super().__call__(app)

    def __repr__(self) -> str:
        """The call that would make it again."""
        return f"Stack({', '.join(map(repr, self.layers))})"

    @stated
    def documentation(self) -> Documentation:
        """What its layers ask of callers and may answer, together."""
        return together(map(documentation_of, self.layers))

    def __eq__(self, other: object) -> bool:
        """Whether it is made of equal layers, at the same place of the same environment."""
        if not isinstance(other, Stack):
            return NotImplemented
        return self.layers == other.layers and self.env is other.env and self.place == other.place

    def __hash__(self) -> int:
        """Equal for equal stacks."""
        return hash((self.layers, id(self.env), self.place))

    def policies(self) -> list[Policy]:
        """The policies of this stack and of the stacks in it, outermost first."""
        return [policy for layer in self.layers for policy in policies_in(layer)]

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """Put the layers in front of the app, innermost first; policies join the ring they meet."""
        if self.env is not None:
            env = self.env.at(self.env.place)
        if self.place:
            env = env.at(f"{env.place}/{self.place}" if env.place else self.place, named=True)
        if env.place:
            check_counts([layer for layer in self.layers if isinstance(layer, Policy)])
        for layer in reversed(self.layers):
            app = layer.build(app, env) if isinstance(layer, Composable) else layer(app)
        return app


def policies_in(layer: Layer | None) -> list[Policy]:
    """The policies a layer is made of, outermost first, as far as it is ours."""
    if isinstance(layer, Stack):
        return layer.policies()
    return [layer] if isinstance(layer, Policy) else []


def led_to(layer: Layer | None) -> tuple[ASGIApp, ...]:
    """Other apps that a layer sends requests to."""
    return tuple(app for policy in policies_in(layer) for app in policy.leads_to)
