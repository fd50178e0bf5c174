"""What this gateway shows to its upstream in the place of what its callers showed to it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from apim_middleware._http.headers import header_name
from apim_middleware.credentials.credential import Credential, Shown
from apim_middleware.credentials.renewing import Unavailable
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated


@dataclass(frozen=True, kw_only=True)
class UpstreamAuth(Policy):
    """Put a credential of our own on each request that goes to the upstream, and take the caller's away.

    It stands innermost, before the proxy, behind whatever decides who may come in. A token that the upstream refuses
    with 401 is dropped, so that the next request has a new one; the answer itself goes to the caller as it is.

    Refusals: 503 ``credential-unavailable`` with ``Retry-After`` when there is none to be had; 403
    ``token-not-exchanged`` for a caller whose token a ``TokenExchange`` gets nothing for.
    Follows Azure's ``authentication-basic``, ``authentication-managed-identity`` and ``get-authorization-context``.
    """

    guards = False

    credential: Credential = field()
    """What is shown: a ``BasicCredential``, ``BearerCredential``, ``HeaderCredential``, ``ClientCredentials``,
    ``TokenExchange``, ``ManagedIdentity``, or one of your own."""

    remove: tuple[str, ...] = ("Authorization", "Proxy-Authorization", "DPoP")
    """The headers callers show their own credentials in, which the upstream does not get."""

    def __post_init__(self) -> None:
        """What is taken away must be headers."""
        for name in self.remove:
            try:
                header_name(name)
            except ValueError:
                raise self.mistake("remove", f"holds {name!r}, which is no header name", 'Write ("Cookie",)') from None

    @stated
    def documentation(self) -> Documentation:
        """What is answered where there is nothing to show."""
        exchanged = (Answer(403, ("token-not-exchanged",)),) if "principal" in self.needs else ()
        return Documentation(answers=(*exchanged, Answer(503, ("credential-unavailable",), ("retry-after",))))

    @stated
    def needs(self) -> frozenset[str]:
        """What the credential relies on."""
        needs: frozenset[str] = getattr(self.credential, "needs", frozenset())
        return needs

    def bind(self, env: Env) -> "_Attaching":
        """What attaches the credential; tokens are kept for as long as a stack keeps this."""
        return _Attaching(self, self.credential.showing(env))


class _Attaching:
    """Puts the line of a credential in the place of the caller's."""

    def __init__(self, policy: UpstreamAuth, showing: Callable[[Exchange], Awaitable[Shown]]) -> None:
        self._showing = showing
        self._remove = [header_name(name) for name in policy.remove]

    async def on_request(self, exchange: Exchange) -> None:
        try:
            shown = await self._showing(exchange)
        except Unavailable as missing:
            exchange.attributes["apim.upstream_auth.failure"] = missing.reason
            raise missing.refusal() from None
        for name in self._remove:
            exchange.take_header(name)
        exchange.replace_line(shown.line)
        if shown.drop is not None:
            exchange.state[self] = shown.drop

    def on_response(self, exchange: Exchange) -> None:
        drop, head = exchange.state.get(self), exchange.shared.response
        if drop is not None and head is not None and head.status == 401:
            drop()
