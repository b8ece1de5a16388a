"""Start and end of a worker process."""

from __future__ import annotations

import fcntl
import os
import select
import signal

from .channel import Channel, ParentGone
from .handshake import shake_hands
from .link import PipeLink, SocketLink
from .output import flush_output
from .stacks import notice_handlers
from .worker import Worker

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from .handshake import Connection, Init


def die_with_parent(fd: int) -> None:
    """Make the kernel kill this process group when the other end of *fd* closes. See the theory of operation."""
    owner = -os.getpgrp() if os.getpgrp() == os.getpid() else os.getpid()
    fcntl.fcntl(fd, fcntl.F_SETOWN, owner)
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    else:  # not on Linux: SIGIO is ignored by default, and a handler runs only between bytecodes
        signal.signal(signal.SIGIO, lambda *_: os._exit(1))
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    ended = select.poll()
    ended.register(fd, select.POLLIN)
    if ended.poll(0):  # it never carries a byte
        os._exit(1)  # the parent ended before the kernel watched the life-line


def outlive_parent(lifeline: int) -> None:
    """Undo `die_with_parent`, for a process that notices the parent's end by itself and still has work to do then."""
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) & ~os.O_ASYNC)


def reset_signals() -> None:
    """Unblock all signals and restore the default for SIGCHLD. This process and its children shall receive the signals
    that the service blocks for itself. If SIGCHLD were ignored, exit codes of children would be lost.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def main() -> None:
    """Run a worker until the parent sends ``stop`` or is gone."""
    lifeline, *channel = (int(os.environ.pop(name)) for name in ("POOL_MONITOR_LIFELINE", "POOL_MONITOR_FD"))
    if "POOL_MONITOR_OUT" in os.environ:
        channel.append(int(os.environ.pop("POOL_MONITOR_OUT")))
    shared = int(os.environ.pop("POOL_MONITOR_SHARED", -1))
    for fd in (lifeline, *channel):
        os.set_inheritable(fd, False)
    die_with_parent(lifeline)
    reset_signals()
    notice_handlers()
    link = PipeLink(*channel) if len(channel) == 2 else SocketLink(*channel)
    try:
        worker = make_worker(*shake_hands(Channel(link), shared))
        os.register_at_fork(after_in_child=worker.become_copy)  # a process that the target forks off is no worker
        if worker.load():
            worker.serve()
    except ParentGone:
        pass
    finally:
        flush_output()


def make_worker(connection: Connection, init: Init) -> Worker:
    """Return the kind of worker that *init* asks for."""
    if init.concurrency > 1:
        from .concurrent import ConcurrentWorker  # imports asyncio, which takes a third of a worker's start

        return ConcurrentWorker(connection, init)
    if init.variables:
        from .context import ContextWorker

        return ContextWorker(connection, init)
    return Worker(connection, init)
