"""When a process is recycled, and how many calls a worker may be handed ahead of time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.config import PoolConfig
from pool_monitor.pool.policy.prefetch import depth
from pool_monitor.pool.policy.recycle import RecycleLimits


def test_without_settings_there_are_no_limits() -> None:
    limits = RecycleLimits.draw(PoolConfig(), random.Random(1))
    assert limits == RecycleLimits(None, None, None)
    assert limits.reason(10**9, 1e9, 10**15) is None


@given(st.integers(1, 10**6), st.floats(0.1, 1e6), st.integers(1, 2**40), st.sampled_from([0, 0.1, 0.5]), st.integers())
def test_each_process_has_limits_near_those_set(calls: int, age: float, rss: int, jitter: float, seed: int) -> None:
    config = PoolConfig(recycle_calls=calls, recycle_age=age, recycle_rss=rss, recycle_jitter=jitter)
    drawn = RecycleLimits.draw(config, random.Random(seed))
    assert drawn.calls is not None
    assert drawn.calls <= calls == drawn.most_calls
    for limit, wanted in zip(drawn[:3], (calls, age, rss), strict=True):
        assert limit is not None
        assert wanted * (1 - jitter) - 1e-6 <= limit <= wanted * (1 + jitter) + 1e-6
        assert limit >= min(1, wanted * (1 - jitter))


def test_processes_that_began_together_do_not_end_together() -> None:
    rng = random.Random(1)
    config = PoolConfig(recycle_calls=1000, recycle_age=1000.0, recycle_rss=10**9)
    drawn = [RecycleLimits.draw(config, rng) for _ in range(20)]
    calls, ages, sizes, _ = zip(*drawn, strict=True)
    for limits in (calls, ages, sizes):
        assert len(set(limits)) > 15
    assert min(calls) < max(calls) * 0.95  # the whole width is used
    assert min(ages) < max(ages) * 0.9
    assert min(sizes) < max(sizes) * 0.9


@pytest.mark.parametrize(
    ("calls", "age", "rss", "reason"),
    [
        (9, 59.9, 1000, None),
        (10, 0.0, None, "calls"),
        (0, 60.0, None, "age"),
        (0, 0.0, 1000, None),  # above it, not at it
        (0, 0.0, 1001, "rss"),
        (0, 0.0, None, None),  # not known
        (10, 60.0, 1001, "calls"),
    ],
)
def test_the_first_limit_reached_is_the_reason(calls: int, age: float, rss: int | None, reason: str | None) -> None:
    assert RecycleLimits(10, 60.0, 1000).reason(calls, age, rss) == reason


def test_one_limit_alone_is_enough() -> None:
    assert RecycleLimits(None, None, 5).reason(10**6, 1e6, 6) == "rss"
    assert RecycleLimits(None, 5.0, None).reason(10**6, 6.0, 10**9) == "age"
    assert RecycleLimits(5, None, None).reason(6, 1e6, 10**9) == "calls"


@pytest.mark.parametrize(
    ("mean", "waiting", "workers", "expected"),
    [
        (None, 64, 2, 1),  # not known yet
        (0.001, 64, 2, 1),  # too long to hand ahead
        (0.0009, 64, 2, 2),
        (0.0003, 64, 2, 4),
        (0.00005, 64, 2, 16),  # the limit
        (0.00005, 8, 2, 4),  # the worker's share
        (0.00005, 7, 2, 4),
        (0.00005, 2, 2, 1),
        (0.00005, 0, 2, 1),
        (0.00005, 3, 0, 1),
        (0.0, 64, 2, 16),
    ],
)
def test_short_operations_and_many_callers_let_a_worker_hold_more(
    mean: float | None, waiting: int, workers: int, expected: int
) -> None:
    assert depth(mean, 16, waiting, workers) == expected


@given(st.floats(0, 0.002), st.integers(1, 64), st.integers(0, 1000), st.integers(0, 64))
def test_a_worker_never_holds_more_than_its_share_nor_much_work(
    mean: float, limit: int, waiting: int, workers: int
) -> None:
    held = depth(mean, limit, waiting, workers)
    assert 1 <= held <= limit
    assert held == 1 or (held - 1) * workers < waiting
    assert held == 1 or (held - 1) * mean < 0.001
    assert depth(mean / 2, limit, waiting, workers) >= held
    assert depth(mean, limit, waiting + 1, workers) >= held
