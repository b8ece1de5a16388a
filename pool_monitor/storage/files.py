"""Resolve the path of a history, and check that its files are safe to open.

SQLite keeps a log and its index beside a database, named after the file that the path leads to once its links are
followed. So a path is resolved once, and the files beside it are looked for there. Another user may have put them
there: they are opened only when they are regular files, and written only when they also belong to us.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pool_monitor.errors import ConfigError

BESIDE = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite itself opens beside a database."""
_ROOT = 0
_IS_A_DIRECTORY = "{}: is a directory; name the file in it"


def expanded(path: str | Path) -> Path:
    """*path* as an absolute path, with the home directory in place of ``~``."""
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 - Path.expanduser raises for an unknown user


def resolved(path: str | Path) -> Path:
    """*path*, `expanded` and with its links followed. The file need not exist.

    Raises ConfigError for a path that cannot be the name of a file.
    """
    try:
        return Path(os.path.realpath(expanded(path)))  # Path.resolve raises for links that lead to each other
    except ValueError as error:
        raise ConfigError(f"{path}: not a valid file name: {error}") from error


def log_of(path: Path) -> Path:
    """The path of SQLite's log for the database *path*, which must be `resolved`."""
    return path.with_name(path.name + "-wal")


def open_private(path: str | Path, flags: int) -> int:
    """Open *path* and return its descriptor. A missing file is made, with access for us alone.

    Raises ConfigError for a file that we must not write (`check_ours`), and for a symbolic link: another user who can
    write to the directory could choose with it which file we write.
    """
    if Path(path).is_symlink():
        raise ConfigError(f"{path}: is a symbolic link, but must be a file; remove it")
    if Path(path).is_dir():
        raise ConfigError(_IS_A_DIRECTORY.format(path))
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        check_ours(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_ours(path: str | Path, found: os.stat_result) -> None:
    """Raise ConfigError unless *found* is a regular file that belongs to us or root and has a single name."""
    _check_regular(path, found)
    if found.st_uid not in (os.geteuid(), _ROOT):
        raise ConfigError(
            f"{path}: belongs to the user with the id {found.st_uid}, but this process runs as {os.geteuid()}; "
            "give it to that user (chown), or use another file"
        )
    if found.st_nlink > 1:
        raise ConfigError(
            f"{path}: has {found.st_nlink} names (hard links), and SQLite keeps a separate log for each, which "
            "damages the file; copy it (cp), and put the copy in its place"
        )


def check_beside(path: Path, *, ours: bool) -> None:
    """Raise ConfigError for a file that SQLite opens beside *path* and that is not regular, or, if *ours*, not ours."""
    for suffix in BESIDE:
        beside = path.with_name(path.name + suffix)
        try:
            found = beside.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        (check_ours if ours else _check_regular)(beside, found)


def _check_regular(path: str | Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise ConfigError(_IS_A_DIRECTORY.format(path))
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path}: is not a regular file; remove it, or use another path")


def disk_space(path: Path) -> tuple[int | None, int | None]:
    """The bytes that this user may still write on the disk of *path*, and the size of the disk; None: not known."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return None, None
    # Some network and virtual file systems have no size, and say 0.
    return (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize) if disk.f_blocks else (None, None)
