"""Sending requests to another backend: ``SetBackend``."""

from dataclasses import dataclass

from apim_middleware._together import Neighbour, neighbour
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated
from apim_middleware.types import ASGIApp


@dataclass(frozen=True)
class SetBackend(Policy):
    """Send requests to another app than the one behind, such as a proxy: for what is not to be told by the path.

    ``When(conditions.header("x-beta"), SetBackend(Proxy("http://beta")))``. WebSockets go there too, and the other app
    has a lifespan with the one behind. What guards must stand before it, for what stands behind is not met.
    Follows Azure's ``set-backend-service``.
    """

    guards = False

    backend: ASGIApp
    """The other app."""

    @stated
    def answers(self) -> bool:
        """It answers without asking those behind it."""
        return True

    @stated
    def leads_to(self) -> tuple[ASGIApp, ...]:
        """The other app."""
        return (self.backend,)

    def bind(self, env: Env) -> "_Elsewhere":
        """What leads there."""
        return _Elsewhere(neighbour(self.backend, env))


class _Elsewhere:
    def __init__(self, backend: Neighbour) -> None:
        self._backend = backend

    def on_request(self, exchange: Exchange) -> ASGIApp:
        return self._backend
