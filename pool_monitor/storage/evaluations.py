"""The evaluations of alert rules in the file of a history: what each evaluation read, and which alerts changed.

The bodies are those of `pool_monitor.alerts.recording`. Here they are bytes. Rows are deleted in the order of writing,
by number and by size: no clock decides what is deleted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pool_monitor.config import HistoryConfig
from pool_monitor.storage.schema import BODY_LIMIT, TIME_LIMIT

EVALUATIONS_MAX = 20_000
"""Most evaluations in the file: a day at the default interval."""
TRANSITIONS_MAX = 50_000
"""Most changes of alerts in the file."""
SHARE = 8
"""Evaluations take at most the size limit divided by this, and so do changes of alerts."""
_DELETED_AT_ONCE = 64
_OVERHEAD = 64  # bytes of a row beside its body

_SOUND = (
    f"typeof(at) = 'real' AND at BETWEEN {-TIME_LIMIT} AND {TIME_LIMIT} "
    f"AND typeof(body) = 'blob' AND length(body) <= {BODY_LIMIT}"
)


class PendingEvaluation(NamedTuple):
    """One evaluation that is to be written, with the changes that followed from it."""

    at: float
    """Wall-clock time, seconds since the epoch."""
    body: bytes
    transitions: tuple[bytes, ...] = ()

    @property
    def nbytes(self) -> int:
        return _OVERHEAD + len(self.body) + sum(map(len, self.transitions))


class _Table:
    """The rows of one table: at most *most*, with at most *limit* bytes."""

    def __init__(self, connection: sqlite3.Connection, name: str, most: int, limit: int) -> None:
        self._connection, self._name, self._most, self._limit = connection, name, most, limit
        counted = f"SELECT count(*), total(length(body)) FROM {name}"  # noqa: S608
        rows, size = connection.execute(counted).fetchone()
        self._rows, self._bytes = rows, int(size)

    def insert(self, at: float, body: bytes) -> None:
        if len(body) > self._limit:
            return
        self._connection.execute(f"INSERT INTO {self._name} (at, body) VALUES (?, ?)", (at, body))  # noqa: S608
        self._rows += 1
        self._bytes += len(body)
        while self._rows > self._most or self._bytes > self._limit:
            oldest = self._connection.execute(
                f"SELECT id, length(body) FROM {self._name} ORDER BY id LIMIT ?",  # noqa: S608
                (_DELETED_AT_ONCE,),
            ).fetchall()
            self._connection.executemany(
                f"DELETE FROM {self._name} WHERE id = ?",  # noqa: S608
                [(number,) for number, _size in oldest],
            )
            self._rows -= len(oldest)
            self._bytes -= sum(size or 0 for _number, size in oldest)


class EvaluationTables:
    """The evaluations in a file that is open for writing. `write` is a part of the caller's transaction.

    *make_room* is called with the bytes that are about to be added to the file, and the time. Raises sqlite3.Error.
    """

    def __init__(
        self, connection: sqlite3.Connection, config: HistoryConfig, make_room: Callable[[int, int], object]
    ) -> None:
        limit = config.size_limit // SHARE
        self._evaluations = _Table(connection, "evaluations", EVALUATIONS_MAX, limit)
        self._transitions = _Table(connection, "transitions", TRANSITIONS_MAX, limit)
        self._make_room = make_room

    def write(self, pending: PendingEvaluation, now: int) -> None:
        self._make_room(pending.nbytes, now)
        self._evaluations.insert(pending.at, pending.body)
        for transition in pending.transitions:
            self._transitions.insert(pending.at, transition)


def read_evaluations(connection: sqlite3.Connection, after: int, until: float) -> Iterator[tuple[int, float, bytes]]:
    """The evaluations up to the time *until* in the order of writing: number, time and body. Those with a number up to
    *after* are left out.
    """
    return connection.execute(
        f"SELECT id, at, body FROM evaluations WHERE id > ? AND {_SOUND} AND at <= ? ORDER BY id",  # noqa: S608
        (after, until),
    )


def read_transitions(connection: sqlite3.Connection, start: float, end: float) -> Iterator[tuple[float, bytes]]:
    """The changes of alerts from *start* to before *end*, in the order of writing: time and body."""
    return connection.execute(
        f"SELECT at, body FROM transitions WHERE {_SOUND} AND at >= ? AND at < ? ORDER BY id LIMIT ?",  # noqa: S608
        (start, end, TRANSITIONS_MAX),
    )
