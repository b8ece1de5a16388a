"""The core of the tuner under random inputs, and after a kill at every boundary of what it wants done."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pool_monitor.config.tuner import TunerConfig
from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.snapshot.advice import Change, Recommendation
from pool_monitor.snapshot.alerts import AlertView
from pool_monitor.tuner.driver import act
from pool_monitor.tuner.intents import Apply, Intent, StoreRows
from pool_monitor.tuner.observation import Observation
from pool_monitor.tuner.pace import Pace
from pool_monitor.tuner.trial import FINAL, RUNNING, TrialStage
from tests.helpers.trial_rig import WALL, Effects, FakeTunable, MiniPool, Rig

QUICK = Pace(
    warm_up=2, baseline=30, validation=6, validation_max=20, calls=5, verify=2, settle=3, propose=3, pool_pause=2
)


class Moody:
    """A policy whose wish is set from outside, nonsense included."""

    wish: Any = None

    def decide(self, observation: Observation) -> Any:
        if isinstance(self.wish, str):
            raise ValueError(self.wish)
        return self.wish


def made(mode: str = "auto") -> Rig:
    knobs = [
        FakeTunable("timeout", 10.0, 1.0, 60.0, 0.5, "s"),
        FakeTunable("health_interval", 10.0, 1.0, 60.0, 1.0, "s"),
    ]
    pool = MiniPool(1, rate=3, size=4, knobs=knobs)
    config = TunerConfig(mode=mode, season=False, knobs={"size": (2, 9), "timeout": (2, 20)})  # type: ignore[arg-type]
    return Rig(pool, policy=Moody(), pace=QUICK, config=config)


def advice(knob: str, proposed: float) -> Recommendation:
    return Recommendation(
        id=f"{knob} {proposed > 10}",
        pattern="overloaded",
        subject="pool text",
        pool="text",
        summary="something",
        action="change it",
        score=1.0,
        confidence=1.0,
        samples=1,
        evidence={},
        change=Change(knob=knob, current=10.0, proposed=proposed),
    )


class TunerMachine(RuleBasedStateMachine):
    """Everything that can happen to a core, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = made()
        self.finals: dict[str, TrialStage] = {}
        self.stored: set[str] = set()

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.check(self.step())

    @rule(jump=st.sampled_from([-5000.0, 5000.0, 30.0]))
    def a_clock_jumps(self, jump: float) -> None:
        if jump == 30.0:
            self.rig.pool.now += jump
        else:
            observation = self.rig.pool.advance()
            self.check(
                self.rig.core.step(self.rig.pool.now, WALL + self.rig.pool.now + jump, self.rig.inputs(observation))
            )

    @rule(wish=st.sampled_from([None, 1, 3, 5, 8, 50, -4, float("nan"), 2.6, "broken"]))
    def the_policy_wants(self, wish: Any) -> None:
        self.rig.policy.wish = wish

    @rule(
        found=st.lists(
            st.builds(advice, st.sampled_from(["timeout", "size", "health_interval", "x"]), st.floats(0, 30)),
            max_size=3,
        )
    )
    def the_advisor_finds(self, found: list[Recommendation]) -> None:
        self.rig.recommendations = found

    @rule(fires=st.booleans())
    def alerts(self, fires: bool) -> None:
        at = WALL + self.rig.pool.now
        one = AlertView(alertname="A", labels={"pool": "text"}, state="firing", severity="page", value=1.0, since=at)
        self.rig.alerts = [one] if fires else []

    @rule(broken=st.booleans())
    def figures_cannot_be_trusted(self, broken: bool) -> None:
        self.rig.outage = "the collector is degraded" if broken else None

    @rule(mode=st.sampled_from(["off", "recommend", "auto"]))
    def the_mode_is_set(self, mode: str) -> None:
        self.rig.core.set_mode(mode)

    @rule(killed=st.booleans())
    def the_environment_says(self, killed: bool) -> None:
        self.rig.killed = killed

    @rule(
        what=st.sampled_from(["approve", "reject", "rollback", "freeze", "thaw", "explain", "revert"]),
        nth=st.integers(0, 3),
    )
    def a_person_asks(self, what: str, nth: int) -> None:
        core = self.rig.core
        pending = [view.id for view in core.pending()] or [view.id for view in core.history()] or ["none"]
        name = pending[nth % len(pending)]
        try:
            match what:
                case "freeze":
                    core.freeze("x", 10.0 if nth else None)
                case "thaw":
                    core.thaw()
                case "rollback":
                    core.rollback(None if nth else name)
                case "revert":
                    core.rollback(everything=True)
                case _:
                    getattr(core, what)(name)
        except (UnknownName, ConfigError):
            pass

    @rule(knob=st.sampled_from(["size", "timeout", "health_interval"]), value=st.floats(0, 30))
    def a_person_proposes(self, knob: str, value: float) -> None:
        try:
            identity = self.rig.core.propose("text", knob, value)
            self.rig.core.approve(identity)
        except (UnknownName, ConfigError):
            pass

    @rule(value=st.integers(2, 9))
    def somebody_resizes(self, value: int) -> None:
        self.rig.pool.size.value = float(value)

    @rule(which=st.sampled_from(["closed", "broken", "well"]), nth=st.integers(0, 2))
    def a_setting_is(self, which: str, nth: int) -> None:
        knob = self.rig.pool.knobs[nth]
        knob.closed, knob.broken = which == "closed", "no" if which == "broken" else ""

    @rule()
    def the_service_is_started_again(self) -> None:
        self.rig.core.take()
        self.rig.core = self.rig.fresh()

    def step(self) -> list[Intent]:
        rig = self.rig
        observation = rig.pool.advance()
        return rig.core.step(rig.pool.now, WALL + rig.pool.now, rig.inputs(observation))

    def check(self, intents: list[Intent]) -> None:
        """Carry out *intents* one by one."""
        rig = self.rig
        while intents:
            for intent in intents:
                if isinstance(intent, StoreRows):
                    rig.store(intent)
                    self.stored |= set(intent.rows.get("trials", {}))
                    continue
                before = [knob.value for knob in rig.pool.knobs]
                act(rig.core, intent, {"text": rig.pool.knobs})
                changed = before != [knob.value for knob in rig.pool.knobs]
                assert not changed or isinstance(intent, Apply)
                if isinstance(intent, Apply) and changed:
                    assert intent.trial is None or intent.trial in rig.rows["trials"]
                    assert rig.core.mode != "off" or intent.restores
                    assert not (rig.core.mode == "recommend" and intent.trial is None and not intent.restores)
            intents = rig.core.take()

    @invariant()
    def values_are_in_their_ranges(self) -> None:
        size, timeout, _ = self.rig.pool.knobs
        assert 2 <= size.value <= 9
        assert all(2 <= value <= 20 for value in timeout.seen)

    @invariant()
    def at_most_one_trial_runs_and_final_states_are_final(self) -> None:
        trials = list(self.rig.core._memory.book)
        assert sum(trial.running for trial in trials) <= 1
        for key, row in self.rig.rows.get("trials", {}).items():
            stage = TrialStage(msgspec.json.decode(row)["trial"]["stage"])
            assert self.finals.get(key, stage) is stage
            if stage in FINAL:
                self.finals[key] = stage
        self.rig.core.view()


TunerMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


class TestTuner(TunerMachine.TestCase):  # type: ignore[misc, name-defined]
    pass


# -- kills ------------------------------------------------------------------------------------------------------------


def script(rig: Rig) -> Iterator[list[Intent]]:
    """A trial that is kept, one that is rolled back and one that a person undoes, as what the core wants done."""
    core = rig.core

    def steps(number: int) -> Iterator[list[Intent]]:
        for _ in range(number):
            observation = rig.pool.advance()
            yield core.step(rig.pool.now, WALL + rig.pool.now, rig.inputs(observation))

    yield from steps(30)
    core.approve(core.propose("text", "timeout", 9.0))
    yield from steps(20)
    core.approve(core.propose("text", "health_interval", 2.0))
    yield from steps(30)
    core.approve(core.propose("text", "size", 5.0))
    yield from steps(4)
    core.rollback()
    yield from steps(12)


def harmful(settings: Any, busy: int) -> Any:
    return Effects(failing=0.5 if settings["health_interval"] < 5 else 0.0)


class Killed(NamedTuple):
    """What is left when the service is killed: the file, and the values that were set."""

    rows: dict[str, dict[str, bytes]]
    values: list[float]


def boundaries() -> list[Killed]:
    """Play the script, and note what a kill before each intent would leave."""
    rig = made("recommend")
    rig.pool.rate_at, rig.pool.effects = lambda _now: 10.0, harmful
    left = []
    for intents in script(rig):
        todo = intents
        while todo:
            for intent in todo:
                left.append(Killed(copy.deepcopy(rig.rows), [knob.value for knob in rig.pool.knobs]))
                if isinstance(intent, StoreRows):
                    rig.store(intent)
                else:
                    act(rig.core, intent, {"text": rig.pool.knobs})
            todo = rig.core.take()
    return left


@pytest.mark.parametrize("restart", ["with the configuration", "with the values of before"])
def test_a_kill_at_every_boundary_leaves_the_old_value_or_a_finished_decision(restart: str) -> None:
    left = boundaries()
    assert len(left) > 30
    stages = {msgspec.json.decode(row)["trial"]["stage"] for one in left for row in one.rows.get("trials", {}).values()}
    assert {stage.value for stage in RUNNING} <= stages
    for number, killed in enumerate(left):
        again = made("recommend")
        if restart == "with the values of before":
            for knob, value in zip(again.pool.knobs, killed.values, strict=True):
                knob.value = value
        again = Rig(again.pool, pace=QUICK, rows=killed.rows, config=again.config)
        again.run(4)
        values = {knob.name: knob.value for knob in again.pool.knobs}
        for trial in again.core._memory.book:
            assert not trial.running, (number, trial)
            assert trial.stage is not TrialStage.KEPT or trial.knob == "timeout"
            assert values[trial.knob] == (trial.after if trial.stage is TrialStage.KEPT else trial.before), (
                number,
                trial,
            )
            assert trial.reason
