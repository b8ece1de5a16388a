"""The file of a history: its tables, the checks on opening it, and the migration from earlier versions.

It is an SQLite database in WAL mode: readers and the writer never wait for each other, and when a process is killed at
any moment, every transaction is in the file either completely or not at all.

`sqlite_file` opens it. Nothing in it is trusted: the value in a column is checked before it is used (`SOUND`, `BODY`,
`tiers_of`).
"""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path
from typing import NamedTuple

from pool_monitor.config import HistoryConfig
from pool_monitor.config.validation import FOREVER
from pool_monitor.errors import ConfigError
from pool_monitor.storage.files import check_beside
from pool_monitor.storage.sqlite_file import (
    DAMAGED,
    FileKind,
    connected,
    int_pragma,
    migrate,
    pragma,
    time_limited,
    transaction,
    version_of,
)

APPLICATION = int.from_bytes(b"PMon", "big")
"""The application id that marks a database as a history."""
LOG_PAGES = 1000
"""Pages the log grows to before it is moved into the file. Fewer when the size limit is small."""
TIME_LIMIT = 5 * 10**10
"""Most seconds before or after the epoch at which a block may begin. A datetime can hold them, with room to spare."""
BODY_LIMIT = 64 * 2**20
"""Most bytes of a block in the file."""
_TIERS_MAX = 64  # each has at least twice the step of the one before

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

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
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
HISTORY = FileKind("history", APPLICATION, _MIGRATIONS)
GAUGES_SINCE = 2
"""The first version with gauges. All versions keep the counts of calls in the same tables."""
ERROR_GROUPS_SINCE = 3
"""The first version with error groups."""
EVALUATIONS_SINCE = 4
"""The first version with evaluations of alert rules."""


def readable_version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of a history that is to be read. An earlier version lacks the tables that came later.

    Raises ConfigError as `version_of` does, and for an empty file.
    """
    version = version_of(connection, path, HISTORY)
    if not version:
        raise ConfigError(f"{path}: is a history of version 0, an empty file; a monitor that writes to it fills it")
    return version


def open_for_writing(path: Path, config: HistoryConfig) -> sqlite3.Connection:
    """Open *path*, an existing file that we may write, and bring it up to date.

    Raises ConfigError for a file that belongs to another program, is too new, or has other tiers; the file is then left
    unchanged. The caller ensures that there is only one writer.
    """
    check_beside(path, ours=True)
    connection = connected(path, path, HISTORY)
    try:
        with time_limited(connection):
            _bring_up_to_date(connection, path, config)
    except BaseException:
        connection.close()
        raise
    return connection


def _bring_up_to_date(connection: sqlite3.Connection, path: Path, config: HistoryConfig) -> None:
    version = version_of(connection, path, HISTORY)
    if not version:  # has no effect once the journal mode has written the first page
        pragma(connection, "auto_vacuum = INCREMENTAL")
    if pragma(connection, "journal_mode = WAL") != "wal":
        raise ConfigError(f"{path}: its file system has no shared memory; put the history on a local disk")
    pragma(connection, f"synchronous = {config.synchronous}")
    log_pages = max(8, min(LOG_PAGES, log_limit(config) // 4 // int_pragma(connection, "page_size")))
    pragma(connection, f"wal_autocheckpoint = {log_pages}")
    pragma(connection, f"journal_size_limit = {log_limit(config) // 2}")
    with transaction(connection):
        migrate(connection, version, HISTORY)
        _store_tiers(connection, path, config)


def log_limit(config: HistoryConfig) -> int:
    """The part of the size limit that is reserved for the log, in bytes."""
    return config.size_limit // 8


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
