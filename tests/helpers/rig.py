"""The real dispatcher with simulated workers, on virtual time.

The first argument of a call is how many seconds it takes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pool_monitor.config import PoolConfig
from pool_monitor.errors import WorkerDied
from pool_monitor.pool.call import Call, Options
from pool_monitor.pool.dispatcher import Dispatcher
from pool_monitor.pool.transport.interface import CallTimes, Failure, Reply
from pool_monitor.pool.worker import Worker, WorkerProcess
from tests.helpers.fakes import TIMES, FakeTransport, dispatcher, fill
from tests.helpers.virtual import clock


class TimedTransport(FakeTransport):
    """Begins its calls in order; each takes as long as its first argument says. `stall`: no call proceeds before that
    time. *stubborn*: cancelling a call does not interrupt it.
    """

    def __init__(self, dispatcher: Dispatcher, worker: Worker, stubborn: bool) -> None:
        super().__init__()
        self._dispatcher, self._worker, self._stubborn = dispatcher, worker, stubborn
        self._running: asyncio.TimerHandle | None = None  # the timer for the end of the running call
        self.stall = 0.0
        self.executed: list[int] = []  # ids of the calls that have begun
        self.dead = False
        self.on_call = self._begin
        self.on_cancel = self._interrupt

    def _begin(self) -> None:
        if self._running is None and self.handed and not self.dead:
            call_id, (seconds, *_) = self.handed[0]
            self.begin()
            self.executed.append(call_id)
            self._running = clock().call_at(max(clock().time(), self.stall) + seconds, self._done, float(seconds))

    def _done(self, seconds: float) -> None:
        left = self.stall - clock().time()
        if left > 0:  # the call began before the stall
            self._running = clock().call_later(left, self._done, seconds)
            return
        self._running = None
        call_id, _ = self.handed.pop(0)
        took = round(seconds * 1e9)
        self._dispatcher.returned(self._worker, [Reply(call_id, call_id, None, CallTimes(took, took))])
        self._dispatcher.caught_up(self._worker)
        self._begin()

    def recall(self, call_ids: Sequence[int]) -> None:
        for entry in [entry for entry in self.handed[self.working :] if entry[0] in call_ids]:
            self.handed.remove(entry)
            clock().call_soon(self._report, self._dispatcher.recalled, entry[0])

    def _interrupt(self, call_id: int) -> None:
        if self._running is None or self.handed[0][0] != call_id or self._stubborn:
            return
        self._running.cancel()
        self._running = None
        del self.handed[0]
        failure = Failure("cancelled", "Cancelled", "", "")
        clock().call_soon(self._report, self._dispatcher.failed, call_id, failure, TIMES)
        clock().call_soon(self._begin)

    def _report(self, what: Callable[..., None], *values: Any) -> None:
        what(self._worker, *values)
        self._dispatcher.caught_up(self._worker)

    def kill(self) -> None:
        self.dead = True
        if self._running is not None:
            self._running.cancel()


class Rig:
    """A dispatcher with *size* simulated workers, all ready. `ends` counts how calls ended."""

    def __init__(self, size: int, *, stubborn: bool = False, **fields: Any) -> None:
        self.config = PoolConfig(**fields)
        self.dispatcher = dispatcher("rig", size, self.config, self, now_ns=clock().time_ns)
        self.dispatcher.accepting = True
        self.dispatcher.operations = {"op": "function"}
        self.transports: list[TimedTransport] = []  # all that were ever made
        self.ends: Counter[str] = Counter()
        self.restart_after = 0.05  # seconds
        self._stubborn = stubborn
        for index in range(size):
            worker = Worker("rig", index, clock().time_ns(), self.config)
            self.dispatcher.roster.add(worker)
            self._fill(worker)

    def _fill(self, worker: Worker) -> None:
        transport = TimedTransport(self.dispatcher, worker, self._stubborn)
        self.transports.append(transport)
        fill(self.dispatcher, worker, transport, clock().time_ns())

    def call(self, seconds: float, **options: Any) -> Call:
        """Make a call. Its end is counted in `ends`."""
        call = self.dispatcher.admit("op", [seconds], {}, Options(**options), stream=False)
        call.future.add_done_callback(self._ended)
        return call

    def _ended(self, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        self.ends["cancelled" if future.cancelled() else "ok" if error is None else type(error).__name__] += 1

    def die(self, worker: Worker) -> None:
        """Simulate that the worker's process is killed from outside. It is replaced after `restart_after`."""
        transport = worker.transport
        assert isinstance(transport, TimedTransport)
        transport.kill()
        self.dispatcher.roster.withdraw(worker)
        self.dispatcher.roster.move(worker, "exited", clock().time_ns())
        self.dispatcher.lost(worker, lambda call: WorkerDied("killed", worker=worker.id, exit_code=-9))
        worker.process = None
        clock().call_later(self.restart_after, self._fill, worker)

    # -- WorkerControl --

    def kill(self, worker: Worker, reason: str, culprit: str) -> None:
        worker.transport.kill()  # type: ignore[union-attr]
        clock().call_soon(self._killed, worker, worker.process)

    def _killed(self, worker: Worker, process: WorkerProcess) -> None:
        if worker.process is process:
            self.die(worker)

    def idle(self, worker: Worker) -> None:
        pass

    def recycle_due(self, worker: Worker) -> None:
        pass

    def misbehaved(self, worker: Worker, reason: str) -> None:
        raise AssertionError(reason)
