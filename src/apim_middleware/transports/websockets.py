"""What holds for WebSockets to upstreams."""

from dataclasses import dataclass

from apim_middleware._config import Configured


@dataclass(frozen=True, kw_only=True)
class WebSockets(Configured):
    """How WebSockets are passed on: how large a message may be, and when one that says nothing is given up."""

    max_message_bytes: int = 16 * 1024 * 1024
    """The largest message, in bytes, from either side; one that is larger closes with 1009 whoever sent it."""

    ping_interval: float = 20.0
    """Seconds of silence after which the upstream is asked whether it is still there."""

    ping_timeout: float = 20.0
    """Seconds it has to answer; then it counts as gone, and the client is closed with 1011 ``upstream-timeout``."""

    idle_timeout: float | None = None
    """Seconds without a message in either direction after which both sides are closed with 1001 ``idle-timeout``.

    None for no limit: pings find out who is gone, and who is still there may keep silent.
    """

    lifetime: float | None = None
    """Seconds after which both sides are closed with 1001 ``lifetime-over``, whatever is said; None for no limit."""

    outlive_token: bool = False
    """Whether a WebSocket stays open when the token has expired that let it in (``exp`` and leeway); else it is closed
    with 1008 ``token-expired`` then, and comes back with a new one."""

    close_timeout: float = 5.0
    """Seconds the upstream has to close its side once it was told to."""

    def __post_init__(self) -> None:
        """There must be room, and time."""
        if self.max_message_bytes < 1:
            raise self.mistake("max_message_bytes", "leaves no room", "Give a number of bytes above 0")
        for name in ("ping_interval", "ping_timeout", "idle_timeout", "lifetime", "close_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise self.mistake(name, "leaves no time", "Give seconds above 0")
