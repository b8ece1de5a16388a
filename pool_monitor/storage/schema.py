"""The file: what is in it, who may open it, and how one of an earlier version is brought up to date.

It is an SQLite database in WAL mode: readers never wait for the writer, nor it for them, and a process that is killed
at any moment leaves a file in which every transaction is there or is not.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pool_monitor.config import HistoryConfig
from pool_monitor.errors import ConfigError

APPLICATION = int.from_bytes(b"PMon", "big")
"""What tells our files from other people's databases."""
BUSY_S = 2.0
"""How long a locked file is waited for."""
LOG_PAGES = 1000
"""Pages the log grows to before it is moved into the file; fewer when the size limit is small."""
_MAGIC = b"SQLite format 3\0"

# Each brings the file from the version that is its index to the next one. Never changed once released.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # `rolled`: the last block of the next finer tier that is in this one. `gone`: what ended until then is deleted.
        """CREATE TABLE tiers (
            step INTEGER PRIMARY KEY,
            retention INTEGER NOT NULL,
            rolled INTEGER NOT NULL DEFAULT 0,
            gone INTEGER NOT NULL DEFAULT 0
        )""",
        # Whose numbers the bodies hold: a pool's has no operation. `seen`: the last hour it was in a block.
        """CREATE TABLE names (
            id INTEGER PRIMARY KEY,
            pool TEXT NOT NULL,
            operation TEXT,
            worker TEXT,
            seen INTEGER NOT NULL
        )""",
        "CREATE UNIQUE INDEX names_by_key ON names (pool, operation, worker)",
        # AUTOINCREMENT: a new block has a higher number than any there ever was, also when all have expired.
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
)
"""SQL that makes version ``index + 1`` of a file of version ``index``. Version 0 is an empty file."""


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All of it or nothing. *kind* is DEFERRED for one that only reads."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")


def pragma(connection: sqlite3.Connection, text: str) -> int | str | None:
    """Run a pragma to its end and return the first value it gives."""
    rows = connection.execute(f"PRAGMA {text}").fetchall()
    return rows[0][0] if rows else None


def figure(connection: sqlite3.Connection, name: str) -> int:
    """The value of a pragma that is a whole number."""
    value = pragma(connection, name)
    assert isinstance(value, int)
    return value


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """The version of a file of ours; 0 for an empty one. Raises ConfigError when it is somebody else's, or newer."""
    application, version = figure(connection, "application_id"), figure(connection, "user_version")
    [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION and (application or version or tables):
        raise ConfigError(f"{path}: is a database of another program; use another file for the history")
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"{path}: is a history of version {version}, and this pool_monitor knows versions up to {len(MIGRATIONS)}; "
            "use the newer pool_monitor that wrote it, or another file"
        )
    return version


def check_current(connection: sqlite3.Connection, path: Path) -> None:
    """Raises ConfigError for what is not a history of the version that is read here."""
    version = version_of(connection, path)
    if version < len(MIGRATIONS):
        raise ConfigError(
            f"{path}: is a history of version {version}, and this pool_monitor reads version {len(MIGRATIONS)}; "
            "a monitor that writes to it brings it up to date"
        )


def check_header(path: Path) -> None:
    """Raises ConfigError for a file that is no database at all: SQLite would call it damaged."""
    with path.open("rb") as file:
        begin = file.read(len(_MAGIC))
    if begin and begin != _MAGIC:
        raise ConfigError(f"{path}: is no history, but a file of another kind; use another file for the history")


def open_for_writing(path: Path, config: HistoryConfig) -> sqlite3.Connection:
    """Open *path*, or make it in a directory that is there, and bring it up to date.

    Raises ConfigError for a file that is not ours, too new, or has other tiers; it is left as it was. The caller
    sees to it that there is only one writer.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's files beside it get its mode
    check_header(path)
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        version = version_of(connection, path)
        if not version:  # before the journal mode writes the first page: later it has no effect
            pragma(connection, "auto_vacuum = INCREMENTAL")
        if pragma(connection, "journal_mode = WAL") != "wal":
            raise ConfigError(f"{path}: its file system has no shared memory; put the history on a local disk")
        pragma(connection, f"synchronous = {config.synchronous}")
        log_pages = max(8, min(LOG_PAGES, log_limit(config) // 4 // figure(connection, "page_size")))
        pragma(connection, f"wal_autocheckpoint = {log_pages}")
        pragma(connection, f"journal_size_limit = {log_limit(config) // 2}")
        with transaction(connection):
            if version < len(MIGRATIONS):
                _migrate(connection, version)
            _settle_tiers(connection, path, config)
    except BaseException:
        connection.close()
        raise
    return connection


def log_limit(config: HistoryConfig) -> int:
    """The share of the size limit that is kept for the log."""
    return config.size_limit // 8


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    pragma(connection, f"application_id = {APPLICATION}")
    pragma(connection, f"user_version = {len(MIGRATIONS)}")


def _settle_tiers(connection: sqlite3.Connection, path: Path, config: HistoryConfig) -> None:
    found = dict(connection.execute("SELECT step, retention FROM tiers ORDER BY step"))
    kept = dict(config.tiers)
    if found and list(found) != list(kept):
        there, wanted = (", ".join(map(str, steps)) for steps in (found, kept))
        raise ConfigError(
            f"{path}: has slots of {there} s, and {wanted} s are configured; the steps of a file cannot be changed: "
            "configure those it has, or another file"
        )
    connection.executemany(
        "INSERT INTO tiers (step, retention) VALUES (?, ?) "
        "ON CONFLICT (step) DO UPDATE SET retention = excluded.retention",
        kept.items(),
    )


def reason(path: Path, error: BaseException) -> str:
    """Why the file cannot be used, in words, with the remedy where there is one."""
    if isinstance(error, ConfigError):
        return str(error)
    kind = getattr(error, "sqlite_errorname", "")
    remedies = {
        "SQLITE_CORRUPT": "it is damaged; move it away, and a new one is begun",
        "SQLITE_NOTADB": "it is damaged; move it away, and a new one is begun",
        "SQLITE_FULL": "free space on the disk",
        "SQLITE_BUSY": "another program holds it locked",
    }
    remedy = next((text for name, text in remedies.items() if kind.startswith(name)), None)
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{path}: {what}; {remedy}" if remedy else f"{path}: {what}"
