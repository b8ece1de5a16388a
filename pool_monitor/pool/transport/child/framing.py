"""Splits bytes into frames, without I/O. Used on both sides of the wire.

A frame is a 4-byte big-endian length and a body. The reader owns the memory that bytes are received into. So a small
frame needs no allocation, and a large one is received straight into a buffer that is used again.
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
_KEPT = 64  # reads that did not need the large buffer, after which it is released


class FrameError(Exception):
    """The other side violated the protocol. Raised by a `FrameReader` for an invalid length: no byte after it can be
    trusted. *before*: the whole frames that arrived before it in the same read.
    """

    def __init__(self, reason: str, before: Sequence[memoryview] = ()) -> None:
        super().__init__(reason)
        self.before = before


def frame(body: bytes) -> bytes:
    """Return *body* as a frame."""
    return LENGTH.pack(len(body)) + body


def _small_buffer() -> memoryview:
    """Return memory whose pages the system allocates when they are first written. Most readers need only the first."""
    try:
        return memoryview(mmap.mmap(-1, _SMALL, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError:  # the system allows no more mappings
        return memoryview(bytearray(_SMALL))


class FrameReader:
    """Receive into `space`, then call `received` with the number of bytes: it returns the whole frames.

    Holds at most one frame of ``limit`` bytes plus 64 KiB.
    """

    __slots__ = ("_end", "_need", "_small", "_start", "_unneeded", "_view", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._view = self._small = _small_buffer()
        self._start = self._end = 0  # the bytes received and not yet returned as frames
        self._need = HEADER  # size of the next frame as far as it is known, in bytes
        self._unneeded = 0  # reads for which the small buffer was enough

    @property
    def oversized(self) -> bool:
        """Whether it holds memory that only a large frame needs."""
        return self._view is not self._small

    def space(self) -> memoryview:
        """Return where to put the next bytes; never empty. Invalidates the views that `received` returned."""
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
        """Move the incomplete frame to the start of a buffer that it fits into."""
        count = self._end - self._start
        if self._need <= len(self._view):
            self._view[:count] = bytes(self._view[self._start : self._end])
        else:
            view = memoryview(bytearray(min(self.limit + HEADER, max(self._need, 2 * len(self._view)))))
            view[:count] = self._view[self._start : self._end]
            self._view = view
        self._start, self._end, self._unneeded = 0, count, 0

    def trim(self) -> None:
        """Release the large buffer if it holds nothing."""
        if self._start == self._end:
            self._view = self._small
            self._start = self._end = self._unneeded = 0

    def close(self) -> None:
        """Release all memory. Nothing can be received any more."""
        self._view = self._small = memoryview(b"")
        self._start = self._end = 0

    def received(self, count: int) -> List[memoryview]:
        """Take the *count* bytes that were put into `space`. Return the bodies of the frames they complete.

        The views are valid until the next call of `space`. Raises FrameError for a frame that is empty or over the
        limit.
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
