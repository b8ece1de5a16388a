"""Life-lines: the kernel ends the workers when the service ends, in whatever way it ends."""

from __future__ import annotations

import os
from contextlib import ExitStack
from io import FileIO

from pool_monitor.after_fork import keep_from_children
from pool_monitor.pool.transport.spawn import socketpair

_OWN = "/proc/self/fd"


class Lifeline:
    """A pipe that never carries a byte. Only this process has its write end; all workers of a pool share the pipe.

    Each worker opens the read end separately, because the process that the kernel signals is set for an open file, not
    for a pipe. Must be closed when the workers have ended.
    """

    def __init__(self) -> None:
        self._write_end: FileIO | None = None

    def attach(self, theirs: ExitStack) -> int:
        """Return a new read end for one process, closed with the stack.

        Raises OSError, also where a pipe cannot be opened a second time: without ``/proc``, or in a process that may
        not read its own entry there.
        """
        if self._write_end is None:
            reads, writes = os.pipe()
            os.close(reads)
            self._write_end = FileIO(writes, "wb")
            keep_from_children(self._write_end)
        ours = self._write_end.fileno()
        fd = os.open(f"{_OWN}/{ours}", os.O_RDONLY | os.O_NONBLOCK)
        theirs.callback(os.close, fd)
        if not os.path.sameopenfile(fd, ours):
            raise OSError(f"{_OWN} belongs to another process")
        return fd

    def close(self) -> None:
        if self._write_end is not None:
            self._write_end.close()


def own_lifeline(ours: ExitStack, theirs: ExitStack) -> int:
    """Return a socket as the life-line of one process. Its ends are closed with the stacks. Raises OSError."""
    kept, end = socketpair()
    ours.enter_context(kept)
    theirs.enter_context(end)
    return end.fileno()
