"""Rates of single keys, changed while requests come in."""

from collections.abc import Mapping

from apim_middleware._config import check, check_count, shown
from apim_middleware._http.fields import GREATEST_INTEGER
from apim_middleware._limits.rates import UNITS, NoYear, Rate, parsed
from apim_middleware.errors import ConfigError

SHORTEST, LONGEST = 0.001, 10 * 366 * 86_400.0
"""The windows that can be kept, in seconds."""


class Overrides:
    """Other rates for single keys of the limits it is given to; a change holds from the next request on.

    ``overrides.set("acme", 5_000)`` gives another number for the policy's own window (of several the first),
    ``overrides.set("acme", "100/second; 5000/hour")`` other limits altogether. The key is the text that ``by`` gives.
    Another rate is another count: what was used under the one before is forgotten for as long as it lasts.
    In memory there is room for counts under 50,000 different rates, or a twentieth of the ``max_keys`` of its counters.
    """

    def __init__(self, *, max_keys: int = 10_000) -> None:
        """Begin without any; more than ``max_keys`` are not accepted."""
        check_count("Overrides", "max_keys", max_keys)
        self._max_keys = max_keys
        self._rates: dict[str, tuple[Rate, ...]] = {}

    def __len__(self) -> int:
        """How many keys have rates of their own."""
        return len(self._rates)

    def __repr__(self) -> str:
        """How many, but not whose."""
        return f"<Overrides of {len(self)} keys>"

    def __str__(self) -> str:
        """The same text for any overrides: what tells policies apart may not change with what is in here."""
        return "overrides"

    def set(self, key: str, rate: int | str) -> None:
        """Give a key a rate of its own. Raises ConfigError for what is no key or no rate, and without room."""
        rates = checked_rate("Overrides", key, rate)
        check_room("Overrides", key, self._rates, self._max_keys)
        self._rates[key] = rates

    def remove(self, key: str) -> None:
        """Let the policy's own rates hold for a key again."""
        self._rates.pop(key, None)

    def rates(self, key: str) -> tuple[Rate, ...] | None:
        """The rates of a key; None when it has none of its own."""
        return self._rates.get(key)


def checked_rate(owner: str, key: str, rate: int | str) -> tuple[Rate, ...]:
    """The rates that were meant for a key. Raises ConfigError for what is no key or no rate."""
    check(owner, "key", key, str, cure="Give the text that by gives")
    try:
        return rates_of(rate)
    except BadRate as wrong:
        cure = f'Give 500 or "500/minute": a unit is {UNITS}'
        raise ConfigError(owner, "rate", f"{shown(rate)} {wrong}", cure) from None


def check_room(owner: str, key: str, kept: Mapping[str, object], most: int) -> None:
    """Raise ConfigError where there is no room for one more key."""
    if key not in kept and len(kept) >= most:
        cure = "Remove others, or make room with max_keys=..."
        raise ConfigError(owner, "max_keys", f"there is room for {most} keys only", cure)


class BadRate(ValueError):
    """This is no rate that can be kept; the message is a reason that follows it in a sentence."""


def rates_of(given: int | str) -> tuple[Rate, ...]:
    """The rates that were meant. Raises BadRate."""
    if isinstance(given, str):
        try:
            rates = parsed(given)
        except NoYear:
            raise BadRate('holds a year, which has no fixed number of days (365 days are "365 days")') from None
        except ValueError:
            raise BadRate("cannot be read as a rate") from None
    elif isinstance(given, int) and not isinstance(given, bool):
        rates = ((given, None),)
    else:
        raise BadRate("is neither a number nor text")
    if wrong := wrong_with(rates):
        raise BadRate(wrong)
    return rates


def wrong_with(rates: tuple[Rate, ...]) -> str:
    """What keeps these rates from being kept or told, if anything does."""
    windows = [window for _, window in rates if window is not None]
    if not all(1 <= units <= GREATEST_INTEGER for units, _ in rates):
        return "is no number of calls to count to"
    if not all(SHORTEST <= window <= LONGEST for window in windows):
        return "is no window"
    return "has two limits for the same window" if len(set(windows)) < len(windows) else ""
