"""The error groups in the file of a history: what each group is, and how often it happened in each step.

A count is added to every tier at once, within the transaction that writes the blocks of the same second. Nothing is
rolled up. Tiers with steps below `FINEST_S` have no counts of groups, unless the file has no other tiers: a report
names errors of minutes, not of seconds.

As with blocks, the wall clock alone never decides what is deleted: see `pool_monitor.storage.store`.

Bounds: `groups_limit` groups, and `counts_limit` counts; both follow from the size limit of the file. When there are
too many groups, the counts of the one that was seen longest ago are added to the group ``other`` of its pool. The
groups ``other`` may exceed the limit, one for each pool, as long as they have counts. When there are too many counts,
the oldest of the finest tier are deleted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from pool_monitor.config import HistoryConfig, Tier
from pool_monitor.metrics.error_groups import OTHER, SAMPLE_BYTES, GroupCount, other_group
from pool_monitor.snapshot import ErrorGroup, ErrorSample
from pool_monitor.storage.schema import TIME_LIMIT

FINEST_S = 10
GROUP_ROOM = SAMPLE_BYTES + 4096
"""Upper estimate of the bytes of a group in the file."""
COUNT_ROOM = 64
"""Upper estimate of the bytes of a count in the file."""
_SHARE = 16
"""Groups take at most one part in this many of the size limit, and so do counts."""
_CHECK_S = 60
_DELETED_AT_ONCE = 4096
_TEXT_MAX = 16 * 1024
"""Most bytes of a text column that is read."""
_COUNT_MAX = 2**53
_GROUPS_READ = 20_000

_TEXTS = ("pool", "fingerprint", "type", "message", "frames", "operations", "workers")
_SOUND = " AND ".join(
    [
        *(f"typeof({column}) = 'text' AND length(CAST({column} AS BLOB)) <= {_TEXT_MAX}" for column in _TEXTS),
        f"typeof(total) = 'integer' AND total BETWEEN 0 AND {_COUNT_MAX}",
        *(
            f"typeof({at}) = 'real' AND {at} BETWEEN {-TIME_LIMIT} AND {TIME_LIMIT}"
            for at in ("first_seen", "last_seen")
        ),
        f"(sample IS NULL OR typeof(sample) = 'blob' AND length(sample) <= {2 * SAMPLE_BYTES})",
    ]
)
"""The SQL condition for a usable group. It checks types, because an SQLite column holds values of any type."""
_COLUMNS = ", ".join((*_TEXTS, "total", "first_seen", "last_seen", "sample"))
_COUNT = f"CASE WHEN typeof(count) = 'integer' AND count BETWEEN 0 AND {_COUNT_MAX} THEN count ELSE 0 END"


def groups_limit(config: HistoryConfig) -> int:
    """Most groups in the file, except for a group ``other`` of each pool."""
    return max(32, min(4096, config.size_limit // _SHARE // GROUP_ROOM))


def counts_limit(config: HistoryConfig) -> int:
    """Most counts in the file, except for those of the last minute."""
    return max(4096, min(200_000, config.size_limit // _SHARE // COUNT_ROOM))


def counted_tiers(tiers: Sequence[Tier]) -> list[Tier]:
    """The tiers that have counts of groups."""
    return [tier for tier in tiers if tier.step >= FINEST_S] or list(tiers)


class ErrorGroupTables:
    """Writes the groups and their counts. Every method runs within a transaction of the caller, and blocks."""

    def __init__(self, connection: sqlite3.Connection, config: HistoryConfig) -> None:
        self._connection = connection
        self._tiers = counted_tiers(config.tiers)
        self._groups_limit, self._counts_limit = groups_limit(config), counts_limit(config)
        self._numbers: dict[tuple[str, str], int] = {}
        """The ids of groups that were written, by pool and fingerprint; at most as many as groups in the file."""
        self._groups: int = connection.execute("SELECT count(*) FROM error_groups").fetchone()[0]
        self._checked = 0

    def add(self, start: int, counts: Iterable[GroupCount]) -> None:
        """Add the failures of the second that began at *start*."""
        for pool, group in counts:
            number = self._number(_plain(pool), group)
            self._execute(
                "UPDATE error_groups SET total = total + ?, first_seen = min(first_seen, ?),"
                " last_seen = max(last_seen, ?), operations = ?, workers = ?, sample = coalesce(?, sample)"
                " WHERE id = ?",
                (
                    group.count, group.first_seen, group.last_seen, _json(group.operations), _json(group.workers),
                    _json(group.sample) if group.sample else None, number,
                ),
            )  # fmt: skip
            for tier in self._tiers:
                self._execute(
                    "INSERT INTO error_counts (error_group, step, start, count) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (error_group, step, start) DO UPDATE SET count = count + excluded.count",
                    (number, tier.step, start // tier.step * tier.step, group.count),
                )

    def tidy(self, now: int) -> None:
        """Once a minute, delete a bounded number of expired and surplus counts, and of groups ``other`` without any."""
        if abs(now - self._checked) < _CHECK_S:
            return
        self._checked = now
        for tier in self._tiers:
            kept = tier.retention // tier.step
            [[steps]] = self._rows(
                "SELECT count(DISTINCT start) FROM error_counts WHERE step = ? AND start < ?", (tier.step, now)
            )
            if steps > kept:
                self._delete(tier, min(steps - kept, _DELETED_AT_ONCE), now - tier.retention)
        for tier in self._tiers:
            [[counts]] = self._rows("SELECT count(*) FROM error_counts")
            if counts > self._counts_limit:
                self._delete(tier, _DELETED_AT_ONCE, 2**62, rows=counts - self._counts_limit)
        if self._groups > self._groups_limit:
            self._forget_others()

    def _delete(self, tier: Tier, steps: int, before: int, rows: int = 2**62) -> None:
        """Delete the counts of the oldest *steps* of *tier* that ended by *before*, until *rows* are deleted."""
        found = self._rows(
            "SELECT start, count(*) FROM error_counts WHERE step = ? AND start + step <= ? GROUP BY start"
            " ORDER BY start LIMIT ?",
            (tier.step, before, steps),
        )
        last = None
        for start, size in found:
            if rows <= 0:
                break
            last, rows = start, rows - size
        if last is not None:
            self._execute("DELETE FROM error_counts WHERE step = ? AND start <= ?", (tier.step, last))
            self._execute(
                "INSERT INTO error_tiers (step, gone) VALUES (?, ?)"
                " ON CONFLICT (step) DO UPDATE SET gone = max(gone, excluded.gone)",
                (tier.step, last + tier.step),
            )

    # -- groups ---------------------------------------------------------------------------------------------------

    def _number(self, pool: str, group: ErrorGroup) -> int:
        """The id of *group*, which is added if the file does not have it."""
        key = pool, group.fingerprint
        number = self._numbers.get(key)
        if number is None:
            number = self._found(*key)
            if number is None:
                if self._groups >= self._groups_limit and group.fingerprint != OTHER:
                    self._merge_oldest()
                number = self._insert(pool, group)
            self._numbers[key] = number
        return number

    def _found(self, pool: str, fingerprint: str) -> int | None:
        found = self._rows("SELECT id FROM error_groups WHERE pool = ? AND fingerprint = ?", (pool, fingerprint))
        return int(found[0][0]) if found else None

    def _insert(self, pool: str, group: ErrorGroup) -> int:
        texts = (group.fingerprint, group.type, group.message, _json(group.frames), "[]", "[]")
        added = self._execute(
            f"INSERT INTO error_groups ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, NULL)",  # noqa: S608
            (pool, *texts, float(group.first_seen), float(group.last_seen)),
        )
        assert added.lastrowid is not None
        self._groups += 1
        return added.lastrowid

    def _merge_oldest(self) -> None:
        """Add the counts of the group that was seen longest ago to the group ``other`` of its pool, and delete it."""
        found = self._rows(
            "SELECT id, pool, fingerprint, total, first_seen, last_seen FROM error_groups WHERE fingerprint != ?"
            " ORDER BY last_seen LIMIT 1",
            (OTHER,),
        )
        for number, pool, fingerprint, total, first_seen, last_seen in found:
            other = self._number(pool, other_group(float(first_seen), float(last_seen)))
            self._execute(
                "INSERT INTO error_counts (error_group, step, start, count)"
                " SELECT ?, step, start, count FROM error_counts WHERE error_group = ?"
                " ON CONFLICT (error_group, step, start) DO UPDATE SET count = count + excluded.count",
                (other, number),
            )
            self._execute(
                "UPDATE error_groups SET total = total + ?, first_seen = min(first_seen, ?),"
                " last_seen = max(last_seen, ?) WHERE id = ?",
                (total, first_seen, last_seen, other),
            )
            self._execute("DELETE FROM error_counts WHERE error_group = ?", (number,))
            self._execute("DELETE FROM error_groups WHERE id = ?", (number,))
            self._numbers.pop((pool, fingerprint), None)
            self._groups -= 1

    def _forget_others(self) -> None:
        """Delete groups ``other`` without counts: those of pools that are gone would stay for ever."""
        found = self._rows(
            "SELECT id, pool FROM error_groups WHERE fingerprint = ? AND NOT EXISTS ("
            "SELECT 1 FROM error_counts WHERE error_group = error_groups.id) LIMIT ?",
            (OTHER, _DELETED_AT_ONCE),
        )
        for number, pool in found:
            self._execute("DELETE FROM error_groups WHERE id = ?", (number,))
            self._numbers.pop((pool, OTHER), None)
            self._groups -= 1

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        return self._connection.execute(sql, values).fetchall()

    def _execute(self, sql: str, values: Sequence[object]) -> sqlite3.Cursor:
        return self._connection.execute(sql, values)


# -- reading ----------------------------------------------------------------------------------------------------------


def read_groups(
    connection: sqlite3.Connection,
    start: int,
    end: int,
    pool: str | None = None,
    check: Callable[[], None] = lambda: None,
) -> tuple[int, int, dict[str, list[ErrorGroup]]]:
    """The groups of the failures from *start* to *end*, by pool, with their counts in that time.

    The times are rounded outwards to whole steps of the finest tier that reaches back to *start*, or of the coarsest
    one; the first two values returned are the rounded times. Groups and counts that cannot be read are left out.
    """
    step = _step_for(connection, start)
    first, last = start // step * step, -(-end // step) * step
    found: dict[str, list[ErrorGroup]] = {}
    rows = connection.execute(
        f"SELECT {_COLUMNS}, counted FROM error_groups JOIN ("  # noqa: S608
        f"SELECT error_group, total({_COUNT}) AS counted FROM error_counts"
        f" WHERE step = ? AND start >= ? AND start < ? GROUP BY error_group"
        f") ON error_group = error_groups.id WHERE {_SOUND} AND counted > 0 LIMIT ?",
        (step, first, last, _GROUPS_READ),
    )
    for *columns, counted in rows:
        check()
        try:
            name, group = _group_from(columns, int(counted))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if pool is None or name == pool:
            found.setdefault(name, []).append(group)
    return first, last, found


def with_pending(
    found: dict[str, list[ErrorGroup]], pending: Iterable[GroupCount], seconds: float, pool: str | None = None
) -> dict[str, tuple[ErrorGroup, ...]]:
    """*found*, what `read_groups` returned, with *pending* counts of the same time added, which are not in the file.
    The most frequent groups come first. Rates are those of *seconds*, the part of that time that was recorded.
    """
    groups = {(name, group.fingerprint): group for name, some in found.items() for group in some}
    for name, new in pending:
        if pool not in (None, name):
            continue
        old = groups.get((name, new.fingerprint))
        if old is None:
            groups[name, new.fingerprint] = replace(new, total=new.count)
            continue
        count = old.count + new.count
        groups[name, new.fingerprint] = replace(
            old,
            count=count,
            total=old.total + new.count,
            first_seen=min(old.first_seen, new.first_seen),
            last_seen=max(old.last_seen, new.last_seen),
            sample=new.sample or old.sample,
        )
    by_pool: dict[str, list[ErrorGroup]] = {}
    for (name, _fingerprint), group in groups.items():
        by_pool.setdefault(name, []).append(replace(group, rate=group.count / seconds if seconds > 0 else None))
    return {
        name: tuple(sorted(some, key=lambda group: (-group.count, -group.last_seen)))
        for name, some in sorted(by_pool.items())
    }


def first_seen(connection: sqlite3.Connection) -> dict[tuple[str, str], float]:
    """When each group in the file was first seen, by pool and fingerprint."""
    rows = connection.execute(
        f"SELECT pool, fingerprint, first_seen FROM error_groups WHERE {_SOUND} ORDER BY last_seen DESC LIMIT ?",  # noqa: S608
        (_GROUPS_READ,),
    )
    return {(pool, fingerprint): seen for pool, fingerprint, seen in rows}


def _step_for(connection: sqlite3.Connection, start: int) -> int:
    gone = {
        step: ended
        for step, ended in connection.execute("SELECT step, gone FROM error_tiers LIMIT 64")
        if type(step) is type(ended) is int
    }
    asked = "SELECT DISTINCT step FROM error_counts WHERE typeof(step) = 'integer' AND step > 0 ORDER BY step LIMIT 64"
    steps = [step for (step,) in connection.execute(asked)]
    return next((step for step in steps if gone.get(step, start) <= start), max(steps, default=1))


def _group_from(columns: Sequence[Any], count: int) -> tuple[str, ErrorGroup]:
    pool, fingerprint, kind, message, frames, operations, workers, total, first, last, sample = columns
    of_frames, of_operations, of_workers = (
        msgspec.json.decode(text, type=tuple[str, ...])[:8] for text in (frames, operations, workers)
    )
    return pool, ErrorGroup(
        fingerprint=fingerprint,
        type=kind,
        message=message,
        frames=of_frames,
        count=count,
        total=total,
        first_seen=first,
        last_seen=last,
        operations=of_operations,
        workers=of_workers,
        sample=None if sample is None else _sample_from(sample),
    )


def _sample_from(body: bytes) -> ErrorSample | None:
    sample = msgspec.json.decode(body, type=ErrorSample)
    return sample if abs(sample.at) <= TIME_LIMIT else None


def _json(value: object) -> str | bytes:
    encoded = msgspec.json.encode(value)
    return encoded if isinstance(value, ErrorSample) else encoded.decode()


def _plain(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
