"""A file to which each change of an alert is appended, one JSON object a line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pool_monitor.alerts.line_file import LineFile, tail
from pool_monitor.snapshot import AlertTransition

_BEGINNING = b'{"seq":'
"""How each line begins."""
_encode = msgspec.json.Encoder().encode


class _Numbered(msgspec.Struct):
    seq: int


class TransitionFile:
    """Appends to the file *path*, as a `LineFile` does: its methods block on the disk, and raise OSError, with a text
    for a person.
    """

    def __init__(self, path: str | Path) -> None:
        self._lines = LineFile(path, _BEGINNING)
        self.path = self._lines.path

    def last_seq(self) -> int | None:
        """Return the number of the last change in the file; None: there is none, or it is not one of ours."""
        for line in reversed(tail(self._lines.opened()).split(b"\n")):
            if line:
                with contextlib.suppress(msgspec.MsgspecError):
                    return msgspec.json.decode(line, type=_Numbered).seq
                return None
        return None

    def append(self, transitions: Iterable[AlertTransition]) -> None:
        """Append *transitions*: all of them or, if it raises, none."""
        self._lines.write(b"".join(_encode(one) + b"\n" for one in transitions))

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        self._lines.close()
