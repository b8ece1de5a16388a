"""Frames on a blocking socket: the worker's half of the wire."""

from __future__ import annotations

import struct
import sys

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    import socket

_LENGTH = struct.Struct(">I")


class ParentGone(Exception):
    """The parent closed the socket, or said ``stop``."""


class Channel:
    """Frames on a blocking socket: a 4-byte big-endian length and a body."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.limit = 1 << 20  # until the handshake settles it
        self.buffer = bytearray(64 * 1024)
        self.filled = 0

    def receive(self, flags: int = 0) -> bytes | None:
        """The next frame's body. With MSG_DONTWAIT: None when no whole frame has arrived yet."""
        while True:
            if self.filled >= 4:
                (length,) = _LENGTH.unpack_from(self.buffer)
                if length > self.limit:
                    sys.exit("pool_monitor: a frame of %d bytes is over the limit of %d" % (length, self.limit))
                end = 4 + length
                if self.filled >= end:
                    body = bytes(memoryview(self.buffer)[4:end])
                    self.buffer[: self.filled - end] = self.buffer[end : self.filled]
                    self.filled -= end
                    if not self.filled and len(self.buffer) > 1 << 20:
                        self.buffer = bytearray(64 * 1024)  # one large call does not keep its memory
                    return body
                if len(self.buffer) < end:
                    self.buffer.extend(bytes(end - len(self.buffer)))
            try:
                with memoryview(self.buffer) as view:
                    count = self.sock.recv_into(view[self.filled :], 0, flags)
            except BlockingIOError:
                return None
            except ConnectionError:
                raise ParentGone from None
            if not count:
                raise ParentGone
            self.filled += count

    def send(self, body: bytes) -> None:
        try:
            self.sock.sendall(_LENGTH.pack(len(body)) + body)
        except ConnectionError:
            raise ParentGone from None
