"""Leaks: memory made up from seeds, with a leak and without; the tests that a leak must pass, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.leaks import BASE, MB, SCALES, SHAPES, Scale, found
from pool_monitor.resources.leak import (
    DESCRIPTORS,
    LARGEST,
    MEMORY,
    STEPS,
    LeakTrend,
    goes_on,
    growth,
    mann_kendall,
    settles,
    spread,
    theil_sen,
    without_jump,
)

TIMES = np.arange(30) * 3.0
FAR = [scale for scale in SCALES if "near" not in scale.name]
HIDDEN = ("warm-up", "three steps")
"""Shapes that hide a leak until a longer stretch was seen."""


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_memory_without_a_leak_is_no_leak(shape: str, scale: Scale) -> None:
    assert [found(shape, scale, seed, leaks=False) for seed in range(2)] == [None, None]


@pytest.mark.parametrize("scale", FAR, ids=lambda scale: scale.name)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in HIDDEN])
def test_a_leak_is_found_in_every_shape_and_at_every_scale(shape: str, scale: Scale) -> None:
    assert None not in [found(shape, scale, seed, leaks=True) for seed in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("scale", FAR, ids=lambda scale: scale.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_in_a_hundred_series_there_is_no_false_alarm(shape: str, scale: Scale) -> None:
    assert [seed for seed in range(100) if found(shape, scale, 1000 + seed, leaks=False) is not None] == []


def run(trend: LeakTrend, values: list[float], limit: float | None, every: float = 1.0) -> list[float | None]:
    """Feed a trend. Return the seconds to the limit at each reading; None: no leak."""
    leaks = [trend.add(nth * every, value, limit) for nth, value in enumerate(values)]
    return [None if leak is None else leak.left_s for leak in leaks]


def test_a_leak_that_fills_the_memory_in_ten_minutes_is_known_after_about_one() -> None:
    left = run(LeakTrend(MEMORY), [BASE + nth * MB for nth in range(120)], BASE + 600 * MB)
    first = next(nth for nth, seconds in enumerate(left) if seconds is not None)
    assert first <= 80
    assert left[first] == pytest.approx(600 - first, rel=0.05)


def test_the_time_to_the_limit_is_within_its_interval_and_the_interval_has_the_truth() -> None:
    draw = np.random.default_rng(7)
    values = [BASE + nth * MB + float(draw.normal(0, 2 * MB)) for nth in range(140)]
    trend = LeakTrend(MEMORY)
    leak = [trend.add(float(nth), value, BASE + 600 * MB) for nth, value in enumerate(values)][-1]
    assert leak is not None
    assert leak.left_s is not None
    assert leak.soonest_s is not None
    assert leak.latest_s is not None
    assert leak.soonest_s <= leak.left_s <= leak.latest_s
    assert leak.soonest_s * 0.98 <= 600 - 140 <= leak.latest_s * 1.02


def test_a_slow_leak_is_not_guessed_from_a_short_stretch() -> None:
    assert set(run(LeakTrend(MEMORY), [BASE + nth * 0.01 * MB for nth in range(300)], BASE + 600 * MB)) == {None}


def test_a_leak_that_has_stopped_is_no_leak_any_more() -> None:
    values = [BASE + min(nth, 100) * MB for nth in range(250)]
    left = run(LeakTrend(MEMORY), values, BASE + 600 * MB)
    assert left[100] is not None
    assert left[-1] is None


def test_a_level_that_the_process_has_come_back_from_is_no_evidence() -> None:
    tooth = [BASE + nth % 150 * 2 * MB for nth in range(149)]
    left = run(LeakTrend(MEMORY), [*([BASE] * 30), *tooth, *tooth, *tooth], BASE + 900 * MB)
    assert set(left[30 + 149 + 10 :]) == {None}


def test_without_a_limit_only_the_longest_scale_finds_a_leak() -> None:
    fast = run(LeakTrend(MEMORY), [BASE + nth * MB for nth in range(200)], None)
    assert set(fast) == {None}
    trend = LeakTrend(MEMORY)
    leaks = [trend.add(nth * 300.0, BASE + nth * MB, None) for nth in range(120)]
    assert leaks[-1] is not None
    assert leaks[-1].left_s is None
    assert leaks[-1].slope.value == pytest.approx(MB / 300, rel=0.05)


def test_memory_over_its_limit_is_no_leak_but_another_fault() -> None:
    assert set(run(LeakTrend(MEMORY), [BASE + nth * MB for nth in range(120)], BASE - MB)) == {None}


def test_descriptors_leak_in_whole_numbers() -> None:
    left = run(LeakTrend(DESCRIPTORS), [7.0 + nth // 2 for nth in range(120)], 256.0)
    assert left[-1] == pytest.approx((256 - 66) * 2, rel=0.1)
    assert set(run(LeakTrend(DESCRIPTORS), [7.0 + nth % 5 for nth in range(300)], 256.0)) == {None}


@given(st.lists(st.floats(0, 1e12), max_size=400), st.none() | st.floats(0, 1e12))
def test_any_readings_are_taken_and_the_store_is_bounded(values: list[float], limit: float | None) -> None:
    trend = LeakTrend(MEMORY)
    for nth, value in enumerate(values):
        trend.add(nth * 2.0, value, limit)
    assert trend.points <= LARGEST * len(STEPS)


def test_the_store_of_a_trend_is_bounded_for_ever() -> None:
    trend = LeakTrend(MEMORY, STEPS[:2])
    for nth in range(5000):
        trend.add(float(nth), BASE + nth % 7, BASE * 2)
    assert trend.points == 2 * LARGEST


def test_samples_that_come_late_do_not_hide_a_leak() -> None:
    trend = LeakTrend(MEMORY, STEPS[:1])
    late = [nth for nth in range(500) if nth % 20 < 5]  # three of four are missing, in stretches of 15 s
    found = [trend.add(float(nth), BASE + nth * MB, BASE + 600 * MB) for nth in late]
    assert any(leak is not None for leak in found)


def test_a_gap_begins_a_scale_again() -> None:
    trend = LeakTrend(MEMORY, STEPS[:1])
    for nth in range(100):
        trend.add(float(nth), BASE + nth * MB, BASE + 600 * MB)
    assert trend.points > 20
    trend.add(1000.0, BASE, BASE + 600 * MB)
    assert trend.points == 0


# -- the tests of a leak ----------------------------------------------------------------------------------------------


def test_mann_kendall_counts_pairs_and_knows_ties() -> None:
    statistic, deviation = mann_kendall(np.arange(10.0))
    assert statistic == 45
    assert deviation == pytest.approx((10 * 9 * 25 / 18) ** 0.5)
    assert mann_kendall(np.ones(10)) == (0.0, 0.0)


def test_autocorrelation_widens_the_variance_of_mann_kendall() -> None:
    draw = np.random.default_rng(3)
    wander = np.cumsum(draw.normal(0, 1, 40))
    _, plain = mann_kendall(draw.normal(0, 1, 40))
    assert mann_kendall(wander)[1] > 1.3 * plain


def test_theil_sen_ignores_outliers() -> None:
    values = 2.0 * TIMES
    values[5] = 1e6
    slope = theil_sen(TIMES, values, mann_kendall(values)[1])
    assert slope.value == pytest.approx(2.0)
    assert slope.low <= 2.0 <= slope.high


def test_one_jump_is_removed_and_growth_is_kept() -> None:
    values = MB * np.arange(30.0)
    jumped = values + 100 * MB * (np.arange(30) > 12)
    assert np.allclose(without_jump(jumped, 1.0), values)
    assert np.allclose(without_jump(values, 1.0), values)


@pytest.mark.parametrize(
    ("values", "leaks"),
    [
        (MB * np.arange(30.0), True),
        (-MB * np.arange(30.0), False),
        (np.zeros(30), False),
        (60 * MB * (1 - np.exp(-np.arange(30) / 8)), False),
        (60 * MB * (1 - np.exp(-np.arange(30) / 14)), False),
        (30 * MB * ((np.arange(30) > 5) * 1 + (np.arange(30) > 15) + (np.arange(30) > 22)), False),
    ],
    ids=["line", "fall", "flat", "fast warm-up", "slow warm-up", "stairs"],
)
def test_only_steady_growth_passes_every_test(values: np.ndarray, leaks: bool) -> None:
    assert (growth(TIMES, BASE + values, MEMORY) is not None) == leaks


def test_a_curve_that_settles_is_told_from_a_line() -> None:
    assert settles(TIMES, 1 - np.exp(-np.arange(30) / 9), 1e-6)
    assert not settles(TIMES, np.arange(30.0), 1e-6)
    assert not goes_on(TIMES, 1 - np.exp(-np.arange(30) / 5))
    assert goes_on(TIMES, np.arange(30.0))
    assert spread(np.arange(30.0))
    assert not spread(np.repeat([0.0, 1.0, 2.0], 10))
