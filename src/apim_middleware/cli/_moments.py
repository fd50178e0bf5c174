"""Moments as people write and read them."""

from datetime import UTC, datetime

from apim_middleware.errors import ConfigError

WRITTEN = "as 2026-12-31 or 2026-12-31T18:00:00Z, of UTC unless it says otherwise"


def moment(option: str, text: str) -> float:
    """What an option says, as seconds since 1970-01-01 UTC. Raises ConfigError."""
    try:
        said = datetime.fromisoformat(text)
        return (said if said.tzinfo else said.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        cure = "Write 2026-12-31, or 2026-12-31T18:00:00+01:00"
        raise ConfigError("apim keys", option, f"{text!r} is no moment", cure) from None


def moment_to_come(option: str, text: str) -> float:
    """What an option says of a moment that lies ahead, as seconds since 1970-01-01 UTC. Raises ConfigError."""
    said = moment(option, text)
    if said <= datetime.now(UTC).timestamp():
        raise ConfigError("apim keys", option, f"{text} has passed", "Give a moment that lies ahead")
    return said


def written(moment: float) -> str:
    """A moment for people; its seconds, where that is too far away."""
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{moment:g}"
