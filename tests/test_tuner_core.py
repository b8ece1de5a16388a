"""The core of the tuner: what people ask for, modes, freezes, proposals, the fast loop, restarts. Virtual time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from pool_monitor.config.tuner import ScheduleEntry, TunerConfig
from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.snapshot.advice import Change, Effect, Recommendation
from pool_monitor.snapshot.alerts import AlertView
from pool_monitor.tuner.audit import SETTINGS, TRIALS, TUNING
from pool_monitor.tuner.core import TunerCore
from pool_monitor.tuner.driver import TunerDriver
from pool_monitor.tuner.intents import Apply, Emit, StoreRows, TunerInputs
from pool_monitor.tuner.observation import Observation
from pool_monitor.tuner.pace import Pace
from pool_monitor.tuner.trial import Trial, TrialStage
from tests.helpers.trial_rig import WALL, Effects, FakeTunable, MiniPool, Rig

QUICK = Pace(
    warm_up=2,
    baseline=120,
    validation=30,
    validation_max=60,
    calls=50,
    verify=3,
    settle=5,
    propose=10,
    pool_pause=5,
    expire=3600,
)


class Wants:
    """A policy that always wants the same size."""

    def __init__(self, size: Any) -> None:
        self.size, self.error = size, None

    def decide(self, observation: Observation) -> Any:
        if isinstance(self.size, Exception):
            raise self.size
        return self.size


def rig(mode: str = "recommend", *, policy: Any = None, knobs: Any = (), **config: Any) -> Rig:
    pool = MiniPool(1, rate=20, size=4, knobs=[FakeTunable("timeout", 10.0, 0.01, 60.0, 0.01, "s"), *knobs])
    made = TunerConfig(mode=mode, season=False, **config)  # type: ignore[arg-type]
    return Rig(pool, policy=policy, pace=QUICK, config=made)


def advice(knob: str, current: float, proposed: float, name: str = "r1", **more: Any) -> Recommendation:
    return Recommendation(
        id=name,
        pattern=more.pop("pattern", "bad_timeout"),
        subject="operation op",
        pool="text",
        summary="calls take 2 s at most, and time out after 10 s",
        action="lower it",
        score=50.0,
        confidence=0.9,
        samples=1000,
        evidence={},
        change=Change(knob=knob, current=current, proposed=proposed),
        effect=Effect(metric="operation.p99", now=2.0, expected=1.0, low=0.5, high=1.5),
        **more,
    )


def alert(pool: str = "text", since: float = WALL, state: Any = "firing") -> AlertView:
    return AlertView(alertname="Slow", labels={"pool": pool}, state=state, severity="page", value=1.0, since=since)


def knob(one: Rig, name: str) -> FakeTunable:
    return next(found for found in one.pool.knobs if found.name == name)


def trial_of(one: Rig, identity: str) -> Trial:
    found = one.core._memory.book.get(identity)
    assert found is not None
    return found


# -- what people ask for ----------------------------------------------------------------------------------------------


def test_a_proposal_by_hand_waits_until_it_is_approved_and_is_shown() -> None:
    one = rig()
    one.run(5)
    identity = one.core.propose("text", "timeout", 8.0, "ana", "less")
    one.run(60)
    assert [(view.id, view.state, view.after) for view in one.core.pending()] == [(identity, "awaiting_approval", 8.0)]
    assert knob(one, "timeout").value == 10.0
    one.core.approve(identity[:4], "ben")
    one.run(1)
    assert knob(one, "timeout").value == 8.0
    view = one.core.view().trials[0]
    assert (view.state, view.actor, view.due_at is not None) == ("validating", "ben", True)
    assert "less" in one.core.explain(identity)


@pytest.mark.parametrize(
    ("pool", "name", "value", "error", "text"),
    [
        ("other", "size", 5, UnknownName, "there are text"),
        ("text", "depth", 5, UnknownName, "there are size, timeout"),
        ("text", "size", 500, ConfigError, "from 1 to 64"),
        ("text", "size", math.nan, ConfigError, "from 1 to 64"),
        ("text", "size", 4, ConfigError, "already"),
    ],
)
def test_a_proposal_that_cannot_be_is_refused_with_words(
    pool: str, name: str, value: float, error: type[Exception], text: str
) -> None:
    one = rig()
    one.run(2)
    with pytest.raises(error, match=text):
        one.core.propose(pool, name, value)


def test_a_trial_that_is_not_there_is_refused_with_those_that_are() -> None:
    one = rig()
    one.run(2)
    for ask in (one.core.approve, one.core.reject, one.core.rollback, one.core.explain):
        with pytest.raises(UnknownName, match="there are none"):
            ask("abc")
    with pytest.raises(UnknownName, match="there is none"):
        one.core.rollback()
    identity = one.core.propose("text", "timeout", 8.0)
    with pytest.raises(UnknownName, match=identity):
        one.core.approve("zzz")
    with pytest.raises(UnknownName):
        one.core.approve("")


def test_a_rejected_trial_changes_nothing_and_cannot_be_approved() -> None:
    one = rig()
    one.run(2)
    identity = one.core.propose("text", "timeout", 8.0)
    one.core.reject(identity, "ana", "not now\x1b[31m")
    one.run(60)
    view = one.core.history()[0]
    assert (view.state, view.actor) == ("rejected", "ana")
    assert "\x1b" not in view.reason
    with pytest.raises(ConfigError, match="rejected"):
        one.core.approve(identity)
    assert knob(one, "timeout").seen == []


def test_a_person_rolls_back_what_runs_and_what_was_kept() -> None:
    one = rig()
    one.run(130)
    for keep in (False, True):
        identity = one.core.propose("text", "timeout", 9.0)
        one.core.approve(identity)
        one.run(60 if keep else 5)
        assert trial_of(one, identity).stage is (TrialStage.KEPT if keep else TrialStage.VALIDATING)
        assert one.core.rollback(author="ben") == [identity]
        one.run(40)
        assert knob(one, "timeout").value == 10.0
        assert trial_of(one, identity).stage is TrialStage.ROLLED_BACK
    assert one.core._memory.settings.rollbacks == []  # a person's own do not count


def test_everything_is_restored_to_what_the_operator_wrote() -> None:
    one = rig()
    one.run(130)
    for value in (9.0, 8.0):
        one.core.approve(one.core.propose("text", "timeout", value))
        one.run(60)
    assert knob(one, "timeout").value == 8.0
    assert len(one.core.rollback(everything=True)) == 2
    one.run(2)
    assert knob(one, "timeout").value == 10.0
    again = Rig(one.pool, pace=QUICK, rows=one.rows)
    again.run(5)
    assert knob(again, "timeout").value == 10.0


# -- modes and freezes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["mode", "environment"])
def test_off_undoes_what_runs_and_changes_nothing_more(how: str) -> None:
    one = rig()
    one.run(130)
    identity = one.core.propose("text", "timeout", 9.0)
    one.core.approve(identity)
    one.run(5)
    if how == "mode":
        one.core.set_mode("off")
    else:
        one.killed = True
    assert one.core.mode == "off"
    one.run(60)
    assert knob(one, "timeout").value == 10.0
    assert trial_of(one, identity).stage is TrialStage.ROLLED_BACK
    one.policy.size = 9
    one.recommendations = [advice("timeout", 10, 8)]
    one.run(60)
    assert one.core.pending() == []
    with pytest.raises(ConfigError):
        one.core.set_mode("sometimes")


def test_the_environment_stops_a_change_between_the_decision_and_the_action() -> None:
    one = rig("auto", policy=Wants(9))
    observation = one.pool.advance()
    intents = one.core.step(one.pool.now, WALL, one.inputs(observation))
    one.killed = True
    one.do(intents)
    assert one.pool.size.seen == []


def test_an_alert_that_begins_during_a_trial_ends_it_and_an_older_one_lets_only_protection_begin() -> None:
    one = rig()
    one.run(130)
    one.alerts = [alert(since=WALL + 100)]
    harmless, growth = one.core.propose("text", "timeout", 9.0), one.core.propose("text", "size", 6.0)
    trial_of(one, growth).protective = True
    one.core.approve(harmless)
    one.core.approve(growth)
    one.run(5)
    assert trial_of(one, growth).stage is TrialStage.VALIDATING
    assert trial_of(one, harmless).stage is TrialStage.AWAITING_APPROVAL
    one.alerts = [alert(since=WALL + one.pool.now)]
    one.run(2)
    assert trial_of(one, growth).stage in (TrialStage.ROLLING_BACK, TrialStage.VERIFYING)
    one.alerts = [alert("other")]
    one.run(60)
    assert trial_of(one, harmless).stage in (TrialStage.VALIDATING, TrialStage.KEPT)


def test_a_freeze_by_a_person_ends_trials_and_by_itself() -> None:
    one = rig()
    one.run(130)
    identity = one.core.propose("text", "timeout", 9.0)
    one.core.approve(identity)
    one.run(5)
    one.core.freeze("release", 100, "ana")
    one.run(50)
    assert trial_of(one, identity).stage is TrialStage.ROLLED_BACK
    view = one.core.view()
    assert (view.frozen, view.frozen_until) == ("release", pytest.approx(WALL + 135 + 100))
    waiting = one.core.propose("text", "timeout", 9.0)
    one.core.approve(waiting)
    one.run(40)
    assert "frozen" in trial_of(one, waiting).reason
    one.run(20)
    assert trial_of(one, waiting).stage is TrialStage.VALIDATING
    assert one.core.view().frozen is None
    for wrong in (0, -1, math.inf, math.nan):
        with pytest.raises(ConfigError):
            one.core.freeze("x", wrong)


def test_a_freeze_outlives_a_restart_and_a_clock_that_goes_backwards() -> None:
    one = rig()
    one.run(10)
    one.core.freeze("release", 100)
    one.run(1)
    core = one.fresh()
    core.step(0.0, WALL - 50_000, one.inputs())
    assert core.view().frozen == "release"
    core.step(99.0, WALL - 50_000 + 99, one.inputs())
    assert core._memory.freezes.frozen(99.0, WALL - 49_901) is not None
    assert core._memory.freezes.frozen(102.0, WALL - 49_898) is None


def test_three_rollbacks_freeze_for_an_hour_and_two_such_freezes_take_the_mode_back() -> None:
    one = rig("auto")
    one.run(2)
    freezes, now, wall = one.core._memory.freezes, one.pool.now, WALL
    results = [freezes.rolled_back(now + nth, wall + nth) for nth in range(3)]
    assert results == [None] * 3
    assert freezes.frozen(now + 10, wall + 10) is not None
    assert freezes.frozen(now + 3700, wall + 3700) is None
    results = [freezes.rolled_back(now + 4000 + nth, wall + 4000 + nth) for nth in range(3)]
    assert [result is not None for result in results] == [False, False, True]


def test_a_mode_that_was_set_outlives_a_restart_until_the_configuration_changes() -> None:
    one = rig("auto")
    one.run(2)
    one.core.set_mode("off")
    one.run(1)
    assert one.fresh().mode == "off"
    one.config = TunerConfig(mode="recommend")
    assert one.fresh().mode == "recommend"


def test_a_gap_ends_trials_and_a_jump_of_the_clock_holds_new_ones() -> None:
    one = rig()
    one.run(130)
    identity = one.core.propose("text", "timeout", 9.0)
    one.core.approve(identity)
    one.run(5)
    one.pool.now += 60
    one.run(1)
    assert "nothing was measured" in trial_of(one, identity).reason
    one.core.step(one.pool.now + 1, WALL + one.pool.now + 5000, one.inputs())
    assert one.core.view().frozen is not None


# -- proposals --------------------------------------------------------------------------------------------------------


def test_advice_becomes_a_proposal_of_one_step_and_lapses_with_its_reason() -> None:
    one = rig()
    one.recommendations = [advice("timeout", 10, 4), advice("no_such_knob", 1, 2, "r2"), advice("size", 4, 4, "r3")]
    one.run(3)
    (view,) = one.core.pending()
    assert (view.knob, view.after, view.origin) == ("timeout", 9.0, "advice")
    assert "first step towards 4" in view.reason
    assert view.effect is not None
    one.recommendations = []
    one.run(1)
    assert one.core.pending() == []
    assert one.core.history()[0].state == "expired"


def test_a_proposal_that_a_person_rejected_is_not_made_again() -> None:
    one = rig()
    one.recommendations = [advice("timeout", 10, 4)]
    one.run(3)
    one.core.reject(one.core.pending()[0].id, "ana")
    one.run(20)
    assert one.core.pending() == []


def test_in_auto_what_needs_no_approval_begins_once_nothing_speaks_against_it() -> None:
    interval = FakeTunable("health_interval", 10.0, 1.0, 60.0, 0.5, "s")
    one = rig("auto", knobs=[interval])
    one.recommendations = [advice("health_interval", 10, 12, "r1"), advice("timeout", 10, 9, "r2")]
    one.run(170, until=lambda: interval.value != 10.0)
    assert interval.value == 12.0
    assert [view.knob for view in one.core.pending()] == ["timeout"]  # asks in auto too
    one.run(60)
    assert one.core.history()[0].state == "kept"


def test_in_auto_too_little_traffic_keeps_a_trial_waiting() -> None:
    interval = FakeTunable("health_interval", 10.0, 1.0, 60.0, 0.5, "s")
    one = rig("auto", knobs=[interval])
    one.pool.rate_at = lambda _now: 0.1
    one.recommendations = [advice("health_interval", 10, 12)]
    one.run(200)
    assert interval.value == 10.0
    assert "too little traffic" in one.core.pending()[0].reason


def test_a_policy_in_recommend_proposes_what_it_has_wanted_for_long_and_takes_it_back() -> None:
    policy = Wants(6)
    one = rig(policy=policy)
    one.run(9)
    assert one.core.pending() == []
    one.run(5)
    (view,) = one.core.pending()
    assert (view.knob, view.before, view.after, view.origin) == ("size", 4, 6, "policy")
    assert one.core.view().sizing[0].wanted == 6
    policy.size = 4
    one.run(15)
    assert one.core.pending() == []
    assert one.pool.size.seen == []


def test_an_approved_proposal_says_what_keeps_it_from_beginning() -> None:
    one = rig()
    one.run(2)
    identity = one.core.propose("text", "timeout", 9.0, "ana", "less")
    assert one.core.pending()[0].reason == "less"
    one.core.freeze("release")
    one.core.approve(identity, "ben")
    one.run(2)
    assert one.core.pending()[0].reason == "approved; it waits: frozen (release)"


def test_in_auto_the_size_is_the_policys_and_is_not_restored_with_everything_else() -> None:
    one = rig("auto", policy=Wants(6))
    one.run(20)
    assert one.pool.size.value == 6
    with pytest.raises(UnknownName, match="chosen by the policy"):
        one.core.rollback()
    one.core.rollback(everything=True, author="ana")
    one.run(1)
    assert one.pool.size.seen == [6]
    one.core.set_mode("recommend")
    one.core.rollback(everything=True, author="ana")
    one.run(1)
    assert one.pool.size.value == 4
    assert [made.actor for made in one.core.decisions()] == ["", "ana"]


@pytest.mark.parametrize(("how", "again"), [("freeze", True), ("person", False)])
def test_a_trial_that_a_release_has_ended_does_not_speak_against_its_change(how: str, again: bool) -> None:
    one = rig(policy=Wants(6))
    one.run(14)
    (first,) = one.core.pending()
    one.core.approve(first.id, "ana")
    one.run(3)
    if how == "freeze":
        one.core.freeze("release", 5, "ana")
    else:
        one.core.rollback(first.id, "ana")
    one.run(20)
    assert trial_of(one, first.id).stage is TrialStage.ROLLED_BACK
    assert one.core.pending() == []  # too soon
    one.run(60)
    assert bool(one.core.pending()) is again


def test_an_effect_that_is_no_number_and_foreign_text_do_not_cost_the_row_of_a_trial() -> None:
    one = rig()
    nan = Effect(metric="x", now=math.nan, expected=1.0, low=0.5, high=1.5)
    found = msgspec.structs.replace(advice("timeout", 10, 4), effect=nan, summary="bad \ud800 \x1b[31m text")
    one.recommendations = [found]
    one.run(2)
    (view,) = one.fresh().pending()
    assert view.effect is None
    assert view.reason.isprintable()


def test_a_change_that_cannot_be_judged_is_undone() -> None:
    one = rig()
    one.run(20)
    identity = one.core.propose("text", "timeout", 9.0)
    one.core.approve(identity)
    one.run(1)

    def broken() -> Any:
        raise RuntimeError("no history")

    one.pool.history = broken  # type: ignore[method-assign]
    one.run(60)
    assert knob(one, "timeout").value == 10.0
    assert trial_of(one, identity).stage is TrialStage.ROLLED_BACK


# -- the fast loop ----------------------------------------------------------------------------------------------------


def test_in_auto_the_size_follows_the_policy_within_both_ranges() -> None:
    policy = Wants(100)
    one = rig("auto", policy=policy)
    one.config = TunerConfig(mode="auto", season=False, knobs={"size": (2, 8)})
    one.core = one.fresh()
    one.run(3)
    assert one.pool.size.value == 8
    policy.size = -3
    one.run(3)
    assert one.pool.size.value == 2
    assert [event for event in one.events() if event[0] == "size"][-1] == ("size", "", "set")


def test_a_frozen_pool_may_grow_and_does_not_shrink() -> None:
    policy = Wants(6)
    one = rig("auto", policy=policy)
    one.run(2)
    one.core.freeze("release")
    policy.size = 3
    one.run(5)
    assert one.pool.size.value == 6
    policy.size = 9
    one.run(5)
    assert one.pool.size.value == 9
    one.core.thaw()
    policy.size = 3
    one.run(2)
    assert one.pool.size.value == 3


def test_a_trial_holds_the_size_and_ends_when_many_calls_wait() -> None:
    policy = Wants(None)
    one = rig("auto", policy=policy)
    one.run(130)
    identity = one.core.propose("text", "timeout", 9.0)
    one.core.approve(identity)
    one.run(3)
    policy.size = 3
    one.run(2)
    assert one.pool.size.value == 4
    policy.size = 12
    one.pool.rate_at = lambda _now: 100.0
    one.run(5)
    assert one.pool.size.value == 12
    assert trial_of(one, identity).stage in (TrialStage.VERIFYING, TrialStage.ROLLED_BACK)
    assert knob(one, "timeout").value == 10.0


def test_a_policy_that_fails_three_times_in_a_row_freezes() -> None:
    one = rig("auto", policy=Wants(ValueError("no idea")))
    one.run(2)
    assert one.core.view().frozen is None
    one.run(2)
    assert "no idea" in str(one.core.view().frozen)


def test_a_harmful_size_of_a_users_policy_is_rolled_back_and_not_set_again_soon() -> None:
    policy = Wants(None)
    one = rig("auto", policy=policy)
    one.pool.rate_at = lambda _now: 30.0
    one.run(130)
    policy.size = 2
    began = one.pool.now
    one.run(60, until=lambda: one.pool.size.seen[-1:] == [4.0])
    assert one.pool.now - began < QUICK.validation
    one.run(60)
    assert one.pool.size.seen == [2.0, 4.0]
    view = one.core.history()[0]
    assert (view.state, view.origin, view.before, view.after) == ("rolled_back", "policy", 4, 2)


def test_growth_of_a_users_policy_under_contention_is_rolled_back() -> None:
    policy = Wants(None)
    one = rig("auto", policy=policy)
    one.pool.rate_at = lambda _now: 35.0
    one.pool.effects = lambda _settings, busy: Effects(slower=max(1.0, busy / 4))
    one.run(130)
    policy.size = 12
    one.run(40)
    assert one.pool.size.value == 4


@pytest.mark.parametrize("mode", ["recommend", "auto", "off"])
def test_the_schedule_is_followed_in_recommend_and_auto_and_the_size_from_before_comes_back(mode: str) -> None:
    start, end = (datetime.fromtimestamp(WALL + after, UTC).astimezone() for after in (600, 1200))
    entry = ScheduleEntry(start=start.strftime("%H:%M"), end=end.strftime("%H:%M"), min_size=7)
    one = rig(mode, schedule=(entry,))
    one.pool.rate_at = lambda _now: 1.0
    one.run(500)
    assert one.pool.size.value == 4
    one.run(60)  # the workers are ready at the beginning, not started then
    expected = 4 if mode == "off" else 7
    assert one.pool.size.value == expected
    if mode == "recommend":
        one.run(700)
        assert one.pool.size.seen == [7, 4]
        assert {event.metadata["origin"] for event in one.intents if isinstance(event, Emit)} == {"schedule"}


# -- what is stored ---------------------------------------------------------------------------------------------------


def test_rows_that_are_damaged_or_newer_are_refused_and_counted() -> None:
    one = rig()
    one.run(2)
    one.core.propose("text", "timeout", 9.0)
    one.run(1)
    good = next(iter(one.rows[TRIALS].values()))
    newer = msgspec.json.encode({**msgspec.json.decode(good), "version": 99})
    rows: Mapping[str, Mapping[str, bytes]] = {
        TRIALS: {"a": b"\xff", "b": b"{}", "c": good, "d": newer, "e": b"null", **one.rows[TRIALS]},
        TUNING: {SETTINGS: b"[1]", "season:text": b"x"},
    }
    core = TunerCore(one.config, rows=rows, policies=lambda _pool: one.policy)
    assert core._memory.refused == 6
    assert len(core.pending()) == 1
    core.step(1.0, WALL, one.inputs())


def test_an_approval_does_not_outlive_a_restart() -> None:
    one = rig()
    one.run(10)
    identity = one.core.propose("text", "timeout", 9.0)
    one.core.approve(identity)
    one.do(one.core.take())
    one.core = one.fresh()
    one.run(5)
    assert [(view.id, view.state) for view in one.core.pending()] == [(identity, "awaiting_approval")]
    assert "again" in one.core.pending()[0].reason


def test_what_was_kept_is_set_again_after_a_restart_unless_the_operator_wrote_another_value() -> None:
    one = rig()
    one.run(130)
    one.core.approve(one.core.propose("text", "timeout", 9.0))
    one.run(60)
    for configured, expected in ((10.0, 9.0), (7.0, 7.0)):
        knob(one, "timeout").value = configured
        again = Rig(one.pool, pace=QUICK, rows=one.rows, config=one.config)
        again.run(3)
        assert knob(again, "timeout").value == expected


def test_what_cannot_be_stored_is_not_applied_but_what_is_restored_is() -> None:
    one = rig()
    one.run(130)
    healthy = False

    async def commit(rows: Any) -> bool:
        return healthy

    async def main() -> None:
        nonlocal healthy
        driver = TunerDriver(one.core, commit, lambda: {"text": one.pool.knobs})
        first = one.core.propose("text", "timeout", 9.0)
        one.core.approve(first)
        await step(driver)
        assert trial_of(one, first).stage is TrialStage.REJECTED
        assert knob(one, "timeout").seen == []
        healthy = True
        second = one.core.propose("text", "timeout", 9.0)
        one.core.approve(second)
        await step(driver)
        assert knob(one, "timeout").value == 9.0
        healthy = False
        one.core.rollback(second)
        await driver.settle()
        assert knob(one, "timeout").value == 10.0

    async def step(driver: TunerDriver) -> None:
        one.pool.advance()
        await driver.step(one.pool.now, WALL + one.pool.now, one.inputs())

    asyncio.run(main())


def test_a_pool_that_closes_or_goes_ends_its_trial() -> None:
    for how in ("closed", "gone"):
        one = rig()
        one.run(130)
        identity = one.core.propose("text", "timeout", 9.0)
        one.core.approve(identity)
        one.run(3)
        if how == "closed":
            knob(one, "timeout").closed = True
            one.core.rollback(identity)
        else:
            for second in range(1, 65):
                one.core.step(one.pool.now + second, WALL + one.pool.now + second, TunerInputs(tunables={}))
            one.pool.now += 65
        one.run(3)
        assert trial_of(one, identity).stage is TrialStage.EXPIRED


def test_a_setting_that_fails_to_be_set_ends_the_trial_before_anything_has_changed() -> None:
    one = rig()
    one.run(130)
    knob(one, "timeout").broken = "no"
    identity = one.core.propose("text", "timeout", 9.0)
    one.core.approve(identity)
    one.run(3)
    assert trial_of(one, identity).stage is TrialStage.REJECTED


def test_every_change_is_stored_before_it_is_applied() -> None:
    one = rig("auto", policy=Wants(7))
    one.run(130)
    identity = one.core.propose("text", "timeout", 9.0)
    one.core.approve(identity)
    one.run(60)
    for index, intent in enumerate(one.intents):
        if isinstance(intent, Apply):
            assert isinstance(one.intents[index - 2], StoreRows) or isinstance(one.intents[index - 1], StoreRows)
