"""A worker with several calls at once: its main thread runs an asyncio loop.

Every call is a task. Coroutines and asynchronous generators run concurrently. A plain function, and each step of a
plain generator, blocks the other calls while it runs. Nothing blocks on a full channel: what does not fit waits, and
streams wait with it.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import sys
import time

from .channel import ParentGone
from .output import flush_output
from .streams import END, iterator_of, next_async_item
from .worker import OperationCancelled, Worker, failure_kind

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Sequence

    from .codec import Buffer
    from .handshake import Connection, Init
    from .payloads import Body

_UNSENT = 64 * 1024  # bytes waiting for room in the channel, beyond which streams wait too


# asyncio's errors for a function that starts a loop inside a running one, and what its author can do instead.
_LOOP_RUNS = ("from a running event loop", "event loop is already running", "while another loop is running")
_INSTEAD = (
    "with the pool's concurrency above 1 a function runs in the event loop of its worker: make it a coroutine function "
    "(async def) that awaits, or set concurrency=1"
)


class StopIterationRaised(Exception):
    """A function raised StopIteration, which cannot pass through a coroutine."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__(error)
        self.error = error


class RunningCall:
    """A call under way."""

    def __init__(self, call_id: int) -> None:
        self.id = call_id
        self.started = time.perf_counter_ns()
        self.operation = ""  # set when it begins
        self.cancelled = self.answered = False
        self.paused: Optional[asyncio.Future[None]] = None  # set while the caller does not read its items

    def times(self) -> List[Any]:
        return [time.perf_counter_ns() - self.started, None, None]


class ConcurrentWorker(Worker):
    """Runs up to ``concurrency`` calls at once, as tasks of an asyncio loop."""

    def __init__(self, connection: Connection, init: Init) -> None:
        super().__init__(connection, init)
        self.concurrency = init.concurrency
        self.tasks: Dict[int, asyncio.Task[None]] = {}  # the calls under way, in the order they began
        self.calls: Dict[int, RunningCall] = {}
        self.blocking_call: Optional[int] = None  # the call whose plain function is running
        self.stopping = False
        self.writable: Optional[asyncio.Future[None]] = None  # set while the channel is full
        self.finished: Optional[asyncio.Future[None]] = None

    def serve(self) -> None:
        self.loop = loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self.wake_by_signal(loop)
        self.finished = loop.create_future()
        loop.add_reader(self.channel.link.reads, self.use_channel, self.readable)
        loop.call_soon(self.use_channel, self.readable)  # what arrived with the handshake
        self.interruptible = True  # except while the channel is in use
        try:
            if self.urgent:
                self.read_urgent()
            loop.run_until_complete(self.finished)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            sys.exit("pool_monitor: the target has closed the descriptors of its worker's event loop")
        finally:
            self.interruptible = False

    def use_channel(self, action: Callable[[], Any]) -> None:
        """Run *action*, which uses the channel, undisturbed by signals. If the parent is gone, end the loop."""
        try:
            self.uninterrupted(action)
        except ParentGone:
            self.finish()

    def uninterrupted(self, action: Callable[[], Any]) -> None:
        super().uninterrupted(action)
        self.send_when_writable()

    def finish(self) -> None:
        assert self.finished is not None
        if not self.finished.done():
            self.finished.set_exception(ParentGone())

    # messages

    def readable(self) -> None:
        self.receive_pending()
        self.begin()

    def read_urgent(self) -> None:
        """Read urgent messages. Runs in the signal handler, so it must not touch the loop's state."""
        assert self.loop is not None
        try:
            super().read_urgent()
        except ParentGone:
            self.loop.call_soon_threadsafe(self.finish)
        finally:
            self.loop.call_soon_threadsafe(self.use_channel, self.readable)

    def running_call(self) -> Optional[int]:
        if self.blocking_call is not None:
            return self.blocking_call
        current = asyncio.current_task(self.loop)
        return next((call_id for call_id, task in self.tasks.items() if task is current), next(iter(self.calls), None))

    def tasks_of_calls(self) -> List[Any]:
        return [(self.calls[call_id].operation, task) for call_id, task in list(self.tasks.items())]

    def stop(self, _message: List[Any]) -> None:
        self.stopping = True

    def handle_control(self, message: List[Any]) -> None:
        if message[0] in ("pause", "resume"):
            assert self.loop is not None
            self.loop.call_soon_threadsafe(self.hold, message[1], message[0] == "pause")
        else:
            super().handle_control(message)

    def hold(self, call_id: int, held: bool) -> None:
        """Pause a stream, or resume it."""
        running = self.calls.get(call_id)
        if running is None or held == (running.paused is not None):
            return
        assert self.loop is not None
        paused, running.paused = running.paused, self.loop.create_future() if held else None
        if paused is not None and not paused.done():
            paused.set_result(None)

    def cancel(self, call_id: int) -> None:
        assert self.loop is not None
        if call_id == self.blocking_call:
            raise OperationCancelled
        if call_id in self.tasks:
            self.calls[call_id].cancelled = True  # a task that has not run yet never begins
            self.loop.call_soon_threadsafe(self.cancel_task, call_id)
        elif self.withdraw(call_id):
            self.send_encoded(self.failure(call_id, "cancelled", OperationCancelled(), [0, 0, None]))

    def cancel_task(self, call_id: int) -> None:
        """Cancel the task of a call. The loop calls this after the task's first step, so the task sends its answer."""
        if call_id in self.tasks:
            self.tasks[call_id].cancel()

    # calls

    def begin(self) -> None:
        """Begin calls of the backlog, in order, while fewer than ``concurrency`` run."""
        assert self.loop is not None
        while self.backlog and len(self.tasks) < self.concurrency:
            number, message = self.backlog.popleft()
            if self.shared is not None:
                self.shared.counters[0] = number
            running = self.calls[message[1]] = RunningCall(message[1])
            task = self.tasks[running.id] = self.loop.create_task(self.perform(running, *message[2:]))
            task.add_done_callback(functools.partial(self.ended, running))
        if self.stopping and not self.tasks and not self.backlog and not self.channel.waiting:
            self.channel.flush_all()
            self.finish()

    def ended(self, running: RunningCall, _task: asyncio.Task[None]) -> None:
        if not running.answered:  # the target cancelled the task before its first step
            self.answer_with(self.failure(running.id, "cancelled", asyncio.CancelledError(), running.times()))
        del self.tasks[running.id], self.calls[running.id]
        self.begin()

    async def perform(
        self, running: RunningCall, name: str, payload: Any, stream: bool, session: Any, options: Any = None
    ) -> None:
        running.answered, running.operation = True, name  # answered by this task, from here on
        running.started = time.perf_counter_ns()
        try:
            if options is not None:
                self.set_context(options)
            body = await self.execute(running, name, payload, stream, session)
        except StopIterationRaised as stopped:
            body = self.failure(running.id, "operation", stopped.error, running.times())
        except BaseException as error:
            body = self.failure(running.id, failure_kind(error), error, running.times())
        self.answer_with(body)

    async def execute(self, running: RunningCall, name: str, payload: Any, stream: bool, session: Any) -> Body:
        """Run the operation. Return the encoded ``reply`` or ``end``."""
        if running.cancelled:
            raise OperationCancelled
        operation = self.operations.get(name)
        if operation is None:
            raise self.unknown_operation(name)
        args, kwargs = self.payloads.arguments(payload)
        state = self.add_extras(operation, kwargs, session)
        result = self.run_sync(running, operation.function, *args, **kwargs)
        if hasattr(type(result), "__await__"):
            result = await self.awaited(result)
        if stream:
            await self.stream(running, result)
            result = None
        if running.cancelled:  # and the target has swallowed it
            raise OperationCancelled
        times = running.times()
        data = None if state is None else self.payloads.pack_session(state.data)
        return self.payloads.carry("the result", ["end" if stream else "reply", running.id, result, data, times])

    def run_sync(self, running: RunningCall, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            self.blocking_call = running.id
            result = function(*args, **kwargs)
        except BaseException as error:
            self.exit_if_copy(error)
            if isinstance(error, StopIteration):
                raise StopIterationRaised(error) from None
            if isinstance(error, RuntimeError) and any(words in str(error) for words in _LOOP_RUNS):
                error.args = ("%s; %s" % (error, _INSTEAD),)
            raise
        finally:
            self.blocking_call = None
        self.exit_if_copy()
        return result

    async def stream(self, running: RunningCall, result: Any) -> None:
        result, asynchronous = self.run_sync(running, iterator_of, result)
        try:
            while True:
                if asynchronous:
                    item = await self.awaited(next_async_item(result))
                else:
                    item = self.run_sync(running, next, result, END)
                if item is END:
                    return
                body = self.payloads.carry("an item", ["item", running.id, item])
                self.use_channel(functools.partial(self.send_encoded, body))
                await self.wait_for_reader(running)
                if running.cancelled:
                    await asyncio.sleep(0)  # raises CancelledError here, unless the target has swallowed it
                    raise OperationCancelled
        finally:
            if asynchronous and hasattr(result, "aclose"):
                await result.aclose()
            elif hasattr(result, "close"):
                self.run_sync(running, result.close)

    # sending

    def send_returned(self, body: bytes) -> None:
        self.transmit(body)

    def transmit(self, body: bytes) -> None:
        self.channel.offer(body, must=True)
        self.send_when_writable()

    def transmit_large(self, pieces: Sequence[Buffer], _size: int) -> None:
        self.transmit(b"".join(pieces))

    def send_when_writable(self) -> None:
        """Send what waits as soon as there is room."""
        if self.channel.waiting and self.writable is None:
            assert self.loop is not None
            self.loop.call_soon_threadsafe(self.watch_writable)

    def answer_with(self, body: Body) -> None:
        flush_output()
        self.use_channel(functools.partial(self.send_encoded, body))
        if self.telemetry.dropped:
            self.uninterrupted(self.telemetry.report_dropped)

    def watch_writable(self) -> None:
        if self.writable is None and self.channel.waiting:
            assert self.loop is not None
            self.writable = self.loop.create_future()
            self.loop.add_writer(self.channel.link.writes, self.use_channel, self.resume_sending)

    def resume_sending(self) -> None:
        if self.channel.send_waiting() and self.writable is not None:
            assert self.loop is not None
            self.loop.remove_writer(self.channel.link.writes)
            self.writable.set_result(None)
            self.writable = None
            self.telemetry.report_dropped()
            self.begin()  # or stop, if it only waited for this

    async def wait_for_reader(self, running: RunningCall) -> None:
        """Give other calls a turn, then wait while the stream is paused or the channel is full."""
        await asyncio.sleep(0)
        while running.paused is not None:
            await running.paused
        while self.channel.waiting > _UNSENT and self.writable is not None:
            await asyncio.shield(self.writable)
