"""A file to which lines are appended, one JSON object each."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

TAIL = 1024 * 1024
"""Bytes at the end of the file in which its last line is looked for. A line has a few hundred bytes, or a few hundred
thousand if it tells many alerts."""


class LineFile:
    """Appends to the file *path*, whose lines start with *beginning*. Its methods block on the disk, and raise OSError,
    with a text for a person.

    Another program may rotate the file: it is opened again when its name leads to another file, or to none. What was
    written of a line in part, because the disk was full or the process was killed, is removed before the next line.
    With *max_bytes* it rotates itself: a file that would become longer is renamed to ``PATH.1``, and so on up to
    ``PATH.KEEP``; the oldest is lost. The file keeps nothing in memory.
    """

    def __init__(self, path: str | Path, beginning: bytes, *, max_bytes: int | None = None, keep: int = 0) -> None:
        self.path = Path(path)
        self._beginning, self._max_bytes, self._keep = beginning, max_bytes, keep
        self._file: int | None = None

    def write(self, body: bytes) -> None:
        """Append *body*, which is whole lines: all of it or, if this raises, nothing."""
        file = self.opened()
        end = os.fstat(file).st_size
        if self._max_bytes is not None and end and end + len(body) > self._max_bytes:
            self._rotate()
            file, end = self.opened(), 0
        try:
            while body:
                body = body[os.write(file, body) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, end)
            raise

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def opened(self) -> int:
        """Return the descriptor of the file that *path* leads to now."""
        if self._file is not None and not self._is_current(self._file):
            self.close()
        if self._file is None:
            self._file = _open(self.path, self._beginning)
        return self._file

    def _rotate(self) -> None:
        self.close()
        for number in range(self._keep, 0, -1):
            older = self.path if number == 1 else _numbered(self.path, number - 1)
            with contextlib.suppress(FileNotFoundError):
                older.replace(_numbered(self.path, number))
        if not self._keep:
            self.path.unlink(missing_ok=True)

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(self.path.lstat(), os.fstat(file))
        except OSError:
            return False


def tail(file: int) -> bytes:
    """Return the end of a file: at most `TAIL` bytes."""
    return os.pread(file, TAIL, max(0, os.fstat(file).st_size - TAIL))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _open(path: Path, beginning: bytes) -> int:
    """Open the file for appending, after a whole line. A missing file is made, with access for us alone."""
    if path.is_symlink():  # another user who can write to the folder could choose with it which file we write
        raise OSError(f"{path}: is a symbolic link; name the file that it leads to")
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{path}: is not a file")
        _end_last_line(file, beginning)
    except BaseException:
        os.close(file)
        raise
    return file


def _end_last_line(file: int, beginning: bytes) -> None:
    """Remove a line of ours that has no end. A line of somebody else is ended."""
    rest = tail(file).rpartition(b"\n")[2]
    if not rest:
        return
    if rest[: len(beginning)] == beginning[: len(rest)]:
        os.ftruncate(file, os.fstat(file).st_size - len(rest))
    else:
        os.write(file, b"\n")
