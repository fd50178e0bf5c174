"""What fails for a while is told of when it begins and when it is over, not by every request in between."""

from logging import Logger


class Outage:
    """Something that requests need and that may be away."""

    __slots__ = ("_away", "_back", "_log", "lasting")

    def __init__(self, log: Logger, away: str, back: str) -> None:
        """What the log says when it begins, before the error, and when it is over."""
        self._log, self._away, self._back = log, away, back
        self.lasting = False
        """Whether it is away, as far as anybody knows."""

    def begins(self, error: Exception) -> None:
        """Somebody needed it and did not get it."""
        if not self.lasting:
            self.lasting = True
            self._log.error("%s: %s", self._away, ascii(str(error))[:200])

    def ends(self) -> None:
        """Somebody got it."""
        if self.lasting:
            self.lasting = False
            self._log.warning("%s", self._back)
