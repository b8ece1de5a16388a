"""What goes wrong in a scenario, and when: the faults of `benchmarks.lab.scenario` put on the agenda of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from benchmarks.lab.scenario import (
    BlockLoop,
    Errors,
    Fault,
    Hang,
    Neighbour,
    Pin,
    Restart,
    Slow,
    Throttle,
)
from benchmarks.lab.simulated_pool import NS
from benchmarks.lab.simulated_worker import GONE, SimulatedCall, SimulatedWorker
from benchmarks.lab.traffic import seeded
from pool_monitor import emit

if TYPE_CHECKING:
    from benchmarks.lab.simulator import Simulator

_ROLL_S = 5.0
"""Seconds between the workers of a planned restart of all."""


class Faults:
    """The faults of one run. What is random in them is drawn from numbers of their own, so that calls stay the same."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator, self._pool = simulator, simulator.pool
        self._scenario = simulator.scenario
        self._active: list[tuple[int, Fault]] = []
        self._draws: dict[int, list[float]] = {}
        self._bursts: dict[int, int] = {}  # failures that are due, by fault
        self._pins: list[tuple[SimulatedWorker, float, list[float]]] = []
        self._hangs: list[tuple[Hang, list[float]]] = []
        self._errors: list[tuple[int, Errors]] = []
        self._turn = 0

    @property
    def active(self) -> list[Fault]:
        """The faults that are there now."""
        return [fault for _number, fault in self._active]

    def begin(self) -> None:
        scenario, agenda = self._scenario, self._simulator.agenda
        for at, _factor in scenario.slowdown:
            agenda.put(at, self._apply)
        for number, fault in enumerate(scenario.faults):
            if isinstance(fault, Pin | Errors | Hang):
                draws = seeded(scenario, self._simulator.seed, 1, number).uniform(size=len(self._pool.services))
                self._draws[number] = draws.tolist()
                self._pool.rules = self
            agenda.put(fault.at_s, self._on, (number, fault))
            if fault.until_s is not None:
                agenda.put(fault.until_s, self._off, (number, fault))

    def _on(self, due: tuple[int, Fault]) -> None:
        number, fault = due
        self._active.append(due)
        self._apply()
        if isinstance(fault, BlockLoop):
            self._block((number, fault))
        elif isinstance(fault, Restart):
            self._restart((number, fault))
        elif isinstance(fault, Errors) and fault.burst_mean is not None:
            self._plan_bursts(number, fault)

    def _off(self, due: tuple[int, Fault]) -> None:
        self._active.remove(due)
        self._bursts.pop(due[0], None)
        self._apply()

    def _is_on(self, number: int) -> bool:
        return any(number == other for other, _fault in self._active)

    def _apply(self, _nothing: object = None) -> None:
        """Work out anew what the faults that are there now do to calls."""
        pool = self._pool
        pool.factor, pool.stretch = self._scenario.slowdown_at(self._simulator.clock.now), 1.0
        pool.factors = [1.0] * len(pool.operations)
        for worker in pool.workers:
            worker.factor = 1.0
        for fault in self.active:
            if isinstance(fault, Slow):
                self._slow(fault)
            elif isinstance(fault, Throttle | Neighbour):
                pool.factor *= fault.slowdown
                pool.stretch *= fault.slowdown
        draws = self._draws
        self._pins = [
            (self._worker(one.subject), one.share, draws[n]) for n, one in self._active if isinstance(one, Pin)
        ]
        self._hangs = [(one, draws[n]) for n, one in self._active if isinstance(one, Hang)]
        self._errors = [(n, one) for n, one in self._active if isinstance(one, Errors)]

    def _slow(self, fault: Slow) -> None:
        kind, _, name = fault.subject.partition(" ")
        if kind == "worker":
            self._worker(fault.subject).factor *= fault.factor
        elif kind == "operation":
            self._pool.factors[self._pool.operations.index(name)] *= fault.factor
        else:
            self._pool.factor *= fault.factor

    def _worker(self, subject: str) -> SimulatedWorker:
        name = subject.partition(" ")[2]
        return next(worker for worker in self._pool.workers if worker.id == name)

    def concerns(self, fault: Fault, operation: int, worker: SimulatedWorker) -> bool:
        """Whether *fault* is about calls of *operation* on *worker*."""
        kind, _, name = fault.subject.partition(" ")
        if kind == "worker":
            return worker.id == name
        return kind != "operation" or self._pool.operations[operation] == name

    # -- single calls: `CallRules` ------------------------------------------------------------------------------------

    def pinned(self, call: SimulatedCall) -> SimulatedWorker | None:
        for worker, share, draws in self._pins:
            if draws[call.id] < share:
                return worker
        return None

    def hangs(self, call: SimulatedCall, worker: SimulatedWorker) -> bool:
        return any(
            draws[call.id] < one.share and self.concerns(one, call.operation, worker) for one, draws in self._hangs
        )

    def error(self, call: SimulatedCall, worker: SimulatedWorker) -> str | None:
        for number, fault in self._errors:
            if not self.concerns(fault, call.operation, worker):
                continue
            if fault.burst_mean is None:
                if self._draws[number][call.id] < fault.ratio:
                    return fault.type
            elif self._bursts.get(number, 0) > 0:
                self._bursts[number] -= 1
                return fault.type
        return None

    def _plan_bursts(self, number: int, fault: Errors) -> None:
        """Put the bursts on the agenda: a Poisson process of bursts, of geometric size, that makes up the ratio."""
        assert fault.burst_mean is not None
        rng = seeded(self._scenario, self._simulator.seed, 2, number)
        until = min(fault.until_s or math.inf, self._scenario.duration_s)
        arrivals = self._simulator.traffic.arrivals
        concerned = (arrivals >= fault.at_s) & (arrivals < until)
        kind, _, name = fault.subject.partition(" ")
        calls = float(concerned.sum())
        if kind == "operation":
            kinds = self._simulator.traffic.operations
            calls = float((concerned & (kinds == self._pool.operations.index(name))).sum())
        elif kind == "worker":
            calls /= max(1, self._scenario.n0)
        count = rng.poisson(calls * fault.ratio / fault.burst_mean)
        for at, size in zip(
            rng.uniform(fault.at_s, until, count), rng.geometric(1 / fault.burst_mean, count), strict=True
        ):
            self._simulator.agenda.put(float(at), self._burst, (number, int(size)))

    def _burst(self, due: tuple[int, int]) -> None:
        number, size = due
        if self._is_on(number):
            self._bursts[number] = self._bursts.get(number, 0) + size

    # -- the loop and the processes -----------------------------------------------------------------------------------

    def _block(self, due: tuple[int, BlockLoop]) -> None:
        number, fault = due
        if not self._is_on(number):
            return
        simulator = self._simulator
        begun = simulator.clock.now
        simulator.blocked_until = max(simulator.blocked_until, begun + fault.block_s)
        if simulator.host is not None:
            simulator.host.blocked(begun, simulator.blocked_until)
        simulator.agenda.put(begun + max(fault.every_s, fault.block_s), self._block, due)

    def _restart(self, due: tuple[int, Restart]) -> None:
        number, fault = due
        if not self._is_on(number):
            return
        agenda, now = self._simulator.agenda, self._simulator.clock.now
        if fault.every_s is not None and not fault.rolling:
            worker = self._next_worker(fault)
            if worker is not None:
                self._pool.replace(worker, "recycle" if fault.planned else "crash")
            agenda.put(now + fault.every_s, self._restart, due)
            return
        workers = [worker for worker in self._pool.workers if worker.state != GONE and self._meant(fault, worker)]
        for place, worker in enumerate(workers):
            agenda.put(now + place * _ROLL_S, self._roll, (worker, "recycle" if fault.planned else "crash"))
        if fault.planned and workers:
            agenda.put(now + len(workers) * _ROLL_S, self._rolled, len(workers))
        if fault.every_s is not None:
            agenda.put(now + fault.every_s, self._restart, due)

    def _roll(self, due: tuple[SimulatedWorker, str]) -> None:
        self._pool.replace(*due)

    def _rolled(self, workers: int) -> None:
        emit.pool_restart(self._pool.identity, duration=round(workers * _ROLL_S * NS), workers=workers)

    def _meant(self, fault: Restart, worker: SimulatedWorker) -> bool:
        return not fault.subject.startswith("worker ") or worker.id == fault.subject.partition(" ")[2]

    def _next_worker(self, fault: Restart) -> SimulatedWorker | None:
        workers = [worker for worker in self._pool.workers if worker.state != GONE and self._meant(fault, worker)]
        self._turn += 1
        return workers[(self._turn - 1) % len(workers)] if workers else None


def active_of(faults: Faults | None, kind: type[Any]) -> Iterable[Any]:
    """The faults of one kind that are there now."""
    return [] if faults is None else [fault for fault in faults.active if isinstance(fault, kind)]
