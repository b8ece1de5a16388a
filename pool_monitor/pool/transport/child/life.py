"""How a worker process begins, and how it ends."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import socket
import sys

from .channel import ParentGone
from .worker import Worker, flush_output


def tie_life_to(fd: int) -> socket.socket:
    """Have the kernel kill this process group when the other end of *fd* closes. See the theory of operation."""
    owner = -os.getpgrp() if os.getpgrp() == os.getpid() else os.getpid()
    fcntl.fcntl(fd, fcntl.F_SETOWN, owner)
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    else:  # elsewhere than on Linux SIGIO is ignored by default, and this works only between bytecodes
        signal.signal(signal.SIGIO, lambda *_: os._exit(1))
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    lifeline = socket.socket(fileno=fd)
    try:
        if lifeline.recv(1, socket.MSG_DONTWAIT) == b"":
            os._exit(1)  # the parent went before the kernel was told to watch
    except BlockingIOError:
        pass
    return lifeline


def loosen(lifeline: socket.socket) -> None:
    """Undo `tie_life_to`: this process notices the parent's end by itself, and has something left to do then."""
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) & ~os.O_ASYNC)


def hear_signals() -> None:
    """Block no signal: what the service blocks for itself shall be heard here, and by what the target starts. Nor
    ignore the ends of children, or nobody here could learn how they ended.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def print_by_lines() -> None:
    """Have what the target prints leave line by line, whatever it is."""
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(line_buffering=True, errors="backslashreplace")


def main() -> None:
    """Serve the parent until it says stop or is gone."""
    fds = [int(os.environ.pop(name)) for name in ("POOL_MONITOR_FD", "POOL_MONITOR_LIFELINE")]
    for fd in fds:
        os.set_inheritable(fd, False)
    lifeline = tie_life_to(fds[1])
    hear_signals()
    worker = Worker(socket.socket(fileno=fds[0]))
    os.register_at_fork(after_in_child=worker.be_copy)  # what the target forks off is no worker
    try:
        if worker.start():
            worker.serve()
    except ParentGone:
        pass
    finally:
        flush_output()
        for sock in (lifeline, worker.channel.sock):
            sock.detach()  # stays open until the very end of the process: the parent takes its end for ours
