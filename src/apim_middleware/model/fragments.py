"""Names for policies and texts that are used in several places."""

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field

from apim_middleware._config import Configured
from apim_middleware.documentation import Documentation, documentation_of, together
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange
from apim_middleware.model._values import check_name
from apim_middleware.types import ASGIApp, Layer


@dataclass(frozen=True)
class Fragment(Configured):
    """Policies under a name, to be used in several places as if they were written there (Azure's policy fragment)."""

    name: str
    """What it is called where a gateway is shown."""

    policies: tuple[Layer, ...]
    """The first one outside."""

    def __post_init__(self) -> None:
        """It has a name."""
        check_name(self)

    @property
    def documentation(self) -> Documentation:
        """What its policies ask of callers and may answer, together."""
        return together(map(documentation_of, self.policies))

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """The policies in front of an app, where somebody uses them so."""
        for layer in reversed(self.policies):
            app = layer(app)
        return app


@dataclass(frozen=True)
class NamedValue(Configured):
    """A text under a name, given wherever a policy takes a function of the exchange, and looked up for each request.

    ``SetHeader(name="x-key", value=NamedValue("backend-key", secret=True, provider=read_key))``.
    """

    name: str
    """What it is called where a gateway is shown or written down."""

    value: str | None = field(default=None, repr=False)
    """The text itself."""

    _: KW_ONLY
    secret: bool = True
    """Whether it is masked wherever a gateway is shown or written down."""

    provider: Callable[[], str] | None = field(default=None, repr=False)
    """Gives the text in the place of ``value``; called for each request, so it must not wait for anything."""

    def __post_init__(self) -> None:
        """There is one source."""
        check_name(self)
        if (self.value is None) == (self.provider is None):
            raise ConfigError("NamedValue", "value", "has no source, or two", "Give either value or provider")

    def _said(self) -> Iterator[str]:
        yield from super()._said()
        if not self.secret and self.value is not None:
            yield f"value={self.value!r}"

    def __call__(self, exchange: Exchange | None = None) -> str:
        """The text as it is now."""
        if self.provider is not None:
            return self.provider()
        return self.value or ""
