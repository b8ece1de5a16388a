"""Read the history of a process that is running, has ended, or was killed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pool_monitor.errors import ConfigError
from pool_monitor.metrics.block import ROOM_LIMIT as BLOCK_ROOM
from pool_monitor.metrics.gauges import TimedGauges
from pool_monitor.metrics.recording import Recording, TimedBlock
from pool_monitor.metrics.series import Names
from pool_monitor.metrics.timespan import INSTANT_LIMIT
from pool_monitor.storage.block_encoding import TooLarge, unpacked
from pool_monitor.storage.error_groups import first_seen, read_groups
from pool_monitor.storage.evaluations import read_evaluations, read_transitions
from pool_monitor.storage.files import check_beside, resolved
from pool_monitor.storage.gauges import GaugeQuery, gauge_query, timed_gauges
from pool_monitor.storage.schema import (
    BODY,
    BODY_LIMIT,
    ERROR_GROUPS_SINCE,
    EVALUATIONS_SINCE,
    GAUGES_SINCE,
    HISTORY,
    SOUND,
    TIME_LIMIT,
    StoredTier,
    readable_version,
    tiers_of,
)
from pool_monitor.storage.sqlite_file import (
    DAMAGED,
    connected_for_reading,
    failure_reason,
    time_limited,
    transaction,
    yield_gil,
)

if TYPE_CHECKING:
    from types import TracebackType

    from pool_monitor.snapshot import ErrorGroup

BLOCKS_LIMIT = 4000
"""Most blocks that are read for one answer."""
BYTES_LIMIT = 64 * 2**20
"""Most bytes that are read for one answer."""
ROOM_LIMIT = 6 * BYTES_LIMIT
"""Most bytes that an answer may take in memory. Our blocks take three to five times their size in the file."""
NAMES_LIMIT = 100_000
"""Most names in one answer."""
POOLS_LIMIT = 1000
"""Most pools in one answer: a report has a section for each."""
NAMES_ROOM = 32 * 2**20
"""Most characters in the names of one answer."""
EVALUATIONS_AT_ONCE = 500
"""Most evaluations that are in memory at once."""
_PIECE_BYTES = 8 * 2**20
_NAMES_AT_ONCE = 500  # an SQLite built long ago takes no more than 999 values

_ENDS = (
    "SELECT start, start + length FROM blocks "  # noqa: S608
    f"WHERE step = ? AND start >= ? AND start < ? AND {SOUND} ORDER BY start"
)


class Reader:
    """A history, open for reading. All methods block on the disk. Use it in one thread, and close it (or use ``with``).

    The file of a running process can be read at any time; reader and writer do not wait for each other. Blocks that a
    killed process left in its log are read too. The file is not changed. In a writable directory, SQLite may leave an
    empty log and its index beside the file.

    The constructor and all methods raise ConfigError for a file that cannot be read, is not a history, is too new, or
    cannot be read within `sqlite_file.WORK_MAX_S`. For any content of the file, an answer takes no more memory than a
    few times `ROOM_LIMIT`.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.damaged = 0
        """Blocks that were left out of answers because they could not be read."""
        with ExitStack() as stack, _translated_errors(self._path):
            self._connection = _open(self._path, stack)
            self._version = readable_version(self._connection, self._path)
            self._stack = stack.pop_all()

    def read(self, start: int, end: int, step: int) -> Recording:
        """The blocks that begin at *start* or later, but before *end*, to be added up in steps of *step* s.

        No block is longer than *step*. The blocks come from the coarsest tier whose step divides *start*, *end* and
        *step*; if there is none, from the finest tier that reaches back to *start*. A tier with too much to read is
        skipped. Blocks of finer tiers that are not rolled up yet are included, so every second up to the last flush is
        read exactly once.

        Raises ConfigError when no tier that is fine enough reaches back to *start*, and for more than `BLOCKS_LIMIT`
        blocks, `BYTES_LIMIT` bytes in the file or `ROOM_LIMIT` in memory, `NAMES_LIMIT` names or `POOLS_LIMIT` pools.
        Times are seconds since the epoch.
        """
        if not (start < end and step >= 1):
            raise ConfigError(f"read({start}, {end}, {step}): needs an end after the start, and a step of at least 1 s")
        if max(-start, end, step) > INSTANT_LIMIT:
            raise ConfigError(f"read({start}, {end}, {step}): needs seconds since the epoch that a datetime can hold")
        with self._work(), transaction(self._connection, "DEFERRED"):
            return self._recording(self._chosen(start, end, step))

    def gauges(self, start: int, end: int, step: int) -> list[TimedGauges]:
        """The gauges that begin at *start* or later, but before *end*, to be added up in steps of *step* s.

        They come from the coarsest tier whose step divides *step*. Raises ConfigError when there is none, and for more
        than `BLOCKS_LIMIT` blocks or `BYTES_LIMIT` bytes in the file, or `ROOM_LIMIT` in memory.
        """
        with self._work(), transaction(self._connection, "DEFERRED"):
            tiers = self._tiers()
            if self._version < GAUGES_SINCE:
                return []
            query = gauge_query(self._connection, tiers, start, end, step)
            if query is None:
                raise ConfigError(f"{self._path}: {_not_kept(tiers, [], start, step)}")
            size = self._size(query)
            if size.blocks > BLOCKS_LIMIT or size.bytes > BYTES_LIMIT:
                raise self._too_much(f"from {_when(start)} to {_when(end)} there are {size.blocks:,} blocks of gauges")
            found: list[TimedGauges] = []
            room = ROOM_LIMIT
            for timed in timed_gauges(self._connection.execute(query.sql, query.values), self._note_damaged):
                self._check_time()
                found.append(timed)
                room -= timed.block.nbytes + sum(map(len, timed.block.subjects))
                if room < 0:
                    raise self._too_much(f"in memory the answer takes more than the {ROOM_LIMIT // 2**20} MiB")
            return found

    def _note_damaged(self) -> None:
        self.damaged += 1

    def extent(self, start: int = -TIME_LIMIT, end: int = TIME_LIMIT) -> tuple[int, int] | None:
        """When the first block begins and the last block ends, of blocks that begin at *start* or later, but before
        *end*; None when there is no such block.

        A clock that was ahead for a while leaves blocks in the future. ``extent(end=now)`` excludes them.
        """
        with self._work(), transaction(self._connection, "DEFERRED"):
            ends = [
                self._connection.execute(f"{_ENDS} {order} LIMIT 1", (tier.step, start, end)).fetchone()
                for tier in self._tiers()
                for order in ("ASC", "DESC")
            ]
        found = [row for row in ends if row is not None]
        return (min(row[0] for row in found), max(row[1] for row in found)) if found else None

    def ahead(self, now: int) -> int:
        """How many blocks begin at *now* or later. A block that was rolled up counts in the coarsest tier only."""
        with self._work(), transaction(self._connection, "DEFERRED"):
            return self._size(_block_query(self._tiers(), now, TIME_LIMIT)).blocks

    def pools(self) -> tuple[str, ...]:
        """The names of all pools in the file. Raises ConfigError for more than `POOLS_LIMIT`."""
        with self._work():
            asked = "SELECT DISTINCT pool FROM names ORDER BY pool LIMIT ?"
            found = list(self._names(asked, [POOLS_LIMIT + 1]))
            self._check_pools(len(found))
        return tuple(name for (name,) in found)

    def error_groups(
        self, start: int, end: int, pool: str | None = None
    ) -> tuple[int, int, dict[str, list[ErrorGroup]]]:
        """The error groups of the failures from *start* to *end*, as `read_groups` returns them. Empty for the file of
        a version that had none.
        """
        with self._work(), transaction(self._connection, "DEFERRED"):
            if self._version < ERROR_GROUPS_SINCE:
                return start, end, {}
            return read_groups(self._connection, start, end, pool, self._check_time)

    def evaluations(self, until: float = TIME_LIMIT) -> Iterator[tuple[float, bytes]]:
        """The recorded evaluations of alert rules up to *until*, the oldest first: time and body. They are read in
        pieces of at most `EVALUATIONS_AT_ONCE`, however long the caller takes. Empty for a version that had none.
        """
        after = 0 if self._version >= EVALUATIONS_SINCE else None
        while after is not None:
            piece: list[tuple[float, bytes]] = []
            room = _PIECE_BYTES
            with self._work(), transaction(self._connection, "DEFERRED"):
                for number, at, body in read_evaluations(self._connection, after, until):
                    self._check_time()
                    piece.append((at, body))
                    after, room = number, room - len(body)
                    if len(piece) == EVALUATIONS_AT_ONCE or room < 0:
                        break
                else:
                    after = None
            yield from piece

    def transitions(self, start: float, end: float) -> list[tuple[float, bytes]]:
        """The recorded changes of alerts from *start* to before *end*, the oldest first: time and body."""
        with self._work(), transaction(self._connection, "DEFERRED"):
            if self._version < EVALUATIONS_SINCE:
                return []
            found: list[tuple[float, bytes]] = []
            room = ROOM_LIMIT
            for row in read_transitions(self._connection, start, end):
                self._check_time()
                found.append(row)
                room -= len(row[1])
                if room < 0:
                    raise self._too_much("the changes of alerts take more memory than")
            return found

    def errors_first_seen(self) -> dict[tuple[str, str], float]:
        """When each error group was first seen, in seconds since the epoch, by pool and fingerprint."""
        with self._work(), transaction(self._connection, "DEFERRED"):
            return first_seen(self._connection) if self._version >= ERROR_GROUPS_SINCE else {}

    def tiers(self) -> list[StoredTier]:
        """The tiers of the file, the finest first."""
        with self._work(), transaction(self._connection, "DEFERRED"):
            return self._tiers()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _work(self) -> Iterator[None]:
        """Limit the time and the names of one query, and translate its errors."""
        with _translated_errors(self._path), time_limited(self._connection) as self._check_time:
            self._names_room = NAMES_ROOM
            yield

    # -- choosing -------------------------------------------------------------------------------------------------

    def _tiers(self) -> list[StoredTier]:
        tiers = tiers_of(self._connection)
        if not tiers:
            raise sqlite3.DatabaseError(DAMAGED)
        newest = f"SELECT start FROM blocks WHERE step = ? AND {SOUND} ORDER BY id DESC LIMIT 1"  # noqa: S608
        now = self._first(newest, tiers[0].step)
        return [tier if now is None or tier.since <= now else self._as_of(tier, now) for tier in tiers]

    def _as_of(self, tier: StoredTier, now: int) -> StoredTier:
        """*tier* with a `since` that is not after *now*, the start of the newest block.

        A later `since` comes from a block that a clock ahead of time wrote and that has been deleted. Then the tier
        reaches back to the oldest block that is left, in the order of writing.
        """
        oldest = f"SELECT start FROM blocks WHERE step = ? AND start <= ? AND {SOUND} ORDER BY id LIMIT 1"  # noqa: S608
        first = self._first(oldest, tier.step, now)
        return tier._replace(since=now if first is None else first)

    def _first(self, sql: str, *values: int) -> int | None:
        row = self._connection.execute(sql, values).fetchone()
        return None if row is None else row[0]

    def _chosen(self, start: int, end: int, step: int) -> _BlockQuery:
        """The query for the blocks of an answer, as `read` describes them."""
        tiers = self._tiers()
        fitting = [tier for tier in tiers if step % tier.step == 0]
        covering = [tier for tier in fitting if tier.reaches(start)]
        if not covering:
            raise ConfigError(f"{self._path}: {_not_kept(tiers, fitting, start, step)}")
        exact = [tier for tier in reversed(covering) if start % tier.step == 0 == end % tier.step]
        sizes = []
        for tier in (*exact, *covering):
            query = _block_query(tiers[: tiers.index(tier) + 1], start, end)
            size = self._size(query)
            if size.blocks <= BLOCKS_LIMIT and size.bytes <= BYTES_LIMIT:
                return query
            sizes.append(size)
        raise self._too_much(
            f"from {_when(start)} to {_when(end)} in steps of {step} s there are {min(sizes).blocks:,} blocks with "
            f"{min(sizes).bytes / 2**20:,.0f} MiB, more than the {BLOCKS_LIMIT:,} blocks or {BYTES_LIMIT // 2**20} MiB"
        )

    def _size(self, query: _BlockQuery | GaugeQuery) -> _QuerySize:
        counted = f"SELECT count(*), total(length(body)) FROM ({query.sql})"  # noqa: S608 - no names in it
        return _QuerySize(*self._connection.execute(counted, query.values).fetchone())

    def _too_much(self, what: str) -> ConfigError:
        return ConfigError(f"{self._path}: {what} that one query may read; ask for a larger step or for less time")

    # -- reading --------------------------------------------------------------------------------------------------

    def _recording(self, query: _BlockQuery) -> Recording:
        blocks: list[TimedBlock] = []
        room = ROOM_LIMIT
        for start, length, body in self._connection.execute(query.sql, query.values):
            self._check_time()
            yield_gil()
            try:
                blocks.append(TimedBlock(start, length, unpacked(body)))
                room -= blocks[-1].block.nbytes
            except ValueError as error:
                self.damaged += 1
                room -= BLOCK_ROOM if isinstance(error, TooLarge) else 0
            if room < 0:
                raise self._too_much(f"in memory the answer takes more than the {ROOM_LIMIT // 2**20} MiB")
        # The numbers of a file have gaps, and queries make arrays as long as the highest number: so close the gaps.
        rows = _used(timed.block.rows for timed in blocks)
        pools = _used(timed.block.pools for timed in blocks)
        self._check_pools(len(pools))
        keys = self._keys([*rows.tolist(), *pools.tolist()])
        names = Names(
            tuple((pool, operation or "", worker) for pool, operation, worker in map(keys.__getitem__, rows.tolist())),
            tuple(keys[number][0] for number in pools.tolist()),
        )
        places = partial(_places, rows), partial(_places, pools)
        for at, timed in enumerate(blocks):  # in place, so that only one block is in memory twice
            blocks[at] = timed._replace(block=timed.block.renumbered(*places))
        return Recording(names, blocks)

    def _keys(self, numbers: Sequence[int]) -> dict[int, tuple[str, str | None, str | None]]:
        if len(numbers) > NAMES_LIMIT:
            raise self._too_much(f"the answer has {len(numbers):,} names, more than the {NAMES_LIMIT:,}")
        found: dict[int, tuple[str, str | None, str | None]] = {}
        for at in range(0, len(numbers), _NAMES_AT_ONCE):
            some = numbers[at : at + _NAMES_AT_ONCE]
            named = f"SELECT pool, operation, worker, id FROM names WHERE id IN ({', '.join('?' * len(some))})"  # noqa: S608
            found |= {number: (pool, operation, worker) for pool, operation, worker, number in self._names(named, some)}
        if len(found) < len(set(numbers)):
            raise sqlite3.DatabaseError("it is damaged: names are missing")
        return found

    def _names(self, sql: str, values: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """The checked rows of a query for names. The first column is a pool; operation, worker, number may follow."""
        for row in self._connection.execute(sql, values):
            self._check_time()
            pool, *others = row
            texts = [pool, *(name for name in others[:2] if name is not None)]
            if not all(isinstance(text, str) for text in texts):
                raise sqlite3.DatabaseError(DAMAGED)
            self._names_room -= sum(map(len, texts))
            if self._names_room < 0:
                raise self._too_much(f"the names are longer than the {NAMES_ROOM // 2**20} MiB")
            yield row

    def _check_pools(self, pools: int) -> None:
        if pools > POOLS_LIMIT:
            raise self._too_much(f"the answer has more than the {POOLS_LIMIT:,} pools")


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    """Raise ConfigError in place of the errors of SQLite and the system about *path*."""
    try:
        yield
    except (sqlite3.Error, OSError, MemoryError) as error:
        raise ConfigError(failure_reason(path, error)) from error


class _QuerySize(NamedTuple):
    blocks: int
    bytes: float


class _BlockQuery(NamedTuple):
    sql: str
    values: list[int]


def _block_query(tiers: Sequence[StoredTier], start: int, end: int) -> _BlockQuery:
    """The query for all blocks of the coarsest of *tiers*, and those of finer tiers that are not rolled up yet."""
    marks = [*(tier.rolled for tier in tiers[1:]), 0]
    each = (
        f"SELECT start, length, {BODY} AS body FROM blocks "  # noqa: S608
        f"WHERE step = ? AND id > ? AND start >= ? AND start < ? AND {SOUND}"
    )
    values = [value for tier, mark in zip(tiers, marks, strict=True) for value in (tier.step, mark, start, end)]
    return _BlockQuery(" UNION ALL ".join([each] * len(tiers)), values)


def _used(arrays: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([np.zeros(0, np.int64), *arrays]))


def _places(among: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The index in *among* of each of *numbers*. *among* must ascend and contain all of *numbers*."""
    return np.searchsorted(among, numbers).astype(np.int64)


# -- words --------------------------------------------------------------------------------------------------------


def _not_kept(tiers: Sequence[StoredTier], fitting: Sequence[StoredTier], start: int, step: int) -> str:
    """Why no tier can answer a query, and what to ask for instead."""
    if not fitting:
        steps = ", ".join(str(tier.step) for tier in tiers)
        return f"has steps of {steps} s; a step of {step} s is no multiple of any; ask for a multiple of one"
    kept = "; ".join(f"steps of {tier.step} s from {_when(tier.since)} on" for tier in tiers if tier.since)
    reaching = next((tier for tier in tiers if tier.reaches(start)), None)
    remedy = (
        f"ask for a step of {reaching.step} s"
        if reaching
        else f"ask for a start of {_when(tiers[-1].since)} or later, in steps of {tiers[-1].step} s"
    )
    return f"steps of {step} s are not kept from {_when(start)} on; kept: {kept}; {remedy}"


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- opening ------------------------------------------------------------------------------------------------------


def _open(path: Path, stack: ExitStack) -> sqlite3.Connection:
    """A connection that can read *path*. Leaving *stack* closes it."""
    real = resolved(path)
    if real.is_dir():
        raise ConfigError(f"{path}: is a directory; name the file in it")
    if not real.is_file():
        raise ConfigError(f"{path}: there is no such file; a monitor with a history creates it")
    check_beside(real, ours=False)
    connection = connected_for_reading(real, HISTORY, stack)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, BODY_LIMIT + 4096)
    return connection
