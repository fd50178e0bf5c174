"""Rates of single keys, changed while requests come in."""

from apim_middleware._config import check, check_count, shown
from apim_middleware._http.fields import GREATEST_INTEGER
from apim_middleware._limits.rates import NoYear, Rate, parsed
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
        """The same for all: what tells policies apart may not change with what is in here."""
        return "overrides"

    def set(self, key: str, rate: int | str) -> None:
        """Give a key a rate of its own. Raises ConfigError for what is no key or no rate, and without room."""
        check("Overrides", "key", key, str, cure="Give the text that by gives")
        try:
            rates = rates_of(rate)
        except BadRate as wrong:
            raise ConfigError("Overrides", "rate", f"{shown(rate)} {wrong}", 'Give 500 or "500/minute"') from None
        if key not in self._rates and len(self) >= self._max_keys:
            problem = f"there is room for {self._max_keys} keys only"
            raise ConfigError("Overrides", "max_keys", problem, "Remove others, or make room with max_keys=...")
        self._rates[key] = rates

    def remove(self, key: str) -> None:
        """Let the policy's own rates hold for a key again."""
        self._rates.pop(key, None)

    def rates(self, key: str) -> tuple[Rate, ...] | None:
        """The rates of a key; None when it has none of its own."""
        return self._rates.get(key)


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
