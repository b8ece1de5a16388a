"""The samples of a simulated machine: the host, the processes of the workers and of the service, and the event loop.

Memory is base + AR(1) noise + warm-up + saw-tooth + leak. Processor time is what calls used: throttling, neighbours and
contention make calls longer, and use no more of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.lab.faults import active_of
from benchmarks.lab.scenario import EVERYTHING, BlockLoop, Leak, Neighbour, Rss, Throttle
from benchmarks.lab.simulated_pool import NS
from benchmarks.lab.simulated_worker import BUSY, GONE, SimulatedWorker
from benchmarks.lab.traffic import seeded
from pool_monitor import events
from pool_monitor.telemetry import FAILURES

if TYPE_CHECKING:
    from benchmarks.lab.simulator import Simulator

SAMPLE_S = 10.0
MONITOR = {"monitor": "laboratory"}
_BLOCK_S = 0.1
"""A block of the loop from this length on is told while it lasts."""
_USUAL_LAG_S = 0.0004
_WORKER, _HOST = events.RESOURCE_WORKER.event, events.RESOURCE_HOST.event
_PROCESS, _LAG = events.RESOURCE_PROCESS.event, events.LOOP_LAG.event


class _Memory:
    """The resident memory of one process."""

    def __init__(self, form: Rss, rng: np.random.Generator) -> None:
        self._form, self._rng = form, rng
        self._noise = float(rng.normal()) * form.noise_bytes
        self._phase = float(rng.uniform())
        self._sampled = 0.0
        self.leaked = 0.0

    def at(self, age: float) -> float:
        form = self._form
        while self._sampled + form.every_s <= age:
            self._sampled += form.every_s
            new = float(self._rng.normal()) * form.noise_bytes
            self._noise = form.ar * self._noise + math.sqrt(max(0.0, 1 - form.ar**2)) * new
        warm = form.warmup_bytes * (1 - math.exp(-age / form.warmup_tau_s))
        saw = form.saw_bytes * ((age / form.saw_every_s + self._phase) % 1)
        return max(0.0, form.base_bytes + self._noise + warm + saw + self.leaked)


class Host:
    """Samples everything every 10 s, and the lag of the loop each 0.1 s; each second where nothing ever blocks it."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator, self._scenario = simulator, simulator.scenario
        self._rng = seeded(simulator.scenario, simulator.seed, 3)
        self._memory: dict[int, _Memory] = {}
        self._cpu_seen: dict[int, float] = {}
        self._sampled = 0.0
        self._blocks: list[tuple[float, float]] = []
        self._lagged = 0.0
        self._lag_s = 0.1 if any(isinstance(one, BlockLoop) for one in self._scenario.faults) else 1.0
        self._look_s = 1.0 if self._lag_s < 1 or self._scenario.cores is not None else SAMPLE_S
        self._crowded = self._looked = 0
        scenario = self._scenario
        bounds = [bound for bound in (scenario.cores, scenario.cpu_quota) if bound is not None]
        neighbours = [fault.cores for fault in scenario.faults if isinstance(fault, Neighbour)]
        if neighbours and not bounds:  # as many as together keep the machine busy
            most = max(scenario.n0, *(size for _at, size in scenario.size), 1)
            bounds = [float(math.ceil(most * scenario.cpu_share + max(neighbours)))]
        self.cpus = min(bounds, default=None)
        """Processors that may be used; None: the scenario does not bound them, and says nothing of them."""
        self.limited = scenario.cpu_quota is not None or any(isinstance(one, Throttle) for one in scenario.faults)

    def begin(self) -> None:
        self._simulator.agenda.put(self._look_s - 1.0 if self._look_s > 1 else 1.0, self._look)
        self._simulator.agenda.put(SAMPLE_S, self._sample)

    def _look(self, _nothing: object) -> None:
        simulator, scenario = self._simulator, self._scenario
        now = simulator.clock.now
        if scenario.cores is not None:
            self._looked += 1
            self._crowded += simulator.pool.busy * scenario.cpu_share > scenario.cores
        if _LAG.on:
            self._lags(now)
        simulator.agenda.put(math.floor(now + self._look_s), self._look)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def blocked(self, begin: float, end: float) -> None:
        """The loop is blocked from *begin* to *end*."""
        self._blocks.append((begin, end))
        if end - begin >= _BLOCK_S:
            duration = round((end - begin) * NS)
            self._simulator.agenda.put(end, self._resumed, duration)
            measured = {"duration": round(_BLOCK_S * NS), "cpu_duration": round(_BLOCK_S * NS)}
            events.RESOURCE_LOOP.event.emit(measured, {**MONITOR, "stack": ""})

    def _resumed(self, duration: int) -> None:
        events.LOOP_RESUME.event.emit({"duration": duration}, MONITOR)

    def _lags(self, now: float) -> None:
        """Emit the lag of each callback that was sent since the last time and has run by now."""
        count = math.floor((now - self._lagged) / self._lag_s + 0.5)
        lags = self._rng.exponential(_USUAL_LAG_S, count)
        sent = self._lagged + self._lag_s * np.arange(count)
        self._lagged += self._lag_s * count
        for begin, end in self._blocks:
            lags += np.where((sent >= begin) & (sent < end), end - sent, 0.0)
        durations = (lags * NS).astype(np.int64).tolist()
        series = _LAG.series
        if series is not None:
            record = series[()]
            try:
                for duration in durations:
                    record(duration)
            except FAILURES as failure:
                series.failed(failure)
        if _LAG.mapped:
            for duration in durations:
                _LAG.emit_mapped({"duration": duration}, MONITOR)
        self._blocks = [block for block in self._blocks if block[1] > now]

    # -- processes and the host ---------------------------------------------------------------------------------------

    def _sample(self, _nothing: object) -> None:
        simulator, now = self._simulator, self._simulator.clock.now
        elapsed = now - self._sampled
        self._sampled = now
        own = 0.0
        for worker in simulator.pool.workers:
            if worker.state != GONE:
                own += self._sample_worker(worker, now, elapsed)
        alive = {worker.pid for worker in simulator.pool.workers if worker.state != GONE}
        for known in (self._memory, self._cpu_seen):
            for pid in [pid for pid in known if pid not in alive]:
                del known[pid]
        self._sample_process()
        self._sample_host(own)
        simulator.agenda.put((math.floor(now / SAMPLE_S) + 1) * SAMPLE_S, self._sample)

    def _sample_worker(self, worker: SimulatedWorker, now: float, elapsed: float) -> float:
        """Emit the sample of a worker, and return the processors that it used since the last."""
        used, call = worker.cpu_s, worker.call
        if worker.state == BUSY and call is not None:
            used += max(0.0, min(now, call.ends) - call.started) * call.cpu_rate
        ratio = max(0.0, used - self._cpu_seen.get(worker.pid, 0.0)) / elapsed
        self._cpu_seen[worker.pid] = used
        if _WORKER.on:
            measured: dict[str, Any] = {"interval": round(SAMPLE_S * NS), "cpu_ratio": ratio}
            measured["cpu_duration"] = round(used * NS)
            missing = {} if self._scenario.rss else {"rss": "the scenario has no memory"}
            if self._scenario.rss is not None:
                measured["rss"] = round(self._rss(worker, now, elapsed))
            about = {**self._simulator.pool.identity.worker(worker.id), "pid": worker.pid}
            _WORKER.emit(measured, {**MONITOR, **about, "missing": missing, "state_letter": "S"})
        return ratio

    def _rss(self, worker: SimulatedWorker, now: float, elapsed: float) -> float:
        form = self._scenario.rss
        assert form is not None
        memory = self._memory.get(worker.pid)
        if memory is None:
            memory = self._memory[worker.pid] = _Memory(form, self._rng)
        age = now - worker.started
        for leak in active_of(self._simulator.faults, Leak):
            if leak.subject in (EVERYTHING, f"worker {worker.id}", f"pool {self._scenario.pool}"):
                memory.leaked += leak.bytes_per_hour / 3600 * min(elapsed, age)
        return memory.at(age)

    def _sample_process(self) -> None:
        if _PROCESS.on:
            measured = {"interval": round(SAMPLE_S * NS), "cpu_ratio": 0.05}
            _PROCESS.emit(measured, {**MONITOR, "missing": {}, "pid": 1000})

    def _sample_host(self, own: float) -> None:
        if not _HOST.on:
            return
        faults = self._simulator.faults
        neighbours = list(active_of(faults, Neighbour))
        used = own + 0.05 + sum(fault.cores for fault in neighbours) + float(self._rng.exponential(0.05))
        crowded = self._crowded / self._looked if self._looked else 0.0
        self._crowded = self._looked = 0
        measured = {
            "interval": round(SAMPLE_S * NS),
            "pressure_cpu": max([crowded, *(fault.pressure for fault in neighbours)]),
        }
        if self.cpus is not None:
            measured |= {"cpus": self.cpus, "cpu_ratio": min(1.0, used / self.cpus)}
        if self.limited:
            ratios = (fault.periods_ratio for fault in active_of(faults, Throttle))
            measured["throttled_ratio"] = max(ratios, default=0.0)
        _HOST.emit(measured, {**MONITOR, "missing": {}, "cgroup": "v2", "disk_path": "/"})
