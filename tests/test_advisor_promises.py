"""What the advisor promises comes true: a pool is simulated again, with the change that was recommended."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.lab.scenario import Scenario
from benchmarks.lab.simulator import Simulator, Watch
from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.history import PoolHistory
from pool_monitor.advisor.patterns.overloaded import overloaded
from tests.helpers.gates import IN_GATES

pytestmark = IN_GATES

FORM: dict[str, Any] = {
    "name": "promise",
    "duration_s": 900,
    "wait_target_s": 0.3,
    "cold_start_s": 2.0,
    "n0": 7,
    "n_min": 1,
    "n_max": 32,
    "queue_limit": 5000,
    "patience_s": 30.0,
    "cores": None,
    "kappa": 0.0,
    "service": {"kind": "lognormal", "mean_s": 0.3, "cv": 1.0},
    "rate": {"kind": "linear", "points": [[0, 22], [900, 22]]},
    "slowdown": [],
}
BURSTS = {"kind": "mmpp", "low": 12, "high": 30, "mean_sojourn_s": 20.0, "seed_base": 9000}


class _Seen:
    """Watches a run, and keeps the history at its end."""

    history: PoolHistory

    def begin(self, simulator: Simulator) -> None:
        self._watch = Watch(simulator, simulator.scenario.wait_target_s, windows=False)
        self._watch.attach()

    def second(self, simulator: Simulator) -> None:
        self._watch.tick()
        if simulator.clock.now >= simulator.scenario.duration_s - 1:
            self.history = self._watch.journal.history(simulator.scenario.pool, tuple(simulator.pool.tunables()))

    def end(self, _simulator: Simulator) -> None:
        self._watch.detach()


def _history(seed: int, **fields: Any) -> tuple[PoolHistory, float]:
    """The history of a run, and the p95 of its waits."""
    seen = _Seen()
    simulator = Simulator(msgspec.convert(FORM | fields, Scenario), seed)
    simulator.play(seen)
    return seen.history, float(np.quantile(np.minimum(simulator.waits(), FORM["patience_s"]), 0.95))


def _found(history: PoolHistory) -> Detection:
    (found,) = overloaded(history)
    return found


@pytest.mark.parametrize("rate", [FORM["rate"], BURSTS], ids=["steady", "bursts"])
def test_the_wait_with_the_workers_that_were_recommended_is_as_expected(rate: dict[str, Any]) -> None:
    held = 0
    for seed in (1, 2, 3):
        found = _found(_history(seed, rate=rate)[0])
        assert found.change is not None
        assert found.effect is not None
        real = _history(seed + 10, rate=rate, n0=int(found.change.proposed))[1]
        assert real < found.effect.now / 2
        held += found.effect.low <= real <= found.effect.high
    assert held >= 2
