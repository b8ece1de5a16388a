"""A service that is simulated second by second: its calls, its pool's gauges, and what sensors measure of its machine.

The monitor is the real one, on a clock that the test moves: events, windows, gauges, readings of resources, faults,
findings, rules. Only what lies below them is made up: when calls come and how long they take, and the figures that the
kernel would give.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import msgspec

from pool_monitor import Monitor, Pool, telemetry
from pool_monitor.alerts.part import AlertsPart
from pool_monitor.clock import ManualClock
from pool_monitor.config import MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.config.alerts import AlertsConfig
from pool_monitor.emit import PoolIdentity
from pool_monitor.events import LOOP_LAG, LOOP_RESUME, RESOURCE_HOST, RESOURCE_PROCESS, RESOURCE_WORKER
from pool_monitor.resources.diagnosis import Diagnosis
from pool_monitor.resources.orphans import Orphan
from pool_monitor.resources.sample import Execution, Moment, Slot
from pool_monitor.snapshot import PoolView, WorkerView

INTERVAL = 5.0
SEVERITIES = ("info", "warning", "critical", "emergency")
GIB = 1024**3
HOST = {
    "cpus": 4.0, "cpu_ratio": 0.4, "throttled_ratio": 0.0, "load1": 1.0, "memory_total": 8 * GIB,
    "memory_used": 4 * GIB, "memory_ratio": 0.5, "disk_total": 100 * GIB, "disk_free": 60 * GIB, "shm_total": GIB,
    "shm_free": GIB, "fds": 5_000, "fds_limit": 100_000, "processes": 400, "processes_limit": 8_000, "oom_kills": 0,
}  # fmt: skip
PROCESS = {"cpu_ratio": 0.2, "rss": GIB // 10, "fds": 60, "fds_limit": 1024, "threads": 5, "zombies": 0}
WORKER = {"rss": GIB // 5, "fds": 20, "fds_limit": 1024, "threads": 2, "zombies": 0}
"""What sensors measure where nothing is wrong."""


class SimulatedPool:
    """The gauges of a pool of *size* workers, which the test may overwrite in *of_pool* and *of_workers*."""

    def __init__(self, size: int = 4, name: str = "text") -> None:
        self.identity = PoolIdentity(name, "i1")
        self.name, self.instance, self.size = name, "i1", size
        self.of_pool: dict[str, Any] = {}
        self.of_workers: dict[str, dict[str, Any]] = {}
        self.busy = self.waiting = self.completed = 0

    @property
    def slots(self) -> list[str]:
        return [f"{self.name}-{number}" for number in range(self.size)]

    def status(self) -> PoolView:
        view = PoolView(
            name=self.name, instance=self.instance, state="running", size=self.size, busy=self.busy,
            idle=self.size - self.busy, starting=0, draining=0, dead=0, waiting=self.waiting, queue_limit=1000,
            sessions=10, sessions_limit=100, wait_limit=60.0, restarts=0, completed=self.completed, breaker="closed",
        )  # fmt: skip
        return msgspec.structs.replace(view, **self.of_pool)

    def workers(self) -> list[WorkerView]:
        found = []
        for number, slot in enumerate(self.slots):
            state: Any = "busy" if number < self.busy else "ready"
            view = WorkerView(
                id=slot, state=state, state_age=2.0, pid=100 + number, age=500.0, restarts=0,
                operation="op" if state == "busy" else None, health="responsive", rss_limit=GIB,
            )  # fmt: skip
            found.append(msgspec.structs.replace(view, **self.of_workers.get(slot, {})))
        return found

    # -- what happens in it

    def ended(self, operation: str, seconds: float, waited: float = 0.0, slot: int = 0) -> None:
        """A call has ended well."""
        telemetry.execute(
            ("pool", "operation", "stop"),
            _times(seconds, waited),
            {**self.identity.worker(self.slots[slot]), "operation": operation},
        )

    def failed(self, operation: str, seconds: float = 0.01, outcome: str = "error") -> None:
        telemetry.execute(
            ("pool", "operation", "exception"),
            _times(seconds, 0.0),
            {
                **self.identity.worker(self.slots[0]), "operation": operation, "kind": "error", "outcome": outcome,
                "category": "operation", "error": "ValueError", "reason": "no", "message": "no",
            },
        )  # fmt: skip

    def refused(self, operation: str) -> None:
        telemetry.execute(
            ("pool", "operation", "exception"),
            _times(0.0, 0.0),
            {
                **self.identity.metadata, "operation": operation, "kind": "error", "outcome": "rejected",
                "category": "resource", "error": "PoolSaturated", "reason": "full",
            },
        )  # fmt: skip


def _times(seconds: float, waited: float) -> dict[str, Any]:
    return {
        "duration": round((seconds + waited) * 1e9),
        "queue_duration": round(waited * 1e9),
        "execution_duration": round(seconds * 1e9),
    }


class Service:
    """Monitored pools on simulated time. Make it with `service`. Real ones among them live in real time.

    Sensors measure and the monitor ticks every *pace* seconds, and rules are evaluated after five such times.
    """

    def __init__(self, monitor: Monitor, pools: Sequence[SimulatedPool | Pool], clock: ManualClock, pace: int) -> None:
        self.monitor, self.clock, self.pace = monitor, clock, pace
        self.pools = [pool for pool in pools if isinstance(pool, SimulatedPool)]
        self.host, self.process = dict(HOST), dict(PROCESS)
        self.workers: dict[str, dict[str, Any]] = {}
        """Figures of workers, by slot, that are other than usual."""
        self.orphans: dict[Any, Orphan] = {}
        self.lag_s = 0.001
        self.seconds = 0
        self.pended: dict[str, float] = {}
        """For how long an alert of a rule has been pending at most, in seconds."""
        monitor_id = monitor.context.monitor
        self._about = {"monitor": monitor_id, "missing": {}}
        scan: Any = SimpleNamespace(look=lambda _now_ns: self.orphans)
        self._diagnosis = Diagnosis(ResourcesConfig(), clock, float(pace), monitor=monitor_id, orphans=scan)

    @property
    def pool(self) -> SimulatedPool:
        return self.pools[0]

    @staticmethod
    def fine() -> tuple[dict[str, Any], dict[str, Any]]:
        """Figures of the machine and of the process where nothing is wrong."""
        return dict(HOST), dict(PROCESS)

    def active(self) -> dict[str, str]:
        """The states of the alerts that are pending, firing or recovering, by rule."""
        return {one.alertname: one.state for one in self.monitor.alerts.active()}

    def fired(self) -> dict[str, str]:
        """The worst severity with which each rule has fired."""
        found: dict[str, str] = {}
        for one in self.monitor.alerts.history(10_000):
            if one.to_state == "firing":
                found[one.alert] = max(found.get(one.alert, "info"), one.severity, key=SEVERITIES.index)
        return found

    async def second(self) -> None:
        """Let a second pass."""
        self.clock.advance(1.0)
        self.seconds += 1
        if self.seconds % self.pace == 0:
            self._measure()
            await self.monitor._tick()
        if self.seconds % (INTERVAL * self.pace) == 0:
            await self.monitor.alerts.evaluate()
            now = self.clock.wall_ns() / 1e9
            for one in self.monitor.alerts.active():
                if one.state == "pending":
                    self.pended[one.alertname] = max(self.pended.get(one.alertname, 0.0), now - one.since)

    async def go_on(self, seconds: float, each: Callable[[], object] | None = None) -> None:
        for _ in range(round(seconds)):
            if each is not None:
                each()
            await self.second()

    def _measure(self) -> None:
        if LOOP_LAG.event.on:
            for _ in range(2 * self.pace):
                LOOP_LAG.event.emit({"duration": round(self.lag_s * 1e9)}, {"monitor": self._about["monitor"]})
        if self.lag_s >= 0.5:
            LOOP_RESUME.event.emit({"duration": round(self.lag_s * 1e9)}, {"monitor": self._about["monitor"]})
        slots = [Slot(pool.identity, one) for pool in self.pools for one in pool.workers()]
        found = [
            Execution(RESOURCE_HOST, self.host, {**self._about, "disk_path": "/var"}),
            Execution(RESOURCE_PROCESS, self.process, {**self._about, "pid": 1}),
        ]
        for pool, worker in slots:
            about = {**self._about, **pool.worker(worker.id), "pid": worker.pid, "state_letter": "S"}
            figures = {
                **WORKER,
                "cpu_ratio": 0.3 if worker.state == "busy" else 0.01,
                **self.workers.get(worker.id, {}),
            }
            if (letter := figures.pop("state_letter", None)) is not None:
                about["state_letter"], figures = letter, {}
            found.append(Execution(RESOURCE_WORKER, figures, about))
        moment = Moment(self.clock.monotonic_ns(), slots)
        for spec, measurements, metadata in self._diagnosis.complete(moment, found):
            spec.event.emit(measurements, {**self._about, **metadata})


async def _until_left(part: AlertsPart) -> None:
    await part._leaving.wait()


@asynccontextmanager
async def service(*pools: SimulatedPool | Pool, pace: int = 1, **config: Any) -> AsyncIterator[Service]:
    """A service whose machine is not measured and whose rules are not evaluated unless the test does so."""
    pools = pools or (SimulatedPool(),)
    clock = ManualClock()
    rules = AlertsConfig(interval=INTERVAL * pace, log=False, **config.pop("alerts", {}))
    whole = MonitorConfig(service=ServiceConfig(socket=False), alerts=rules, **config)
    monitor = Monitor(list(pools), config=whole, clock=clock)
    for entry in [entry for entry in monitor._parts if entry.name == "resources"]:
        del monitor._parts[entry]
    with mock.patch.object(AlertsPart, "_evaluate", _until_left):
        async with monitor:
            made = Service(monitor, pools, clock, pace)
            made._diagnosis.attach()
            try:
                yield made
            finally:
                made._diagnosis.close()


# -- a healthy load ---------------------------------------------------------------------------------------------------


class Operation(NamedTuple):
    """One operation of a load."""

    name: str
    rate: float
    """Calls per second, on average."""
    seconds: Callable[[Random], float]


HEALTHY = (
    Operation("tag", 20.0, lambda random: random.lognormvariate(math.log(0.005), 1.0)),
    Operation("search", 5.0, lambda random: 0.03 * random.paretovariate(1.5)),
    Operation("summarise", 0.15, lambda random: random.lognormvariate(math.log(1.0), 1.0)),
)
"""Three operations at very different speeds. Their durations are heavy-tailed: log-normal with s = 1, and Pareto with
a = 1.5, whose variance is infinite."""
TIMEOUT = 60.0


class Load:
    """Calls to *service*: a rate that swings by 40 % in an hour, bursts of three times the rate for 20 s every 10
    minutes or so, and failures of 0.5 % of the calls. A queue in front of the workers, first come, first served.
    """

    def __init__(self, service: Service, seed: int, operations: tuple[Operation, ...] = HEALTHY) -> None:
        self.service, self.random, self.operations = service, Random(seed), operations
        self.free = [0.0] * service.pool.size
        """When each worker is free."""
        self.ending: list[tuple[float, int, Operation, float, float]] = []
        self.starts: list[float] = []
        self._burst_until = 0.0
        self._number = 0

    def second(self) -> None:
        """Make the calls of the next second, and end those that end in it."""
        pool, random, now = self.service.pool, self.random, float(self.service.seconds)
        if random.random() < 1 / 600:
            self._burst_until = now + 20
        factor = (1 + 0.4 * math.sin(now / 3600 * 2 * math.pi)) * (3 if now < self._burst_until else 1)
        arrivals = sorted(
            (now + random.random(), index)
            for index, operation in enumerate(self.operations)
            for _ in range(_poisson(random, operation.rate * factor))
        )
        for at, index in arrivals:
            operation = self.operations[index]
            seconds = min(operation.seconds(random), TIMEOUT - 1)
            begin = max(at, heapq.heappop(self.free))
            heapq.heappush(self.free, begin + seconds)
            self._number += 1
            heapq.heappush(self.ending, (begin + seconds, self._number, operation, seconds, begin - at))
        end = now + 1
        while self.ending and self.ending[0][0] <= end:
            _, number, operation, seconds, waited = heapq.heappop(self.ending)
            pool.completed += 1
            if random.random() < 0.005:
                pool.failed(operation.name, seconds)
            else:
                pool.ended(operation.name, seconds, waited, number % pool.size)
        if random.random() < 1 / 600:  # a worker is recycled: another process takes its place
            slot = random.choice(pool.slots)
            pids = pool.of_workers.setdefault(slot, {"pid": 1000})
            pids["pid"] += 1
        pool.busy = sum(free > end for free in self.free)
        pool.waiting = sum(ends - seconds > end for ends, _, _, seconds, _ in self.ending)
        # A machine with other programs on it: it is busy for some seconds now and then.
        host = self.service.host
        host["cpu_ratio"] = min(max(0.35 + 0.1 * random.gauss(0, 1) + (0.5 if random.random() < 0.05 else 0), 0), 1)
        host["memory_ratio"] = 0.55 + 0.03 * math.sin(now / 500) + 0.01 * random.gauss(0, 1)
        host["memory_used"] = round(host["memory_ratio"] * host["memory_total"])
        self.service.lag_s = random.lognormvariate(math.log(0.001), 1.0)


def _poisson(random: Random, mean: float) -> int:
    """A number of arrivals (Knuth, The Art of Computer Programming 2, 3.4.1)."""
    limit, number, product = math.exp(-mean), 0, random.random()
    while product > limit:
        number, product = number + 1, product * random.random()
    return number


__all__ = ["HEALTHY", "Load", "Operation", "Service", "SimulatedPool", "service"]
