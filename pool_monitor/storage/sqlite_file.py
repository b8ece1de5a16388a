"""One SQLite file that a writer owns: opening it, checking what it is, transactions, and words for what fails.

A `FileKind` says what the file is: its tables and their migrations. A file may be damaged or crafted to do harm, so
nothing in it is trusted. Its tables must be exactly those of its kind, without views or triggers in their place. Every
piece of work on a file has a time limit (`time_limited`), because a crafted tree of pages can have more rows than the
file has bytes.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from pool_monitor.errors import ConfigError
from pool_monitor.storage.files import log_of

DAMAGED = "it is damaged; move it away, and a new file is begun"
BUSY_S = 2.0
"""How long to wait for a locked file."""
WORK_MAX_S = 30.0
"""Longest time for one piece of work on a file, such as one query."""
COPY_LIMIT = 4 * 2**30
"""Most bytes to copy when a log cannot be read where it is."""
_MAGIC = b"SQLite format 3\0"
_WORDS_MAX = 300
_OBJECTS_MAX = 64
_STEPS_BETWEEN = 50_000
"""Steps of SQLite's virtual machine between two checks of the time limit: a few milliseconds."""


class FileKind(NamedTuple):
    """A kind of file."""

    noun: str
    """What people call it, such as ``history``."""
    application: int
    """The application id that marks a database as a file of this kind."""
    migrations: tuple[tuple[str, ...], ...]
    """SQL that makes version ``index + 1`` of a file of version ``index``. Version 0 is an empty file. A migration
    never changes once it is released, not even in its blanks: `version_of` compares the text."""


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


def version_of(connection: sqlite3.Connection, path: Path, kind: FileKind) -> int:
    """The version of a file of this *kind*; 0 for an empty file.

    Raises ConfigError for a database of another program, a newer version, and tables that differ from those of its
    version.
    """
    application, version = int_pragma(connection, "application_id"), int_pragma(connection, "user_version")
    [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != kind.application and (application or version or tables):
        raise ConfigError(f"{path}: is a database of another program; use another file for the {kind.noun}")
    newest = len(kind.migrations)
    if not 0 <= version <= newest:
        raise ConfigError(
            f"{path}: is a {kind.noun} of version {version}, but this pool_monitor reads versions up to {newest}; "
            "use the newer pool_monitor that wrote it, or another file"
        )
    with closing(sqlite3.connect(":memory:")) as made:
        for statement in itertools.chain.from_iterable(kind.migrations[:version]):
            made.execute(statement)
        if _schema_objects(connection, made) != _schema_objects(made, made):
            raise ConfigError(f"{path}: its tables are not those of a {kind.noun}; {DAMAGED}")
    return version


def connected(path: Path, target: str | Path, kind: FileKind, *, uri: bool = False) -> sqlite3.Connection:
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
                check_header(path, file.fileno(), kind, f"name the file of a {kind.noun}, or a service")
        raise
    return connection


def connected_for_reading(path: Path, kind: FileKind, stack: ExitStack) -> sqlite3.Connection:
    """A connection that can read *path*, which must be `resolved`, wherever it lies. Leaving *stack* closes it."""
    try:
        return _reading(path, "mode=ro", kind, stack)
    except sqlite3.OperationalError as error:
        # Reading needs an index beside the file, which cannot be made in a directory that is not writable, nor on a
        # full disk.
        no_index = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)
        if error.sqlite_errorcode & 0xFF not in no_index:
            raise
    log = log_of(path)
    if not (log.exists() and log.stat().st_size):  # so the file is complete
        return _reading(path, "immutable=1", kind, stack)
    if sum(file.stat().st_size for file in (path, log)) > COPY_LIMIT:
        raise ConfigError(
            f"{path}: its log cannot be read in this directory; copy both files to a writable directory, and read "
            "the copy"
        )
    directory = Path(stack.enter_context(TemporaryDirectory(prefix="pool-monitor-")))
    for file in (path, log):
        shutil.copyfile(file, directory / file.name)
    return _reading(directory / path.name, "mode=ro", kind, stack)


def _reading(path: Path, how: str, kind: FileKind, stack: ExitStack) -> sqlite3.Connection:
    connection = connected(path, f"{path.as_uri()}?{how}", kind, uri=True)
    stack.callback(connection.close)
    return connection


def check_header(path: Path, descriptor: int, kind: FileKind, remedy: str | None = None) -> None:
    """Raise ConfigError for a file that is not a database: SQLite would call it damaged, or write over it."""
    begin = os.pread(descriptor, len(_MAGIC), 0)
    if begin and begin != _MAGIC:
        raise ConfigError(f"{path}: is not a {kind.noun} file; {remedy or f'use another file for the {kind.noun}'}")


def migrate(connection: sqlite3.Connection, version: int, kind: FileKind) -> None:
    """Bring a file of *version* up to date, in the transaction of the caller."""
    for statements in kind.migrations[version:]:
        for statement in statements:
            connection.execute(statement)
    if version < len(kind.migrations):
        pragma(connection, f"application_id = {kind.application}")
        pragma(connection, f"user_version = {len(kind.migrations)}")


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


def _schema_objects(connection: sqlite3.Connection, to: sqlite3.Connection) -> set[tuple[object, ...]]:
    """The objects in *connection* that belong to the tables of *to*, or have their names: also indexes and triggers."""
    tables = [name for (name,) in to.execute("SELECT lower(name) FROM sqlite_master WHERE type = 'table'")]
    asked = f"lower(tbl_name) IN ({', '.join('?' * len(tables))})"
    rows = connection.execute(
        f"SELECT type, name, tbl_name, sql FROM sqlite_master WHERE {asked} LIMIT ?",  # noqa: S608
        (*tables, _OBJECTS_MAX),
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
        "SQLITE_TOOBIG": DAMAGED,
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
