"""Restart intensity: counted as the supervisors of Erlang/OTP count, up to the boundary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.pool.policy.restarts import RestartIntensity


@pytest.mark.parametrize(
    ("times", "allowed"),
    [
        ([0, 0, 0, 0], [True, True, True, False]),  # the fourth within five seconds is over the limit
        ([0, 1, 2, 4.9], [True, True, True, False]),
        ([0, 1, 2, 5], [True, True, True, False]),  # exactly five seconds ago still counts
        ([0, 1, 2, 5.1], [True, True, True, True]),
        ([0, 1, 2, 5.1, 5.2], [True, True, True, True, False]),
        ([0, 1, 2, 3, 4, 8, 8], [True, True, True, False, False, True, False]),  # restarts over the limit count too
        ([0, 6, 12, 18, 24], [True] * 5),
    ],
)
def test_three_restarts_in_five_seconds_are_allowed(times: list[float], allowed: list[bool]) -> None:
    intensity = RestartIntensity(3, 5.0)
    assert [intensity.record(now) for now in times] == allowed


def test_with_a_limit_of_none_the_first_restart_is_one_too_many() -> None:
    assert not RestartIntensity(0, 5.0).record(1)


@given(st.integers(0, 5), st.integers(1, 10), st.lists(st.integers(0, 6), max_size=40))
def test_it_counts_as_a_list_of_all_restarts_would(limit: int, period: int, pauses: list[int]) -> None:
    intensity, now, restarts = RestartIntensity(limit, period), 0, []
    for pause in pauses:
        now += pause
        restarts.append(now)
        within = [at for at in restarts if at >= now - period]
        assert intensity.record(now) == (len(within) <= limit)
        assert len(intensity._times) <= limit + 1
