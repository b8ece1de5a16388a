"""The file of a saved state: its tables, and one transaction for each change of them. No tasks; runs in one thread.

The file is a small SQLite database in WAL mode, and each transaction is synced to the disk before it counts: when the
process is killed or the power fails, everything that `StateStore.write` has returned for is in the file.

Rows are bytes with a name. What they mean is the owner's affair, so the file knows nothing of alerts. A later part that
has something to keep adds a table to `TABLES` and a migration.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pool_monitor.errors import ConfigError
from pool_monitor.storage.files import check_beside, log_of, resolved
from pool_monitor.storage.owned_file import OwnedFile
from pool_monitor.storage.sqlite_file import (
    DAMAGED,
    FileKind,
    connected,
    connected_for_reading,
    migrate,
    pragma,
    time_limited,
    transaction,
    version_of,
)

Table = Literal[
    "alerts", "memories", "silences", "acknowledgements", "flapping", "groups", "told", "outbox", "receivers",
    "advice", "tuning", "trials",
]  # fmt: skip
"""The tables of named rows."""
TABLES: tuple[Table, ...] = get_args(Table)
TRANSITIONS_MAX = 10_000
"""Most transitions in the file."""
TRANSITIONS_ALWAYS = 1000
"""The newest transitions, which stay whatever their age. So a clock that is ahead once does not delete everything."""
AGE_MAX_S = 90 * 86_400.0
"""Age at which other transitions are deleted."""
ROW_LIMIT = 2**20
"""Most bytes of one row, with its key."""
TRANSITION_LIMIT = 16 * 1024
"""Most bytes of one transition."""
ROWS_LIMIT = 64 * 2**20
"""Most bytes of all named rows together."""
_VALUE = f"CASE WHEN typeof(value) = 'blob' AND length(value) <= {ROW_LIMIT} THEN value END"
_LOG_LIMIT = 16 * 2**20  # a reader that blocks the clearing of the log must not fill the disk
_LOG_PAGES = 256
_SEQ_DIGITS = 15  # so that JSON keeps them
_SEQ_LIMIT = 10**_SEQ_DIGITS

STATE = FileKind(
    "saved state",
    int.from_bytes(b"PMSt", "big"),
    (
        (
            "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
            "CREATE TABLE alerts (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE memories (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE silences (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE acknowledgements (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE flapping (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE transitions (seq INTEGER PRIMARY KEY, at REAL NOT NULL, value BLOB NOT NULL)",
        ),
        (
            "CREATE TABLE groups (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE told (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE outbox (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE receivers (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        ),
        (
            "CREATE TABLE advice (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE tuning (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE trials (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        ),
    ),
)
"""``meta`` has the ``id`` of the file, made with it, so that a file in its place is noticed; and ``seq``, the highest
number of a transition, so that a number is used once, also when the transitions are gone."""


class SavedTransition(NamedTuple):
    """One transition."""

    seq: int
    """Grows from one to the next."""
    at: float
    """Wall-clock time, seconds since the epoch."""
    value: bytes


class Batch(NamedTuple):
    """What one transaction writes."""

    rows: Mapping[Table, Mapping[str, bytes | None]]
    """By table and key; None: the row is deleted."""
    transitions: Sequence[SavedTransition] = ()
    """New ones, the oldest first."""
    seq: int = 0
    """The highest number that a transition ever had."""
    whole: bool = False
    """Whether *rows* are all that there is: other rows are deleted."""


class SavedState(NamedTuple):
    """What a file has."""

    rows: dict[Table, dict[str, bytes]]
    transitions: list[SavedTransition]
    """The oldest first."""
    seq: int
    """The highest number that a transition ever had; 0: there was none."""
    unusable: int = 0
    """Rows that are left out because they cannot be of this program."""
    id: str = ""
    """Names the file; empty: there was none."""


def nothing_saved() -> SavedState:
    """Return what a new file has."""
    return SavedState({table: {} for table in TABLES}, [], 0)


class StateStore:
    """The file, open for writing by this process alone. After any error, close the store and open a new one.

    *new_id* is given to a file that has none. Raises ConfigError for a file that must not be written, and sqlite3.Error
    and OSError for failures. Bound: `ROWS_LIMIT` for named rows, which the caller observes, and `TRANSITIONS_MAX`
    transitions of `TRANSITION_LIMIT`; the log beside the file takes as much again at most.
    """

    def __init__(self, path: Path, new_id: str) -> None:
        with ExitStack() as stack:
            self._file = stack.enter_context(closing(OwnedFile(path, STATE)))
            check_beside(self._file.path, ours=True)
            self.connection = stack.enter_context(closing(connected(path, self._file.path, STATE)))
            with time_limited(self.connection):
                self._bring_up_to_date(path, new_id)
            self._file.check()
            self._open = stack.pop_all()

    def _bring_up_to_date(self, path: Path, new_id: str) -> None:
        connection = self.connection
        version = version_of(connection, path, STATE)
        if version and pragma(connection, "quick_check(1)") != "ok":
            raise sqlite3.DatabaseError(DAMAGED)
        if pragma(connection, "journal_mode = WAL") != "wal":
            raise ConfigError(f"{path}: its file system has no shared memory; put the saved state on a local disk")
        pragma(connection, "synchronous = FULL")
        pragma(connection, f"wal_autocheckpoint = {_LOG_PAGES}")
        pragma(connection, f"journal_size_limit = {_LOG_LIMIT}")
        with transaction(connection):
            migrate(connection, version, STATE)
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (new_id,))

    def load(self) -> SavedState:
        """Return what the file has."""
        with time_limited(self.connection), transaction(self.connection, "DEFERRED"):
            return _load(self.connection)

    def identity(self) -> tuple[str, int]:
        """Return the id of the file and its ``seq``, as ``meta`` has them: without reading the rows."""
        with time_limited(self.connection), transaction(self.connection, "DEFERRED"):
            return _identity(self.connection)

    def write(self, batch: Batch, now: float) -> None:
        """Write *batch* in one transaction, and delete transitions that are too many or, at the time *now*, too old."""
        self._file.check()
        self._check_log()
        with time_limited(self.connection), transaction(self.connection):
            for table, rows in batch.rows.items():
                self._write_rows(table, rows, batch.whole)
            if batch.transitions:
                insert = "INSERT OR REPLACE INTO transitions VALUES (?, ?, ?)"
                self.connection.executemany(insert, batch.transitions)
                self._delete_transitions(batch.seq, now)
            self.connection.execute("INSERT OR REPLACE INTO meta VALUES ('seq', ?)", (str(batch.seq),))

    def close(self) -> None:
        self._open.close()

    def _write_rows(self, table: Table, rows: Mapping[str, bytes | None], whole: bool) -> None:
        if whole:
            self.connection.execute(f"DELETE FROM {table}")  # noqa: S608 - the name is of `TABLES`
        else:
            gone = [(key,) for key, value in rows.items() if value is None]
            self.connection.executemany(f"DELETE FROM {table} WHERE key = ?", gone)  # noqa: S608
        kept = [(key, value) for key, value in rows.items() if value is not None]
        self.connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", kept)  # noqa: S608

    def _delete_transitions(self, last: int, now: float) -> None:
        self.connection.execute("DELETE FROM transitions WHERE seq <= ?", (last - TRANSITIONS_MAX,))
        old = (last - TRANSITIONS_ALWAYS, now - AGE_MAX_S)
        self.connection.execute("DELETE FROM transitions WHERE seq <= ? AND at < ?", old)

    def _check_log(self) -> None:
        log = log_of(self._file.path)
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            pragma(self.connection, "wal_checkpoint(TRUNCATE)")
            if log.exists() and log.stat().st_size > _LOG_LIMIT:
                raise OSError("a program that reads the file blocks the clearing of its log; end that program")


def read_state(path: Path) -> SavedState:
    """Return what the file *path* has, without writing to it. Of a missing or empty file: `nothing_saved`.

    Raises ConfigError for a file of another kind, and sqlite3.Error and OSError for failures.
    """
    real = resolved(path)
    if not real.exists():
        return nothing_saved()
    check_beside(real, ours=False)
    with ExitStack() as stack:
        connection = connected_for_reading(real, STATE, stack)
        with time_limited(connection):
            if not version_of(connection, path, STATE):
                return nothing_saved()
            if pragma(connection, "quick_check(1)") != "ok":
                raise sqlite3.DatabaseError(DAMAGED)
            return _load(connection)


def _load(connection: sqlite3.Connection) -> SavedState:
    own_id, highest = _identity(connection)
    state, room, unusable = nothing_saved(), ROWS_LIMIT, 0
    for table, rows in state.rows.items():
        for key, value in connection.execute(f"SELECT key, {_VALUE} FROM {table}"):  # noqa: S608
            if isinstance(key, str) and isinstance(value, bytes) and len(key) + len(value) <= room:
                rows[key] = value
                room -= len(key) + len(value)
            else:
                unusable += 1
    newest = f"SELECT seq, at, {_VALUE} FROM transitions ORDER BY seq DESC LIMIT {TRANSITIONS_MAX}"  # noqa: S608
    for seq, at, value in connection.execute(newest):
        if 0 < seq < _SEQ_LIMIT and isinstance(at, float) and at == at and isinstance(value, bytes):
            state.transitions.append(SavedTransition(seq, at, value))
        else:
            unusable += 1
    state.transitions.reverse()
    if state.transitions:
        highest = max(highest, state.transitions[-1].seq)
    return state._replace(seq=highest, unusable=unusable, id=own_id)


def _identity(connection: sqlite3.Connection) -> tuple[str, int]:
    """Return what ``meta`` has, and make *connection* ready to read values that may be crafted."""
    connection.text_factory = _text
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, ROWS_LIMIT)
    meta = dict(connection.execute("SELECT key, value FROM meta LIMIT 16").fetchall())
    kept = str(meta.get("seq", ""))
    seq = int(kept) if kept.isdecimal() and kept.isascii() and len(kept) <= _SEQ_DIGITS else 0
    return str(meta.get("id", "")), seq


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
