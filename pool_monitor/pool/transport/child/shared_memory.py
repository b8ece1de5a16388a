"""The memory that a worker and its parent share: how far it has come, its outbox, and room for large messages.

Used on both sides. What lies where is in docs/WORKER_PROTOCOL.md.
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
_NO_COPY = {"trackfd": False} if sys.version_info >= (3, 13) else {}  # else it holds a descriptor of its own


def area_size(frame_limit: int) -> int:
    """Bytes of the area in which each side lends."""
    return (min(frame_limit, _AREA_LIMIT) + _PAGE - 1) // _PAGE * _PAGE


def file_size(frame_limit: int) -> int:
    return _OUTBOX_END + 2 * area_size(frame_limit)


class SharedMemory:
    """The mapped file, as one side sees it."""

    def __init__(self, fd: int, frame_limit: int, parent: bool) -> None:
        """Raises OSError or ValueError when it cannot be mapped, or is too short."""
        self.size = area = area_size(frame_limit)  # of each side's area
        if os.fstat(fd).st_size < file_size(frame_limit):
            raise ValueError("the shared file is too short")
        self.map = mmap.mmap(fd, file_size(frame_limit), **_NO_COPY)
        view = memoryview(self.map)
        # One store each, where struct would write byte by byte: the other side may read at any moment.
        self.counters = view[:24].cast("Q")  # the calls begun; bytes in the outbox; the call that is being read
        self.outbox = view[_PAGE:_OUTBOX_END]
        self._start = _OUTBOX_END if parent else _OUTBOX_END + area
        self._mine = view[self._start : self._start + area]
        self.theirs = _OUTBOX_END + area if parent else _OUTBOX_END  # where the other side's area begins
        self._theirs = view[self.theirs : self.theirs + area]
        self._views = [view, self.counters, self.outbox, self._mine, self._theirs]
        self._touched = 0  # bytes of our area that may be resident
        self._lent: Deque[Tuple[int, int]] = collections.deque()  # where each message begins and ends, oldest first
        self.offsets = False  # the other side reads what lies anywhere in the area, and several at once

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

    @property
    def lent_count(self) -> int:
        """Messages of ours that the other side has not returned."""
        return len(self._lent)

    def lend(self, pieces: Sequence[Buffer], size: int) -> Optional[List[Any]]:
        """Put a message of *size* bytes into our area. What to send in its place; None when there is no room for it."""
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
        """Where *size* bytes may lie. Messages go around in the area, and back to its beginning as soon as there is
        room: memory that was used a moment ago is faster, and the less of it is used the better.
        """
        if not self._lent:
            return 0 if size <= len(self._mine) else None
        if not self.offsets:
            return None
        first, last = self._lent[0][0], self._lent[-1][1]
        if last <= first:  # they have gone around: what is free lies between the last and the first
            return last if last + size <= first else None
        if size <= first:
            return 0
        return last if last + size <= len(self._mine) else None

    def mark_returned(self) -> None:
        """The other side has read the message that was lent first of those it has not returned."""
        self._lent.popleft()

    def borrow(self, length: int, offset: int = 0) -> memoryview:
        """What the other side lends. Raises ValueError when it cannot lie there."""
        if type(length) is not int or type(offset) is not int or not 0 <= offset < offset + length <= len(self._theirs):
            raise ValueError("nothing can have been lent there")
        return self._theirs[offset : offset + length]

    @property
    def touched_bytes(self) -> int:
        """Bytes of our area that `trim` could give back."""
        return self._touched

    def trim(self) -> None:
        """Have the system take back the memory of our area, if nothing is lent."""
        if self._touched and not self._lent:
            remove = getattr(mmap, "MADV_REMOVE", None)
            touched, self._touched = self._touched, 0
            if remove is not None and sys.platform == "linux":
                with contextlib.suppress(OSError):  # a file system that cannot: it stays
                    self.map.madvise(remove, self._start, (touched + _PAGE - 1) // _PAGE * _PAGE)

    def close(self) -> None:
        """The other side is gone. What it has lent stays as long as it is looked at."""
        for view in reversed(self._views):
            view.release()
        try:
            self.map.close()
        except BufferError:  # a view of it is left: it is unmapped with the last one, and of no other use until then
            self._lent.clear()
            self.trim()
