"""What users of other autoscalers and tuners have reported, tried on this one: the report is named at each test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from pool_monitor import Monitor
from pool_monitor.config import MonitorConfig, ServiceConfig
from pool_monitor.config.tuner import ScheduleEntry, TunerConfig
from pool_monitor.testing import InlinePool
from pool_monitor.tuner.driver import carry_out
from pool_monitor.tuner.failing import AFTER_S, LONGEST_S, FailureWatch
from pool_monitor.tuner.intents import TunerInputs
from pool_monitor.tuner.mismatch import mismatches
from pool_monitor.tuner.sizing import SizePolicy
from pool_monitor.tuner.sizing.forecast import ArrivalForecast
from tests.helpers.support import OPS
from tests.helpers.trial_rig import WALL, Effects, FakeTunable, MiniPool, Rig


def rig(pool: MiniPool, mode: Any = "auto", **more: Any) -> Rig:
    return Rig(pool, policy=more.pop("policy", None), config=TunerConfig(mode=mode, season=False, **more))


# -- the pool cannot be asked: kubernetes/autoscaler#9891 (history is thrown away when a target is gone for a moment) --


def blind(one: Rig, seconds: int) -> None:
    """The pool cannot be asked for so long."""
    for _ in range(seconds):
        one.pool.advance()
        carry_out(one.core, one.core.step(one.pool.now, WALL + one.pool.now, TunerInputs(tunables={})), {})


def test_a_pool_that_cannot_be_asked_for_a_moment_keeps_its_trial_and_what_is_known_of_it() -> None:
    one = rig(MiniPool(1, knobs=[FakeTunable("timeout", 10.0, 0.01, 60.0, 0.01, "s")]), "recommend")
    one.run(5)
    identity = one.core.propose("text", "timeout", 9.0)
    one.core.approve(identity)
    one.run(2)
    sizer = one.core._scaler._pools["text"].sizer
    blind(one, 5)
    one.run(2)
    assert one.core.view().trials[0].state == "validating"
    assert one.core._scaler._pools["text"].sizer is sizer
    blind(one, 2)
    one.core.rollback(everything=True)
    one.run(3)
    assert one.pool.knobs[1].value == 10.0, "what the operator wrote is not forgotten"


def test_a_value_is_restored_once_the_pool_can_be_asked_again() -> None:
    one = rig(MiniPool(1, knobs=[FakeTunable("timeout", 10.0, 0.01, 60.0, 0.01, "s")]), "recommend")
    one.run(5)
    identity = one.core.propose("text", "timeout", 9.0)
    one.core.approve(identity)
    one.run(2)
    one.core.rollback(identity)
    blind(one, 20)
    assert one.pool.knobs[1].value == 9.0
    one.run(2)
    assert one.pool.knobs[1].value == 10.0


@pytest.mark.parametrize("how", ["off", "gone"])
def test_what_the_season_has_learned_outlives_the_mode_off_and_a_pool_that_comes_back(how: str) -> None:
    one = Rig(MiniPool(1), config=TunerConfig(mode="recommend"))
    one.run(5)

    def season() -> Any:
        sizer = one.core._scaler._pools["text"].sizer
        assert sizer is not None
        assert sizer._season is not None
        return sizer._season

    learned = season()
    learned._days[739_000] = np.full(288, 3.0)
    if how == "off":
        one.core.set_mode("off")
        one.run(2)
        one.core.set_mode("recommend")
    else:
        blind(one, 70)
    one.run(5)
    assert season() is not learned
    assert season()._days.keys() == {739_000}


# -- calls that fail at once: kedacore/keda#944, Netflix/concurrency-limits#176 (smaller during an outage) -------------


def test_a_pool_does_not_shrink_because_calls_fail_at_once() -> None:
    down: list[bool] = []
    pool = MiniPool(1, size=4, rate=20, service=0.3, target=0.3, effects=lambda _settings, _busy: Effects(
        slower=0.02, failing=1.0) if down else Effects())  # fmt: skip
    one = rig(pool, policy=SizePolicy())
    one.run(120)
    before = pool.size.value
    assert before >= 8
    changes = len(pool.size.seen)
    down.append(True)
    one.run(600)
    assert pool.size.value == before
    assert "fail" in one.core.view().sizing[0].why
    down.clear()
    one.run(300)
    assert min(pool.size.seen[changes:], default=before) >= 8, "the calls after the outage find their workers"


def test_calls_that_fail_hold_a_pool_for_a_while_and_not_for_ever() -> None:
    watch, now = FailureWatch(), 0.0

    def play(seconds: float, ended: int, failed: int) -> None:
        nonlocal now
        for _ in range(round(seconds)):
            now += 1.0
            watch.observe(now, 1.0, ended, failed)

    for ended, failed in ((10, 0), (0, 0), (10, 4)):
        play(60, ended, failed)
        assert watch.why() is None
    play(60, 10, 9)
    assert watch.why() is not None
    play(AFTER_S / 2, 10, 0)
    assert watch.why() is not None, "what calls take is not known again yet"
    play(2 * AFTER_S, 10, 0)
    assert watch.why() is None
    play(LONGEST_S + 60, 10, 9)
    assert watch.why() is None, "calls of this pool fail usually"


# -- a schedule and what happens meanwhile: cloudfoundry/app-autoscaler#345 (it never comes back), kedacore/keda#6062 --


def scheduled(mode: str) -> Rig:
    """A pool of 4 that has 7 workers for the second and third minute, and a policy that wants nothing."""
    start, end = (datetime.fromtimestamp(WALL + 40 + after, UTC).astimezone() for after in (60, 180))
    entry = ScheduleEntry(start=start.strftime("%H:%M"), end=end.strftime("%H:%M"), min_size=7)
    pool = MiniPool(1, rate=1, knobs=[FakeTunable("timeout", 10.0, 0.01, 60.0, 0.01, "s")])
    return rig(pool, mode, schedule=(entry,))


def frozen(one: Rig) -> None:
    one.core.freeze("release", 200.0)


def other_mode(one: Rig) -> None:
    one.core.set_mode("auto" if one.core.mode == "recommend" else "recommend")


def off_for_a_while(one: Rig) -> None:
    mode = one.core.mode
    one.core.set_mode("off")
    one.run(170)
    assert one.pool.size.value == 7, "nothing is changed while it is off"
    one.core.set_mode(mode)


@pytest.mark.parametrize("mode", ["recommend", "auto"])
@pytest.mark.parametrize(
    ("meanwhile", "after"),
    [
        (lambda _one: None, 4),
        (frozen, 4),
        (other_mode, 4),
        (off_for_a_while, 4),
        (lambda one: blind(one, 30), 4),
        (lambda one: one.pool.size.set(9.0), 9),
        (lambda one: one.pool.size.set(3.0), 4),
    ],
    ids=["nothing", "frozen", "other mode", "off", "away", "more by hand", "less by hand"],
)
def test_when_a_schedule_ends_the_size_from_before_comes_back(mode: str, meanwhile: Any, after: int) -> None:
    one = scheduled(mode)
    one.run(110)
    assert one.pool.size.value == 7
    meanwhile(one)
    one.run(10)
    assert one.pool.size.value >= 7 or one.pool.now > 220
    one.run(250)
    assert one.pool.size.value == after


@pytest.mark.parametrize("mode", ["recommend", "auto"])
@pytest.mark.parametrize(("knob", "value", "before"), [("size", 5, 4), ("timeout", 9.0, 10.0)])
def test_a_schedule_does_not_wait_for_a_trial(mode: str, knob: str, value: float, before: float) -> None:
    one = scheduled(mode)
    one.run(10)
    identity = one.core.propose("text", knob, value)
    one.core.approve(identity)
    one.run(60)
    assert one.pool.size.value == 7
    trial = next(found for found in one.core.history() if found.id == identity)
    assert "the schedule asks for 7" in trial.reason
    if knob == "timeout":
        assert one.pool.knobs[1].value == before, "its effect could not be told from that of the size"


# -- two hands on one pool: dask/distributed#3863 (workers come and go), kedacore/keda#6061 (a size by hand is undone) -


def test_two_tuners_of_one_pool_soon_leave_it_alone() -> None:
    pool = MiniPool(1, rate=10, service=0.3, target=0.3)
    both = [rig(pool, policy=SizePolicy(), knobs={"size": bounds}) for bounds in ((2, 4), (8, 12))]
    for _ in range(100):
        seen = pool.advance()
        for one in both:
            one.do(one.core.step(pool.now, WALL + pool.now, one.inputs(seen)))
    assert len(pool.size.seen) <= 15
    assert "something else" in both[0].core.view().sizing[0].why
    both[0].run(620)
    assert pool.size.value == 4, "it goes on when the other one has stopped"


def test_a_larger_size_by_hand_is_kept_as_long_as_one_that_was_needed() -> None:
    pool = MiniPool(1, size=6, rate=10, service=0.3, target=0.3)
    one = rig(pool, policy=SizePolicy())
    one.run(120)
    pool.size.set(12.0)
    one.run(55)
    assert pool.size.value == 12
    one.run(120)
    assert pool.size.value < 12
    pool.size.set(1.0)
    one.run(10)
    assert pool.size.value >= 4, "calls wait: too small a size is not kept"


# -- workers that cannot start: kubernetes/kubernetes#64088, #130130 (calls wait, and no replica is ready) -------------


@pytest.mark.parametrize("mode", ["auto", "recommend"])
def test_a_pool_whose_workers_die_as_they_start_does_not_get_more_of_them(mode: str) -> None:
    pool = MiniPool(1, size=4, rate=30, service=0.3, target=0.3)
    one = rig(pool, mode, policy=SizePolicy())
    looping = [3]
    advance = pool.advance
    pool.advance = lambda seconds=1.0: advance(seconds)._replace(crash_loops=looping[0])  # type: ignore[method-assign]
    one.run(200)
    assert pool.size.value == 4
    assert not one.core.pending()
    assert "die" in one.core.view().sizing[0].why
    looping[0] = 0
    one.run(200)
    assert pool.size.value > 4 or one.core.pending()


# -- events that are sampled: kubernetes/kubernetes#30471, #99394 (a part of the figures is missing) -------------------


@pytest.mark.parametrize("one_in", [4, 10])
def test_a_pool_does_not_grow_because_few_events_of_its_calls_arrive(one_in: int) -> None:
    sizes = []
    for kept in (1, one_in):
        pool, policy = MiniPool(1, size=8, rate=20, service=0.3, target=0.3), SizePolicy()
        for _ in range(180):
            seen = pool.advance()
            wanted = policy.decide(seen._replace(calls=seen.calls[::kept], ended=len(seen.calls)))
            pool.size.value = float(wanted or pool.size.value)
        sizes.append(pool.size.value)
    assert sizes[1] == pytest.approx(sizes[0], abs=3)


# -- a load that ends: celery/celery#8943, kubernetes/kubernetes#78761 (it never gets to its minimum) ------------------


@pytest.mark.parametrize("rate", [1, 20, 500])
def test_a_load_that_has_ended_is_not_expected_again(rate: int) -> None:
    forecast, before = ArrivalForecast(), float("inf")
    for second in range(600):
        forecast.observe(second + 1.0, 1.0, rate)
    for second in range(600, 1200):
        forecast.observe(second + 1.0, 1.0, 0)
        if second >= 620:
            assert forecast.rate(3.0) <= max(before, 0.12)
            before = forecast.rate(3.0)
    assert before < 0.12


# -- what is written has no effect: temporalio/sdk-python#743, kedacore/keda#932 --------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"knobs": {"sise": (1, 4)}}, "knobs.sise: no pool has such a setting; there are size, timeout"),
        ({"knobs": {"size": (20, 30)}}, "pool text allows 1 to 16 only, so 16 is used there"),
        ({"knobs": {"timeout": (0.001, 0.002)}}, "pool text allows 0.01 to 60 only, so 0.01 is used there"),
        ({"schedule": (("texd", 6),)}, "there is no pool 'texd'; there are other, text"),
        ({"schedule": (("text", 17),)}, "min_size = 17 is more than pool text may have, so it gets 16"),
        ({"schedule": ((None, 6),), "knobs": {"size": (1, 4)}}, "so it gets 4"),
        ({"schedule": (("other", 100),), "knobs": {"size": (1, 16)}}, None),
        ({"schedule": ((None, 16),), "knobs": {"timeout": (1, 100)}}, None),
    ],
)
def test_what_the_pools_cannot_follow_is_told_with_what_there_is(config: dict[str, Any], words: str | None) -> None:
    entries = tuple(
        ScheduleEntry(start="09:00", end="18:00", min_size=size, pool=pool) for pool, size in config.get("schedule", ())
    )
    told = mismatches(
        TunerConfig(**(config | {"schedule": entries})),
        ["text", "other"],
        {"text": [FakeTunable(), FakeTunable("timeout", 10.0, 0.01, 60.0, 0.01, "s")]},
    )
    if words is None:
        assert told == []
    else:
        assert len(told) == 1
        assert words in told[0]


async def test_a_setting_that_no_pool_has_is_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    config = MonitorConfig(
        tuner=TunerConfig(knobs={"sise": (1, 4), "size": (1, 4)}), service=ServiceConfig(socket=False)
    )
    async with InlinePool(OPS, name="text", size=2, max_size=8) as pool, Monitor(pool, config=config):
        pass
    [told] = [record.getMessage() for record in caplog.records if "knobs" in record.getMessage()]
    assert "sise" in told
    assert "size" in told
