"""Runs a scenario in virtual time, event by event, with whatever watches and steers its pool.

Simulated are the workers and the traffic: one call per worker, arrivals and service times drawn before the run,
contention fixed when a call begins, an observation each second. The queue, the prediction of waits, the windows, the
journal, the advisor and the tuner are the real ones, on a virtual clock.
"""

from __future__ import annotations

import math
import time
import traceback
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.lab.faults import Faults
from benchmarks.lab.host import Host
from benchmarks.lab.scenario import Scenario
from benchmarks.lab.simulated_pool import SimulatedPool
from benchmarks.lab.traffic import Traffic, draw
from benchmarks.lab.virtual_clock import Agenda, VirtualClock
from pool_monitor.advisor.journal import Journal
from pool_monitor.metrics.collector import Collector
from pool_monitor.snapshot import PoolView
from pool_monitor.tuner.observation import Observation
from pool_monitor.tuner.observer import Observer
from pool_monitor.tuner.policy import Policy
from pool_monitor.tuner.sizing import whole

INTERVAL_S = 1.0


class Driver(Protocol):
    """What runs beside the pool: a tuner, an advisor. `PolicyDriver` makes one of a policy."""

    def begin(self, simulator: Simulator) -> None:
        """Attach what has to see everything from the beginning. The clock stands at 0; the pool is not open yet."""

    def second(self, simulator: Simulator) -> None:
        """A second has passed. The pool may be resized now."""

    def end(self, simulator: Simulator) -> None:
        """Detach. Called also after an error."""


class Outcome(NamedTuple):
    """What came of one run."""

    scenario: str
    seed: int
    violations: float
    """Share of the calls that waited longer than the target; those that were refused, gave up or wait still, too."""
    p95_wait_s: float
    """A call that was refused counts with its patience, or what it waited if that is longer."""
    worker_hours: float
    reversals: int
    """Resizes in the direction opposite to the one before, in the whole run."""
    resizes: int
    peak: int
    """The largest size that was wanted."""
    calls: int
    refused: int
    out_of_range: int
    """Decisions outside the range of the pool. They were clipped."""
    spent_s: float
    """Processor time of the run, without the drawing of calls."""


class Simulator:
    """One run of one scenario. *resources*: whether the host, the workers and the loop are sampled, and said so."""

    def __init__(
        self, scenario: Scenario, seed: int, *, resources: bool = True, traffic: Traffic | None = None
    ) -> None:
        self.scenario, self.seed = scenario, seed
        self.clock, self.agenda = VirtualClock(scenario.wall_s), Agenda()
        self.traffic = draw(scenario, seed) if traffic is None else traffic
        self.pool = SimulatedPool(scenario, self.traffic, self.clock, self.agenda)
        self.blocked_until = 0.0
        """Until when the event loop is blocked."""
        self.faults = Faults(self) if scenario.faults or scenario.slowdown else None
        self.host = Host(self) if resources else None
        self.arrived = 0

    def play(self, driver: Driver) -> None:
        """Run to the end of the scenario."""
        try:
            driver.begin(self)
            self.pool.open()
            for at, size in self.scenario.size:
                self.agenda.put(at, self.pool.resize, size)
            if self.faults is not None:
                self.faults.begin()
            if self.host is not None:
                self.host.begin()
            self.agenda.put(INTERVAL_S, self._second, driver)
            self._run()
        finally:
            driver.end(self)

    def _second(self, driver: Driver) -> None:
        driver.second(self)
        self.agenda.put(math.floor(self.clock.now / INTERVAL_S + 1) * INTERVAL_S, self._second, driver)

    def _run(self) -> None:
        from heapq import heappop

        clock, heap, pool, end = self.clock, self.agenda.heap, self.pool, self.scenario.duration_s
        arrivals = [*self.traffic.arrivals.tolist(), math.inf]
        number, arrival = 0, arrivals[0]
        while True:
            if arrival < heap[0][0]:
                if arrival > end:
                    break
                clock.now = max(arrival, self.blocked_until)
                self.arrived = number + 1
                pool.arrive(number, arrival)
                number += 1
                arrival = arrivals[number]
            else:
                at, _number, function, argument = heappop(heap)
                if at > end:
                    break
                clock.now = max(at, self.blocked_until)
                function(argument)
        clock.now = max(end, clock.now)

    def outcome(self, out_of_range: int, spent_s: float) -> Outcome:
        scenario, pool = self.scenario, self.pool
        waits = self.waits()
        return Outcome(
            scenario.name,
            self.seed,
            float(np.mean(waits > scenario.wait_target_s)) if len(waits) else 0.0,
            float(np.percentile(np.minimum(waits, scenario.patience_s), 95)) if len(waits) else 0.0,
            pool.worker_hours,
            pool.reversals,
            pool.resizes,
            pool.peak,
            len(waits),
            pool.refused,
            out_of_range,
            spent_s,
        )

    def waits(self) -> NDArray[np.float64]:
        """The wait of each call that has arrived: infinity for one that was refused or gave up; of one that waits, so
        far.
        """
        waits = np.array(self.pool.waits[: self.arrived])
        so_far = self.clock.now - self.traffic.arrivals[: self.arrived]
        return np.where(waits <= -2.0, np.inf, np.where(waits < 0, so_far, waits))


class Watch:
    """What watches the pool of a run, as a monitor does: the windows, the journal and the observer. *wait_target* is
    the configured one; None: there is none. *windows*: whether the collector counts too, which the advisor does not
    need.
    """

    def __init__(self, simulator: Simulator, wait_target: float | None, *, windows: bool = True) -> None:
        scenario = simulator.scenario
        self._simulator, self._name = simulator, scenario.pool
        instances = {scenario.pool: simulator.pool.identity.instance}
        self.collector = Collector([scenario.pool], simulator.clock, instances=instances) if windows else None
        self.journal = Journal(
            [scenario.pool],
            simulator.clock,
            journal_id="pool_monitor.laboratory",
            instances=instances,
            wait_target=wait_target,
        )
        self.observer = Observer(self.journal, scenario.pool)

    def attach(self) -> None:
        self.journal.attach()
        if self.collector is not None:
            self.collector.attach()

    def detach(self) -> None:
        self.journal.detach()
        if self.collector is not None:
            self.collector.detach()

    def tick(self) -> PoolView:
        """Take the gauges of this second."""
        view = self._simulator.pool.view()
        if self.collector is not None:
            self.collector.tick()
            self.collector.sample(view)
        self.journal.tick({self._name: view})
        return view

    def observe(self, view: PoolView) -> Observation:
        """What a policy is shown now."""
        scenario = self._simulator.scenario
        return self.observer.observe(
            view,
            low=scenario.n_min,
            high=scenario.n_max,
            wait_target=scenario.wait_target_s,
            cold_start=scenario.cold_start_s,
        )


class PolicyFailed(Exception):
    """A user's policy raised, or answered what is no size. In a service, three times in a row freeze the tuner."""


def _failure(error: Exception, simulator: Simulator) -> str:
    """What a policy raised, and the line of it that did."""
    frames = traceback.extract_tb(error.__traceback__)
    own = len(frames) > 1 and frames[-1].name != whole.__name__
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if own else ""
    words = f"{type(error).__name__}: {error}{place}"
    return f"the policy failed {simulator.clock.now:.0f} s after the beginning of {simulator.scenario.name}: {words}"


class PolicyDriver:
    """Shows a policy what the tuner would show it, once a second, and sets the size that it wants."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.out_of_range = 0
        self._watch: Watch | None = None

    def begin(self, simulator: Simulator) -> None:
        self._watch = Watch(simulator, simulator.scenario.wait_target_s)
        self._watch.attach()

    def second(self, simulator: Simulator) -> None:
        assert self._watch is not None
        try:
            wanted = whole(self.policy.decide(self._watch.observe(self._watch.tick())))
        except Exception as error:
            raise PolicyFailed(_failure(error, simulator)) from error
        if wanted is None:
            return
        low, high = simulator.scenario.n_min, simulator.scenario.n_max
        self.out_of_range += not low <= wanted <= high
        simulator.pool.tunables()[0].set(min(max(wanted, low), high))

    def end(self, _simulator: Simulator) -> None:
        if self._watch is not None:
            self._watch.detach()


Controller = Policy | Driver


def run(scenario: Scenario, seed: int, controller: Controller, *, traffic: Traffic | None = None) -> Outcome:
    """Run *scenario* with *controller*: a policy, which is shown an observation each second, or a `Driver`."""
    driver = cast(Driver, controller) if hasattr(controller, "second") else PolicyDriver(controller)
    simulator = Simulator(scenario, seed, traffic=traffic)
    began = time.process_time()
    simulator.play(driver)
    spent_s = time.process_time() - began
    return simulator.outcome(int(getattr(driver, "out_of_range", 0)), spent_s)
