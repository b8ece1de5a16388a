"""One writer per file: an advisory lock beside it, which the system releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from pool_monitor.after_fork import keep_from_children
from pool_monitor.errors import ConfigError
from pool_monitor.storage.files import open_private


class Lock:
    """Holds ``NAME.lock`` until it is closed. Raises ConfigError with the holder's pid when another process holds it.

    The database itself is not locked: closing any descriptor of it would drop the locks that SQLite holds in this
    process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._file: BinaryIO | None = None
        while self._file is None:
            file = open(self._path, "ab+", opener=open_private)  # noqa: SIM115 - the lock lasts while it is open
            try:
                _take(file, path)
                if self._is(file):  # else the last holder has just removed the file
                    keep_from_children(file)
                    self._file = file
            finally:
                if self._file is None:
                    file.close()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with file:
                if self._is(file):
                    self._path.unlink()

    def _is(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(self._path.lstat(), os.fstat(file.fileno()))
        except (FileNotFoundError, NotADirectoryError):
            return False


def _take(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(20).decode("ascii", "replace").strip() or "unknown"
        raise ConfigError(f"{path}: process {holder} writes to it; use a separate file for each process") from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n".encode())
    file.flush()
