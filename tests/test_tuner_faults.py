"""The tuner against pools that lie, disks that hang and people who change their minds; and what its audit says then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pool_monitor.advisor.journal import Journal
from pool_monitor.clock import ManualClock
from pool_monitor.config.tuner import TunerConfig
from pool_monitor.tuner.assessing import Assessor
from pool_monitor.tuner.driver import TunerDriver
from pool_monitor.tuner.intents import PENDING, Apply, Emit
from pool_monitor.tuner.pace import Pace
from pool_monitor.tuner.trial import STEPS_MAX, Trial, TrialStage
from tests.helpers.trial_rig import WALL, Effects, FakeTunable, MiniPool, Rig

QUICK = Pace(warm_up=1, baseline=30, validation=6, validation_max=20, calls=5, verify=2, settle=3, pool_pause=2)


class Wants:
    def __init__(self, size: int) -> None:
        self.size = size

    def decide(self, _observation: object) -> int:
        return self.size


def rig(mode: Any = "recommend", *, knobs: Any = (), policy: Any = None) -> Rig:
    pool = MiniPool(1, rate=20, size=4, knobs=[FakeTunable("timeout", 10.0, 1.0, 60.0, 0.5, "s"), *knobs])
    return Rig(pool, policy=policy, pace=QUICK, config=TunerConfig(mode=mode, season=False))


def timeout_of(one: Rig) -> FakeTunable:
    return one.pool.knobs[1]


# -- the audit --------------------------------------------------------------------------------------------------------


def test_every_step_of_a_trial_is_kept_with_its_reason_and_its_person_and_survives_a_restart() -> None:
    one = rig()
    one.run(5)
    trial = one.core.propose("text", "timeout", 12.0, author="ann", reason="too short")
    one.core.approve(trial, author="bob")
    one.run(3)
    one.core.rollback(trial, author="eve")
    one.run(10)
    said = one.core.explain(trial)
    for words in ("awaiting approval by ann", "note by bob", "applying", "validating", "rolling back by eve"):
        assert words in said
    one.core = one.fresh()
    assert one.core.explain(trial) == said
    (kept,) = (found for found in one.core._memory.book if found.id == trial)
    states = [step.stage.value for step in kept.steps if not step.note]
    assert states[:4] == ["proposed", "awaiting_approval", "applying", "validating"]
    assert states[4:] == ["rolling_back", "verifying", "rolled_back"]
    assert [step.at for step in kept.steps] == sorted(step.at for step in kept.steps)


def test_the_steps_of_a_trial_are_bounded_and_what_people_did_is_kept_longest() -> None:
    trial = Trial(
        id="a", pool="p", knob="k", unit="s", before=1, after=2, origin="manual", reason="x" * 5000, started_at=0,
        changed_at=0,
    )  # fmt: skip
    trial.stepped(0)
    trial.stepped(1, "ann", note=True)
    for at in range(100):
        trial.stepped(at, note=True)
    trial.stage = TrialStage.EXPIRED
    trial.stepped(200)
    assert len(trial.steps) == STEPS_MAX
    assert (trial.steps[0].note, trial.steps[1].actor, trial.steps[-1].stage) == (False, "ann", TrialStage.EXPIRED)
    assert max(len(step.reason) for step in trial.steps) <= 300


# -- tunables ---------------------------------------------------------------------------------------------------------


class Deaf(FakeTunable):
    """It takes no value, and says nothing."""

    def set(self, value: float) -> None:
        self.seen.append(value)


class Unreadable(FakeTunable):
    """Its value cannot be read once it was set."""

    gone = False

    def __getattribute__(self, name: str) -> Any:
        if name == "value" and object.__getattribute__(self, "gone"):
            raise OSError("gone")
        return super().__getattribute__(name)

    def set(self, value: float) -> None:
        self.seen.append(value)
        self.gone = True


def test_a_setting_that_takes_no_value_is_not_told_to_have_changed() -> None:
    one = rig("auto", policy=Wants(6))
    one.pool.size = one.pool.knobs[0] = Deaf(value=4.0, high=64.0)
    one.run(20)
    assert not [found for found in one.intents if isinstance(found, Emit)]
    assert len(one.pool.size.seen) <= 5  # it is not asked every second
    states = {(made.state, "kept 4" in made.reason) for made in one.core.decisions()}
    assert states == {("rejected", True)}


def test_a_trial_of_a_setting_that_takes_no_value_ends_at_once() -> None:
    one = rig(knobs=[Deaf("deaf", 2.0, 1.0, 9.0, 1.0, "count")])
    one.run(5)
    trial = one.core.propose("text", "deaf", 3.0)
    one.core.approve(trial)
    one.run(3)
    (view,) = one.core.history()
    assert view.state == "rejected"
    assert "kept 2" in view.reason


def test_a_range_that_has_become_smaller_is_kept_whatever_the_tunable_itself_accepts() -> None:
    class Lax(FakeTunable):
        def set(self, value: float) -> None:
            self.value = value
            self.seen.append(value)

    lax = Lax("lax", 2.0, 1.0, 9.0, 1.0, "count")
    one = rig(knobs=[lax])
    one.run(5)
    trial = one.core.propose("text", "lax", 6.0)
    one.core.approve(trial)
    observation = one.pool.advance()
    todo = one.core.step(one.pool.now, WALL + one.pool.now, one.inputs(observation))
    assert any(isinstance(found, Apply) for found in todo)
    lax.high = 4.0  # between the decision and the change
    one.do(todo)
    assert lax.seen == []
    assert one.core.history()[0].state == "rejected"


def test_a_setting_that_cannot_be_read_after_the_change_ends_its_trial_and_nothing_else() -> None:
    knob = Unreadable("odd", 2.0, 1.0, 9.0, 1.0, "count")
    one = rig(knobs=[knob])
    one.run(5)
    trial = one.core.propose("text", "odd", 3.0)
    one.core.approve(trial)
    one.do(one.core.step(one.pool.now + 1, WALL + one.pool.now + 1, one.inputs(one.pool.advance())))
    assert knob.seen == [3.0]
    one.pool.knobs.remove(knob)  # as the monitor leaves out what cannot be read
    one.run(120)
    assert one.core.history()[0].state == "expired"


# -- threads ----------------------------------------------------------------------------------------------------------


class InThread:
    """Judges as the service does: later, and not in the step of the core."""

    def __init__(self) -> None:
        self.asked: dict[str, Callable[[], Any]] = {}
        self.results: dict[str, Any] = {}
        self.most = 0

    def ask(self, key: str, judge: Callable[[], Any]) -> Any:
        if key in self.results:
            return self.results.pop(key)
        self.asked[key] = judge
        return PENDING

    def work(self) -> None:
        self.most = max(self.most, len(self.asked))
        self.results = {key: judge() for key, judge in self.asked.items()}
        self.asked.clear()


class LaterRig(Rig):
    thread: InThread

    def inputs(self, observation: Any = None) -> Any:
        if not hasattr(self, "thread"):
            self.thread = InThread()
        self.thread.work()
        later = lambda key, _pool, judge: self.thread.ask(key, lambda: judge(self.pool.history()))  # noqa: E731
        return super().inputs(observation)._replace(later=later)


def harmed(slower: float, kind: type[Rig]) -> list[tuple[str, str, str]]:
    def effects(settings: Any, _busy: int) -> Effects:
        return Effects(slower=slower if settings["health_interval"] > 10 else 1.0)

    knob = FakeTunable("health_interval", 10.0, 1.0, 60.0, 1.0, "s")
    pool = MiniPool(3, rate=20, size=6, knobs=[knob], effects=effects)
    pace = QUICK._replace(validation=60, validation_max=120, baseline=120)
    one = kind(pool, pace=pace, config=TunerConfig(season=False))
    one.run(150)
    one.core.approve(one.core.propose("text", "health_interval", 15.0))
    one.run(240)
    if isinstance(one, LaterRig):
        assert one.thread.most == 1
    return one.events()


@pytest.mark.parametrize("slower", [1.0, 3.0])
def test_a_trial_that_is_judged_in_a_thread_ends_as_one_that_is_judged_at_once(slower: float) -> None:
    at_once = harmed(slower, Rig)
    assert at_once[-1][2] == ("kept" if slower == 1.0 else "rolled_back")
    assert harmed(slower, LaterRig) == at_once


async def test_the_assessor_judges_in_its_thread_and_hands_over_what_was_raised() -> None:
    threads: list[int] = []

    def judge(history: Any) -> str:
        threads.append(threading.get_ident())
        if history is None:
            raise ValueError("nothing was measured")
        return str(history.pool)

    assessor = Assessor(Journal(["text"], ManualClock(), journal_id="assessed"), lambda _s: None)
    try:
        for pool in ("text", "gone"):
            assert assessor.ask(pool, pool, judge) is PENDING
        await assessor.work({})
        assert assessor.ask("text", "text", judge) == "text"
        with pytest.raises(ValueError, match="nothing was measured"):
            assessor.ask("gone", "gone", judge)
        assert threading.get_ident() not in threads
        assert assessor.ask("text", "text", judge) is PENDING
        await assessor.work({})
        await assessor.work({})  # what nobody fetches is dropped
        assert assessor.ask("text", "text", judge) is PENDING
    finally:
        await assessor.close()


# -- disks ------------------------------------------------------------------------------------------------------------


async def written_slowly(one: Rig, meanwhile: Callable[[], object]) -> list[str]:
    """Begin an approved trial of the time-out, and do *meanwhile* while its row is being written."""
    written, done = asyncio.Event(), asyncio.Event()

    async def commit(_rows: object) -> bool:
        written.set()
        await done.wait()
        return True

    one.run(5)
    trial = one.core.propose("text", "timeout", 12.0)
    one.core.approve(trial)
    one.do(one.core.take())
    driver = TunerDriver(one.core, commit, lambda: {"text": one.pool.knobs})
    now = one.pool.now + 1
    stepping = asyncio.create_task(driver.step(now, WALL + now, one.inputs(one.pool.advance())))
    await written.wait()
    meanwhile()
    done.set()
    await stepping
    await driver.settle()
    return [view.state for view in one.core.history()]


async def test_a_trial_that_is_rolled_back_while_its_row_is_written_never_sets_its_value() -> None:
    one = rig()
    await written_slowly(one, one.core.rollback)
    assert 12.0 not in timeout_of(one).seen
    assert timeout_of(one).value == 10.0


@pytest.mark.parametrize("stop", ["kill", "mode"])
async def test_a_tuner_that_is_switched_off_while_a_row_is_written_sets_nothing(stop: str) -> None:
    one = rig()

    def switch() -> None:
        if stop == "kill":
            one.killed = True
        else:
            one.core.set_mode("off")

    states = await written_slowly(one, switch)
    assert timeout_of(one).seen == []
    assert states == ["rejected"]


# -- rows that are damaged -------------------------------------------------------------------------------------------


def test_a_row_that_cannot_be_shown_is_left_out_and_one_with_any_script_is_kept() -> None:
    one = rig()
    one.run(5)
    kept = one.core.propose("text", "timeout", 12.0, author="Jörg\u00a0漢", reason="za długo\u00a0czeka")
    one.do(one.core.take())
    row = one.rows["trials"][kept]
    one.rows["trials"]["bad"] = row.replace(kept.encode(), b"bad").replace("za długo".encode(), b"\\u001b[2J")
    one.core = one.fresh()
    assert [view.id for view in one.core.pending()] == [kept]
    one.rows["tuning"]["changes:text"] = (
        b'[{"at":1,"knob":"size","before":1,"after":2,"origin":"policy","why":"a\\u001b]0;b"},'
        b'{"at":1,"knob":"size","before":1,"after":2,"origin":"policy","why":"fine"}]'
    )
    one.rows["tuning"]["settings"] = b'{"version":1,"settings":{"demoted":"\\u001b[31m"}}'
    core = one.fresh()
    assert [view.reason for view in core.decisions()] == ["fine"]
    assert core.view().frozen is None


# -- policies --------------------------------------------------------------------------------------------------------


def test_a_policy_that_holds_the_event_loop_is_not_asked_any_more_until_it_is_thawed() -> None:
    clock = [0.0]

    class Hanging(Wants):
        asked = 0

        def decide(self, _observation: object) -> int:
            self.asked += 1
            clock[0] += 10.0
            return self.size

    policy = Hanging(5)
    one = rig("auto", policy=policy)
    one.core._scaler._timer = lambda: clock[0]
    one.run(20)
    assert policy.asked == 3
    frozen = one.core.view().frozen
    assert frozen is not None
    assert "held the event loop for 10.0 s" in frozen
    one.core.thaw()
    one.run(10)
    assert policy.asked == 6  # it gets another chance, and has not used it
