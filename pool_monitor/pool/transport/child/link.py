"""The descriptors of a worker's channel: a pipe for each direction, or one socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Optional

    from .codec import Buffer

_F_GETPIPE_SZ = 1032  # the module fcntl has it since Python 3.10; the same on every Linux


class PipeLink:
    """Two pipes. Writing never blocks; reading blocks if the caller asks for it."""

    def __init__(self, reads: int, writes: int) -> None:
        self.reads, self.writes = reads, writes
        self._arrived = select.poll()
        self._arrived.register(reads, select.POLLIN)
        os.set_blocking(writes, False)

    def read(self, space: memoryview, wait: bool) -> int:
        """Read what has arrived into *space*. Return the number of bytes, 0 at the end of the channel. Without *wait*,
        raises BlockingIOError when nothing has arrived.
        """
        if not wait and not self._arrived.poll(0):
            raise BlockingIOError
        count = os.readv(self.reads, (space,))
        if not count:
            self.check_still_ours(self.reads)
        return count

    def write(self, data: Buffer) -> int:
        """Write as much as there is room for. Return the number of bytes. Raises BlockingIOError if there is none."""
        self.check_still_ours(self.writes)
        return os.write(self.writes, data)

    def check_still_ours(self, fd: int) -> None:
        """Raise OSError if *fd* is no pipe any more: the target may have closed it, and opened a file with its number.
        System calls for sockets raise it by themselves.
        """
        fcntl.fcntl(fd, _F_GETPIPE_SZ)

    def wait(self, events: int, milliseconds: Optional[int]) -> bool:
        """Wait until there is something to read (POLLIN) or room to write (POLLOUT). Return whether there is."""
        poll = select.poll()
        for fd, event in ((self.reads, select.POLLIN), (self.writes, select.POLLOUT)):
            if events & event:
                poll.register(fd, event)
        return bool(poll.poll(milliseconds))

    def close(self) -> None:
        for fd in (self.reads, self.writes):
            with contextlib.suppress(OSError):  # the target has closed it
                os.close(fd)
        self.reads = self.writes = -1


class SocketLink(PipeLink):
    """One socket. Writing uses a duplicate of its descriptor."""

    def __init__(self, fd: int) -> None:
        import socket  # not needed with pipes, and takes long to import

        self._socket = socket.socket(fileno=os.dup(fd))
        self._flags = socket.MSG_DONTWAIT
        super().__init__(fd, self._socket.fileno())
        os.set_blocking(fd, True)  # for reading; the duplicate shares the setting, hence MSG_DONTWAIT

    def write(self, data: Buffer) -> int:
        return self._socket.send(data, self._flags)

    def check_still_ours(self, fd: int) -> None:
        pass  # `send` fails by itself

    def close(self) -> None:
        self._socket.detach()
        super().close()
