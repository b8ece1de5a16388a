"""The file of a history: its tables, the checks on opening it, and the migration from earlier versions.

It is an SQLite database in WAL mode: readers and the writer never wait for each other, and when a process is killed at
any moment, every transaction is in the file either completely or not at all.

A file may be damaged or crafted to do harm, so nothing in it is trusted. Its tables must be exactly those of this
module, without views or triggers in their place. The value in a column is checked before it is used (`SOUND`, `BODY`,
`tiers_of`). Every piece of work on the file has a time limit (`time_limited`), because a crafted tree of pages can have
more rows than the file has bytes.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from pool_monitor.config import HistoryConfig
from pool_monitor.config.validation import FOREVER
from pool_monitor.errors import ConfigError
from pool_monitor.storage.files import check_beside

DAMAGED = "it is damaged; move it away, and a new file is begun"
APPLICATION = int.from_bytes(b"PMon", "big")
"""The application id that marks a database as a history."""
BUSY_S = 2.0
"""How long to wait for a locked file."""
LOG_PAGES = 1000
"""Pages the log grows to before it is moved into the file. Fewer when the size limit is small."""
WORK_MAX_S = 30.0
"""Longest time for one piece of work on a file, such as one query."""
TIME_LIMIT = 5 * 10**10
"""Most seconds before or after the epoch at which a block may begin. A datetime can hold them, with room to spare."""
BODY_LIMIT = 64 * 2**20
"""Most bytes of a block in the file."""
_MAGIC = b"SQLite format 3\0"
_WORDS_MAX = 300
_TIERS_MAX = 64  # each has at least twice the step of the one before
_STEPS_BETWEEN = 50_000
"""Steps of SQLite's virtual machine between two checks of the time limit: a few milliseconds."""

SOUND = (
    f"typeof(start) = 'integer' AND +start BETWEEN {-TIME_LIMIT} AND {TIME_LIMIT} "
    f"AND typeof(length) = 'integer' AND length BETWEEN 1 AND {FOREVER:.0f}"
)
"""The SQL condition for a usable block. It checks types, because an SQLite column holds values of any type."""
BODY = f"CASE WHEN {SOUND} AND typeof(body) = 'blob' AND length(body) <= {BODY_LIMIT} THEN body END"
"""The SQL expression for the body of a usable block; NULL for other blocks."""

# The error groups, see `pool_monitor.storage.error_groups`.
_ERROR_GROUPS: tuple[str, ...] = (
    # frames, operations and workers are JSON lists of texts, sample is a JSON object. `total`: all failures ever.
    """CREATE TABLE error_groups (
        id INTEGER PRIMARY KEY,
        pool TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        type TEXT NOT NULL,
        message TEXT NOT NULL,
        frames TEXT NOT NULL,
        operations TEXT NOT NULL,
        workers TEXT NOT NULL,
        total INTEGER NOT NULL,
        first_seen REAL NOT NULL,
        last_seen REAL NOT NULL,
        sample BLOB
    )""",
    "CREATE UNIQUE INDEX error_groups_by_key ON error_groups (pool, fingerprint)",
    "CREATE INDEX error_groups_by_age ON error_groups (last_seen)",
    """CREATE TABLE error_counts (
        error_group INTEGER NOT NULL,
        step INTEGER NOT NULL,
        start INTEGER NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (error_group, step, start)
    ) WITHOUT ROWID""",
    # `gone`: counts that ended at this time or before may have been deleted.
    "CREATE TABLE error_tiers (step INTEGER PRIMARY KEY, gone INTEGER NOT NULL DEFAULT 0)",
)

# What the evaluations of alert rules read, and what followed, see `pool_monitor.storage.evaluations`.
_EVALUATIONS: tuple[str, ...] = (
    "CREATE TABLE evaluations (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE transitions (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX transitions_by_time ON transitions (at)",
)

# A migration never changes once it is released, not even in its blanks: `version_of` compares the text.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # `rolled`: id of the last block of the next finer tier that is rolled up into this tier.
        # `gone`: blocks that ended at this time or before may have been deleted.
        """CREATE TABLE tiers (
            step INTEGER PRIMARY KEY,
            retention INTEGER NOT NULL,
            rolled INTEGER NOT NULL DEFAULT 0,
            gone INTEGER NOT NULL DEFAULT 0
        )""",
        # The names behind the numbers in the bodies. A pool itself has no operation. `seen`: the last hour with a block
        # of this name.
        """CREATE TABLE names (
            id INTEGER PRIMARY KEY,
            pool TEXT NOT NULL,
            operation TEXT,
            worker TEXT,
            seen INTEGER NOT NULL
        )""",
        "CREATE UNIQUE INDEX names_by_key ON names (pool, operation, worker)",
        # AUTOINCREMENT: a new id is higher than all earlier ones, also when all blocks have expired.
        """CREATE TABLE blocks (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            step INTEGER NOT NULL,
            start INTEGER NOT NULL,
            length INTEGER NOT NULL,
            body BLOB NOT NULL
        )""",
        "CREATE INDEX blocks_by_time ON blocks (step, start)",
        "CREATE INDEX blocks_by_age ON blocks (step, id)",
    ),
    (
        # The gauges of resources, see `pool_monitor.storage.gauges`.
        """CREATE TABLE gauges (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            step INTEGER NOT NULL,
            start INTEGER NOT NULL,
            length INTEGER NOT NULL,
            body BLOB NOT NULL
        )""",
        "CREATE INDEX gauges_by_time ON gauges (step, start)",
        "CREATE INDEX gauges_by_age ON gauges (step, id)",
        # `rolled`: as in `tiers`.
        "CREATE TABLE gauge_marks (step INTEGER PRIMARY KEY, rolled INTEGER NOT NULL)",
    ),
    _ERROR_GROUPS,
    _EVALUATIONS,
)
"""SQL that makes version ``index + 1`` of a file of version ``index``. Version 0 is an empty file."""
GAUGES_SINCE = 2
"""The first version with gauges. All versions keep the counts of calls in the same tables."""
ERROR_GROUPS_SINCE = 3
"""The first version with error groups."""
EVALUATIONS_SINCE = 4
"""The first version with evaluations of alert rules."""


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Commit the block's statements at its end, or roll them back if it raises. *kind*: DEFERRED for reading only."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")


def pragma(connection: sqlite3.Connection, text: str) -> int | str | None:
    """Run a pragma to its end, and return its first value."""
    rows = connection.execute(f"PRAGMA {text}").fetchall()
    return rows[0][0] if rows else None


def int_pragma(connection: sqlite3.Connection, name: str) -> int:
    """The value of a pragma that is a whole number."""
    value = pragma(connection, name)
    assert isinstance(value, int)
    return value


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """The version of a history; 0 for an empty file.

    Raises ConfigError for a database of another program, a newer version, and tables that differ from those of its
    version.
    """
    application, version = int_pragma(connection, "application_id"), int_pragma(connection, "user_version")
    [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION and (application or version or tables):
        raise ConfigError(f"{path}: is a database of another program; use another file for the history")
    if not 0 <= version <= len(MIGRATIONS):
        raise ConfigError(
            f"{path}: is a history of version {version}, but this pool_monitor reads versions up to {len(MIGRATIONS)}; "
            "use the newer pool_monitor that wrote it, or another file"
        )
    with closing(sqlite3.connect(":memory:")) as made:
        for statement in itertools.chain.from_iterable(MIGRATIONS[:version]):
            made.execute(statement)
        if _schema_objects(connection, made) != _schema_objects(made, made):
            raise ConfigError(f"{path}: its tables are not those of a history; {DAMAGED}")
    return version


def readable_version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of a history that is to be read. An earlier version lacks the tables that came later.

    Raises ConfigError as `version_of` does, and for an empty file.
    """
    version = version_of(connection, path)
    if not version:
        raise ConfigError(f"{path}: is a history of version 0, an empty file; a monitor that writes to it fills it")
    return version


def connected(path: Path, target: str | Path, *, uri: bool = False) -> sqlite3.Connection:
    """A connection to *target*, which leads to the file *path*. Raises ConfigError for a file that is not a database.

    The file itself is only opened when connecting has failed. Closing it during another connection would drop the locks
    that SQLite holds in this process, and another program could then remove the log while it is written.
    """
    connection = sqlite3.connect(target, uri=uri, timeout=BUSY_S, isolation_level=None)
    try:
        with time_limited(connection):
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            with path.open("rb") as file:
                check_header(path, file.fileno(), "name the file of a history, or a service")
        raise
    return connection


def check_header(path: Path, descriptor: int, remedy: str = "use another file for the history") -> None:
    """Raise ConfigError for a file that is not a database: SQLite would call it damaged, or write over it."""
    begin = os.pread(descriptor, len(_MAGIC), 0)
    if begin and begin != _MAGIC:
        raise ConfigError(f"{path}: is not a history file; {remedy}")


def open_for_writing(path: Path, config: HistoryConfig) -> sqlite3.Connection:
    """Open *path*, an existing file that we may write, and bring it up to date.

    Raises ConfigError for a file that belongs to another program, is too new, or has other tiers; the file is then left
    unchanged. The caller ensures that there is only one writer.
    """
    check_beside(path, ours=True)
    connection = connected(path, path)
    try:
        with time_limited(connection):
            _bring_up_to_date(connection, path, config)
    except BaseException:
        connection.close()
        raise
    return connection


def _bring_up_to_date(connection: sqlite3.Connection, path: Path, config: HistoryConfig) -> None:
    version = version_of(connection, path)
    if not version:  # has no effect once the journal mode has written the first page
        pragma(connection, "auto_vacuum = INCREMENTAL")
    if pragma(connection, "journal_mode = WAL") != "wal":
        raise ConfigError(f"{path}: its file system has no shared memory; put the history on a local disk")
    pragma(connection, f"synchronous = {config.synchronous}")
    log_pages = max(8, min(LOG_PAGES, log_limit(config) // 4 // int_pragma(connection, "page_size")))
    pragma(connection, f"wal_autocheckpoint = {log_pages}")
    pragma(connection, f"journal_size_limit = {log_limit(config) // 2}")
    with transaction(connection):
        if version < len(MIGRATIONS):
            _migrate(connection, version)
        _store_tiers(connection, path, config)


@contextmanager
def time_limited(connection: sqlite3.Connection) -> Iterator[Callable[[], None]]:
    """Interrupt SQLite after `WORK_MAX_S`: its statement then raises sqlite3.OperationalError.

    Yields a function for work outside SQLite. It raises TimeoutError once that time is over.
    """
    due = time.monotonic() + WORK_MAX_S

    def check() -> None:
        if time.monotonic() > due:
            raise TimeoutError(_too_slow())

    connection.set_progress_handler(lambda: time.monotonic() > due, _STEPS_BETWEEN)
    try:
        yield check
    except UnicodeDecodeError as error:  # an error of SQLite quotes a damaged schema, which may not be text
        raise sqlite3.DatabaseError(DAMAGED) from error
    finally:
        connection.set_progress_handler(None, 0)


def yield_gil() -> None:
    """Let other threads run. Called between two pieces of work, so that the event loop waits for at most one piece."""
    time.sleep(0)


def log_limit(config: HistoryConfig) -> int:
    """The part of the size limit that is reserved for the log, in bytes."""
    return config.size_limit // 8


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    pragma(connection, f"application_id = {APPLICATION}")
    pragma(connection, f"user_version = {len(MIGRATIONS)}")


def _store_tiers(connection: sqlite3.Connection, path: Path, config: HistoryConfig) -> None:
    found, kept = [tier.step for tier in tiers_of(connection)], dict(config.tiers)
    if found and found != list(kept):
        there, wanted = (", ".join(map(str, steps)) for steps in (found, kept))
        raise ConfigError(
            f"{path}: has steps of {there} s, but {wanted} s are configured; use the steps of the file, or another file"
        )
    connection.executemany(
        "INSERT INTO tiers (step, retention) VALUES (?, ?) "
        "ON CONFLICT (step) DO UPDATE SET retention = excluded.retention",
        kept.items(),
    )


class StoredTier(NamedTuple):
    """A tier of a file."""

    step: int
    retention: int
    rolled: int
    """The id of the last block of the next finer tier that is rolled up into this tier."""
    since: int
    """The time from which on the tier is complete, seconds since the epoch; 0: nothing was ever deleted."""

    def reaches(self, start: float) -> bool:
        """Whether the tier is complete from *start* on."""
        return not self.since or self.since <= start


def tiers_of(connection: sqlite3.Connection) -> list[StoredTier]:
    """The tiers of a file, the finest first. Raises sqlite3.DatabaseError when their values are not possible."""
    found = connection.execute(
        "SELECT step, retention, rolled, gone FROM tiers ORDER BY step LIMIT ?", (_TIERS_MAX,)
    ).fetchall()
    tiers = [StoredTier(*row) for row in found]
    sound = all(
        all(type(value) is int for value in tier)
        and 1 <= tier.step <= tier.retention <= FOREVER
        and tier.rolled >= 0
        and abs(tier.since) <= TIME_LIMIT
        for tier in tiers
    )
    if not (sound and all(coarser.step % finer.step == 0 for finer, coarser in itertools.pairwise(tiers))):
        raise sqlite3.DatabaseError(DAMAGED)
    return tiers


def _schema_objects(connection: sqlite3.Connection, to: sqlite3.Connection) -> set[tuple[object, ...]]:
    """The objects in *connection* that belong to the tables of *to*, or have their names: also indexes and triggers."""
    tables = [name for (name,) in to.execute("SELECT lower(name) FROM sqlite_master WHERE type = 'table'")]
    asked = f"lower(tbl_name) IN ({', '.join('?' * len(tables))})"
    rows = connection.execute(
        f"SELECT type, name, tbl_name, sql FROM sqlite_master WHERE {asked} LIMIT ?",  # noqa: S608
        (*tables, _TIERS_MAX),
    )
    return set(rows)


def _too_slow() -> str:
    return f"it takes longer than {WORK_MAX_S:.0f} s; it is damaged, or the disk is very slow"


def failure_reason(path: Path, error: BaseException) -> str:
    """Why the file cannot be used, in words, with a remedy if there is one."""
    if isinstance(error, ConfigError):
        return str(error)
    kind = getattr(error, "sqlite_errorname", "")
    remedies = {
        "SQLITE_CORRUPT": DAMAGED,
        "SQLITE_NOTADB": DAMAGED,
        "SQLITE_FULL": "free space on the disk",
        "SQLITE_BUSY": "another program holds it locked",
        "SQLITE_READONLY": "this process may not write to it",
        "SQLITE_INTERRUPT": _too_slow(),
    }
    remedy = next((text for name, text in remedies.items() if kind.startswith(name)), None)
    if isinstance(error, MemoryError):
        return f"{path}: there is not enough memory for it"
    what = (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:_WORDS_MAX]
    what = what if what.isprintable() else ascii(what)  # SQLite quotes the file
    return f"{path}: {what}; {remedy}" if remedy else f"{path}: {what}"
