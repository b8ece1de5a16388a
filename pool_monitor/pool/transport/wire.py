"""A worker's channel on the event loop: sends frames, at once or joined, and receives frames.

It replaces an asyncio transport, costs less per call, copies no large message, and can join frames at the end of a turn
of the event loop.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from pool_monitor.pool.transport.channel import FULL, ChannelEnds, enlarge
from pool_monitor.pool.transport.child.framing import LENGTH, FrameReader

if TYPE_CHECKING:
    from pool_monitor.pool.transport.child.codec import Buffer

_PIECES = 64  # per system call


class Wire:
    """Reads and writes a channel, and calls three functions.

    *received*: with the number of bytes that were put into *reader*. *send_closed*: once, when the other side has
    stopped reading; what it has sent may still arrive. *lost*: once, when the channel has ended.
    """

    def __init__(
        self, channel: ChannelEnds, reader: FrameReader, *, received: Callable[[int], None],
        send_closed: Callable[[], None], lost: Callable[[], None],
    ) -> None:  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._reads, self._writes = channel
        self._reader, self._received, self._report_send_closed, self._lost = reader, received, send_closed, lost
        self._joined: list[bytes] = []  # frames to send at the end of this turn
        self._unsent: deque[memoryview] = deque()  # waits for room in the channel
        self.pieces_sent = 0  # frames, or pieces of them, sent after they had waited for room
        self._paused = self._closed = False
        self._send_closed = False  # nothing more can be sent
        self._loop.add_reader(self._reads, self._read)

    @property
    def waiting(self) -> int:
        """Number of frames, or pieces of them, that wait for room in the channel."""
        return len(self._unsent)

    # -- sending --------------------------------------------------------------------------------------------------

    def send(self, body: bytes) -> None:
        """Send a frame now, after the joined ones."""
        if self._joined:
            self._joined.append(LENGTH.pack(len(body)) + body)
            self.flush()
        else:
            self._put(LENGTH.pack(len(body)) + body)

    def send_pieces(self, pieces: Sequence[Buffer], size: int) -> None:
        """Send a frame now whose body is *size* bytes. Its pieces are not copied into one."""
        if self._joined:
            self.flush()
        self._put(LENGTH.pack(size), *pieces)

    def send_joined(self, body: bytes) -> None:
        """Send a frame at the end of this turn of the event loop, joined with others."""
        if not self._joined:
            self._loop.call_soon(self.flush)
        self._joined.append(LENGTH.pack(len(body)) + body)

    def flush(self) -> None:
        """Send the joined frames now."""
        if self._joined:
            data = b"".join(self._joined)
            self._joined.clear()
            self._put(data)

    def _put(self, *pieces: Buffer) -> None:
        if self._unsent:
            self._unsent.extend(map(memoryview, pieces))
            return
        if self._send_closed:
            return
        try:
            sent = os.write(self._writes, pieces[0]) if len(pieces) == 1 else os.writev(self._writes, pieces[:_PIECES])
        except BlockingIOError:
            sent = 0
        except OSError:
            self._break()
            return
        if sent < sum(map(len, pieces)):
            self._unsent.extend(map(memoryview, pieces))
            self._drop(sent)
            enlarge(self._writes)
            self._loop.add_writer(self._writes, self._write)

    def _drop(self, count: int) -> None:
        """Remove *count* bytes that were sent from what waits."""
        unsent = self._unsent
        while count and count >= len(unsent[0]):
            count -= len(unsent.popleft())
            self.pieces_sent += 1
        if count:
            unsent[0] = unsent[0][count:]

    def _break(self) -> None:
        """Stop sending: the other side has ended, or has closed its read end."""
        self._send_closed = True
        self._unsent.clear()
        self._loop.call_soon(self._report_send_closed)

    def _write(self) -> None:
        try:
            self._drop(os.writev(self._writes, list(islice(self._unsent, _PIECES))))
        except BlockingIOError:
            return
        except OSError:
            self._break()
        if not self._unsent:
            self._loop.remove_writer(self._writes)

    # -- receiving ------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            count = os.readv(self._reads, (self._reader.space(),))
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, MemoryError):  # the channel has ended, or memory has, which trying again would not change
            count = 0
        if count:
            if count >= FULL:
                enlarge(self._reads)
            self._received(count)
        else:
            self.abort()

    def pause(self) -> None:
        """Stop receiving."""
        if not self._paused and not self._closed:
            self._paused = True
            self._loop.remove_reader(self._reads)

    def resume(self) -> None:
        """Resume receiving."""
        if self._paused and not self._closed:
            self._paused = False
            self._loop.add_reader(self._reads, self._read)

    # -- end ------------------------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Stop sending and receiving. *lost* is called soon."""
        if not self._closed:
            self._closed = self._send_closed = True
            self._loop.remove_reader(self._reads)
            self._loop.remove_writer(self._writes)
            self._unsent.clear()
            self._joined.clear()
            self._loop.call_soon(self._lost)
