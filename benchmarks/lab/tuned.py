"""The tuner itself as a controller: its journal, its observer and its core, on the virtual clock."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.lab.scenario import Scenario
from benchmarks.lab.simulator import Simulator, Watch
from pool_monitor.config import TunerConfig
from pool_monitor.tunable import Tunable
from pool_monitor.tuner.core import TunerCore
from pool_monitor.tuner.driver import carry_out
from pool_monitor.tuner.intents import TunerInputs


class Tuned:
    """The tuner in the mode ``auto``, as a service has it: it knows what events and gauges tell, and nothing of
    *scenario* but its wait target and the range of its size.
    """

    def __init__(self, scenario: Scenario, config: TunerConfig | None = None) -> None:
        self._pool = scenario.pool
        self._range = scenario.n_min, scenario.n_max
        self._config = config or TunerConfig(mode="auto", wait_target=scenario.wait_target_s)

    def begin(self, simulator: Simulator) -> None:
        """Attach what watches the pool."""
        self._watch = Watch(simulator, self._config.wait_target)
        self._watch.attach()
        # A policy takes no time on the clock of a run: what it does must not depend on the machine.
        self.core = TunerCore(self._config, killed=lambda: False, timer=lambda: 0.0)

    def tunables(self, simulator: Simulator) -> Sequence[Tunable]:
        """What the tuner may change."""
        return simulator.pool.tunables()

    def second(self, simulator: Simulator) -> None:
        """Tell the core what a second has brought, and do what it wants."""
        journal, tunables = self._watch.journal, {self._pool: self.tunables(simulator)}
        view = self._watch.tick()
        low, high = self._range
        observation = self._watch.observer.observe(view, low=low, high=high, wait_target=self._config.wait_target)
        inputs = TunerInputs(
            tunables=tunables,
            observations={self._pool: observation},
            history=lambda pool: journal.history(pool, tunables[pool]),
        )
        carry_out(self.core, self.core.step(journal.now(), journal.wall(), inputs), tunables)

    def end(self, _simulator: Simulator) -> None:
        """Detach it."""
        self._watch.detach()
