"""The program of a worker, run by a thread. It replaces signals, and what is measured of a whole process.

Theory of operation
-------------------
In a worker process a signal interrupts the target's code, and its handler reads what the pool has sent. A signal cannot
reach a thread. In its place the pool calls `interrupt` on its event loop. While the target's code runs, the worker's
thread does not use the channel, so `interrupt` itself reads what was sent. As in a worker process, `interruptible` says
whether it may (and `blocking_call`, where several calls run at once).

`interrupt` holds a lock all the time, and both attributes change only under that lock. So a thread that leaves the
target's code waits until `interrupt` is done. It also waits when it reads `interruptible` or `cancelled`: meanwhile
`interrupt` may be using the channel, or may not have cancelled the task yet.

`interrupt` must not wait for room in the channel, because only the event loop that it runs on makes room there.
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
"""Returns the object with the operations, for a target's name, arguments and telemetry."""


class InlineWorker(Worker):
    """Runs one call at a time. Base of the other kinds of inline worker."""

    raised = False  # `OperationCancelled` is scheduled in the thread, and perhaps not raised yet
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
                self.withdraw_exception()

    @property
    def cancelled(self) -> bool:
        with self.lock:
            return self._cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        self._cancelled = value

    def withdraw_exception(self) -> None:
        """Withdraw an exception that is still to be raised in the thread: the target's code has ended."""
        if self.raised and threading.get_ident() == self.main_thread:
            self.raised = False
            _raise_in(self.main_thread, None)

    def in_target(self) -> bool:
        """Whether the thread runs the target's code."""
        return self.interruptible

    # called on the pool's event loop

    def interrupt(self) -> None:
        """Read what was sent, if the worker's thread cannot because it runs the target's code."""
        with self.lock:
            self.urgent = True
            if self.in_target():
                self._forward_cancel(self.read_urgent)

    def abandon(self) -> None:
        """Give the worker up. Cancel the call that it runs; otherwise its thread notices by itself."""
        with self.lock:
            call_id = self.running_call()
            if self.in_target() and call_id is not None:
                self._forward_cancel(lambda: self.cancel(call_id))
                self.channel.become_copy()  # the operation may go on for long; its answer is dropped
                self.unmap()

    def end(self) -> None:
        """End the tasks and the event loop of the worker, and release its memory."""
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

    def _forward_cancel(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OperationCancelled:
            self.raised = True
            _raise_in(self.main_thread, OperationCancelled)
        except ParentGone:
            pass  # the worker's thread will notice

    # in place of what a process does

    def make_target(self, target: str, _path: list[str], args: Any, kwargs: Any) -> Any:
        return self.make(target, args, kwargs, self.telemetry)

    def on_loaded(self) -> None:
        pass

    def offer_stacks(self, _signal_number: int) -> list[Any]:
        return []  # a thread has no process that could be asked

    def handle_control(self, message: list[Any]) -> None:
        if message[0] == "ping":
            self.send(["pong", message[1], self.running_call(), None])  # the memory of one worker is unknown
        else:
            super().handle_control(message)

    def transmit(self, body: bytes) -> None:
        if threading.get_ident() == self.main_thread:
            super().transmit(body)
        else:
            self.channel.offer(body, must=True)

    def times(self) -> list[Any]:
        return [time.perf_counter_ns() - self.started, None, None]  # the rest would be of the whole process

    @staticmethod
    def wake_by_signal(_loop: asyncio.AbstractEventLoop) -> None:
        pass


class InlineChannel(Channel):
    """Holds no answers back: nothing could send them while the next operation runs."""

    def hold(self, body: bytes) -> bool:  # noqa: ARG002 - nothing is held
        return False


class InlineContextWorker(InlineWorker, ContextWorker):
    """Runs one call at a time, with its context variables."""


class InlineConcurrentWorker(InlineWorker, ConcurrentWorker):
    """Runs several calls at once in the thread's event loop. The loop reads the channel unless a function blocks it."""

    _sync: int | None = None

    @property
    def blocking_call(self) -> int | None:
        return self._blocking_call

    @blocking_call.setter
    def blocking_call(self, value: int | None) -> None:
        with self.lock:
            self._blocking_call = value
            if value is None:
                self.withdraw_exception()
        if value is not None and self.urgent and self.interruptible:
            self.read_urgent()  # `interrupt` left it to the loop, which is blocked now

    def in_target(self) -> bool:
        return self.interruptible and self.blocking_call is not None

    def abandon(self) -> None:
        super().abandon()
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self.finish)


def make_worker(connection: Connection, init: Init, make: Make) -> InlineWorker:
    """Return the kind of worker that *init* asks for."""
    if init.concurrency > 1:
        return InlineConcurrentWorker(connection, init, make)
    return (InlineContextWorker if init.variables else InlineWorker)(connection, init, make)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise *kind* in another thread as soon as it runs Python code. None withdraws one that is not raised yet."""
    with contextlib.suppress(ImportError, AttributeError):  # not CPython: the operation is not interrupted
        import ctypes

        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread), None if kind is None else ctypes.py_object(kind)
        )
