"""A connected socket on the event loop: frames out, at once or joined, and frames in.

What an asyncio transport would do, without its cost per call, without copying large messages, and with sends that
may be joined at the end of a turn of the event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from pool_monitor.pool.transport.child.framing import LENGTH, FrameReader

if TYPE_CHECKING:
    from pool_monitor.pool.transport.child.codec import Buffer

_BUFFER = 1 << 20  # bytes the socket may hold each way, as far as the system lets us
_PIECES = 64  # handed to the system in one call


class Wire:
    """Calls *received* with how many bytes were put into *reader*, and *lost* once, when the socket has ended."""

    def __init__(
        self, sock: socket.socket, reader: FrameReader, received: Callable[[int], None], lost: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock, self._reader, self._received, self._lost = sock, reader, received, lost
        self._fd = sock.fileno()
        self._joined: list[bytes] = []  # leaves at the end of this turn
        self._unsent: deque[memoryview] = deque()  # waits for room
        self._paused = self._closed = False
        self._deaf = False  # nothing more can be sent
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._loop.add_reader(self._fd, self._read)

    @property
    def waiting(self) -> int:
        """Frames, or pieces of them, that wait for room in the socket."""
        return len(self._unsent)

    # -- sending --------------------------------------------------------------------------------------------------

    def send(self, body: bytes) -> None:
        """Send a frame now, after all that was joined."""
        if self._joined:
            self._joined.append(LENGTH.pack(len(body)) + body)
            self.flush()
        else:
            self._put(LENGTH.pack(len(body)) + body)

    def send_pieces(self, pieces: Sequence[Buffer], size: int) -> None:
        """Send a frame whose body is *size* bytes, in pieces that are not joined."""
        if self._joined:
            self.flush()
        self._put(LENGTH.pack(size), *pieces)

    def join(self, body: bytes) -> None:
        """Send a frame at the end of this turn of the event loop, together with others."""
        if not self._joined:
            self._loop.call_soon(self.flush)
        self._joined.append(LENGTH.pack(len(body)) + body)

    def flush(self) -> None:
        """Send what was joined."""
        if self._joined:
            data = b"".join(self._joined)
            self._joined.clear()
            self._put(data)

    def _put(self, *pieces: Buffer) -> None:
        if self._unsent:
            self._unsent.extend(map(memoryview, pieces))
            return
        if self._deaf:
            return
        try:
            sent = self._sock.send(pieces[0]) if len(pieces) == 1 else self._sock.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        except OSError:  # it is gone: reading tells
            self._deaf = True
            return
        if sent < sum(map(len, pieces)):
            self._unsent.extend(map(memoryview, pieces))
            self._drop(sent)
            self._loop.add_writer(self._fd, self._write)

    def _drop(self, count: int) -> None:
        """So many bytes of what waits have gone."""
        unsent = self._unsent
        while count and count >= len(unsent[0]):
            count -= len(unsent.popleft())
        if count:
            unsent[0] = unsent[0][count:]

    def _write(self) -> None:
        try:
            self._drop(self._sock.sendmsg(list(islice(self._unsent, _PIECES))))
        except BlockingIOError:
            return
        except OSError:
            self._deaf = True
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self._fd)

    # -- receiving ------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            count = self._sock.recv_into(self._reader.space())
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, MemoryError):  # it is gone; or there is no memory for what it sends, now and again at once
            count = 0
        if count:
            self._received(count)
        else:
            self.abort()

    def pause(self) -> None:
        """Stop receiving."""
        if not self._paused and not self._closed:
            self._paused = True
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Go on receiving."""
        if self._paused and not self._closed:
            self._paused = False
            self._loop.add_reader(self._fd, self._read)

    # -- end ------------------------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Neither send nor receive any more; *lost* is called soon."""
        if not self._closed:
            self._closed = self._deaf = True
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._unsent.clear()
            self._joined.clear()
            self._loop.call_soon(self._lost)
