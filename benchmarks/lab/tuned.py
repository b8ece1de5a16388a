"""The tuner itself as a controller: its journal, its observer and its core, on the virtual clock."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from benchmarks.lab.scenario import Scenario
from pool_monitor.advisor.journal import Journal
from pool_monitor.config import TunerConfig
from pool_monitor.metrics.collector import Collector
from pool_monitor.tuner.core import TunerCore
from pool_monitor.tuner.driver import carry_out
from pool_monitor.tuner.intents import TunerInputs
from pool_monitor.tuner.observer import Observer

if TYPE_CHECKING:
    from benchmarks.lab.simulator import Simulator

_numbers = itertools.count(1)


class Tuned:
    """The tuner in the mode ``auto``, as a service has it: it knows what events and gauges tell, and nothing of
    *scenario* but its wait target and the range of its size.
    """

    def __init__(self, scenario: Scenario, config: TunerConfig | None = None) -> None:
        self._pool = scenario.pool
        self._range = scenario.n_min, scenario.n_max
        self._config = config or TunerConfig(mode="auto", wait_target=scenario.wait_target_s)

    def begin(self, simulator: Simulator) -> None:
        """Attach the collector and the journal."""
        self._collector = Collector([self._pool], simulator.clock)
        self._collector.attach()
        self._journal = Journal(
            [self._pool], simulator.clock, journal_id=f"lab-{next(_numbers)}", wait_target=self._config.wait_target
        )
        self._journal.attach()
        self._observer = Observer(self._journal, self._pool)
        self.core = TunerCore(self._config, killed=lambda: False)

    def second(self, simulator: Simulator) -> None:
        """Tell the core what a second has brought, and do what it wants."""
        view, tunables = simulator.pool.view(), {self._pool: simulator.pool.tunables()}
        self._collector.tick()
        self._collector.sample(view)
        self._journal.tick({self._pool: view})
        low, high = self._range
        observation = self._observer.observe(view, low=low, high=high, wait_target=self._config.wait_target)
        inputs = TunerInputs(
            tunables,
            {self._pool: observation},
            history=lambda pool: self._journal.history(pool, tunables[pool]),
        )
        carry_out(self.core, self.core.step(self._journal.now(), self._journal.wall(), inputs), tunables)

    def end(self, _simulator: Simulator) -> None:
        """Detach them."""
        self._collector.detach()
        self._journal.detach()
