"""The baseline of a relative bound: what it learns, what it does not, and how much it keeps."""

from __future__ import annotations

import math
import random
from statistics import median

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pool_monitor import Monitor
from pool_monitor.alerts.evaluation.baseline import ENOUGH, OPEN_VALUES, SLOTS, Baseline, BaselineState
from pool_monitor.alerts.rule import OwnBaseline
from pool_monitor.clock import ManualClock
from pool_monitor.config import AlertsConfig, MonitorConfig, ResourcesConfig, ServiceConfig
from tests.helpers.judging import rule, threshold
from tests.test_monitor import Gauges

HOUR = 3600.0
DAY = 24 * HOUR
WINDOWS = [600.0, HOUR, DAY, 7 * DAY, 30 * DAY]


def feed(baseline: Baseline, value: float, seconds: float, every: float = 60.0, *, bad: bool = False) -> None:
    for _ in range(round(seconds / every)):
        baseline.learn(value, every, bad=bad)


@pytest.mark.parametrize("window", WINDOWS)
def test_it_is_unknown_until_it_has_seen_a_24th_of_its_window_and_enough_values(window: float):
    every = 5.0 if window <= HOUR else 60.0
    baseline = Baseline(window)
    values = 0
    while baseline.median is None:
        baseline.learn(3.0, every, bad=False)
        values += 1
    assert values == max(ENOUGH, math.ceil(window / 24 / every))
    assert baseline.median == 3.0


@pytest.mark.parametrize("window", [HOUR, DAY, 7 * DAY])
def test_it_follows_a_shift_within_its_window(window: float):
    every = window / SLOTS
    baseline = Baseline(window)
    feed(baseline, 1.0, window, every)
    feed(baseline, 1.5, window / 2 - 2 * every, every)
    assert baseline.median == 1.0
    feed(baseline, 1.5, 4 * every, every)
    assert baseline.median == 1.5


@pytest.mark.parametrize("window", [600.0, HOUR, DAY])
def test_three_bad_hours_change_nothing(window: float):
    baseline = Baseline(window)
    feed(baseline, 1.0, max(window, HOUR))
    before = msgspec.to_builtins(baseline.saved().good)
    feed(baseline, 50.0, 3 * HOUR, bad=True)
    assert (baseline.median, msgspec.to_builtins(baseline.saved().good)) == (1.0, before)
    feed(baseline, 1.0, 3 * HOUR)
    assert baseline.median == 1.0
    assert baseline.saved().bad.medians == []


@pytest.mark.parametrize(
    ("window", "accepted"), [(600.0, 6 * HOUR), (HOUR, 6 * HOUR), (DAY, 12 * HOUR), (7 * DAY, 84 * HOUR)]
)
def test_a_level_that_lasts_is_accepted_after_six_hours_and_half_of_the_window(window: float, accepted: float):
    baseline = Baseline(window)
    feed(baseline, 1.0, max(window, HOUR))
    feed(baseline, 50.0, accepted, bad=True)
    assert baseline.median == 1.0
    feed(baseline, 50.0, 60.0, bad=True)
    assert baseline.median == 50.0


def test_a_lasting_level_with_single_good_values_is_accepted_too():
    """Otherwise one value in a hundred that is good by chance would hold the old level up for ever."""
    baseline = Baseline(DAY)
    feed(baseline, 1.0, DAY)
    minutes = 0
    while baseline.median == 1.0:
        minutes += 1
        assert minutes < 16 * 60
        baseline.learn(50.0, 60.0, bad=minutes % 10 != 0)
    assert baseline.median == 50.0


def test_anomalies_that_come_back_with_more_good_time_between_are_never_accepted():
    baseline = Baseline(DAY)
    for _ in range(10):
        feed(baseline, 1.0, 4 * HOUR)
        feed(baseline, 50.0, 3 * HOUR, bad=True)
    assert baseline.median == 1.0


def test_time_without_values_does_not_make_it_forget():
    """Its time is the sum of what it is given: nights without traffic are no part of it."""
    with_gaps, without = Baseline(HOUR), Baseline(HOUR)
    for value in range(500):
        with_gaps.learn(value, 12.5, bad=False)
        without.learn(value, 12.5, bad=False)
        with_gaps.learn(1e6, 12.5, bad=True)
    assert with_gaps.median == without.median


@pytest.mark.parametrize("count", [ENOUGH, SLOTS, SLOTS + 1, 2 * SLOTS + 5])
def test_with_one_value_a_slot_it_is_the_median_of_the_window(count: int):
    made = random.Random(count)
    values = [made.lognormvariate(0, 1) for _ in range(count)]
    baseline = Baseline(DAY)
    for value in values:
        baseline.learn(value, DAY / SLOTS, bad=False)
    assert baseline.median == median(values[-SLOTS:])


def test_the_median_of_medians_is_near_the_median_of_heavy_tailed_values():
    made = random.Random(5)
    values = [made.lognormvariate(0, 1) for _ in range(24 * 720)]
    baseline = Baseline(DAY)
    for value in values:
        baseline.learn(value, 5.0, bad=False)
    assert baseline.median == pytest.approx(median(values), rel=0.05)


@settings(max_examples=40)
@given(
    window=st.sampled_from(WINDOWS),
    steps=st.lists(st.tuples(st.floats(0, 1e9), st.floats(0.1, 1e6), st.booleans(), st.integers(1, 30)), max_size=8),
)
def test_it_keeps_a_bounded_number_of_values_and_only_such_that_it_was_given(window, steps):
    baseline = Baseline(window)
    for value, seconds, bad, times in steps:
        for _ in range(times):
            baseline.learn(value, seconds, bad=bad)
    saved = baseline.saved()
    for part in (saved.good, saved.bad):
        assert len(part.medians) <= SLOTS
        assert len(part.values) <= OPEN_VALUES
    given_values = [value for value, *_ in steps]
    assert baseline.median is None or min(given_values) <= baseline.median <= max(given_values)
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(saved)), BaselineState) == saved


@settings(max_examples=40)
@given(
    window=st.sampled_from(WINDOWS),
    seed=st.integers(0, 1000),
    cut=st.integers(0, 120),
)
@example(window=3600.0, seed=25, cut=20)  # the value that makes it known comes in the middle of a slot
def test_a_baseline_that_was_stored_goes_on_as_if_it_had_not_been(window: float, seed: int, cut: int):
    made = random.Random(seed)
    steps = [(made.lognormvariate(0, 1), made.choice([5.0, 60.0, 900.0]), made.random() < 0.4) for _ in range(120)]
    whole, first = Baseline(window), Baseline(window)
    for value, seconds, bad in steps[:cut]:
        whole.learn(value, seconds, bad=bad)
        first.learn(value, seconds, bad=bad)
    second = Baseline(window, first.saved())
    for value, seconds, bad in steps[cut:]:
        assert whole.learn(value, seconds, bad=bad) == second.learn(value, seconds, bad=bad)
        assert whole.median == second.median
    assert whole.saved() == second.saved()


async def test_in_a_monitor_it_outlives_three_bad_hours_and_follows_a_shift_of_the_healthy_level():
    own = OwnBaseline(2.0, 2 * HOUR)
    clock, pool = ManualClock(), Gauges("texts")
    config = MonitorConfig(
        service=ServiceConfig(socket=False),
        resources=ResourcesConfig(enabled=False),
        alerts=AlertsConfig(default_rules=False, interval=60.0),
    )
    async with Monitor(pool, config=config, clock=clock) as monitor:
        monitor.alerts.add(rule(threshold(own, metric="operation.latency.p50"), min_samples=5))

        async def states(milliseconds: float, evaluations: int) -> list[str]:
            """Let calls take *milliseconds* for 3 minutes at a time, and return the states in which the alert was."""
            found = []
            for _ in range(evaluations):
                clock.advance(170.0)
                for _ in range(5):
                    pool.call(milliseconds, "op")
                clock.advance(10.0)
                await monitor.alerts.evaluate()
                found += [one.state for one in monitor.alerts.active() if one.state != "resolved"]
            return found

        assert await states(100.0, 40) == []
        assert (await states(195.0, 1), await states(210.0, 1)) == ([], ["firing"])
        assert await states(1000.0, 60) == ["firing"] * 60
        assert (await states(195.0, 1), await states(210.0, 1)) == ([], ["firing"])
        assert await states(150.0, 40) == []
        assert (await states(290.0, 1), await states(310.0, 1)) == ([], ["firing"])
