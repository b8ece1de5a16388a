"""The life of a trial: the table, and trials in virtual time from the proposal to the verdict."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pool_monitor.snapshot.tuning import TrialState
from pool_monitor.state_machine import IllegalTransition
from pool_monitor.tuner.pace import Pace
from pool_monitor.tuner.trial import FINAL, RUNNING, TRIAL, WAITING, Trial, TrialStage
from tests.helpers.gates import in_gates
from tests.helpers.trial_rig import Effects, FakeTunable, MiniPool, Rig

QUICK = Pace(warm_up=2, baseline=120, validation=30, validation_max=120, calls=100, verify=3)
TRIGGERS = sorted({trigger for row in TRIAL.table.values() for trigger in row})
ENDS = ("kept", "rolled_back", "expired", "rejected")


def tried(rig: Rig, knob: str, value: float, *, warm: float = 130, most: float = 400) -> Trial:
    """Run a trial by hand to its end."""
    rig.run(warm)
    identity = rig.core.propose("text", knob, value, "ana", "a test")
    rig.core.approve(identity, "ana")
    trial = next(one for one in rig.core._memory.book if one.id == identity)
    rig.run(most, until=lambda: trial.stage.value in ENDS)
    return trial


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_states_of_the_table_are_those_of_the_snapshot() -> None:
    assert {stage.value for stage in TrialStage} == set(TrialState.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("stage", TrialStage)
def test_every_trigger_in_every_state_is_in_the_table_or_illegal(stage: TrialStage) -> None:
    for trigger in TRIGGERS:
        if trigger in TRIAL.table[stage]:
            assert TRIAL.step(stage, trigger) in TrialStage
        else:
            with pytest.raises(IllegalTransition):
                TRIAL.step(stage, trigger)


def test_the_states_are_waiting_running_kept_or_final_and_final_ones_are_left_by_nothing() -> None:
    assert WAITING | RUNNING | FINAL | {TrialStage.KEPT} == set(TrialStage)
    assert all(not TRIAL.table[stage] for stage in FINAL)
    assert all(TRIAL.reachable(stage) & (FINAL | {TrialStage.KEPT}) for stage in TrialStage)


def test_every_running_state_can_be_left_when_the_pool_is_gone() -> None:
    assert all("leave" in TRIAL.table[stage] for stage in RUNNING)


def test_a_value_is_only_tried_in_running_states() -> None:
    for stage in WAITING:
        assert set(TRIAL.table[stage].values()) & RUNNING <= {TrialStage.APPLYING}


# -- verdicts ---------------------------------------------------------------------------------------------------------


def small_pool(seed: int = 1, **kwargs: object) -> MiniPool:
    return MiniPool(seed, **{"rate": 20.0, "size": 4, **kwargs})  # type: ignore[arg-type]


def timeout_knob() -> FakeTunable:
    return FakeTunable("timeout", 10.0, 0.01, 60.0, 0.01, "s")


def interval_knob() -> FakeTunable:
    return FakeTunable("health_interval", 10.0, 1.0, 60.0, 0.5, "s")


def backoff_knob() -> FakeTunable:
    return FakeTunable("backoff_min", 1.0, 0.01, 30.0, 0.01, "s")


def overhead(settings: object, busy: int) -> Effects:
    return Effects(slower=1 + 0.5 / settings["health_interval"])  # type: ignore[index]


def dying(settings: object, busy: int) -> Effects:
    return Effects(deaths=0.2 if settings["health_interval"] < 3 else 0.0)  # type: ignore[index]


def storming(settings: object, busy: int) -> Effects:
    return Effects(failing=min(0.01 / settings["backoff_min"], 0.9))  # type: ignore[index]


def contended(settings: object, busy: int) -> Effects:
    return Effects(slower=max(1.0, busy / 4))


HARMS: dict[str, tuple[Callable[[], MiniPool], str, float]] = {
    "too few workers": (lambda: small_pool(rate=30, size=5), "size", 3),
    "growth under contention": (lambda: small_pool(rate=30, effects=contended), "size", 10),
    "a time-out that is much too low": (lambda: small_pool(knobs=[timeout_knob()]), "timeout", 0.1),
    "a time-out that is too low for some": (lambda: small_pool(knobs=[timeout_knob()]), "timeout", 0.2),
    "health checks that cost too much": (
        lambda: small_pool(knobs=[interval_knob()], effects=overhead),
        "health_interval",
        1,
    ),
    "health checks that end workers": (
        lambda: small_pool(knobs=[interval_knob()], effects=dying),
        "health_interval",
        2,
    ),
    "retries that come too soon": (lambda: small_pool(knobs=[backoff_knob()], effects=storming), "backoff_min", 0.05),
}


@pytest.mark.parametrize("name", HARMS)
def test_a_harmful_change_is_rolled_back_within_one_validation_window(name: str) -> None:
    make, knob, value = HARMS[name]
    rig = Rig(make(), pace=QUICK)
    before = next(one.value for one in rig.pool.knobs if one.name == knob)
    rig.run(130)
    began = rig.pool.now
    trial = tried(rig, knob, value, warm=0)
    restored = [one for one in rig.intents if getattr(one, "restores", False)]
    assert trial.stage is TrialStage.ROLLED_BACK, trial.reason
    assert next(one.value for one in rig.pool.knobs if one.name == knob) == before
    assert len(restored) == 1
    assert trial.changed_at - began - 1_700_000_000 <= QUICK.warm_up + 2 * QUICK.validation + 2 * QUICK.look
    assert not trial.false_rollback


@pytest.mark.parametrize(
    ("make", "knob", "value"),
    [
        (lambda: small_pool(rate=20, size=8), "size", 6),
        (lambda: small_pool(rate=34, size=4), "size", 6),
        (lambda: small_pool(knobs=[timeout_knob()]), "timeout", 9),
        in_gates(lambda: small_pool(knobs=[interval_knob()]), "health_interval", 15),
        in_gates(lambda: small_pool(knobs=[backoff_knob()], effects=storming), "backoff_min", 1.5),
    ],
)
def test_a_change_without_harm_is_kept(make: Callable[[], MiniPool], knob: str, value: float) -> None:
    rig = Rig(make(), pace=QUICK)
    trial = tried(rig, knob, value)
    assert trial.stage is TrialStage.KEPT, trial.reason
    assert next(one.value for one in rig.pool.knobs if one.name == knob) == value
    assert trial.verdict in ("better", "no_harm")


@pytest.mark.parametrize("name", [in_gates(name) for name in HARMS])
def test_harm_is_found_with_the_real_times_for_many_seeds(name: str) -> None:
    make, knob, value = HARMS[name]
    for seed in range(2):
        pool = make()
        pool.random = np.random.default_rng(seed)
        trial = tried(Rig(pool), knob, value, warm=610, most=900)
        assert trial.stage is TrialStage.ROLLED_BACK, (seed, trial.reason)


@pytest.mark.slow
@pytest.mark.gate
def test_a_trial_with_too_few_calls_is_undone_where_the_setting_is_risky() -> None:
    risky = tried(Rig(small_pool(rate=0.05, knobs=[timeout_knob()]), pace=QUICK), "timeout", 5)
    assert (risky.stage, risky.verdict) == (TrialStage.ROLLED_BACK, "inconclusive")
    safe = tried(Rig(small_pool(rate=0.05, knobs=[interval_knob()]), pace=QUICK), "health_interval", 9)
    assert (safe.stage, safe.verdict) == (TrialStage.KEPT, "inconclusive")


@pytest.mark.slow
@pytest.mark.gate
def test_a_rollback_that_does_not_help_is_called_false() -> None:
    """The calls become slow by themselves, at the moment of the change."""
    pool = small_pool(rate=15, knobs=[backoff_knob()])
    pool.effects = lambda _settings, _busy: Effects(slower=2.0 if pool.now > 133 else 1.0)
    trial = tried(Rig(pool, pace=QUICK), "backoff_min", 1.5)
    assert trial.stage is TrialStage.ROLLED_BACK
    assert trial.false_rollback
    assert "not the cause" in trial.reason
