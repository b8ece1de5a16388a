"""A pool in virtual time: the real queue and the real prediction of waits, with simulated workers behind them.

Each worker runs one call at a time. A call that finds no worker free waits in a `WaitQueue`; it is refused when the
queue is full, when its time to wait is over, and, where calls have deadlines, when the pool predicts that it would miss
its own. A new worker takes ``cold_start_s``. A worker that is not wanted any more ends its call first, and is kept if
the pool grows meanwhile. Each of these emits the event that a real pool emits.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from benchmarks.lab.scenario import Scenario
from benchmarks.lab.simulated_worker import BUSY, GONE, IDLE, STARTING, CallRules, SimulatedCall, SimulatedWorker
from benchmarks.lab.traffic import Traffic
from benchmarks.lab.virtual_clock import Agenda, VirtualClock
from pool_monitor import emit
from pool_monitor.emit import PoolIdentity
from pool_monitor.errors import ConfigError
from pool_monitor.events import OPERATION_EXCEPTION, OPERATION_STOP, QUEUE_REJECT
from pool_monitor.pool.policy.queue import WaitQueue
from pool_monitor.pool.policy.service_times import ServiceTimes
from pool_monitor.snapshot import PoolView
from pool_monitor.telemetry import FAILURES
from pool_monitor.tunable import TunableUnit

NS = 1e9
_STOP, _EXCEPTION, _REJECT = OPERATION_STOP.event, OPERATION_EXCEPTION.event, QUEUE_REJECT.event
_CODES = {"saturated": "PoolSaturated", "deadline": "PoolSaturated", "timeout": "QueueTimeout"}


class SizeKnob:
    """The tunable ``size`` of a simulated pool. Its attributes are those of `pool_monitor.tunable.Tunable`."""

    name = "size"
    unit: TunableUnit = "count"
    step = 1.0
    live = True

    def __init__(self, pool: SimulatedPool, scenario: Scenario) -> None:
        self._pool = pool
        self.low, self.high = float(scenario.n_min), float(scenario.n_max)
        self.effect_delay = scenario.cold_start_s

    @property
    def value(self) -> float:
        return float(self._pool.size)

    def set(self, value: float) -> None:
        if not self.low <= value <= self.high:
            raise ConfigError(f"size = {value:g}: it has to be from {self.low:g} to {self.high:g}")
        self._pool.resize(round(value))


class SimulatedPool:
    """The pool of a scenario. It is used by the simulator, which moves the clock; *agenda* is where the ends go."""

    def __init__(self, scenario: Scenario, traffic: Traffic, clock: VirtualClock, agenda: Agenda) -> None:
        self.scenario, self.clock, self.agenda = scenario, clock, agenda
        self.identity = PoolIdentity(scenario.pool, "laboratory00")
        self.operations = [one.name for one in scenario.mixed]
        self.timeouts = [scenario.timeout_s if one.timeout_s is None else one.timeout_s for one in scenario.mixed]
        self.deadlines = any(one is not None for one in self.timeouts)
        self.services: list[float] = traffic.services.tolist()
        self.kinds: list[int] = traffic.operations.tolist()
        self.workers = [SimulatedWorker(scenario.pool, number) for number in range(scenario.most)]
        self.idle: deque[SimulatedWorker] = deque()
        self.queue: WaitQueue[SimulatedCall] = WaitQueue()
        self.times = ServiceTimes()
        self.rules: CallRules | None = None
        self.factor = 1.0  # by which all calls take longer
        self.factors = [1.0] * len(self.operations)
        self.stretch = 1.0  # the part of these in which no more processor time is used
        self.size = self.busy = self.starting = self.pinned = 0
        self.completed = self.restarts = self.refused = self.pids = 0
        self.refusals: Counter[str] = Counter()
        self.waits: list[float] = [-1.0] * len(self.services)  # by call, once it is known
        self._expiries: list[tuple[float, int, SimulatedCall]] = []
        self._armed = float("inf")
        self._paid_until = self._paid_s = 0.0
        self._processes = 0
        self._direction = 0
        self.resizes = self.reversals = self.peak = 0

    def tunables(self) -> Sequence[SizeKnob]:
        return (SizeKnob(self, self.scenario),)

    # -- its size -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the pool: its first workers are ready at once."""
        size = self.scenario.n0
        emit.pool_init(self.identity, size=size, target="laboratory:Target")
        self.size = self.peak = size
        for worker in self.workers[:size]:
            self._begin(worker, 0.0)
        emit.pool_ready(self.identity, duration=round(self.scenario.cold_start_s * NS), workers=size)

    def resize(self, size: int) -> None:
        """Set the number of workers that are wanted. Growing keeps workers that were to end, before it starts new ones;
        shrinking gives up starts first, then idle workers, then workers after their calls, the highest slots first.
        """
        before = self.size
        if size == before:
            return
        self.size, self.peak = size, max(self.peak, size)
        direction = 1 if size > before else -1
        self.resizes += 1
        self.reversals += direction == -self._direction
        self._direction = direction
        emit.pool_resize(self.identity, before=before, after=size)
        alive = [worker for worker in self.workers if worker.state != GONE and not worker.retiring]
        missing = size - len(alive)
        if missing > 0:
            self._grow(missing)
        elif missing < 0:
            order = {STARTING: 0, IDLE: 1, BUSY: 2}
            alive.sort(key=lambda worker: (order[worker.state], -worker.number))
            for worker in alive[:-missing]:
                if worker.state == BUSY:
                    worker.retiring = True
                else:
                    self._end_process(worker, "resize")

    def _grow(self, missing: int) -> None:
        for worker in self.workers:
            if missing and worker.retiring:
                worker.retiring = False
                missing -= 1
        for worker in self.workers:
            if missing and worker.state == GONE:
                self._begin(worker, self.scenario.cold_start_s)
                missing -= 1

    def _begin(self, worker: SimulatedWorker, delay: float) -> None:
        """Start a process in the slot, which is ready after *delay*."""
        self._pay(1)
        self.pids += 1
        worker.state, worker.pid = STARTING, 1000 + self.pids
        worker.started = self.clock.now
        worker.busy_s = worker.cpu_s = 0.0
        worker.calls = 0
        worker.replace = ""
        worker.retiring = False
        worker.epoch += 1
        self.starting += 1
        emit.worker_init(self.identity, worker.id, restarts=worker.restarts)
        if delay:
            self.agenda.put(self.clock.now + delay, self._ready, (worker, worker.epoch, delay))
        else:
            self._ready((worker, worker.epoch, self.scenario.cold_start_s))

    def _ready(self, due: tuple[SimulatedWorker, int, float]) -> None:
        worker, epoch, took = due
        if worker.epoch != epoch or worker.state != STARTING:
            return
        self.starting -= 1
        worker.since = self.clock.now
        emit.worker_ready(
            self.identity, worker.id, duration=round(took * NS), pid=worker.pid, python="3.12.0", codec="msgpack"
        )
        self._free(worker)

    def _end_process(self, worker: SimulatedWorker, why: str) -> None:
        """End the process of a worker that has no call."""
        if worker.state == IDLE:
            self.idle.remove(worker)
        elif worker.state == STARTING:
            self.starting -= 1
        uptime = round((self.clock.now - worker.started) * NS)
        worker.state = GONE
        worker.epoch += 1
        self._pay(-1)
        if why == "crash":
            emit.worker_crash(
                *(self.identity, worker.id),
                uptime=uptime,
                pid=worker.pid,
                exit_code=1,
                reason="exit code 1",
                out_of_memory="no",
                stderr="",
                operation=None,
            )
        else:
            emit.worker_terminate(self.identity, worker.id, uptime=uptime, pid=worker.pid, reason=why)
        if why == "resize":
            for call in worker.pinned:  # nobody else may run them
                if call.waits:
                    call.waits = False
                    self.pinned -= 1
                    self._refuse(call, "closed")
            worker.pinned.clear()

    def replace(self, worker: SimulatedWorker, why: str) -> None:
        """End the process after its call, and start another one. *why*: ``crash`` or ``recycle``."""
        if worker.state == BUSY:
            worker.replace = worker.replace or why
        elif worker.state == IDLE:
            self._replace(worker, why)

    def _replace(self, worker: SimulatedWorker, why: str) -> None:
        uptime, calls, pid = self.clock.now - worker.started, worker.calls, worker.pid
        self._end_process(worker, why)
        delay = self.scenario.cold_start_s
        if why == "crash":
            worker.restarts += 1
            self.restarts += 1
        self._begin(worker, delay)
        self.agenda.put(self.clock.now + delay, self._replaced, (worker, worker.epoch, why, uptime, calls, pid))

    def _replaced(self, due: tuple[SimulatedWorker, int, str, float, int, int]) -> None:
        worker, epoch, why, uptime, calls, pid = due
        if worker.epoch != epoch:
            return
        delay = round(self.scenario.cold_start_s * NS)
        if why == "crash":
            emit.recovery(self.identity, worker.id, duration=delay, attempts=1)
        else:
            emit.worker_recycle(
                *(self.identity, worker.id),
                uptime=round(uptime * NS),
                duration=delay,
                calls=calls,
                pid=pid,
                reason="restart",
            )

    def _pay(self, change: int) -> None:
        now = self.clock.now
        self._paid_s += self._processes * (now - self._paid_until)
        self._paid_until = now
        self._processes += change

    @property
    def worker_hours(self) -> float:
        """The time for which processes existed: while they started, worked, idled and ended."""
        self._pay(0)
        return self._paid_s / 3600

    # -- calls --------------------------------------------------------------------------------------------------------

    def arrive(self, number: int, arrived: float) -> None:
        """Take call *number*. It is *arrived* as the clock says, or was meanwhile held up by a blocked loop."""
        call = SimulatedCall(number, arrived, self.kinds[number])
        if self.rules is not None:
            call.pinned = self.rules.pinned(call)
        worker = call.pinned
        if worker is not None:
            if worker.state == IDLE:
                self.idle.remove(worker)
                self._start(worker, call)
            elif worker.state == GONE:
                self._refuse(call, "closed")
            else:
                self._wait(call)
        elif self.idle:
            self._start(self.idle.popleft(), call)
        else:
            self._wait(call)

    @property
    def waiting(self) -> int:
        return self.queue.size + self.pinned

    def _wait(self, call: SimulatedCall) -> None:
        scenario = self.scenario
        if self.queue.size + self.pinned >= scenario.queue_limit:
            self._refuse(call, "saturated")
            return
        until = call.arrived + scenario.patience_s
        if self.deadlines:
            timeout = self.timeouts[call.operation]
            if timeout is not None:
                until = min(until, call.arrived + timeout)
                call.expects = self.times.expects(self.operations[call.operation])
                if call.pinned is None and self._would_miss(call, call.arrived + timeout - self.clock.now):
                    self._refuse(call, "deadline")
                    return
        call.waits = True
        if call.pinned is None:
            self.queue.push(call)
        else:
            call.pinned.pinned.append(call)
            self.pinned += 1
        heapq.heappush(self._expiries, (until, call.id, call))
        if until < self._armed:
            self._armed = until
            self.agenda.put(until, self._expire)

    def _would_miss(self, call: SimulatedCall, left: float) -> bool:
        """Whether the call, behind those that wait now, would miss its deadline in *left* seconds: the pool's rule."""
        capacity = sum(worker.state in (IDLE, BUSY) for worker in self.workers)
        estimate = self.times.estimate(self.queue.ahead(call), 0, capacity, self.operations[call.operation])
        return estimate is not None and estimate.total > left

    def _expire(self, _nothing: object) -> None:
        now, expiries = self.clock.now, self._expiries
        while expiries and (expiries[0][0] <= now or not expiries[0][2].waits):
            call = heapq.heappop(expiries)[2]
            if call.waits:
                call.waits = False
                if call.pinned is None:
                    self.queue.discard(call)
                else:
                    self.pinned -= 1
                self._refuse(call, "timeout")
        self._armed = expiries[0][0] if expiries else float("inf")
        if expiries:
            self.agenda.put(self._armed, self._expire)

    def _free(self, worker: SimulatedWorker) -> None:
        """Give a worker that is ready its next call."""
        if worker.pinned:
            while worker.pinned and not worker.pinned[0].waits:
                worker.pinned.popleft()
            if worker.pinned and (not self.queue.size or worker.pinned[0].id < next(iter(self.queue)).id):
                call = worker.pinned.popleft()
                self.pinned -= 1
                self._start(worker, call)
                return
        while self.queue.size:
            call = self.queue.pop()
            if self.deadlines and self._too_late(call):
                call.waits = False
                self._refuse(call, "timeout")
                continue
            self._start(worker, call)
            return
        worker.state = IDLE
        self.idle.append(worker)

    def _too_late(self, call: SimulatedCall) -> bool:
        timeout = self.timeouts[call.operation]
        mean = None if timeout is None else self.times.mean_of(self.operations[call.operation])
        return timeout is not None and mean is not None and call.arrived + timeout - self.clock.now < mean / 2

    def _start(self, worker: SimulatedWorker, call: SimulatedCall) -> None:
        now = self.clock.now
        scenario = self.scenario
        call.waits = False
        call.started = now
        self.waits[call.id] = now - call.arrived
        worker.state, worker.call = BUSY, call
        self.busy += 1
        service = self.services[call.id] * self.factor * worker.factor * self.factors[call.operation]
        rate = scenario.cpu_share / self.stretch
        if scenario.cores is not None:  # contention is what it was when the call began
            wanted = self.busy * scenario.cpu_share
            if wanted > scenario.cores:
                crowd = wanted / scenario.cores
                service *= crowd * (1 + scenario.kappa * (wanted - scenario.cores))
                rate /= crowd
        call.cpu_rate = rate
        if self.rules is not None and self.rules.hangs(call, worker):
            service = float("inf")
        ends = now + service
        if self.deadlines:
            timeout = self.timeouts[call.operation]
            call.deadline = float("inf") if timeout is None else max(now, call.arrived + timeout)
            ends = min(ends, call.deadline)
        call.ends = ends
        if ends < float("inf"):
            self.agenda.put(ends, self._finish, worker)

    def _finish(self, worker: SimulatedWorker) -> None:
        call = worker.call
        assert call is not None
        worker.call = None
        self.busy -= 1
        self.completed += 1
        worker.calls += 1
        ran = call.ends - call.started
        worker.busy_s += ran
        worker.cpu_s += ran * call.cpu_rate
        if self.deadlines:
            self.times.add(self.operations[call.operation], ran)
        if self.deadlines and call.ends == call.deadline:
            self._fail(call, worker, ran, "timeout", "OperationTimeout", "timeout")
        else:
            error = None if self.rules is None else self.rules.error(call, worker)
            if error is None:
                self._succeed(call, worker, ran)
            else:
                self._fail(call, worker, ran, "error", error, "operation")
        if worker.retiring:
            worker.retiring = False
            self._end_process(worker, "resize")
        elif worker.replace:
            self._replace(worker, worker.replace)
        else:
            self._free(worker)

    # -- their events -------------------------------------------------------------------------------------------------

    def _succeed(self, call: SimulatedCall, worker: SimulatedWorker, ran: float) -> None:
        series = _STOP.series
        now = self.clock.now
        if series is not None:
            if worker.records_of is not series:
                worker.records_of, worker.records = series, [None] * len(self.operations)
            record = worker.records[call.operation]
            try:
                if record is None:
                    name, instance = self.identity
                    labels = (name, self.operations[call.operation], worker.id, "none", instance)
                    record = worker.records[call.operation] = series[labels]
                record(int((now - call.arrived) * NS), int((call.started - call.arrived) * NS), int(ran * NS))
            except FAILURES as failure:
                series.failed(failure)
        if _STOP.mapped:
            _STOP.emit_mapped(self._measured(call, ran), self._about(call, worker))

    def _fail(
        self, call: SimulatedCall, worker: SimulatedWorker, ran: float, outcome: Any, error: str, category: str
    ) -> None:
        if _EXCEPTION.on:
            failure = emit.failure_metadata(outcome, category=category, error=error, reason=f"{error}: simulated")
            _EXCEPTION.emit(self._measured(call, ran), self._about(call, worker) | failure)

    def _refuse(self, call: SimulatedCall, reason: str) -> None:
        waited = self.clock.now - call.arrived
        self.waits[call.id] = -2.0 - waited
        self.completed += 1
        self.refused += 1
        self.refusals[reason] += 1
        if _REJECT.on:
            measured = {"queue_duration": int(waited * NS), "waiting": self.waiting}
            _REJECT.emit(measured, {**self._about(call), "reason": reason})
        if _EXCEPTION.on:
            error = _CODES.get(reason, "PoolClosed")
            failure = emit.failure_metadata("rejected", category="resource", error=error, reason=reason)
            times = {"duration": int(waited * NS), "queue_duration": int(waited * NS), "attempts": 0}
            _EXCEPTION.emit(times, self._about(call) | failure)

    def _measured(self, call: SimulatedCall, ran: float) -> dict[str, int]:
        duration, queue = int((self.clock.now - call.arrived) * NS), int((call.started - call.arrived) * NS)
        return emit.call_measurements(duration, queue, 1, int(ran * NS), cpu=int(ran * call.cpu_rate * NS))

    def _about(self, call: SimulatedCall, worker: SimulatedWorker | None = None) -> dict[str, Any]:
        operation = self.operations[call.operation]
        return emit.call_metadata(self.identity, operation, call.id + 1, worker=None if worker is None else worker.id)

    def view(self) -> PoolView:
        """The gauges now, as `Pool.status` returns them: a worker that ends after its call is busy until then."""
        return PoolView(
            name=self.identity.name,
            state="running",
            size=self.size,
            busy=self.busy,
            idle=len(self.idle),
            starting=self.starting,
            draining=0,
            dead=0,
            waiting=self.waiting,
            queue_limit=self.scenario.queue_limit,
            sessions=0,
            wait_limit=self.scenario.patience_s,
            restarts=self.restarts,
            completed=self.completed,
            refusals=dict(self.refusals),
            target="laboratory:Target",
            instance=self.identity.instance,
        )
