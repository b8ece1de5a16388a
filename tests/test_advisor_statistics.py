"""Tests and intervals: known values, computed with another library, and their error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.advisor import extracts
from pool_monitor.advisor import statistics as stats

TIED = [1.1, 2.2, 2.2, 3.3, 4.4, 5.5, 6.6, 7.7, 8.8, 9.9], [2.2, 3.3, 4.4, 6.6, 8.8, 9.9, 11, 12.1, 13.2, 14.3]
SHARE = st.floats(0.01, 1)
LOGS = st.lists(st.floats(-5, 5), min_size=1, max_size=40)
TIES = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=30)
SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_mann_whitney_has_known_values() -> None:
    assert stats.mann_whitney(*TIED).p == pytest.approx(0.0686982386)
    assert stats.mann_whitney(*TIED).z > 0
    draw = np.random.default_rng(3)
    first, second = draw.lognormal(0, 1, 60), draw.lognormal(0.4, 1, 45)
    assert stats.mann_whitney(first, second).p == pytest.approx(0.1514965239)
    assert stats.mann_whitney(second, first).z < 0


@pytest.mark.parametrize(("first", "second"), [([], [1.0]), ([1.0], []), ([2.0] * 9, [2.0] * 7), ([math.nan], [1.0])])
def test_nothing_to_compare_is_no_difference(first: list[float], second: list[float]) -> None:
    assert stats.mann_whitney(first, second) == (1.0, 0.0)


def test_the_shift_is_found_with_its_interval() -> None:
    draw = np.random.default_rng(2)
    covered = 0
    for _ in range(30):
        shift = extracts.times_longer(draw.lognormal(0, 1, 40), 1.5 * draw.lognormal(0, 1, 50))
        covered += shift.low <= 1.5 <= shift.high
    assert covered >= 26
    large = extracts.times_longer(draw.lognormal(0, 1, 4_000), 1.5 * draw.lognormal(0, 1, 3_000))
    assert large.value == pytest.approx(1.5, abs=0.1)
    assert 0.03 < large.high - large.low < 0.3


def test_wilcoxon_has_known_values() -> None:
    few = [1.5, -0.3, 2.2, 3.1, -0.9, 4.0, 0.7, 2.6, -1.1, 3.3]
    assert stats.wilcoxon(few).p == pytest.approx(0.048828125)
    assert stats.wilcoxon(np.random.default_rng(4).normal(0.3, 1, 40)).p == pytest.approx(0.3166447487)
    assert stats.wilcoxon([0.0, 0.0]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775327999),
        (1, 10, 0.0178762131, 0.4041500268),
        (7, 10, 0.3967781475, 0.8922087326),
        (10, 10, 0.7224672001, 1.0),
        (3, 1000, 0.0010207839, 0.0087830141),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_has_known_values(hits: int, trials: int, low: float, high: float) -> None:
    assert stats.wilson(hits, trials)[1:] == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("hits", "trials", "share", "p"),
    [
        (5, 10, 0.2, 0.0327934976),
        (3, 1000, 0.001, 0.0802093428),
        (60, 100, 0.5, 0.0284439668),
        (1, 100_000, 1e-6, 0.0951626172),
        (900, 1000, 0.95, 0.99999999996),
        (10, 10, 0.9, 0.3486784401),
        (2000, 100_000, 0.018, 1.53092645e-06),
        (0, 5, 0.1, 1.0),
        (6, 5, 0.1, 0.0),
        (1, 5, 0.0, 0.0),
        (5, 5, 1.0, 1.0),
    ],
)
def test_the_binomial_test_has_known_values(hits: int, trials: int, share: float, p: float) -> None:
    assert stats.binomial_above(hits, trials, share) == pytest.approx(p, rel=1e-6)


@given(trials=st.integers(1, 60), share=st.floats(0.01, 0.99), hits=st.integers(0, 60))
def test_the_binomial_test_is_the_sum_of_its_terms(trials: int, share: float, hits: int) -> None:
    terms = [math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(hits, trials + 1)]
    assert stats.binomial_above(hits, trials, share) == pytest.approx(min(sum(terms), 1.0), abs=1e-9)


def test_benjamini_and_hochberg_have_known_values() -> None:
    adjusted = stats.benjamini_hochberg([0.01, 0.04, 0.03, 0.005, 0.5, 0.9])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.03, 0.6, 0.9])
    assert stats.benjamini_hochberg([]) == []


@given(ps=SHARES)
def test_adjusted_values_keep_their_order_and_are_never_smaller(ps: list[float]) -> None:
    adjusted = stats.benjamini_hochberg(ps)
    assert all(p <= q <= 1 for p, q in zip(ps, adjusted, strict=True))
    order = sorted(range(len(ps)), key=ps.__getitem__)
    assert [adjusted[at] for at in order] == sorted(adjusted)


@pytest.mark.parametrize(
    ("share", "z"), [(0.001, -3.0902323062), (0.5, 0.0), (0.975, 1.9599639845), (0.9999, 3.7190164855)]
)
def test_normal_quantiles_have_known_values(share: float, z: float) -> None:
    assert stats.normal_quantile(share) == pytest.approx(z, abs=1e-9)
    assert stats.normal_tail(z) == pytest.approx(1 - share, abs=1e-9)


def _dependent(draw: np.random.Generator, n: int) -> np.ndarray:
    """Values of one a second that depend on those before them: e^AR(1)."""
    noise, value, found = draw.normal(0, 0.3, n), 0.0, np.empty(n)
    for nth in range(n):
        value = 0.9 * value + noise[nth]
        found[nth] = value
    return np.exp(found)


@pytest.mark.slow
@pytest.mark.gate
def test_blocks_allow_for_values_that_depend_on_each_other() -> None:
    draw, at = np.random.default_rng(6), np.arange(1_800.0)
    wrong = {"blocks": 0, "values": 0}
    for _ in range(60):
        before, after = (at, _dependent(draw, 1_800)), (at, _dependent(draw, 1_800))
        ratio = stats.ratio_interval(before, after, 0.9, 60.0)
        wrong["blocks"] += not ratio.low <= 1 <= ratio.high
        wrong["values"] += stats.mann_whitney(before[1], after[1]).p < 0.05
    assert wrong["blocks"] <= 9
    assert wrong["values"] > 20


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 300), st.integers(0, 9)), min_size=1, max_size=80), SHARE)
def test_drawn_quantiles_are_those_of_the_drawn_blocks(calls: list[tuple[float, int]], share: float) -> None:
    blocks = stats.blocks_of([at for at, _value in calls], [value for _at, value in calls], 30.0)
    rows = len(blocks.counts)
    times = np.random.default_rng(1).multinomial(rows, np.full(rows, 1 / rows), size=20)
    below = np.cumsum(times.astype(np.float64) @ blocks.counts, axis=1)
    first = (below < share * below[:, -1:]).sum(axis=1)
    assert stats.drawn_quantiles(blocks, share, draws=20).tolist() == blocks.upper[first].tolist()


@settings(max_examples=30)
@given(LOGS, LOGS)
def test_a_shift_is_the_median_of_all_pairs(before: list[float], now: list[float]) -> None:
    first, second = np.sort(before), np.sort(now)
    pairs = np.subtract.outer(second, first)
    found = extracts.shift_of(first, second)
    assert found.value == pytest.approx(math.exp(float(np.median(pairs))))
    assert found.low <= found.value <= found.high
    assert extracts.times_longer(np.exp(np.array(before)), np.exp(np.array(now))) == pytest.approx(found)
    assert extracts.is_shifted(first, second, float(np.median(pairs)) - 1e-6)
    assert not extracts.is_shifted(first, second, float(pairs.max()) + 1e-6)


@settings(max_examples=30)
@given(TIES, TIES)
def test_mann_whitney_counts_the_pairs(first: list[float], second: list[float]) -> None:
    above = sum((b > a) - (b < a) for a in first for b in second)
    assert math.copysign(1, stats.mann_whitney(first, second).z) * above >= 0
    assert stats.mann_whitney(first, second).z == pytest.approx(-stats.mann_whitney(second, first).z)


def test_a_long_time_has_longer_blocks() -> None:
    times = np.linspace(0, 1e6, 20_000)
    assert len(stats.blocks_of(times, times, 30.0).counts) == 500
    assert stats.blocks_of(times, times, 30.0).counts.sum() == 20_000


def test_a_quantile_has_an_interval_around_it() -> None:
    draw, at = np.random.default_rng(6), np.arange(3_600.0)
    for share in (0.5, 0.95, 0.99):
        found = stats.quantile_interval(at, _dependent(draw, 3_600), share)
        assert found.low <= found.value <= found.high
        assert found.low < found.high
    assert math.isnan(stats.quantile_interval([], []).value)


@pytest.mark.parametrize(
    ("before", "after", "value"), [(2.0, 4.0, 2.0), (0.0, 0.0, 1.0), (0.0, 3.0, math.inf), (2.0, 0.0, 0.0)]
)
def test_the_ratio_of_constants_is_known(before: float, after: float, value: float) -> None:
    at = np.arange(300.0)
    found = stats.ratio_interval((at, np.full(300, before)), (at, np.full(300, after)))
    assert found == (value, value, value)
    assert math.isnan(stats.ratio_interval(([], []), (at, at)).value)


def test_a_trend_is_told_from_noise() -> None:
    at = np.arange(30.0)
    rising = 0.1 * at + np.random.default_rng(5).normal(0, 1, 30)
    slope, p = stats.trend(at, rising)
    assert slope.value == pytest.approx(0.0906682381)
    assert slope.low < 0.1 < slope.high
    assert p < 0.001
    assert stats.trend(at, np.full(30, 2.0)) == ((0.0, 0.0, 0.0), 1.0)
    assert stats.trend([0.0, 1.0], [1.0, 2.0])[1] == 1.0
