"""The program of a worker, run by a thread: what takes the place of signals, and of what is asked of the process.

Theory of operation
-------------------
In a worker process a signal interrupts the target's code, and its handler reads what the pool has sent. No signal
reaches a thread. So `look`, which the pool calls on its own event loop in place of the signal, does the reading itself,
while the target's code runs and the worker's thread cannot use the channel. Whether it may is told by `interruptible`
(and `blocking_call`, where calls run beside each other), as in a worker process. Both change under a lock which `look`
holds all the time, so that the worker's thread waits where it leaves the target's code, until `look` is done. It waits
too where it asks about them, or about `cancelled`: halfway, `look` uses the channel itself, or has yet to cancel the
task.

What `look` sends must not wait for room in the channel, since only its own thread makes room there.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pool_monitor.pool.transport.child.channel import Channel, ParentGone
from pool_monitor.pool.transport.child.concurrent import ConcurrentWorker
from pool_monitor.pool.transport.child.context import ContextWorker
from pool_monitor.pool.transport.child.worker import OperationCancelled, Worker

if TYPE_CHECKING:
    from pool_monitor.pool.transport.child.handshake import Connection, Init

Make = Callable[[str, list[Any], dict[str, Any], object], Any]
"""Makes what has the operations, of a target's name, arguments and telemetry."""


class InlineWorker(Worker):
    """One call at a time; and what the other kinds of worker have in common with it."""

    raised = False  # `OperationCancelled` was raised in the thread, and may not have come there yet
    _interruptible = False
    _cancelled = False

    def __init__(self, connection: Connection, init: Init, make: Make) -> None:
        self.make, self.lock = make, threading.RLock()
        super().__init__(connection, init)

    @property
    def interruptible(self) -> bool:
        with self.lock:
            return self._interruptible

    @interruptible.setter
    def interruptible(self, value: bool) -> None:
        with self.lock:
            self._interruptible = value
            if not value:
                self.recall_exception()

    @property
    def cancelled(self) -> bool:
        with self.lock:
            return self._cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        self._cancelled = value

    def recall_exception(self) -> None:
        """The target's code runs no more: nothing may be raised in the thread from now on."""
        if self.raised and threading.get_ident() == self.main_thread:
            self.raised = False
            _raise_in(self.main_thread, None)

    def in_target(self) -> bool:
        """Whether the target's code has the thread."""
        return self.interruptible

    # called on the pool's event loop

    def look(self) -> None:
        """Read what was sent, if the worker's own thread cannot."""
        with self.lock:
            self.urgent = True
            if self.in_target():
                self._cancelling(self.read_urgent)

    def abandon(self) -> None:
        """The worker is given up: have what it runs end, if that can be. Else its thread sees to that by itself."""
        with self.lock:
            call_id = self.running_call()
            if self.in_target() and call_id is not None:
                self._cancelling(lambda: self.cancel(call_id))
                self.channel.become_copy()  # it may go on for long, and speaks to no pool any more
                self.unmap()

    def end(self) -> None:
        """End the tasks and the event loop of the worker, and let go of what it has."""
        self.unmap()
        loop = self.loop
        if loop is None or loop.is_closed():
            return
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def unmap(self) -> None:
        shared, self.shared = self.shared, None
        if shared is not None:
            shared.close()

    def _cancelling(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OperationCancelled:
            self.raised = True
            _raise_in(self.main_thread, OperationCancelled)
        except ParentGone:
            pass  # as the worker's thread will see

    # in place of what concerns a process

    def make_target(self, target: str, _path: list[str], args: Any, kwargs: Any) -> Any:
        return self.make(target, args, kwargs, self.telemetry)

    def on_loaded(self) -> None:
        pass

    def handle_control(self, message: list[Any]) -> None:
        if message[0] == "ping":
            self.send(["pong", message[1], self.running_call(), None])  # how much memory is its own is unknown
        else:
            super().handle_control(message)

    def transmit(self, body: bytes) -> None:
        if threading.get_ident() == self.main_thread:
            super().transmit(body)
        else:
            self.channel.offer(body, must=True)

    def times(self) -> list[Any]:
        return [time.perf_counter_ns() - self.started, None, None]  # the rest is of the whole process

    @staticmethod
    def wake_by_signal(_loop: asyncio.AbstractEventLoop) -> None:
        pass


class InlineChannel(Channel):
    """Holds no answers back: they would wait until the target's code is done that comes after them."""

    def hold(self, body: bytes) -> bool:  # noqa: ARG002 - none is
        return False


class InlineContextWorker(InlineWorker, ContextWorker):
    """One call at a time, with its context variables."""


class InlineConcurrentWorker(InlineWorker, ConcurrentWorker):
    """Several calls at once, in the thread's event loop, which reads the channel unless a function has the thread."""

    _sync: int | None = None

    @property
    def blocking_call(self) -> int | None:
        return self._blocking_call

    @blocking_call.setter
    def blocking_call(self, value: int | None) -> None:
        with self.lock:
            self._blocking_call = value
            if value is None:
                self.recall_exception()
        if value is not None and self.urgent and self.interruptible:
            self.read_urgent()  # as `look` has left it to the loop, which has no turn now

    def in_target(self) -> bool:
        return self.interruptible and self.blocking_call is not None

    def abandon(self) -> None:
        super().abandon()
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed
                self.loop.call_soon_threadsafe(self.finish)


def make_worker(connection: Connection, init: Init, make: Make) -> InlineWorker:
    """The kind of worker that *init* asks for."""
    if init.concurrency > 1:
        return InlineConcurrentWorker(connection, init, make)
    return (InlineContextWorker if init.variables else InlineWorker)(connection, init, make)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise *kind* in another thread as soon as it runs Python code; None: no more, if that has not come yet."""
    with contextlib.suppress(ImportError, AttributeError):  # no CPython: what runs there ends by itself, or not
        import ctypes

        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread), None if kind is None else ctypes.py_object(kind)
        )
