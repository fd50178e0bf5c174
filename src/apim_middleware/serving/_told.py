"""Failures the log knows already, so that a server need not show where they came from."""

from apim_middleware.errors import TransportError
from apim_middleware.types import ASGIApp, Receive, Scope, Send


def is_told(error: BaseException) -> bool:
    """Whether the log has it that an upstream broke off, also when a middleware's task group has wrapped that."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_told, error.exceptions))
    return isinstance(error, TransportError) and error.told


class Unfinished:
    """An app on granian, which breaks off what an app has not finished, and shows a traceback of what it raises."""

    def __init__(self, app: ASGIApp) -> None:
        """Leave the responses of this app unfinished where it would raise what the log knows."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if not is_told(error):
                raise
