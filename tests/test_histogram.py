"""The histogram against sorted lists: every quantile within its stated error, counts exactly."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.metrics import histogram
from pool_monitor.metrics.histogram import BUCKETS, FIRST_INDEX, HIGHEST_NS, RELATIVE_ERROR, SCALE
from pool_monitor.snapshot import Bar
from tests.helpers.recordings import drawn

SHARES = (0.001, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)


durations = st.integers(1_000, HIGHEST_NS)
streams = st.one_of(
    st.lists(durations, min_size=1, max_size=5),
    st.lists(durations, min_size=1, max_size=400),
    st.builds(lambda value, n: [value] * n, durations, st.integers(1, 300)),
    st.builds(
        drawn,
        st.integers(0, 2**32),
        st.sampled_from(["lognormal", "heavy-tailed", "bimodal"]),
        st.integers(1, 3000),
    ),
)


def counts_of(values_ns: list[int]) -> np.ndarray:
    return np.bincount(histogram.bucket_of(np.array(values_ns)), minlength=BUCKETS)


def nearest_rank(values: list[int], share: float) -> int:
    return sorted(values)[math.ceil(Fraction(str(share)) * len(values)) - 1]


@given(streams)
@settings(max_examples=150, deadline=None)
def test_every_quantile_is_within_the_stated_error_of_the_exact_nearest_rank(values: list[int]) -> None:
    estimates = histogram.quantiles(counts_of(values), SHARES)
    for share, estimate in zip(SHARES, estimates, strict=True):
        exact = nearest_rank(values, share) / 1e9
        assert abs(estimate - exact) <= exact * RELATIVE_ERROR * (1 + 1e-9)


@given(st.lists(streams, min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_histograms_merge_by_adding_and_lose_nothing(parts: list[list[int]]) -> None:
    together = [value for part in parts for value in part]
    merged = np.sum([counts_of(part) for part in parts], axis=0)
    np.testing.assert_array_equal(counts_of(together), merged)


@given(st.lists(st.one_of(streams, st.just([])), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_many_histograms_at_once_give_what_each_gives_alone(parts: list[list[int]]) -> None:
    counts = np.array([counts_of(part) if part else np.zeros(BUCKETS, int) for part in parts])
    together = histogram.quantiles(counts, SHARES)
    alone = np.array([histogram.quantiles(row, SHARES) for row in counts])
    np.testing.assert_array_equal(alone, together)
    assert [not part for part in parts] == np.isnan(together[:, 0]).tolist()


def test_quantiles_of_a_slice_of_the_buckets_are_those_of_the_whole() -> None:
    counts = counts_of(drawn(7, "lognormal", 500))
    first = int(np.flatnonzero(counts)[0])
    np.testing.assert_array_equal(
        histogram.quantiles(counts, SHARES), histogram.quantiles(counts[first:], SHARES, first)
    )


def test_bucket_edges_are_those_of_opentelemetry_scale_5() -> None:
    """Index k holds (b**k, b**(k+1)] with b = 2**(1/32); powers of two of a second are the last of their bucket."""
    seconds = [2.0**power for power in range(-9, 12)]
    indices = histogram.bucket_of(np.array([round(value * 1e9) for value in seconds])) + FIRST_INDEX
    assert [power * 2**SCALE - 1 for power in range(-9, 12)] == indices.tolist()
    just_above = histogram.bucket_of(np.array([round(value * 1e9) + 1 for value in seconds[9:]])) + FIRST_INDEX
    assert [power * 2**SCALE for power in range(12)] == just_above.tolist()


def test_every_bucket_holds_its_own_estimate() -> None:
    # The first ones are too narrow for whole nanoseconds to tell more than the nearest.
    estimates_ns = np.rint(histogram.ESTIMATES * 1e9).astype(np.int64)
    np.testing.assert_array_equal(np.arange(BUCKETS), histogram.bucket_of(estimates_ns))


def test_what_is_out_of_range_goes_to_the_nearest_edge() -> None:
    assert histogram.bucket_of(np.array([0, 1, 1000, 10**15])).tolist() == [0, 0, 0, BUCKETS - 1]
    assert histogram.bucket_of(np.array([HIGHEST_NS]))[0] == BUCKETS - 1


def test_below_a_microsecond_the_error_is_at_most_the_first_bucket() -> None:
    [estimate] = histogram.quantiles(counts_of([0, 3, 700]), [0.5])
    assert abs(estimate - 3e-9) <= histogram.SMALLEST_NS / 1e9


def test_the_stated_error_is_below_the_promised_one_point_one_percent() -> None:
    assert RELATIVE_ERROR < 0.011


@pytest.mark.parametrize(("share", "n"), [(0.95, 20), (0.9, 10), (0.99, 100), (0.999, 1000), (0.95, 100)])
def test_a_share_that_is_a_whole_rank_takes_that_rank(share: float, n: int) -> None:
    """0.95 * 20 is 19, never 19.000000000000004 and so 20."""
    values = [10**6] * round(n * share) + [10**9] * (n - round(n * share))
    [estimate] = histogram.quantiles(counts_of(values), [share])
    assert estimate == pytest.approx(0.001, rel=RELATIVE_ERROR)


@given(streams)
@settings(max_examples=50, deadline=None)
def test_bars_count_everything_once_between_powers_of_two(values: list[int]) -> None:
    bars = histogram.bars(counts_of(values))
    assert len(values) == sum(bar.count for bar in bars)
    assert bars[0].count > 0
    assert bars[-1].count > 0
    uppers = [bar.upper for bar in bars if bar.upper is not None]
    assert all(math.log2(upper).is_integer() for upper in uppers)
    assert all(high == 2 * low for low, high in itertools.pairwise(uppers))


@given(streams)
@settings(max_examples=50, deadline=None)
def test_every_bar_counts_exactly_the_durations_between_its_bounds(values: list[int]) -> None:
    below = 0
    for bar in histogram.bars(counts_of(values)):
        below += bar.count
        assert below == sum(bar.upper is None or value / 1e9 <= bar.upper for value in values)


@pytest.mark.parametrize("milliseconds", [1, 2, 5, 10, 20, 50, 100, 125, 200, 250, 500, 1000, 2000])
def test_what_takes_a_little_longer_than_a_round_time_is_never_counted_below_it(milliseconds: int) -> None:
    bars = histogram.bars(counts_of([milliseconds * 1_000_000 + more for more in (1, 60_000, 400_000)]))
    assert all(bar.upper is None or bar.upper > milliseconds / 1000 for bar in bars if bar.count)


def test_bars_go_from_the_first_to_the_last_that_is_not_empty() -> None:
    values = [1_500_000] * 3 + [15_000_000]
    wanted = ((2**-9, 3), (2**-8, 0), (2**-7, 0), (2**-6, 1))
    assert tuple(Bar(*bar) for bar in wanted) == histogram.bars(counts_of(values))


def test_the_last_bar_is_open() -> None:
    assert (Bar(None, 2),) == histogram.bars(counts_of([4097 * 10**9, 9000 * 10**9]))


def test_an_empty_histogram_has_no_bars() -> None:
    assert histogram.bars(np.zeros(BUCKETS, np.int32)) == ()
