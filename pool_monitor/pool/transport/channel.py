"""What the service and a worker speak through: descriptors of ours, and those that the worker is given.

A worker of our own has a pipe for each way. On a socket the kernel also wakes a sleeping process when the other side
reads what it has sent, and so wakes a worker twice for each call; a pipe costs less besides.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import ExitStack, suppress
from io import FileIO
from typing import NamedTuple

from pool_monitor.after_fork import keep_from_children
from pool_monitor.pool.transport.spawn import socketpair

_BUFFER = 1 << 20  # bytes a socket may hold each way, as far as the system lets us
_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)  # elsewhere than on Linux there is none
_LARGE = 256 << 10  # bytes a pipe may hold that messages did not fit into
_LARGE_MAX = 64  # such pipes of this process: 12 MiB more, of the 64 MiB that all of a user's pipes may hold
FULL = 64 << 10  # bytes in a pipe as the system makes it, when it is full

_large: set[int] = set()


class ChannelEnds(NamedTuple):
    """Our descriptors, which do not block: what the worker sends comes from one, the other is written to. A socket
    is both.
    """

    reads: int
    writes: int


def pipes(ours: ExitStack, theirs: ExitStack) -> tuple[ChannelEnds, dict[str, int]]:
    """A pipe each way: ours, and the worker's by the names of their variables. They are closed with the stacks.

    Each holds as much as the system gives it, 64 KiB, until `enlarge`.
    """
    incoming, writes = _pipe(ours, theirs, we_write=True)
    outgoing, reads = _pipe(ours, theirs, we_write=False)
    return ChannelEnds(reads, writes), {"POOL_MONITOR_FD": incoming, "POOL_MONITOR_OUT": outgoing}


def _pipe(ours: ExitStack, theirs: ExitStack, *, we_write: bool) -> tuple[int, int]:
    """A pipe's ends: the worker's, and ours, which stays with this process alone also when it forks."""
    read_end, write_end = os.pipe()
    their_end, our_end = (read_end, write_end) if we_write else (write_end, read_end)
    theirs.callback(os.close, their_end)
    keep_from_children(ours.enter_context(FileIO(our_end, "wb" if we_write else "rb")))
    ours.callback(_large.discard, our_end)
    os.set_blocking(our_end, False)
    return their_end, our_end


def one_socket(ours: ExitStack, theirs: ExitStack) -> tuple[ChannelEnds, dict[str, int]]:
    """The same with a socket, as docs/WORKER_PROTOCOL.md promises it to programs that others write."""
    our_end, their_end = socketpair()
    ours.enter_context(our_end)
    theirs.enter_context(their_end)
    our_end.setblocking(False)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        our_end.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    return ChannelEnds(our_end.fileno(), our_end.fileno()), {"POOL_MONITOR_FD": their_end.fileno()}


def enlarge(fd: int) -> None:
    """A pipe was full: have it hold more, as far as we may.

    Not from the start: when all pipes of a user hold more than the system's limit, every new one gets two pages.
    """
    if _SET_SIZE is not None and fd not in _large and len(_large) < _LARGE_MAX:
        with suppress(OSError):  # a socket; or the limit is reached
            fcntl.fcntl(fd, _SET_SIZE, _LARGE)
            _large.add(fd)
