"""Which file a path means, and whether it is one that a history may open.

SQLite keeps a log and its index beside a database, under the name that the links of its path lead to. So a path is
resolved once, and everything beside the file is looked for there. What lies there can have been put there by another
user: it is opened only when it is a regular file, and written to only when it is ours as well.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pool_monitor.errors import ConfigError

BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite opens beside a database without being asked."""
_ROOT = 0


def expanded(path: str | Path) -> Path:
    """*path* with a home directory in place of ``~``, from the root."""
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 - Path.expanduser raises for an unknown user


def resolved(path: str | Path) -> Path:
    """The file that *path* means: `expanded`, and links are followed. It need not be there.

    Raises ConfigError for what no file can be called.
    """
    try:
        return Path(os.path.realpath(expanded(path)))  # Path.resolve raises for links that lead to each other
    except ValueError as error:
        raise ConfigError(f"{path}: no file can be called so: {error}") from error


def log_of(path: Path) -> Path:
    """Where SQLite keeps the log of *path*, which is `resolved`."""
    return path.with_name(path.name + "-wal")


def open_private(path: str | Path, flags: int) -> int:
    """A descriptor of *path*, which is made, for us alone, if need be. Raises ConfigError when it is not ours to write.

    A link is not followed, so that another user who can write to the directory cannot choose what is written to.
    """
    if Path(path).is_symlink():
        raise ConfigError(f"{path}: is a symbolic link, and has to be a file; remove it")
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        check_ours(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_ours(path: str | Path, found: os.stat_result) -> None:
    """Raises ConfigError for what is no regular file, belongs to another user than root and us, or has two names."""
    _check_regular(path, found)
    if found.st_uid not in (os.geteuid(), _ROOT):
        raise ConfigError(
            f"{path}: belongs to the user with the id {found.st_uid}, and this process runs as {os.geteuid()}; "
            "give it to that user (chown), or use another file"
        )
    if found.st_nlink > 1:
        raise ConfigError(
            f"{path}: has {found.st_nlink} names (hard links), and SQLite keeps a log of its own for each, which "
            "damages the file; copy it (cp), and put the copy in its place"
        )


def check_beside(path: Path, *, ours: bool) -> None:
    """Raises ConfigError when what SQLite would open beside *path* is no regular file; or, if *ours*, not ours."""
    for suffix in BESIDE:
        beside = path.with_name(path.name + suffix)
        try:
            found = beside.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        (check_ours if ours else _check_regular)(beside, found)


def _check_regular(path: str | Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{path}: is a directory; name the file in it")
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path}: is no regular file; remove it, or use another path for the history")
