"""The memory of verified tokens, so that a token is verified once."""

from collections import OrderedDict
from collections.abc import Set
from typing import NamedTuple

from apim_middleware.identity import Principal


class Known(NamedTuple):
    """A verified token: when it expires, whom it speaks of, and the mark of the key that signed it."""

    expires: float
    principal: Principal
    mark: str


class Memory:
    """Verified tokens by their text. The oldest makes room; failed ones never come in."""

    def __init__(self, room: int) -> None:
        """Remember at most so many."""
        self._room = room
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self.get = self._known.get

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def keep(self, token: bytes, known: Known) -> None:
        """Remember a token."""
        self._known[token] = known
        if len(self._known) > self._room:
            self._known.popitem(last=False)

    def forget(self, token: bytes) -> None:
        """Forget a token."""
        self._known.pop(token, None)

    def forget_keys(self, marks: Set[str]) -> None:
        """Forget every token that was signed with one of these keys."""
        for token in [token for token, known in self._known.items() if known.mark in marks]:
            del self._known[token]
