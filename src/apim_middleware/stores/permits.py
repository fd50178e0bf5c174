"""Permits in this process: who is in, under which key, and nothing else."""


class MemoryPermits:
    """Counts who is in, in the memory of this process: those of a process that dies are gone with it.

    It keeps the holders that are in and the keys they are in under; a key that nobody holds takes no room.
    """

    def __init__(self) -> None:
        """Nobody is in yet."""
        self._inside: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """How many keys somebody is in under."""
        return len(self._inside)

    def acquire_now(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
        """Let this holder in if fewer than ``at_once`` are in, or it is in; whether it is, and how many are."""
        inside = self._inside.get(key)
        if inside is None:
            if at_once < 1:
                return False, 0
            self._inside[key] = {holder}
            return True, 1
        if len(inside) < at_once:
            inside.add(holder)
        return holder in inside, len(inside)

    def release_now(self, key: str, holder: str) -> None:
        """Let this holder out; nothing happens when it is not in."""
        inside = self._inside.get(key)
        if inside is not None:
            inside.discard(holder)
            if not inside:
                del self._inside[key]

    async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
        """Let this holder in if fewer than ``at_once`` are in, or it is in; whether it is, and how many are."""
        return self.acquire_now(key, at_once, holder)

    async def release(self, key: str, holder: str) -> None:
        """Let this holder out; nothing happens when it is not in."""
        self.release_now(key, holder)
