"""The descriptors that join the service and one worker: our ends, and the ends that the worker is given.

A worker of our own has a pipe for each direction. With a socket the kernel also wakes a sleeping process when the other
side reads what it sent, so a worker would be woken twice for each call. A pipe costs less besides.
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

_BUFFER = 1 << 20  # bytes a socket may hold in each direction, as far as the system allows it
_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)  # None outside Linux
_LARGE = 256 << 10  # bytes in an enlarged pipe
_LARGE_MAX = 64  # enlarged pipes of this process: 12 MiB of the 64 MiB that all pipes of a user may hold
FULL = 64 << 10  # bytes in a full pipe of the default size

_large: set[int] = set()


class ChannelEnds(NamedTuple):
    """Our descriptors, both non-blocking: *reads* for what the worker sends, *writes* for what it receives. With a
    socket they are the same.
    """

    reads: int
    writes: int


def pipes(ours: ExitStack, theirs: ExitStack) -> tuple[ChannelEnds, dict[str, int]]:
    """Open a pipe for each direction. Return our ends, and the worker's by the names of their environment variables.

    The ends are closed with the stacks. Each pipe holds the system's default, 64 KiB, until `enlarge`.
    """
    incoming, writes = _pipe(ours, theirs, we_write=True)
    outgoing, reads = _pipe(ours, theirs, we_write=False)
    return ChannelEnds(reads, writes), {"POOL_MONITOR_FD": incoming, "POOL_MONITOR_OUT": outgoing}


def _pipe(ours: ExitStack, theirs: ExitStack, *, we_write: bool) -> tuple[int, int]:
    """Return the ends of a new pipe, the worker's and ours. Processes that the service forks do not keep ours."""
    read_end, write_end = os.pipe()
    their_end, our_end = (read_end, write_end) if we_write else (write_end, read_end)
    theirs.callback(os.close, their_end)
    keep_from_children(ours.enter_context(FileIO(our_end, "wb" if we_write else "rb")))
    ours.callback(_large.discard, our_end)
    os.set_blocking(our_end, False)
    return their_end, our_end


def one_socket(ours: ExitStack, theirs: ExitStack) -> tuple[ChannelEnds, dict[str, int]]:
    """As `pipes`, with one socket: what docs/WORKER_PROTOCOL.md promises to workers that others write."""
    our_end, their_end = socketpair()
    ours.enter_context(our_end)
    theirs.enter_context(their_end)
    our_end.setblocking(False)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        our_end.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    return ChannelEnds(our_end.fileno(), our_end.fileno()), {"POOL_MONITOR_FD": their_end.fileno()}


def enlarge(fd: int) -> None:
    """Let a pipe that was full hold more, as far as the limits allow.

    Pipes are not made that large from the start: once all pipes of a user exceed the system's limit, each new one gets
    only two pages.
    """
    if _SET_SIZE is not None and fd not in _large and len(_large) < _LARGE_MAX:
        with suppress(OSError):  # a socket; or the limit is reached
            fcntl.fcntl(fd, _SET_SIZE, _LARGE)
            _large.add(fd)
