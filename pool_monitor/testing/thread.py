"""A thread in place of a worker process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pool_monitor.pool.transport.child.channel import ParentGone
from pool_monitor.pool.transport.child.handshake import shake_hands
from pool_monitor.pool.transport.child.link import SocketLink
from pool_monitor.pool.transport.spawn import WatchedProcess, output_pipes
from pool_monitor.testing.worker import InlineChannel, make_worker

if TYPE_CHECKING:
    from pool_monitor.testing.worker import InlineWorker, Make


class ThreadProcess(WatchedProcess):
    """A thread that runs a worker, with duplicates of the descriptors *fds*. *make* loads the target.

    `signal` acts on the thread instead: SIGURG makes the worker read what was sent. Any other signal cuts its channel
    and abandons the thread.
    """

    def __init__(self, fds: Mapping[str, int], make: Make) -> None:
        with output_pipes() as (ours, _theirs):  # nothing is written to them
            super().__init__(os.getpid(), ours)
        self._worker: InlineWorker | None = None
        fd = fds["POOL_MONITOR_FD"]
        self._channel = socket.socket(fileno=os.dup(fd))
        shared = os.dup(fds["POOL_MONITOR_SHARED"]) if "POOL_MONITOR_SHARED" in fds else -1
        threading.Thread(
            target=self._run, args=(SocketLink(os.dup(fd)), shared, make), name="inline worker", daemon=True
        ).start()

    def _open_pidfd(self) -> None:
        return None

    def signal(self, number: int, *, group: bool) -> None:  # noqa: ARG002 - a thread has no group
        if self.ended:
            return
        if number == signal.SIGURG:
            if self._worker is not None:
                self._worker.interrupt()
            return
        with contextlib.suppress(OSError):  # the other end is closed
            self._channel.shutdown(socket.SHUT_RDWR)
        if self._worker is not None:
            self._worker.abandon()
        self._loop.call_soon(self._reaped, -number)

    def _reap_now(self, _timeout: float) -> None:
        self._reaped(-signal.SIGKILL)

    def _reaped(self, returncode: int | None) -> None:
        self._channel.close()
        super()._reaped(returncode)

    def _run(self, link: SocketLink, shared: int, make: Make) -> None:
        code = 1
        try:
            with contextlib.suppress(ParentGone):
                connection, init = shake_hands(InlineChannel(link), shared)
                self._worker = worker = make_worker(connection, init, make)
                try:
                    if worker.load():
                        worker.serve()
                finally:
                    worker.end()
            code = 0
        except SystemExit as error:
            sys.stderr.write(f"{error.code}\n")
        finally:
            link.close()
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self._reaped, code)
