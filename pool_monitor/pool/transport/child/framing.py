"""Bytes into frames, without I/O. Used on both sides of the wire.

A frame is a 4-byte big-endian length and a body. The reader owns the memory that bytes are received into, so a
small frame costs no allocation and a large one is received straight into a buffer that the next one uses again.
"""

from __future__ import annotations

import mmap
import struct

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import List, Sequence

LENGTH = struct.Struct(">I")
HEADER = LENGTH.size
_SMALL = 64 * 1024
_KEPT = 64  # times bytes came without needing the large buffer, after which it is given back


class FrameError(Exception):
    """The other side announced a frame that cannot be: nothing after it can be trusted. *before*: the whole ones that
    came with it and before it.
    """

    def __init__(self, reason: str, before: Sequence[memoryview] = ()) -> None:
        super().__init__(reason)
        self.before = before


def frame(body: bytes) -> bytes:
    """*body* as a frame."""
    return LENGTH.pack(len(body)) + body


def _small_buffer() -> memoryview:
    """Memory that the system gives page by page, once something is received into it: most readers never need more
    than the first.
    """
    try:
        return memoryview(mmap.mmap(-1, _SMALL, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError:  # the system allows no more mappings
        return memoryview(bytearray(_SMALL))


class FrameReader:
    """Receive into `space`, then tell `received` how much came: it gives the frames that are whole.

    Holds at most one frame of ``limit`` bytes plus 64 KiB.
    """

    __slots__ = ("_end", "_need", "_small", "_start", "_unneeded", "_view", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._view = self._small = _small_buffer()
        self._start = self._end = 0  # what was received and is not given out yet
        self._need = HEADER  # bytes the next frame takes, as far as is known
        self._unneeded = 0  # times the small buffer would have done

    @property
    def oversized(self) -> bool:
        """Whether it holds memory that only a large frame needs."""
        return self._view is not self._small

    def space(self) -> memoryview:
        """Where the next bytes go; never empty. Views that `received` gave are no longer good."""
        if self._start == self._end:
            self._start = self._end = 0
            if self._view is not self._small and self._need <= _SMALL:
                self._unneeded += 1
                if self._unneeded > _KEPT:
                    self.trim()
        if self._start + self._need > len(self._view):
            self._make_room()
        return self._view[self._end :] if self._end else self._view

    def _make_room(self) -> None:
        """Have the frame that has begun fit in from the start of the buffer."""
        count = self._end - self._start
        if self._need <= len(self._view):
            self._view[:count] = bytes(self._view[self._start : self._end])
        else:
            view = memoryview(bytearray(min(self.limit + HEADER, max(self._need, 2 * len(self._view)))))
            view[:count] = self._view[self._start : self._end]
            self._view = view
        self._start, self._end, self._unneeded = 0, count, 0

    def trim(self) -> None:
        """Let go of the memory that a large frame took, if it holds nothing."""
        if self._start == self._end:
            self._view = self._small
            self._start = self._end = self._unneeded = 0

    def close(self) -> None:
        """Hold no memory any more: nothing more is received."""
        self._view = self._small = memoryview(b"")
        self._start = self._end = 0

    def received(self, count: int) -> List[memoryview]:
        """*count* bytes were put into `space`. The bodies of the frames they complete.

        The views are good until the next call of `space`. Raises FrameError for a frame over the limit.
        """
        end = self._end = self._end + count
        start, need, view = self._start, self._need, self._view
        frames: List[memoryview] = []
        while end - start >= need:
            if need == HEADER:
                (length,) = LENGTH.unpack_from(view, start)
                if not 0 < length <= self.limit:
                    raise FrameError(self._wrong_with(length), frames)
                need += length
                if end - start < need:
                    break
            frames.append(view[start + HEADER : start + need])
            start += need
            need = HEADER
        self._start, self._need = start, need
        return frames

    def _wrong_with(self, length: int) -> str:
        if not length:
            return "a frame without a body"
        return "a frame of %d bytes is over the limit of %d" % (length, self.limit)
