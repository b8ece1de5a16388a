"""Trials in the laboratory: real events, the real journal and the real tuner, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.lab.scenario import Scenario, parse
from benchmarks.lab.simulator import Simulator
from benchmarks.lab.tuned import Tuned
from pool_monitor.config.tuner import TunerConfig
from pool_monitor.tunable import Tunable
from pool_monitor.tuner.trial import Trial, TrialStage
from tests.helpers.gates import IN_GATES
from tests.helpers.trial_rig import FakeTunable

BEGIN_S = 650


def scenario(**more: Any) -> Scenario:
    made = {
        "name": "trial",
        "duration_s": 1000,
        "wait_target_s": 0.1,
        "n0": 6,
        "n_max": 32,
        "service": {"kind": "lognormal", "mean_s": 0.1, "cv": 1.0},
        "rate": {"kind": "linear", "points": [[0, 40], [1000, 40]]},
        **more,
    }
    return parse(made)


class Knob(FakeTunable):
    """A setting that the simulated pool does not have: *act* does to the pool what it would do."""

    act: Callable[[Any, float], None]

    def bind(self, pool: Any, act: Callable[[Any, float], None]) -> Knob:
        self.pool, self.act = pool, act
        return self

    def set(self, value: float) -> None:
        super().set(value)
        self.act(self.pool, value)


class Failing:
    """A share of the calls fails."""

    def __init__(self, share: float) -> None:
        self.share, self.count = share, 0

    def pinned(self, call: Any) -> None:
        return None

    def hangs(self, call: Any, worker: Any) -> bool:
        return False

    def error(self, call: Any, worker: Any) -> str | None:
        self.count += 1
        return "ValueError" if self.count % round(1 / self.share) == 0 else None


def timeout(pool: Any, value: float) -> None:
    pool.timeouts[:], pool.deadlines = [value] * len(pool.timeouts), True


def overhead(pool: Any, value: float) -> None:
    pool.factor = 1 + 0.5 / value


def storm(pool: Any, value: float) -> None:
    pool.rules = Failing(min(0.5, 0.02 / value))


class Approved(Tuned):
    """The tuner in `recommend`, and a person who approves one change at `BEGIN_S`."""

    def __init__(self, one: Scenario, knob: str, value: float, act: Any) -> None:
        super().__init__(one, TunerConfig(wait_target=0.1, season=False))
        self.knob, self.wanted, self.act = knob, value, act
        self.trial: Trial | None = None
        self.ended = 0.0

    def begin(self, simulator: Simulator) -> None:
        super().begin(simulator)
        more = {
            "timeout": Knob("timeout", 20.0, 0.01, 60.0, 0.01, "s"),
            "health_interval": Knob("health_interval", 10.0, 0.5, 60.0, 0.5, "s"),
            "backoff_min": Knob("backoff_min", 1.0, 0.01, 60.0, 0.01, "s"),
        }
        found = more.get(self.knob)
        self.more = [] if found is None else [found.bind(simulator.pool, self.act)]
        if found is not None:
            self.act(simulator.pool, found.value)

    def tunables(self, simulator: Simulator) -> list[Tunable]:
        return [*simulator.pool.tunables(), *self.more]

    def second(self, simulator: Simulator) -> None:
        super().second(simulator)
        if self.trial is None and simulator.clock.now >= BEGIN_S:
            identity = self.core.propose(self._pool, self.knob, self.wanted)
            self.core.approve(identity)
            self.trial = next(one for one in self.core._memory.book if one.id == identity)
        elif (
            self.trial is not None and not self.ended and self.trial.stage in (TrialStage.ROLLING_BACK, TrialStage.KEPT)
        ):
            self.ended = simulator.clock.now


CASES: dict[str, tuple[dict[str, Any], str, float, Any, TrialStage]] = {
    "too few workers": ({}, "size", 4, None, TrialStage.ROLLED_BACK),
    "growth under contention": (
        {"cores": 4, "kappa": 0.1, "cpu_fraction": 1.0, "rate": {"kind": "linear", "points": [[0, 36], [1000, 36]]}},
        "size",
        12,
        None,
        TrialStage.ROLLED_BACK,
    ),
    "a time-out that is too low": ({}, "timeout", 0.2, timeout, TrialStage.ROLLED_BACK),
    "health checks that cost too much": ({}, "health_interval", 1.0, overhead, TrialStage.ROLLED_BACK),
    "retries that come too soon": ({}, "backoff_min", 0.1, storm, TrialStage.ROLLED_BACK),
    "workers that are not needed": ({"n0": 12}, "size", 9, None, TrialStage.KEPT),
    "workers that are needed": ({"n0": 5}, "size", 7, None, TrialStage.KEPT),
    "a time-out that is enough": ({}, "timeout", 10.0, timeout, TrialStage.KEPT),
    "health checks that cost less": ({}, "health_interval", 15.0, overhead, TrialStage.KEPT),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=IN_GATES) for name in CASES])
def test_in_the_laboratory_harm_is_undone_within_one_validation_window_and_good_is_kept(name: str) -> None:
    fields, knob, value, act, expected = CASES[name]
    one = scenario(**fields)
    driver = Approved(one, knob, value, act)
    Simulator(one, 1).play(driver)
    assert driver.trial is not None
    assert driver.trial.stage is expected, driver.trial
    assert driver.ended - BEGIN_S < 150
