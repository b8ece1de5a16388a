"""The gauges of resources in the file of a history: encoding, writing, rolling up, deleting, reading.

A row of ``gauges`` holds the readings of all subjects in one step of one tier, with their names. Tiers, retentions and
rolling up are those of the blocks of calls (`pool_monitor.storage.store`): each coarser tier is made from the next
finer one, up to a mark that advances in the same transaction. All gauges together take at most the size limit divided
by `SHARE`; the oldest of the largest tier are deleted first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import msgspec
import numpy as np

from pool_monitor.config import HistoryConfig, Tier
from pool_monitor.metrics.gauges import SUBJECTS_MAX, GaugeBlock, TimedGauges, merged
from pool_monitor.storage.block_encoding import deflated, inflated
from pool_monitor.storage.schema import BODY, SOUND, StoredTier
from pool_monitor.storage.sqlite_file import yield_gil

SHARE = 4
"""The gauges take at most the size limit divided by this."""
FIGURES_MAX = 64
NAME_MAX = 256
ROOM_MAX = 8 * 2**20
"""Most bytes of a body when it is expanded."""
ROLLED_AT_ONCE = 128
DELETED_AT_ONCE = 64
MERGED_AT_ONCE = 8
_VERSION = 1
_ALL = 2**63 - 1


class _Body(msgspec.Struct, array_like=True):
    version: int
    subjects: tuple[str, ...]
    figures: tuple[str, ...]
    counts: bytes
    means: bytes
    highs: bytes


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_Body).decode


class PendingGauges(NamedTuple):
    """Gauges that are to be written: those of *length* seconds from *start* on (wall clock)."""

    start: int
    length: int
    block: GaugeBlock

    @property
    def nbytes(self) -> int:
        return self.block.nbytes


def packed(block: GaugeBlock) -> bytes:
    """A block as it is stored in the file."""
    arrays = (
        block.counts.astype("<u4").tobytes(),
        block.means.astype("<f4").tobytes(),
        block.highs.astype("<f4").tobytes(),
    )
    return deflated(_encode(_Body(_VERSION, block.subjects, block.figures, *arrays)))


def unpacked(body: object) -> GaugeBlock:
    """The block that `packed` made *body* of. Raises ValueError for any other, which a crafted file may hold."""
    whole = inflated(body, ROOM_MAX)
    try:
        found = _decode(whole)
        counts, means, highs = (
            np.frombuffer(array, kind).reshape(len(found.subjects), len(found.figures))
            for array, kind in ((found.counts, "<u4"), (found.means, "<f4"), (found.highs, "<f4"))
        )
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"not a valid block of gauges: {error}") from error
    names = (*found.subjects, *found.figures)
    sound = (
        found.version == _VERSION
        and len(found.subjects) <= SUBJECTS_MAX
        and len(found.figures) <= FIGURES_MAX
        and all(0 < len(name) <= NAME_MAX for name in names)
        and len(set(found.subjects)) == len(found.subjects)
        and len(set(found.figures)) == len(found.figures)
        and bool(np.isfinite(means).all() and np.isfinite(highs).all())
    )
    if not sound:
        raise ValueError("not a valid block of gauges")
    return GaugeBlock(found.subjects, found.figures, counts, means, highs)


class GaugeTable:
    """The gauges in a file that is open for writing. Every method is a part of the caller's transaction.

    *make_room* is called with the bytes that are about to be added to the file, and the time. Raises sqlite3.Error.
    """

    def __init__(
        self, connection: sqlite3.Connection, config: HistoryConfig, make_room: Callable[[int, int], object]
    ) -> None:
        self._connection, self._tiers, self._make_room = connection, config.tiers, make_room
        self._limit = config.size_limit // SHARE
        self._rows: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        for tier in self._tiers:
            counted = "SELECT count(*), total(length(body)) FROM gauges WHERE step = ?"
            rows, size = connection.execute(counted, (tier.step,)).fetchone()
            self._rows[tier.step], self._bytes[tier.step] = rows, int(size)
        self.damaged = 0
        """Blocks that could not be read when they were to be rolled up."""

    def write(self, pending: PendingGauges, now: int) -> None:
        """Add to the finest tier."""
        self._insert(self._tiers[0].step, pending.start, pending.length, pending.block, now)

    def tidy(self, now: int) -> None:
        """Do a bounded part of: roll up complete runs, delete expired rows."""
        for finer, coarser in pairwise(self._tiers):
            self._roll_up(finer.step, coarser.step, now)
        for tier, mark in self._tiers_with_marks():
            surplus = self._rows[tier.step] - tier.retention // tier.step
            if surplus > 0:
                expired = self._connection.execute(
                    "SELECT id, length(body) FROM gauges "  # noqa: S608
                    f"WHERE step = ? AND id <= ? AND start + length <= ? AND {SOUND} ORDER BY id LIMIT ?",
                    (tier.step, mark, now - tier.retention, min(surplus, DELETED_AT_ONCE)),
                ).fetchall()
                self._delete(tier.step, expired)

    def _roll_up(self, finer: int, coarser: int, now: int) -> None:
        waiting = self._connection.execute(
            f"SELECT id, start FROM gauges WHERE step = ? AND id > ? AND {SOUND} ORDER BY id LIMIT ?",  # noqa: S608
            (finer, self._mark(coarser), ROLLED_AT_ONCE),
        ).fetchall()
        runs = [
            (start, [row[0] for row in run]) for start, run in groupby(waiting, lambda row: row[1] // coarser * coarser)
        ]
        if len(waiting) < ROLLED_AT_ONCE:  # else the newest run may be cut in two, and both parts add up
            runs = runs[:-1]
        for start, numbers in runs:
            block = self._merged(numbers)
            if block is not None:
                self._insert(coarser, start, coarser, block, now)
            self._connection.execute(
                "INSERT INTO gauge_marks (step, rolled) VALUES (?, ?) "
                "ON CONFLICT (step) DO UPDATE SET rolled = excluded.rolled",
                (coarser, numbers[-1]),
            )
            yield_gil()

    def _merged(self, numbers: Sequence[int]) -> GaugeBlock | None:
        """The rows of *numbers* as one block; None if none can be read. A row whose names do not fit is left out."""
        parts: list[GaugeBlock] = []
        subjects: set[str] = set()
        figures: set[str] = set()
        for number in numbers:
            block = self._block(number)
            if block is None:
                continue
            if len(subjects | {*block.subjects}) > SUBJECTS_MAX or len(figures | {*block.figures}) > FIGURES_MAX:
                self.damaged += 1
                continue
            subjects.update(block.subjects)
            figures.update(block.figures)
            parts.append(block)
            if len(parts) > MERGED_AT_ONCE:
                parts = [merged(parts)]
                yield_gil()
        return merged(parts) if parts else None

    def _block(self, number: int) -> GaugeBlock | None:
        row = self._connection.execute(f"SELECT {BODY} FROM gauges WHERE id = ?", (number,)).fetchone()  # noqa: S608
        try:
            return unpacked(row and row[0])
        except ValueError:
            self.damaged += 1
            return None

    def _mark(self, coarser: int) -> int:
        row = self._connection.execute("SELECT rolled FROM gauge_marks WHERE step = ?", (coarser,)).fetchone()
        return row[0] if row is not None and type(row[0]) is int else 0

    def _tiers_with_marks(self) -> list[tuple[Tier, int]]:
        """Each tier, and the id of its last row that is rolled up into the next tier."""
        marks = [*(self._mark(tier.step) for tier in self._tiers[1:]), _ALL]
        return list(zip(self._tiers, marks, strict=True))

    def _insert(self, step: int, start: int, length: int, block: GaugeBlock, now: int) -> None:
        body = packed(block)
        if len(body) > self._limit:
            return
        while sum(self._bytes.values()) + len(body) > self._limit:
            largest = max(self._bytes, key=lambda tier: self._bytes[tier])
            oldest = self._connection.execute(
                "SELECT id, length(body) FROM gauges WHERE step = ? ORDER BY id LIMIT ?", (largest, DELETED_AT_ONCE)
            ).fetchall()
            if not oldest:
                return
            self._delete(largest, oldest)
        self._make_room(len(body), now)
        self._connection.execute(
            "INSERT INTO gauges (step, start, length, body) VALUES (?, ?, ?, ?)", (step, start, length, body)
        )
        self._rows[step] += 1
        self._bytes[step] += len(body)

    def _delete(self, step: int, rows: Sequence[tuple[int, int]]) -> None:
        """Delete *rows* (number, size) of a tier."""
        self._connection.executemany("DELETE FROM gauges WHERE id = ?", [(number,) for number, _size in rows])
        self._rows[step] -= len(rows)
        self._bytes[step] -= sum(size or 0 for _number, size in rows)


class GaugeQuery(NamedTuple):
    """The rows of an answer."""

    sql: str
    values: list[int]


def gauge_query(
    connection: sqlite3.Connection, tiers: Sequence[StoredTier], start: int, end: int, step: int
) -> GaugeQuery | None:
    """The query for all gauges from *start* to *end* in the coarsest tier that *step* is a multiple of, and those of
    finer tiers that are not rolled up yet; None when there is no such tier.
    """
    fitting = [tier for tier in tiers if step % tier.step == 0]
    if not fitting:
        return None
    asked = (
        "SELECT step, rolled FROM gauge_marks WHERE typeof(step) = 'integer' AND typeof(rolled) = 'integer' LIMIT 64"
    )
    marks = dict(connection.execute(asked).fetchall())
    each = (
        f"SELECT start, length, {BODY} AS body FROM gauges "  # noqa: S608
        f"WHERE step = ? AND id > ? AND start >= ? AND start < ? AND {SOUND}"
    )
    rolled = [*(marks.get(tier.step, 0) for tier in fitting[1:]), 0]
    values = [value for tier, mark in zip(fitting, rolled, strict=True) for value in (tier.step, mark, start, end)]
    return GaugeQuery(" UNION ALL ".join([each] * len(fitting)), values)


def timed_gauges(rows: Iterator[tuple[int, int, object]], on_damaged: Callable[[], object]) -> Iterator[TimedGauges]:
    """The gauges of *rows*. *on_damaged* is called for each row that cannot be read."""
    for start, length, body in rows:
        yield_gil()
        try:
            yield TimedGauges(start, length, unpacked(body))
        except ValueError:
            on_damaged()
