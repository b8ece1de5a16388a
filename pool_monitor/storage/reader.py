"""Reading a history, whoever wrote it: a process that runs, that ended, or that was killed."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from pool_monitor.errors import ConfigError
from pool_monitor.metrics.recorded import Names, Part, Recorded
from pool_monitor.storage.schema import BUSY_S, check_current, check_header, reason, transaction
from pool_monitor.storage.store import Slot, breathe, unpacked

if TYPE_CHECKING:
    from types import TracebackType

BLOCKS_LIMIT = 4000
"""Most blocks that are read for one answer."""
BYTES_LIMIT = 64 * 2**20
"""Most bytes that are read for one answer. In memory it is about three times as much."""
_NAMES_AT_ONCE = 500  # an SQLite built long ago takes no more than 999 values

_ENDS = "SELECT start, start + length FROM blocks WHERE step = ? ORDER BY start"

T = TypeVar("T")


class Kept(NamedTuple):
    """A tier of a file."""

    step: int
    retention: int
    rolled: int
    """The last block of the next finer tier that is rolled up into this one."""
    since: int
    """From when on it has all that was recorded, seconds since the epoch; 0: nothing was ever deleted."""


class Reader:
    """A history, open for reading. Blocks on the disk. Use it in one thread, and close it; it is a context manager.

    A file of a process that runs can be read at any time, without either waiting for the other. What a killed
    process left in its log is read too. Nothing in the file is changed; where the directory can be written to,
    SQLite may leave an empty log and its index beside the file.

    Raises ConfigError, also from every method, for a file that cannot be read, is none of ours, or too new.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.damaged = 0
        """Blocks that were left out of answers because they could not be read."""
        with ExitStack() as stack, self._said():
            self._connection = _open(self._path, stack)
            self._stack = stack.pop_all()

    def read(self, start: int, end: int, step: int) -> Recorded:
        """What was counted in slots that begin from *start* on, before *end*, to be added up in steps of *step* s.

        Slots are at most *step* long: those of the coarsest tier in which start, end and steps fall on borders of
        slots, else of the finest that reaches back to *start*, and that is not too much to read. What of the finer
        tiers is not rolled up yet is among them, so nothing up to the last flush is left out, or there twice.

        Raises ConfigError when nothing so fine reaches back to *start*, and for more than `BLOCKS_LIMIT` blocks or
        `BYTES_LIMIT` bytes. Times are seconds since the epoch.
        """
        if not (start < end and step >= 1):
            raise ConfigError(f"read({start}, {end}, {step}): needs an end after the start, and a step of at least 1 s")
        with self._said(), transaction(self._connection, "DEFERRED"):
            selected = self._selected(start, end, step)
            return self._recorded(selected)

    def extent(self) -> tuple[int, int] | None:
        """When the first slot that is left begins and the last one ends, or None when there is none."""
        with self._said(), transaction(self._connection, "DEFERRED"):
            ends = [
                self._connection.execute(f"{_ENDS} {order} LIMIT 1", (tier.step,)).fetchone()
                for tier in self._tiers()
                for order in ("ASC", "DESC")
            ]
        found = [row for row in ends if row is not None]
        return (min(row[0] for row in found), max(row[1] for row in found)) if found else None

    def pools(self) -> tuple[str, ...]:
        """The pools there are numbers of."""
        with self._said():
            found = self._connection.execute("SELECT DISTINCT pool FROM names ORDER BY pool").fetchall()
        return tuple(name for (name,) in found)

    def tiers(self) -> list[Kept]:
        """What is kept, the finest first."""
        with self._said():
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
    def _said(self) -> Iterator[None]:
        """What SQLite or the system says, as an error of ours."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(reason(self._path, error)) from error

    # -- choosing -------------------------------------------------------------------------------------------------

    def _tiers(self) -> list[Kept]:
        return [
            Kept(*row)
            for row in self._connection.execute("SELECT step, retention, rolled, gone FROM tiers ORDER BY step")
        ]

    def _selected(self, start: int, end: int, step: int) -> _Selection:
        """The blocks to answer with."""
        tiers = self._tiers()
        fitting = [tier for tier in tiers if step % tier.step == 0]
        covering = [tier for tier in fitting if tier.since <= start]
        if not covering:
            raise ConfigError(f"{self._path}: {_not_kept(tiers, fitting, start, step)}")
        exact = [tier for tier in reversed(covering) if start % tier.step == 0 == end % tier.step]
        sizes = []
        for tier in (*exact, *covering):
            selection = _selection(tiers[: tiers.index(tier) + 1], start, end)
            counted = f"SELECT count(*), total(length(body)) FROM ({selection.sql})"  # noqa: S608 - no names in it
            [blocks, size] = self._connection.execute(counted, selection.values).fetchone()
            if blocks <= BLOCKS_LIMIT and size <= BYTES_LIMIT:
                return selection
            sizes.append((blocks, size))
        blocks, size = min(sizes)
        raise ConfigError(
            f"{self._path}: from {_when(start)} to {_when(end)} in steps of {step} s it is {blocks:,} blocks with "
            f"{size / 2**20:,.0f} MiB, more than the {BLOCKS_LIMIT:,} blocks or {BYTES_LIMIT // 2**20} MiB that are "
            "read at once; ask for a larger step or for less time"
        )

    # -- reading --------------------------------------------------------------------------------------------------

    def _recorded(self, selection: _Selection) -> Recorded:
        parts: list[Part] = []
        for start, length, body in self._connection.execute(selection.sql, selection.values):
            try:
                parts.append(Part(start, length, unpacked(body)))
            except ValueError:
                self.damaged += 1
            breathe()
        # Numbers of a file have gaps, and whoever answers has arrays as long as there are numbers.
        rows = _used(part.block.rows for part in parts)
        pools = _used(part.block.pools for part in parts)
        keys = self._keys([*rows.tolist(), *pools.tolist()])
        names = Names(
            tuple((pool, operation or "", worker) for pool, operation, worker in map(keys.__getitem__, rows.tolist())),
            tuple(keys[number][0] for number in pools.tolist()),
        )
        places = _places(rows), _places(pools)
        return Recorded(names, [part._replace(block=part.block.renumbered(*places)) for part in parts])

    def _keys(self, numbers: Sequence[int]) -> dict[int, tuple[str, str | None, str | None]]:
        found: dict[int, tuple[str, str | None, str | None]] = {}
        for at in range(0, len(numbers), _NAMES_AT_ONCE):
            some = numbers[at : at + _NAMES_AT_ONCE]
            named = f"SELECT id, pool, operation, worker FROM names WHERE id IN ({', '.join('?' * len(some))})"  # noqa: S608
            found |= {
                number: (pool, operation, worker)
                for number, pool, operation, worker in self._connection.execute(named, some)
            }
        if len(found) < len(set(numbers)):
            raise sqlite3.DatabaseError("it is damaged: names are missing")
        return found


class _Selection(NamedTuple):
    sql: str
    values: list[int]


def _selection(tiers: Sequence[Kept], start: int, end: int) -> _Selection:
    """The blocks of the coarsest of *tiers*, and of each finer one those not rolled up into the next."""
    marks = [*(tier.rolled for tier in tiers[1:]), 0]
    each = "SELECT start, length, body FROM blocks WHERE step = ? AND id > ? AND start >= ? AND start < ?"
    values = [value for tier, mark in zip(tiers, marks, strict=True) for value in (tier.step, mark, start, end)]
    return _Selection(" UNION ALL ".join([each] * len(tiers)), values)


def joined(recorded: Recorded, slots: Iterable[Slot]) -> Recorded:
    """*recorded*, and with it *slots* that are not in the file."""
    rows = {key: number for number, key in enumerate(recorded.names.rows)}
    pools = {key: number for number, key in enumerate(recorded.names.pools)}
    parts = list(recorded.parts)
    for start, length, block, names in slots:
        numbers = _numbers(names.rows, block.rows, rows), _numbers(names.pools, block.pools, pools)
        parts.append(Part(start, length, block.renumbered(*numbers)))
    return Recorded(Names(tuple(rows), tuple(pools)), parts)


def _numbers(keys: Sequence[T], used: NDArray[np.int64], known: dict[T, int]) -> NDArray[np.int64]:
    """The numbers of the *keys* that are *used*; those not yet *known* get the next ones."""
    numbers = np.zeros(len(keys), np.int64)
    numbers[used] = [known.setdefault(keys[number], len(known)) for number in used.tolist()]
    return numbers


def _used(arrays: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([np.zeros(0, np.int64), *arrays]))


def _places(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of every number: its place among *numbers*."""
    places = np.zeros(int(numbers.max(initial=0)) + 1, np.int64)
    places[numbers] = np.arange(len(numbers))
    return places


# -- words --------------------------------------------------------------------------------------------------------


def _not_kept(tiers: Sequence[Kept], fitting: Sequence[Kept], start: int, step: int) -> str:
    """Why there is nothing for a question, and for which there would be."""
    if not fitting:
        steps = ", ".join(str(tier.step) for tier in tiers)
        return f"has slots of {steps} s, and none of them goes into a step of {step} s; ask for a multiple of one"
    kept = "; ".join(f"slots of {tier.step} s from {_when(tier.since)} on" for tier in tiers if tier.since)
    reaching = next((tier for tier in tiers if tier.since <= start), None)
    remedy = (
        f"ask for a step of {reaching.step} s"
        if reaching
        else f"ask for what begins at {_when(tiers[-1].since)} or later, in steps of {tiers[-1].step} s"
    )
    return f"nothing in steps of {step} s is kept from {_when(start)}; there are {kept}; {remedy}"


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- opening ------------------------------------------------------------------------------------------------------


def _open(path: Path, stack: ExitStack) -> sqlite3.Connection:
    """A connection that can read *path*, which *stack* closes."""
    if path.is_dir():
        raise ConfigError(f"{path}: is a directory; name the file in it")
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file; a monitor with a history makes it")
    check_header(path)
    connection = _connection(path, stack)
    check_current(connection, path)
    return connection


def _connection(path: Path, stack: ExitStack) -> sqlite3.Connection:
    try:
        return _reading(path, "mode=ro", stack)
    except sqlite3.OperationalError as error:
        # A log is read by way of an index beside it, which cannot be made where the directory cannot be written to.
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
    log = path.with_name(path.name + "-wal")
    if not log.exists():  # so nobody has it open for writing, and it is all there
        return _reading(path, "immutable=1", stack)
    directory = Path(stack.enter_context(TemporaryDirectory(prefix="pool-monitor-")))
    for file in (path, log):
        shutil.copyfile(file, directory / file.name)
    return _reading(directory / path.name, "mode=ro", stack)


def _reading(path: Path, how: str, stack: ExitStack) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    stack.callback(connection.close)
    return connection
