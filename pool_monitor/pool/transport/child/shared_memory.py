"""The memory that a worker and its parent share: the worker's progress, its outbox, and areas for large messages.

Used on both sides of the wire. docs/WORKER_PROTOCOL.md has the layout.
"""

from __future__ import annotations

import collections
import contextlib
import mmap
import os
import sys

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Deque, List, Optional, Sequence, Tuple

    from .codec import Buffer

_PAGE = 4096
_OUTBOX_END = 65536
_AREA_LIMIT = 8 << 20
_NO_COPY = {"trackfd": False} if sys.version_info >= (3, 13) else {}  # before, mmap keeps a duplicate descriptor


def area_size(frame_limit: int) -> int:
    """Return the size in bytes of the area in which each side lends."""
    return (min(frame_limit, _AREA_LIMIT) + _PAGE - 1) // _PAGE * _PAGE


def file_size(frame_limit: int) -> int:
    return _OUTBOX_END + 2 * area_size(frame_limit)


class SharedMemory:
    """The mapped file, as one side sees it."""

    def __init__(self, fd: int, frame_limit: int, parent: bool) -> None:
        """Raises OSError or ValueError if the file cannot be mapped or is too short."""
        self.size = area = area_size(frame_limit)  # of each side's area
        if os.fstat(fd).st_size < file_size(frame_limit):
            raise ValueError("the shared file is too short")
        self.map = mmap.mmap(fd, file_size(frame_limit), **_NO_COPY)
        view = memoryview(self.map)
        # Written with one store each, where struct would write byte by byte: the other side may read at any moment.
        self.counters = view[:24].cast("Q")  # calls begun; bytes in the outbox; number of the call being read
        self.outbox = view[_PAGE:_OUTBOX_END]
        self._start = _OUTBOX_END if parent else _OUTBOX_END + area
        self._mine = view[self._start : self._start + area]
        self.theirs = _OUTBOX_END + area if parent else _OUTBOX_END  # where the other side's area begins
        self._theirs = view[self.theirs : self.theirs + area]
        self._views = [view, self.counters, self.outbox, self._mine, self._theirs]
        self._touched = 0  # bytes of our area that may be resident
        self._lent: Deque[Tuple[int, int]] = collections.deque()  # start and end of each message, oldest first
        self.offsets = False  # the other side reads messages at any offset, and several at once

    # counters

    @property
    def begun(self) -> int:
        return self.counters[0]

    @property
    def reading(self) -> int:
        return self.counters[2]

    def held_back(self) -> memoryview:
        """Return the frames in the outbox."""
        return self.outbox[: min(self.counters[1], len(self.outbox))]

    # lending

    @property
    def lent_count(self) -> int:
        """Number of messages lent by this side that the other has not returned."""
        return len(self._lent)

    def lend(self, pieces: Sequence[Buffer], size: int) -> Optional[List[Any]]:
        """Put a message of *size* bytes into this side's area. Return what to send in its place; None if there is no
        room.
        """
        start = self._room(size)
        if start is None:
            return None
        end = start
        for piece in pieces:
            self._mine[end : end + len(piece)] = piece
            end += len(piece)
        self._lent.append((start, end))
        self._touched = max(self._touched, end)
        return ["lent", size, start] if self.offsets else ["lent", size]

    def _room(self, size: int) -> Optional[int]:
        """Return the offset for *size* bytes, or None. The area is a ring, but a message goes to the beginning as soon
        as there is room: recently used memory is faster, and less of the area is touched.
        """
        if not self._lent:
            return 0 if size <= len(self._mine) else None
        if not self.offsets:
            return None
        first, last = self._lent[0][0], self._lent[-1][1]
        if last <= first:  # wrapped around: the free part lies between the last and the first
            return last if last + size <= first else None
        if size <= first:
            return 0
        return last if last + size <= len(self._mine) else None

    def mark_returned(self) -> None:
        """Note that the other side has returned the oldest message lent to it."""
        self._lent.popleft()

    def borrow(self, length: int, offset: int = 0) -> memoryview:
        """Return the message that the other side lends. Raises ValueError for an impossible place."""
        if type(length) is not int or type(offset) is not int or not 0 <= offset < offset + length <= len(self._theirs):
            raise ValueError("no message can have been lent there")
        return self._theirs[offset : offset + length]

    @property
    def touched_bytes(self) -> int:
        """Bytes of this side's area that `trim` could return to the system."""
        return self._touched

    def trim(self) -> None:
        """Return the memory of this side's area to the system, if nothing is lent."""
        if self._touched and not self._lent:
            remove = getattr(mmap, "MADV_REMOVE", None)
            touched, self._touched = self._touched, 0
            if remove is not None and sys.platform == "linux":
                with contextlib.suppress(OSError):  # not supported by the file system
                    self.map.madvise(remove, self._start, (touched + _PAGE - 1) // _PAGE * _PAGE)

    def close(self) -> None:
        """Unmap the memory: the other side is gone. Views of lent messages stay valid as long as they live."""
        for view in reversed(self._views):
            view.release()
        try:
            self.map.close()
        except BufferError:  # unmapped with the last view; until then only this side's area can be freed
            self._lent.clear()
            self.trim()
