"""Bytes into frames, without I/O: the parent's half of the wire.

A frame is a 4-byte big-endian length and a body. The reader owns the memory that bytes are received into, so a
small frame costs no allocation and a large one is received straight into a buffer of its own size. (An asyncio
transport that hands out ``bytes`` allocates 256 KiB per read: half of a round trip's cost, see pools.md.)
"""

from __future__ import annotations

import struct

_LENGTH = struct.Struct(">I")
HEADER = _LENGTH.size
_SMALL = 64 * 1024


class FrameError(Exception):
    """The other side announced a frame over the limit: nothing after it can be trusted."""


def frame(body: bytes) -> bytes:
    """*body* as a frame."""
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Receive into `space`, then tell `received` how much came: it gives the frames that are whole.

    Holds at most one frame of ``limit`` bytes plus 64 KiB.
    """

    __slots__ = ("_end", "_need", "_small", "_start", "_view", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._view = self._small = memoryview(bytearray(_SMALL))
        self._start = self._end = 0  # what was received and is not given out yet
        self._need = HEADER  # bytes the next frame takes, as far as is known

    def space(self) -> memoryview:
        """Where the next bytes go; never empty. Views that `received` gave are no longer good."""
        if self._start == self._end:
            self._start = self._end = 0
        if self._start + self._need > len(self._view):
            rest = bytes(self._view[self._start : self._end])
            self._view = self._small if self._need <= _SMALL else memoryview(bytearray(self._need))
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        elif not self._end:
            self._view = self._small  # one large frame does not keep its memory
        return self._view[self._end :]

    def received(self, count: int) -> list[memoryview]:
        """*count* bytes were put into `space`. The bodies of the frames they complete.

        The views are good until the next call of `space`. Raises FrameError for a frame over the limit.
        """
        self._end += count
        frames = []
        while self._end - self._start >= self._need:
            if self._need == HEADER:
                (length,) = _LENGTH.unpack_from(self._view, self._start)
                if not length:
                    raise FrameError("a frame without a body")
                if length > self.limit:
                    raise FrameError(f"a frame of {length} bytes is over the limit of {self.limit}")
                self._need = HEADER + length
            else:
                frames.append(self._view[self._start + HEADER : self._start + self._need])
                self._start += self._need
                self._need = HEADER
        return frames
