"""What one transaction reads from and writes to the entries of a SQLite file: values, tags, and room for more."""

from array import array
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import NamedTuple, TypeAlias, TypeGuard
from zlib import crc32

from apim_middleware.stores.purges import FIRST_PURGE, KNOWN_PURGES
from apim_middleware.stores.sqlite.file import Connection
from apim_middleware.stores.sqlite.times import Times
from apim_middleware.stores.sqlite.windows import GRAIN

Name: TypeAlias = bytes
"""What an entry is called in the file: a hash, equally long for every key."""

_ROW, _TAG_ROW = 230, 110  # bytes in the file, with their share of the indexes, beside values and tags
_PAGE, _INLINE = 4096, 3000  # values that are longer than this take whole pages
_SWEPT = 2
"""Entries past their time that leave when one comes: more than come, so that they never gather."""

_SAMPLE, _PASSES = 16, 8
"""Entries looked at together when there is no room, and how often each time is given to those that were used."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL UNIQUE,"
    " turn INTEGER NOT NULL, used INTEGER NOT NULL, due REAL NOT NULL, size INTEGER NOT NULL, tags BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS entries_by_turn ON entries (turn)",
    "CREATE INDEX IF NOT EXISTS entries_by_due ON entries (due)",
    "CREATE TABLE IF NOT EXISTS bodies (id INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS tags (id INTEGER PRIMARY KEY AUTOINCREMENT, tag BLOB NOT NULL UNIQUE,"
    " entries INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS room (one INTEGER PRIMARY KEY CHECK (one = 1), held INTEGER NOT NULL,"
    " turn INTEGER NOT NULL, evicted INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO room VALUES (1, 0, 0, 0)",
    "CREATE TABLE IF NOT EXISTS purges (number INTEGER PRIMARY KEY AUTOINCREMENT, tag BLOB NOT NULL UNIQUE)",
    f"INSERT INTO purges SELECT random() & {FIRST_PURGE - 1}, x'' WHERE NOT EXISTS (SELECT 1 FROM purges)",  # noqa: S608
)
"""Beside those of counters and permits: a file may have all."""


def make_tables(file: Connection) -> None:
    """Make those that are not there yet."""
    for statement in _TABLES:
        file.execute(statement)


def name_of(key: bytes) -> Name:
    """The name of a key."""
    return blake2b(key, digest_size=24).digest()


def size_of(value: bytes, tags: int) -> int:
    """Bytes an entry takes in the file."""
    size = len(value)
    return _ROW + 8 * tags + (size if size <= _INLINE else -(-size // (_PAGE - 4)) * _PAGE)


class _Found(NamedTuple):
    id: int
    size: int
    tags: bytes


class Ledger:
    """The entries while one transaction lasts; ``save`` makes room and writes down what was counted."""

    def __init__(self, file: Connection, times: Times, max_bytes: int, used: set[int]) -> None:
        """Read the time and the account. ``used`` is who was read since that was last written down."""
        self.file, self._max, self._used = file, max_bytes, used
        self._times, self.now = times, times.read(file)
        [(self.held, self._turn, self.evicted)] = file.execute("SELECT held, turn, evicted FROM room")
        self._before = self.held, self._turn, self.evicted

    def get(self, name: Name) -> bytes | None:
        """The value, if there is one and it is whole."""
        row = self.file.execute(
            "SELECT id, size, tags, due, checksum, value FROM entries JOIN bodies USING (id) WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            return None
        id_, size, tags, due, checksum, value = row
        if not _whole(value, tags, checksum) or due <= self.now + GRAIN or not self._current(tags):
            self._forget(_Found(id_, size, tags))
            return None
        self._used.add(id_)
        return value

    def _current(self, tags: bytes) -> bool:
        ids = _ids(tags)
        if not ids:
            return True
        marks = ",".join("?" * len(ids))
        [(found,)] = self.file.execute(f"SELECT count(*) FROM tags WHERE id IN ({marks})", ids)  # noqa: S608
        return bool(found == len(ids))

    def set(self, name: Name, value: bytes, ttl: float, tags: Collection[bytes] = ()) -> None:
        """Keep the value and no other."""
        self.delete(name)
        self._drop_over(_SWEPT)
        size = size_of(value, len(tags))
        if not ttl > 0 or size + sum([_TAG_ROW + len(tag) for tag in tags]) > self._max:
            return
        ids = _packed([self._tagged(tag) for tag in tags])
        self._make_room(size)
        self._turn += 1
        row = (name, self._turn, self.now + ttl, size, ids)
        made = self.file.execute(
            "INSERT INTO entries (name, turn, used, due, size, tags) VALUES (?, ?, 0, ?, ?, ?)", row
        )
        self.file.execute("INSERT INTO bodies VALUES (?, ?, ?)", (made.lastrowid, _checksum(value, ids), value))
        self.held += size

    def set_since(self, name: Name, value: bytes, ttl: float, tags: Collection[bytes], since: bytes | None) -> bool:
        """Keep the value unless one of its tags was purged since, or that is not known; whether that is not so."""
        if since is not None and not self._none_of(tags, int(since) if since.isdigit() else -1):
            return False
        self.set(name, value, ttl, tags)
        return True

    def add(self, name: Name, value: bytes, ttl: float) -> bool:
        """Keep the value if there is none."""
        if self.get(name) is not None:
            return False
        self.set(name, value, ttl)
        return True

    def delete(self, name: Name, value: bytes | None = None) -> None:
        """Forget an entry; with a value, only if it has that."""
        if value is None or self.get(name) == value:
            for row in self.file.execute("SELECT id, size, tags FROM entries WHERE name = ?", (name,)).fetchall():
                self._forget(_Found(*row))

    def _forget(self, found: _Found) -> None:
        self.file.execute("DELETE FROM entries WHERE id = ?", (found.id,))
        self.file.execute("DELETE FROM bodies WHERE id = ?", (found.id,))
        self.held -= found.size
        self._used.discard(found.id)
        for tag in _ids(found.tags):
            self.file.execute("UPDATE tags SET entries = entries - 1 WHERE id = ?", (tag,))
            self._untag("id = ? AND entries <= 0", tag)

    # Tags: an entry knows the numbers of its tags; one that is purged and used again gets a new number

    def _tagged(self, tag: bytes) -> int:
        row = self.file.execute("SELECT id FROM tags WHERE tag = ?", (tag,)).fetchone()
        if row:
            self.file.execute("UPDATE tags SET entries = entries + 1 WHERE id = ?", row)
            return int(row[0])
        self.held += _TAG_ROW + len(tag)
        made = self.file.execute("INSERT INTO tags (tag, entries) VALUES (?, 1)", (tag,))
        return int(made.lastrowid or 0)

    def purge(self, tag: bytes) -> None:
        """Forget the number of a tag: what has it is found no more, and leaves in its turn."""
        self._untag("tag = ?", tag)
        made = self.file.execute("INSERT OR REPLACE INTO purges (tag) VALUES (?)", (name_of(tag),))
        forgotten = int(made.lastrowid or 0) - KNOWN_PURGES
        self.file.execute("DELETE FROM purges WHERE number <= ? AND tag != x''", (forgotten,))

    def _untag(self, where: str, what: int | bytes) -> None:
        select = f"SELECT id, length(tag) FROM tags WHERE {where}"  # noqa: S608
        for id_, size in self.file.execute(select, (what,)).fetchall():
            self.file.execute("DELETE FROM tags WHERE id = ?", (id_,))
            self.held -= _TAG_ROW + size

    # Purges are numbered: the first row says with which number that began, and none of the file before it is known

    @property
    def after(self) -> bytes:
        """The number of the last purge."""
        [(number,)] = self.file.execute("SELECT max(number) FROM purges")
        return b"%d" % (number or 0)

    def _none_of(self, tags: Collection[bytes], since: int) -> bool:
        now = int(self.after)
        [(first,)] = self.file.execute("SELECT min(number) FROM purges WHERE tag = x''")
        if first is None or not max(first, now - KNOWN_PURGES) <= since <= now:
            return False
        marks, names = ",".join("?" * len(tags)), [name_of(tag) for tag in tags]
        select = f"SELECT count(*) FROM purges WHERE tag IN ({marks}) AND number > ?"  # noqa: S608
        [(purged,)] = self.file.execute(select, (*names, since))
        return bool(purged == 0)

    # Room

    def save(self, *, uses: bool) -> None:
        """Write down what changed, and with it who was used; that alone only when ``uses`` says so."""
        if uses or self._before != (self.held, self._turn, self.evicted):
            self.file.executemany("UPDATE entries SET used = 1 WHERE id = ?", [(each,) for each in self._used])
            self._used.clear()
            account = (self.held, self._turn, self.evicted)
            self.file.execute("UPDATE room SET held = ?, turn = ?, evicted = ?", account)
            self._times.write(self.file, self.now)

    def _drop_over(self, number: int) -> None:
        select = "SELECT id, size, tags FROM entries WHERE due <= ? LIMIT ?"
        for row in self.file.execute(select, (self.now, number)).fetchall():
            self._forget(_Found(*row))

    def _make_room(self, size: int) -> None:
        """First in, first out; but what was used since it came, or since it last came round, comes round once more."""
        if self.held + size > self._max:
            self._drop_over(_SAMPLE)
        passes = 0
        while self.held + size > self._max and (rows := self._oldest()):
            passes += 1
            for id_, taken, tags, used in rows:
                if passes <= _PASSES and (used or id_ in self._used):
                    self._come_round(id_)
                elif self.held + size > self._max:
                    self._forget(_Found(id_, taken, tags))
                    self.evicted += 1

    def _come_round(self, id_: int) -> None:
        self._turn += 1
        self._used.discard(id_)
        self.file.execute("UPDATE entries SET turn = ?, used = 0 WHERE id = ?", (self._turn, id_))

    def _oldest(self) -> Sequence[tuple[int, int, bytes, int]]:
        select = "SELECT id, size, tags, used FROM entries ORDER BY turn LIMIT ?"
        return self.file.execute(select, (_SAMPLE,)).fetchall()


def _checksum(value: bytes, tags: bytes) -> int:
    return crc32(tags, crc32(value))


def _whole(value: object, tags: object, checksum: int) -> TypeGuard[bytes]:
    """Whether these are the bytes that were kept: SQLite sees damage to its pages, but not in what is on them."""
    return isinstance(value, bytes) and isinstance(tags, bytes) and _checksum(value, tags) == checksum


def _packed(ids: Sequence[int]) -> bytes:
    return array("q", ids).tobytes()


def _ids(packed: bytes) -> Sequence[int]:
    """The numbers of tags; those of a damaged row are not missed."""
    return array("q", packed[: len(packed) // 8 * 8]) if isinstance(packed, bytes) else ()
