"""Write the file of a history. Every method is one transaction. There are no tasks here, and callers pass the time.

Theory of operation
-------------------
A row of ``blocks`` holds all series of one step of one tier: a transaction of one row costs a tenth of a millisecond,
one of two thousand rows ten milliseconds. New blocks go to the finest tier. Each coarser tier is made from the next
finer one, and only by *rolling up*: the finer blocks after the last one that was rolled up form runs, each within one
coarse step. Each run except the newest is merged into one block, and the mark of the coarser tier advances, in the same
transaction. So the content of a tier depends on the file alone. Wherever a process is killed, the next process
continues from the mark, and nothing is counted twice or left out.

Therefore every count that has not expired is found exactly once in *a tier, plus the blocks of finer tiers that are not
rolled up into it yet*. `pool_monitor.storage.reader` reads the file in this way.

Blocks have times of the wall clock, and are stored in the order of writing. When the clock is set back, a step can get
a second block: it is a separate row, and the two add up when they are read.

The wall clock alone never decides what a tier deletes, because a wrong reading would delete everything. A block is
deleted when two conditions hold: it ended longer ago than the retention of its tier, and its tier has more steps than
the retention has room for. Blocks that were written first are deleted first. So

- a clock that is ahead, by any amount and for any time, deletes one old block for each new one, as at other times;
- after a pause of days, the blocks from before the pause stay, and are deleted one by one as new blocks come;
- a clock that is behind deletes nothing; blocks in its future stay, and do not count as steps until their time comes;
- blocks that a wrong clock put into the future stay until the size limit deletes them, in the order of writing.

The size limit depends on the order of writing, not on a clock.

All of this runs in a thread beside the event loop. Between two pieces of work it yields the interpreter (`yield_gil`),
so that the loop never waits for longer than one piece.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from pool_monitor.config import HistoryConfig, Tier
from pool_monitor.errors import ConfigError
from pool_monitor.metrics.block import HIGHEST_NUMBER, ROOM_LIMIT, Block, merge
from pool_monitor.storage.block_encoding import packed, unpacked
from pool_monitor.storage.error_groups import ErrorGroupTables
from pool_monitor.storage.evaluations import EvaluationTables, PendingEvaluation
from pool_monitor.storage.files import disk_space, log_of
from pool_monitor.storage.gauges import GaugeTable, PendingGauges
from pool_monitor.storage.owned_file import OwnedFile
from pool_monitor.storage.pending import PendingBlock
from pool_monitor.storage.schema import BODY, HISTORY, SOUND, log_limit, open_for_writing
from pool_monitor.storage.sqlite_file import (
    DAMAGED,
    connected,
    int_pragma,
    pragma,
    time_limited,
    transaction,
    yield_gil,
)

Pending: TypeAlias = PendingBlock | PendingGauges | PendingEvaluation
"""What may wait to be written."""

ROLLED_AT_ONCE = 128
"""Most blocks of a tier that one `Store.tidy` rolls up."""
DELETED_AT_ONCE = 64
"""Most blocks of a tier that one `Store.tidy` deletes. A file in which all has expired is cleared within an hour."""
ROLL_MAX_S = 5.0
"""Longest time that one `Store.tidy` rolls up; the next one continues. Only crafted blocks take that long."""
MERGED_AT_ONCE = 8
NAMES_CACHED = 20_000
"""Most numbers of names in memory. The cache is emptied when it is full."""
HOUR = 3600
_ALL = 2**63 - 1

NameKey: TypeAlias = tuple[str, str | None, str | None]
"""Pool, operation, worker; a pool itself has no operation."""


class FileUsage(NamedTuple):
    """The size of a file."""

    file_bytes: int
    """Bytes of the file and its log."""
    blocks: dict[int, int]
    """Blocks by the step of their tier."""
    disk_free: int | None
    """Bytes that this user may still write on the disk; None: the system does not say."""
    disk_total: int | None
    """Size of the disk in bytes."""


class Store:
    """The file, open for writing by this process alone. After any error, close the store and open a new one.

    Raises ConfigError for a file that must not be written, and sqlite3.Error and OSError for failures. Bound: the file
    and its log stay below ``size_limit``, except for what one transaction adds to the log.
    """

    def __init__(self, path: Path, config: HistoryConfig) -> None:
        self._config, self._tiers = config, config.tiers
        self._blocks: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        with ExitStack() as stack:
            self._file = stack.enter_context(closing(OwnedFile(path, HISTORY)))
            self._path = self._file.path
            self.connection = stack.enter_context(closing(open_for_writing(self._path, config)))
            with time_limited(self.connection):
                self._errors = ErrorGroupTables(self.connection, config)
                for step, _retention in self._tiers:
                    counted = "SELECT count(*), total(length(body)) FROM blocks WHERE step = ?"
                    [[self._blocks[step], size]] = self._rows(counted, (step,))
                    self._bytes[step] = int(size)
                self._gauges = GaugeTable(self.connection, config, self._make_room)
                self._evaluations = EvaluationTables(self.connection, config, self._make_room)
            self._note_sizes()
            self._open = stack.pop_all()
        self._page = int_pragma(self.connection, "page_size")
        self._cached_numbers: dict[NameKey, int] = {}
        self._cached_hour = 0
        self._forgot_hour = 0
        self._overdue = True
        self._damaged = 0

    @property
    def damaged(self) -> int:
        """Blocks that could not be read when they were to be rolled up."""
        return self._damaged + self._gauges.damaged

    def close(self) -> None:
        self._open.close()

    def write(self, blocks: Sequence[Pending], now: int) -> None:
        """Add *blocks* to the finest tier, in the given order, and the failures in them to the error groups. Also add
        evaluations.
        """
        self._check_files()
        self._check_log()
        finest = self._tiers[0].step
        with time_limited(self.connection), transaction(self.connection):
            for pending in blocks:
                if isinstance(pending, PendingGauges):
                    self._gauges.write(pending, now)
                elif isinstance(pending, PendingEvaluation):
                    self._evaluations.write(pending, now)
                else:
                    self._errors.add(pending.start, pending.errors)
                    self._insert(finest, pending.start, pending.length, self._numbered(pending), now)
                yield_gil()
        self._note_sizes()

    def tidy(self, now: int) -> None:
        """Do a bounded part of: roll up complete runs, delete expired blocks, release free pages of the file."""
        self._due = time.monotonic() + ROLL_MAX_S
        with time_limited(self.connection), transaction(self.connection):
            rolled = [self._roll_up(finer, coarser, now) for finer, coarser in pairwise(self._tiers)]
            if any(rolled) or self._overdue:
                self._overdue = self._expire(now)
            self._errors.tidy(now)
            self._gauges.tidy(now)
            if now // HOUR != self._forgot_hour:
                self._forgot_hour = now // HOUR
                self._forget_names()
        free, pages = int_pragma(self.connection, "freelist_count"), int_pragma(self.connection, "page_count")
        full = pages * self._page > self._config.size_limit - log_limit(self._config)
        if free > max(pages // 4, 256) or (free and full):
            # As a script: a statement would stop after one page, because SQLite returns a row for each page.
            self.connection.executescript("PRAGMA incremental_vacuum(256)")
        self._note_sizes()

    def usage(self) -> FileUsage:
        # The file does not yet show pages that are only in the log, or that the log truncates.
        size = max(int_pragma(self.connection, "page_count") * self._page, self._path.stat().st_size)
        free, total = disk_space(self._path)
        blocks = {tier.step: self._blocks[tier.step] for tier in self._tiers}
        return FileUsage(size + self._log_bytes(), blocks, free, total)

    # -- rolling up -----------------------------------------------------------------------------------------------

    def _roll_up(self, finer: Tier, coarser: Tier, now: int) -> bool:
        """Roll up all complete runs of *finer* into *coarser*. Returns whether there were any."""
        waiting = self._rows(
            f"SELECT id, start FROM blocks WHERE step = ? AND id > ? AND {SOUND} ORDER BY id LIMIT ?",  # noqa: S608
            (finer.step, self._rolled(coarser), ROLLED_AT_ONCE),
        )
        runs = [
            (start, [number for number, _start in run])
            for start, run in groupby(waiting, lambda row: row[1] // coarser.step * coarser.step)
        ]
        if len(waiting) < ROLLED_AT_ONCE:  # else the newest run may be cut in two, and both parts add up
            runs = runs[:-1]
        for start, numbers in runs:
            for last, block in self._merged(numbers):
                if block is not None:
                    self._insert(coarser.step, start, coarser.step, block, now)
                self._execute("UPDATE tiers SET rolled = ? WHERE step = ?", (last, coarser.step))
            if time.monotonic() > self._due:
                break
        return bool(runs)

    def _rolled(self, coarser: Tier) -> int:
        [[rolled]] = self._rows("SELECT rolled FROM tiers WHERE step = ?", (coarser.step,))
        return int(rolled)

    def _merged(self, numbers: Sequence[int]) -> Iterator[tuple[int, Block | None]]:
        """Merge the blocks of *numbers*. Yields the last number merged, and the block (None if none can be read).

        Yields several blocks when a single one would exceed `ROOM_LIMIT`. Ends early when the time is up.
        """
        merged: list[Block] = []
        last = 0
        for number in numbers:
            block = self._block(number)
            if block is not None:
                if sum(part.room for part in merged) + block.room > ROOM_LIMIT:
                    yield last, merge(merged, yield_gil)
                    merged = []
                merged.append(block)
            if len(merged) > MERGED_AT_ONCE:
                merged = [merge(merged, yield_gil)]
            yield_gil()
            last = number
            if time.monotonic() > self._due:
                break
        yield last, merge(merged, yield_gil) if merged else None

    def _block(self, number: int) -> Block | None:
        """The block with this *number*; None when it cannot be read."""
        row = self.connection.execute(f"SELECT {BODY} FROM blocks WHERE id = ?", (number,)).fetchone()  # noqa: S608
        try:
            return unpacked(row and row[0])
        except ValueError:
            self._damaged += 1
            return None

    # -- bounds ---------------------------------------------------------------------------------------------------

    def _expire(self, now: int) -> bool:
        """Delete expired blocks of every tier. Returns whether there may be more."""
        counts = []
        for tier, rolled in self._tiers_with_marks():
            expired = self._rows(
                "SELECT id, start + length, length(body) FROM blocks "  # noqa: S608
                f"WHERE step = ? AND id <= ? AND start + length <= ? AND {SOUND} ORDER BY id LIMIT ?",
                (tier.step, rolled, now - tier.retention, min(self._surplus(tier, now), DELETED_AT_ONCE)),
            )
            self._delete(tier, expired, now)
            counts.append(len(expired))
        return DELETED_AT_ONCE in counts

    def _surplus(self, tier: Tier, now: int) -> int:
        """How many past steps *tier* has beyond those that its retention has room for."""
        kept = tier.retention // tier.step
        if self._blocks[tier.step] <= kept:
            return 0
        counted = "SELECT count(DISTINCT start) FROM blocks WHERE step = ? AND start < ?"
        [[steps]] = self._rows(counted, (tier.step, now))
        return max(int(steps) - kept, 0)

    def _make_room(self, size: int, now: int) -> None:
        """Delete the oldest blocks of the largest tier until *size* more bytes fit into the size limit."""
        for _turn in range(4):
            used = int_pragma(self.connection, "page_count") - int_pragma(self.connection, "freelist_count")
            log = max(self._log_bytes(), log_limit(self._config))
            missing = used * self._page + log + size - self._config.size_limit
            if missing <= 0:
                return
            by_size = sorted(self._tiers_with_marks(), key=lambda found: -self._bytes[found[0].step])
            # Blocks that are not rolled up yet are in no other tier, so delete them last.
            for tier, rolled in (*by_size, *((tier, _ALL) for tier, _rolled in by_size)):
                oldest = self._rows(
                    "SELECT id, start + length, length(body) FROM blocks "
                    "WHERE step = ? AND id <= ? ORDER BY id LIMIT ?",
                    (tier.step, rolled, DELETED_AT_ONCE),
                )
                if oldest:
                    break
            freed = 0
            for count, (_number, _end, length) in enumerate(oldest, 1):
                freed += length
                if freed >= missing:
                    oldest = oldest[:count]
                    break
            self._delete(tier, oldest, now)

    def _tiers_with_marks(self) -> list[tuple[Tier, int]]:
        """Each tier, and the id of its last block that is rolled up into the next tier."""
        return list(zip(self._tiers, [*map(self._rolled, self._tiers[1:]), _ALL], strict=True))

    def _delete(self, tier: Tier, blocks: Sequence[tuple[int, int, int]], now: int) -> None:
        """Delete *blocks* (number, end, size) of *tier*, and store up to when the tier is now incomplete."""
        self.connection.executemany("DELETE FROM blocks WHERE id = ?", [(block[0],) for block in blocks])
        self._blocks[tier.step] -= len(blocks)
        self._bytes[tier.step] -= sum(size for _number, _end, size in blocks)
        # Blocks from a clock that was ahead must not make everything written later look incomplete.
        ends = [end for _number, end, _size in blocks if end <= now]
        if ends:
            self._execute("UPDATE tiers SET gone = max(gone, ?) WHERE step = ?", (max(ends), tier.step))

    def _check_files(self) -> None:
        """Raise OSError when another program has replaced the file, or truncated it or its log.

        SQLite itself would notice only when it needs the missing pages, after writing more behind the gap.
        """
        found = self._file.check()
        if found.st_size < self._sizes[0] or (self._log_bytes() < self._sizes[1] and not self._has_everything()):
            raise OSError("another program has truncated the file or its log; blocks may be lost")

    def _has_everything(self) -> bool:
        """Whether the file is complete although its log is shorter: another program may have moved the log into it.

        Checked on a separate connection, because ours caches pages.
        """
        try:
            with (
                closing(connected(self._path, f"{self._path.as_uri()}?mode=ro", HISTORY, uri=True)) as other,
                time_limited(other),
            ):
                return pragma(other, "quick_check(1)") == "ok"
        except (sqlite3.DatabaseError, ConfigError):
            return False

    def _note_sizes(self) -> None:
        self._sizes = self._path.stat().st_size, self._log_bytes()

    def _check_log(self) -> None:
        """Raise OSError when the log has outgrown `log_limit` and cannot be moved into the file."""
        if self._log_bytes() > log_limit(self._config):
            pragma(self.connection, "wal_checkpoint(TRUNCATE)")
            if self._log_bytes() > log_limit(self._config):
                raise OSError("a program that reads the file blocks the clearing of its log; end that program")

    def _log_bytes(self) -> int:
        try:
            return log_of(self._path).stat().st_size
        except FileNotFoundError:
            return 0

    def _insert(self, step: int, start: int, length: int, block: Block, now: int) -> None:
        body = packed(block)
        self._make_room(len(body), now)
        self._execute("INSERT INTO blocks (step, start, length, body) VALUES (?, ?, ?, ?)", (step, start, length, body))
        self._blocks[step] += 1
        self._bytes[step] += len(body)

    # -- names ----------------------------------------------------------------------------------------------------

    def _numbered(self, pending: PendingBlock) -> Block:
        """The block of *pending*, renumbered as its names are numbered in the file."""
        block, names = pending.block, pending.names
        if self._cached_hour != pending.start // HOUR or len(self._cached_numbers) > NAMES_CACHED:
            self._cached_numbers.clear()  # so that the hour of last use is stored for every name, once an hour
            self._cached_hour = pending.start // HOUR
        rows, pools = np.zeros(len(names.rows), np.int64), np.zeros(len(names.pools), np.int64)
        rows[block.rows] = self._numbers([names.rows[row] for row in block.rows.tolist()], pending.start)
        pool_keys = [(names.pools[pool], None, None) for pool in block.pools.tolist()]
        pools[block.pools] = self._numbers(pool_keys, pending.start)
        return block.renumbered(partial(np.take, rows), partial(np.take, pools))

    def _numbers(self, keys: Sequence[NameKey], start: int) -> list[int]:
        cached = self._cached_numbers
        for key in keys:
            if key not in cached:
                cached[key] = self._name_number(key, start)
        return [cached[key] for key in keys]

    def _name_number(self, key: NameKey, start: int) -> int:
        # A lone surrogate has no UTF-8 form and cannot be stored.
        values = tuple(part and part.encode("utf-8", "backslashreplace").decode() for part in key)
        found = self._rows("SELECT id FROM names WHERE pool = ? AND operation IS ? AND worker IS ? LIMIT 1", values)
        if found:
            number = int(found[0][0])
            self._execute("UPDATE names SET seen = max(seen, ?) WHERE id = ?", (start, number))
        else:
            insert = "INSERT INTO names (pool, operation, worker, seen) VALUES (?, ?, ?, ?)"
            added = self._execute(insert, (*values, start))
            assert added.lastrowid is not None
            number = added.lastrowid
        if not 0 <= number < HIGHEST_NUMBER:
            raise sqlite3.DatabaseError(DAMAGED)
        return number

    def _forget_names(self) -> None:
        """Delete the names that no block uses: those last used over an hour before the oldest block begins."""
        first = f"SELECT start FROM blocks WHERE step = ? AND {SOUND} ORDER BY start LIMIT 1"  # noqa: S608
        found = [start for tier in self._tiers for (start,) in self._rows(first, (tier.step,))]
        if found:
            self._execute("DELETE FROM names WHERE seen < ?", (min(found) - HOUR,))
            self._cached_numbers.clear()

    # -- SQL ------------------------------------------------------------------------------------------------------

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        return self.connection.execute(sql, values).fetchall()

    def _execute(self, sql: str, values: Sequence[object]) -> sqlite3.Cursor:
        return self.connection.execute(sql, values)
