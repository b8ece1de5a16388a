"""The descriptors that a worker's frames come and go by: a pipe each way, or one socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Optional

    from .codec import Buffer

_F_GETPIPE_SZ = 1032  # in fcntl since Python 3.10; of every Linux


class PipeLink:
    """What is written does not block; what is read does if it is to."""

    def __init__(self, reads: int, writes: int) -> None:
        self.reads, self.writes = reads, writes
        self._arrived = select.poll()
        self._arrived.register(reads, select.POLLIN)
        os.set_blocking(writes, False)

    def read(self, space: memoryview, wait: bool) -> int:
        """Put what has arrived into *space*: how many bytes, 0 at the end. Raises BlockingIOError when nothing has
        and it is not to *wait*.
        """
        if not wait and not self._arrived.poll(0):
            raise BlockingIOError
        count = os.readv(self.reads, (space,))
        if not count:
            self.check_still_ours(self.reads)
        return count

    def write(self, data: Buffer) -> int:
        """Send what there is room for: how many bytes. Raises BlockingIOError when there is room for none."""
        self.check_still_ours(self.writes)
        return os.write(self.writes, data)

    def check_still_ours(self, fd: int) -> None:
        """The target may have closed it, and by now have a file of its own under that number. Raises OSError then, as
        a call for sockets does by itself.
        """
        fcntl.fcntl(fd, _F_GETPIPE_SZ)

    def wait(self, events: int, milliseconds: Optional[int]) -> bool:
        """Wait until there is something to read (POLLIN) or room to write (POLLOUT). Whether there is."""
        poll = select.poll()
        for fd, event in ((self.reads, select.POLLIN), (self.writes, select.POLLOUT)):
            if events & event:
                poll.register(fd, event)
        return bool(poll.poll(milliseconds))

    def close(self) -> None:
        for fd in (self.reads, self.writes):
            with contextlib.suppress(OSError):  # the target has done so
                os.close(fd)
        self.reads = self.writes = -1


class SocketLink(PipeLink):
    """One socket, under a second number for what is written."""

    def __init__(self, fd: int) -> None:
        import socket  # not needed on Linux, and takes long

        self._socket = socket.socket(fileno=os.dup(fd))
        self._flags = socket.MSG_DONTWAIT
        super().__init__(fd, self._socket.fileno())
        os.set_blocking(fd, True)  # for reading; both numbers stand for the same open file

    def write(self, data: Buffer) -> int:
        return self._socket.send(data, self._flags)

    def check_still_ours(self, fd: int) -> None:
        pass  # the system sees to it

    def close(self) -> None:
        self._socket.detach()
        super().close()
