"""The memory that a worker and its parent share: how far it has come, its outbox, and room for large messages.

Used on both sides. What lies where is in docs/WORKER_PROTOCOL.md.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Sequence

    from .codec import Buffer

_PAGE = 4096
_OUTBOX_END = 65536
_AREA_LIMIT = 8 << 20


def area_size(frame_limit: int) -> int:
    """Bytes of the area in which each side lends."""
    return (min(frame_limit, _AREA_LIMIT) + _PAGE - 1) // _PAGE * _PAGE


def file_size(frame_limit: int) -> int:
    return _OUTBOX_END + 2 * area_size(frame_limit)


class Shared:
    """The mapped file, as one side sees it."""

    def __init__(self, fd: int, frame_limit: int, parent: bool) -> None:
        """Raises OSError or ValueError when it cannot be mapped, or is too short."""
        area = area_size(frame_limit)
        if os.fstat(fd).st_size < file_size(frame_limit):
            raise ValueError("the shared file is too short")
        self._map = mmap.mmap(fd, file_size(frame_limit))
        view = memoryview(self._map)
        # One store each, where struct would write byte by byte: the other side may read at any moment.
        self.counters = view[:24].cast("Q")  # the calls begun; bytes in the outbox; the call that is being read
        self.outbox = view[_PAGE:_OUTBOX_END]
        self._start = _OUTBOX_END if parent else _OUTBOX_END + area
        self._mine = view[self._start : self._start + area]
        theirs = _OUTBOX_END + area if parent else _OUTBOX_END
        self._theirs = view[theirs : theirs + area]
        self._views = [view, self.counters, self.outbox, self._mine, self._theirs]
        self._touched = 0  # bytes of our area that may be resident
        self.lent = False

    # counters

    @property
    def begun(self) -> int:
        return self.counters[0]

    @property
    def reading(self) -> int:
        return self.counters[2]

    def held_back(self) -> memoryview:
        """The frames in the outbox."""
        return self.outbox[: min(self.counters[1], len(self.outbox))]

    # lending

    def lend(self, pieces: Sequence[Buffer], size: int) -> bool:
        """Put a message of *size* bytes into our area. False when that is lent already, or too small."""
        if self.lent or size > len(self._mine):
            return False
        at = 0
        for piece in pieces:
            self._mine[at : at + len(piece)] = piece
            at += len(piece)
        self.lent = True
        self._touched = max(self._touched, size)
        return True

    def returned(self) -> None:
        """The other side has read what was lent."""
        self.lent = False

    def borrowed(self, length: int) -> memoryview:
        """What the other side lends. Raises ValueError when it cannot be so much."""
        if not isinstance(length, int) or not 0 < length <= len(self._theirs):
            raise ValueError("%r bytes cannot have been lent" % (length,))
        return self._theirs[:length]

    @property
    def touched(self) -> int:
        """Bytes of our area that `give_back` could give back."""
        return self._touched

    def give_back(self) -> None:
        """Have the system take back the memory of our area, if nothing is lent."""
        if self._touched and not self.lent:
            remove = getattr(mmap, "MADV_REMOVE", None)
            touched, self._touched = self._touched, 0
            if remove is not None and sys.platform == "linux":
                with contextlib.suppress(OSError):  # a file system that cannot: it stays
                    self._map.madvise(remove, self._start, (touched + _PAGE - 1) // _PAGE * _PAGE)

    def close(self) -> None:
        for view in reversed(self._views):
            view.release()
        with contextlib.suppress(BufferError):  # somebody holds a view of it: it is unmapped with that one
            self._map.close()
