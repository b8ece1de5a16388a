"""A file to which each change of an alert is appended, one JSON object a line."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pool_monitor.snapshot import AlertTransition

_TAIL = 256 * 1024
"""Bytes at the end of the file in which its last line is looked for. A line is a few hundred bytes long."""
_BEGINNING = b'{"seq":'
"""How each line begins."""
_encode = msgspec.json.Encoder().encode


class _Numbered(msgspec.Struct):
    seq: int


class TransitionFile:
    """Appends to the file *path*. Its methods block on the disk, and raise OSError, with a text for a person.

    Another program may rotate the file: it is opened again when its name leads to another file, or to none. What was
    written of a line in part, because the disk was full or the process was killed, is removed before the next line. The
    file keeps nothing in memory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: int | None = None

    def last_seq(self) -> int | None:
        """Return the number of the last change in the file; None: there is none, or it is not one of ours."""
        file = self._opened()
        for line in reversed(_tail(file).split(b"\n")):
            if line:
                with contextlib.suppress(msgspec.MsgspecError):
                    return msgspec.json.decode(line, type=_Numbered).seq
                return None
        return None

    def append(self, transitions: Iterable[AlertTransition]) -> None:
        """Append *transitions*: all of them or, if it raises, none."""
        self._write(b"".join(_encode(one) + b"\n" for one in transitions))

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def _write(self, body: bytes) -> None:
        file = self._opened()
        end = os.fstat(file).st_size
        try:
            while body:
                body = body[os.write(file, body) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, end)
            raise

    def _opened(self) -> int:
        if self._file is not None and not self._is_current(self._file):
            self.close()
        if self._file is None:
            self._file = _open(self.path)
        return self._file

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(self.path.lstat(), os.fstat(file))
        except OSError:
            return False


def _open(path: Path) -> int:
    """Open the file for appending, after a whole line. A missing file is made, with access for us alone."""
    if path.is_symlink():  # another user who can write to the folder could choose with it which file we write
        raise OSError(f"{path}: is a symbolic link; name the file that it leads to")
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{path}: is not a file")
        _end_last_line(file)
    except BaseException:
        os.close(file)
        raise
    return file


def _end_last_line(file: int) -> None:
    """Remove a line of ours that has no end. A line of somebody else is ended."""
    rest = _tail(file).rpartition(b"\n")[2]
    if not rest:
        return
    if rest[: len(_BEGINNING)] == _BEGINNING[: len(rest)]:
        os.ftruncate(file, os.fstat(file).st_size - len(rest))
    else:
        os.write(file, b"\n")


def _tail(file: int) -> bytes:
    return os.pread(file, _TAIL, max(0, os.fstat(file).st_size - _TAIL))
