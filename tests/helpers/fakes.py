"""Workers without processes, for tests of the dispatcher alone. The test decides what they do, and when."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from pool_monitor.config import PoolConfig
from pool_monitor.emit import PoolIdentity
from pool_monitor.errors import WorkerDied
from pool_monitor.pool.admission import Admission
from pool_monitor.pool.dispatcher import Dispatcher
from pool_monitor.pool.open_calls import WorkerControl
from pool_monitor.pool.policy.health import Health
from pool_monitor.pool.policy.lifecycle import State
from pool_monitor.pool.policy.recycle import RecycleLimits
from pool_monitor.pool.roster import Roster
from pool_monitor.pool.sessions import Sessions
from pool_monitor.pool.transport.interface import CallTimes, Failure, Ready, Reply
from pool_monitor.pool.worker import Worker, WorkerProcess

TIMES = CallTimes(1000, 1000, 0)


class FakeTransport:
    """A worker at the level of messages: holds the calls it was handed until the test decides about them."""

    def __init__(self, *, reports_progress: bool = True) -> None:
        self.handed: list[tuple[int, Sequence[Any]]] = []  # calls without an answer, in order: id and arguments
        self.received = 0
        self._ordinals: dict[int, int] = {}  # by call id, including calls that were recalled
        self._begun = 0  # ordinal of the last call that has begun
        self._reports_progress = reports_progress
        self.cancelled: set[int] = set()
        self.wanted_back: list[int] = []
        self.flows: list[bool] = []  # *paused* of each call of `flow`
        self.holds: list[tuple[int, bool]] = []  # the arguments of each call of `hold`
        self.reading = 0
        self.on_call: Callable[[], None] = lambda: None
        self.on_cancel: Callable[[int], None] = lambda _id: None

    @property
    def begun(self) -> int | None:
        return self._begun if self._reports_progress else None

    def call(
        self, call_id: int, operation: str, args: Sequence[Any], kwargs: Mapping[str, Any],
        stream: bool, session: tuple[str, dict[str, Any]] | None,
    ) -> None:  # fmt: skip
        self.handed.append((call_id, args))
        self.received += 1
        self._ordinals[call_id] = self.received
        self.on_call()

    def flush(self) -> None: ...

    def begin(self, count: int = 1) -> None:
        """Begin the first *count* calls, one after the other. If the worker has no call, the next one begins as soon as
        it arrives.
        """
        last = self._ordinals[self.handed[count - 1][0]] if self.handed else self.received + 1
        self._begun = max(self._begun, last)

    @property
    def working(self) -> bool:
        return bool(self.handed) and self._begun >= self._ordinals[self.handed[0][0]]

    def recall(self, call_ids: Sequence[int]) -> None:
        self.wanted_back += call_ids

    def cancel(self, call_id: int) -> None:
        self.cancelled.add(call_id)
        self.on_cancel(call_id)

    def ping(self, token: int) -> None: ...

    def flow(self, *, paused: bool) -> None:
        self.flows.append(paused)

    def hold(self, call_id: int, *, held: bool) -> None:
        self.holds.append((call_id, held))


def dispatcher(
    pool: str, size: int, config: PoolConfig, control: WorkerControl, *, now_ns: Callable[[], int]
) -> Dispatcher:
    """Return a dispatcher with the roster, sessions and admission that a pool makes for it."""
    roster = Roster(PoolIdentity.new(pool), config.concurrency)
    made = Dispatcher(
        roster, Sessions(roster, config), Admission(roster.identity, size, config, now_ns), config, now_ns=now_ns
    )
    made.control = control
    return made


def _put_process(calls: Dispatcher, worker: Worker, transport: Any, now_ns: int) -> None:
    """Put a new process into the slot."""
    config = calls.config
    worker.processes += 1
    health = Health(config.health_interval, config.health_timeout, config.health_misses)
    limits = RecycleLimits.draw(config, random.Random(0))
    process = worker.process = WorkerProcess(worker.processes, now_ns, health, limits, sys.maxsize)
    process.ready = Ready(1, "3.11.7", "json", calls.operations)
    process.transport = worker.transport = transport


def fill(calls: Dispatcher, worker: Worker, transport: Any, now_ns: int) -> None:
    """Put a ready process into an empty slot. *transport* has the methods that the dispatcher calls."""
    _put_process(calls, worker, transport, now_ns)
    calls.roster.move(worker, "start", now_ns)
    calls.roster.move(worker, "loaded", now_ns)
    calls.ready(worker)


class FakePool:
    """A dispatcher and its workers. It is the `WorkerControl`, and must be made on a running event loop."""

    def __init__(self, size: int, config: PoolConfig | None = None, *, now_ns: Callable[[], int]) -> None:
        self.config = config or PoolConfig()
        self.now_ns = now_ns
        self.calls = dispatcher("fake", size, self.config, self, now_ns=now_ns)
        self.calls.accepting = True
        self.calls.operations = {"work": "function"}
        self.numbers: Iterator[int] = iter(range(10**9))
        self.killed: list[Worker] = []
        self.misbehaviour: list[str] = []
        for _ in range(size):
            self.start(self.add())

    def add(self) -> Worker:
        worker = Worker("fake", next(self.numbers), self.now_ns(), self.config)
        self.calls.roster.add(worker)
        return worker

    def start(self, worker: Worker) -> None:
        """Put a ready process into an empty slot."""
        fill(self.calls, worker, FakeTransport(), self.now_ns())

    def renew(self, worker: Worker) -> None:
        """Replace the process of an idle worker by a new one."""
        _put_process(self.calls, worker, FakeTransport(), self.now_ns())
        self.calls.roster.move(worker, "recycle", self.now_ns())
        self.calls.ready(worker)

    @staticmethod
    def transport(worker: Worker) -> FakeTransport:
        transport = worker.transport
        assert isinstance(transport, FakeTransport)
        return transport

    def reply(self, worker: Worker, result: Any = None, data: dict[str, Any] | None = None) -> None:
        """Let the worker answer the call it has begun."""
        call_id, _ = self.transport(worker).handed[0]
        call = worker.calls.get(call_id)
        if data is None and (call is None or call.items is None):
            self.answer(worker, result)
            return
        del self.transport(worker).handed[0]
        self.calls.replied(worker, call_id, result, data, TIMES)
        self.calls.caught_up(worker)

    def answer(self, worker: Worker, *results: Any) -> None:
        """Let the worker answer one plain call per item of *results*. The answers arrive together."""
        handed = self.transport(worker).handed
        replies = [Reply(handed.pop(0)[0], result, None, TIMES) for result in results]
        self.calls.returned(worker, replies)
        self.calls.caught_up(worker)

    def fail(self, worker: Worker, type_name: str = "ValueError") -> None:
        call_id, _ = self.transport(worker).handed.pop(0)
        self.calls.failed(worker, call_id, Failure("operation", type_name, "as asked", ""), TIMES)
        self.calls.caught_up(worker)

    def give_back(self, worker: Worker) -> None:
        """Let the worker return the calls that `recall` requested, unless it has begun them."""
        transport = self.transport(worker)
        wanted, transport.wanted_back = transport.wanted_back, []
        held = [call_id for call_id, _ in transport.handed]
        for call_id in wanted:
            if call_id in held and (held.index(call_id) > 0 or not transport.working):
                transport.handed = [entry for entry in transport.handed if entry[0] != call_id]
                self.calls.recalled(worker, call_id)
        self.calls.caught_up(worker)

    def die(self, worker: Worker) -> None:
        """Simulate that the worker's process has died."""
        self.calls.roster.move(worker, "exited", self.now_ns())
        self.calls.lost(worker, lambda call: WorkerDied("gone", worker=worker.id, exit_code=-9))
        worker.process = None

    def forget(self, worker: Worker) -> None:
        """Remove the slot of a worker without a process. The next slot that is added gets its number."""
        self.calls.forget(worker)
        self.calls.roster.drop(worker)
        self.numbers = chain([worker.index], self.numbers)

    def running(self) -> list[Worker]:
        return [worker for worker in self.calls.workers.values() if worker.transport is not None]

    # -- WorkerControl --------------------------------------------------------------------------------------------

    def kill(self, worker: Worker, reason: str, culprit: str) -> None:
        if worker.lifecycle.state in (State.READY, State.BUSY):
            self.calls.roster.withdraw(worker)
            self.calls.roster.move(worker, "stop", self.now_ns())
            self.killed.append(worker)

    def idle(self, worker: Worker) -> None: ...

    def recycle_due(self, worker: Worker) -> None: ...

    def misbehaved(self, worker: Worker, reason: str) -> None:
        self.misbehaviour.append(reason)
