"""Prediction: how long calls take, which calls are refused for it, and how a pool behaves under overload."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.pool.policy.queue import WorkAhead
from pool_monitor.pool.policy.service_times import ServiceTimes, WaitEstimate
from tests.helpers import overload
from tests.helpers.overload import Ended, arrivals, by_prediction, everybody, simulate, steady

DURATIONS = st.floats(1e-6, 100)


def times(*durations: float, operation: str = "op") -> ServiceTimes:
    made = ServiceTimes()
    for seconds in durations:
        made.add(operation, seconds)
    return made


def estimate(made: ServiceTimes, ahead: int, capacity: int, operation: str = "op") -> WaitEstimate | None:
    """Estimate for a call behind *ahead* calls of "op"."""
    mean, variance = made.expects("op")
    return made.estimate(WorkAhead(ahead, ahead * mean, ahead * variance), 0, capacity, operation)


def misses(made: ServiceTimes, ahead: int, capacity: int, operation: str, left: float) -> bool:
    told = estimate(made, ahead, capacity, operation)
    return told is not None and told.total > left


def alike(seconds: float, count: int = 100) -> ServiceTimes:
    return times(*[seconds] * count)


def test_nothing_is_said_and_nobody_refused_before_twenty_calls_have_ended() -> None:
    few = alike(10.0, 19)
    assert (few.mean, few.mean_of("op"), estimate(few, 5, 2)) == (None, None, None)
    assert not misses(few, 1000, 1, "op", 0.1)
    few.add("op", 10.0)
    assert few.mean == pytest.approx(10)
    assert misses(few, 1000, 1, "op", 0.1)


@given(st.lists(DURATIONS, min_size=20, max_size=20))
def test_the_first_twenty_weigh_alike(durations: list[float]) -> None:
    made = times(*durations)
    assert made.mean == pytest.approx(statistics.fmean(durations))
    assert made._all.variance == pytest.approx(statistics.pvariance(durations), abs=1e-9)


@given(st.lists(DURATIONS, min_size=20, max_size=20), st.lists(DURATIONS, max_size=20))
def test_each_further_one_weighs_five_per_cent(first: list[float], further: list[float]) -> None:
    weights = [0.95 ** len(further) / 20] * 20
    weights += [0.05 * 0.95**later for later in reversed(range(len(further)))]
    durations = first + further
    mean = sum(weight * seconds for weight, seconds in zip(weights, durations, strict=True))
    variance = sum(weight * (seconds - mean) ** 2 for weight, seconds in zip(weights, durations, strict=True))
    made = times(*durations)
    assert made.mean == pytest.approx(mean)
    assert made._all.variance == pytest.approx(variance, abs=1e-6)


def test_an_operation_is_known_by_itself_after_thirty_calls_and_by_the_others_until_then() -> None:
    made = alike(0.01)
    for _ in range(29):
        made.add("slow", 1.0)
    assert made.mean_of("slow") == made.mean == made.mean_of("never seen")
    made.add("slow", 1.0)
    assert made.mean_of("slow") == pytest.approx(1)
    assert made.mean_of("op") == pytest.approx(0.01)


def test_an_operation_too_many_is_known_by_the_others() -> None:
    made = ServiceTimes()
    for number in range(1000):
        for _ in range(30):
            made.add(f"op-{number}", 1.0 if number == 999 else 0.01)
    assert len(made._own) == 256
    assert made.mean_of("op-0") == pytest.approx(0.01)
    assert made.mean_of("op-999") == made.mean


@pytest.mark.parametrize(
    ("ahead", "capacity", "expected"),
    [(0, 1, (0.1, 0.1)), (9, 1, (1.0, 0.1)), (9, 5, (0.2, 0.1)), (9, 0, None)],
)
def test_the_wait_is_that_of_all_before_it_shared_by_the_workers(
    ahead: int, capacity: int, expected: tuple[float, float] | None
) -> None:
    told = estimate(alike(0.1), ahead, capacity)
    assert told == (None if expected is None else pytest.approx((*expected, 0.0)))


@pytest.mark.parametrize(
    ("ahead", "capacity", "time_left", "refused"),
    [
        (9, 1, 1.05, True),  # 1.1 s
        (9, 1, 1.15, False),
        (9, 2, 0.59, True),
        (9, 2, 0.61, False),
        (0, 1, 0.19, True),
        (0, 1, 0.21, False),
        (9, 0, 0.0, False),  # without workers there is no estimate
        (9, -1, 0.0, False),
    ],
)
def test_calls_that_always_take_alike_are_refused_to_the_point(
    ahead: int, capacity: int, time_left: float, refused: bool
) -> None:
    assert misses(alike(0.1), ahead, capacity, "op", time_left) == refused


def test_a_slow_operation_waits_like_the_others_and_takes_longer() -> None:
    made = alike(0.01)
    for number in range(3000):
        made.add("op" if number % 100 else "slow", 0.01 if number % 100 else 1.0)
    assert misses(made, 0, 2, "slow", 0.9)
    assert not misses(made, 0, 2, "op", 0.9)


@pytest.mark.parametrize("durations", [[0.01], [0.002, 0.018], [0.001] * 9 + [0.091]])
def test_a_long_burst_that_will_make_it_is_not_refused(durations: list[float]) -> None:
    made = times(*durations * 100)
    assert not any(misses(made, ahead, 4, "op", 60.0) for ahead in range(5000))


def test_a_burst_of_quick_calls_is_not_taken_for_the_slow_ones_there_were_before() -> None:
    made = ServiceTimes()
    for number in range(300):
        made.add("op" if number % 10 else "slow", 0.005 if number % 10 else 0.2)
    assert not any(misses(made, ahead, 2, "op", 1.0) for ahead in range(200))
    slow = made.expects("slow")
    assert made.estimate(WorkAhead(20, 20 * slow[0], 20 * slow[1]), 0, 2, "op").wait > 2.0  # type: ignore[union-attr]


def test_the_less_calls_are_alike_the_more_room_is_left() -> None:
    left = 1.5
    assert not misses(alike(0.1), 9, 1, "op", left)
    assert misses(times(*[0.05, 0.15] * 50), 9, 1, "op", left)


@given(
    st.lists(DURATIONS, min_size=20, max_size=60),
    st.integers(0, 10_000),
    st.integers(1, 64),
    st.floats(0, 1000),
)
def test_fewer_ahead_and_more_time_are_never_worse(
    durations: list[float], ahead: int, capacity: int, time_left: float
) -> None:
    made = times(*durations)
    told = estimate(made, ahead, capacity)
    assert told is not None
    assert min(told) >= 0
    if told.wait + told.execution > time_left * (1 + 1e-9):
        assert misses(made, ahead, capacity, "op", time_left)
    if not misses(made, ahead, capacity, "op", time_left):
        assert not misses(made, ahead // 2, capacity, "op", time_left)
        assert not misses(made, ahead, capacity, "op", time_left * 2)


# -- a pool under overload, simulated -----------------------------------------------------------------------------


def ended(seconds: float, load: Callable[[float], float], stall: tuple[float, float] = (0.0, 0.0)) -> Ended:
    return simulate(arrivals(seconds, load, random.Random(7)), by_prediction, ServiceTimes(), stall)


@pytest.mark.parametrize(
    ("seconds", "load", "stall", "least"),
    [
        (60.0, steady(0.95), (0.0, 0.0), 0.978),
        (30.0, steady(1.3), (0.0, 0.0), 0.755),
        (30.0, steady(2.0), (0.0, 0.0), 0.487),
        (60.0, overload.bursts, (0.0, 0.0), 0.728),
        (60.0, steady(0.7), (20.0, 23.0), 0.928),  # the stall of three seconds is 5 % of the time
    ],
    ids=["95 %", "130 %", "200 %", "bursts of 300 %", "stall of 3 s"],
)
def test_under_overload_almost_as_many_calls_are_served_in_time_as_can_be(
    seconds: float, load: Callable[[float], float], stall: tuple[float, float], least: float
) -> None:
    assert ended(seconds, load, stall).share >= least


@pytest.mark.parametrize("load", [1.3, 2.0])
def test_who_is_accepted_under_steady_overload_makes_it(load: float) -> None:
    result = ended(30.0, steady(load))
    assert result.late + result.dropped < 0.03 * result.in_time
    assert result.refused > 0.2 * result.calls


def test_without_prediction_workers_would_be_kept_busy_for_nobody() -> None:
    calls = arrivals(30.0, steady(1.3), random.Random(7))
    assert simulate(calls, everybody, ServiceTimes()).share < 0.5


def test_after_a_stall_nobody_is_refused_for_long_because_of_it() -> None:
    calls = arrivals(30.0, steady(0.7), random.Random(7))
    stalled = simulate(calls, by_prediction, ServiceTimes(), (5.0, 8.0))
    lost = 3.0 + 0.25  # seconds whose calls are lost
    assert stalled.calls - stalled.in_time < 0.7 * overload.RATE * (lost + 0.5)


@given(st.lists(DURATIONS, min_size=20, max_size=60), st.integers(0, 10**11), st.integers(1, 80))
def test_calls_that_answer_together_count_like_as_many_with_their_mean(
    first: list[float], together_ns: int, count: int
) -> None:
    at_once, one_by_one = times(*first), times(*first)
    held_ns = [together_ns + number for number in range(count)]
    at_once.add_all(["op"] * count, held_ns)
    mean = sum(held_ns) / count / 1e9
    for _ in range(count):
        one_by_one.add("op", mean)
    for ours, theirs in ((at_once._all, one_by_one._all), (at_once._own["op"], one_by_one._own["op"])):
        assert (ours.count, ours.mean) == (theirs.count, pytest.approx(theirs.mean))
        assert ours.variance == pytest.approx(theirs.variance, rel=1e-6, abs=1e-9)


def test_calls_of_several_operations_that_answer_together_count_each_for_its_own() -> None:
    made = ServiceTimes()
    for _ in range(30):
        made.add_all(["short", "long", "short"], [10**6, 10**9, 10**6])
    assert made.mean_of("short") == pytest.approx(0.001)
    assert made.mean_of("long") == pytest.approx(1.0)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), DURATIONS), min_size=30, max_size=90),
    st.lists(st.sampled_from("abc"), max_size=30),
    st.integers(0, 30),
    st.integers(1, 8),
    st.sampled_from("abcd"),
)
def test_what_needs_no_closer_look_would_not_be_refused(
    durations: list[tuple[str, float]], ahead: list[str], handed: int, capacity: int, operation: str
) -> None:
    made = ServiceTimes()
    for name, seconds in durations:
        made.add(name, seconds)
    made.update_longest()
    expected = [made.expects(name) for name in ahead]
    before = WorkAhead(len(ahead), sum(mean for mean, _ in expected), sum(variance for _, variance in expected))
    told = made.estimate(before, handed, capacity, operation)
    assert told is not None
    assert told.total <= (len(ahead) + handed + 3) * made.longest * (1 + 1e-9)


def test_a_call_that_takes_longer_than_any_was_expected_to_has_all_be_looked_at_again() -> None:
    made = alike(0.001)
    made.update_longest()
    assert made.longest == pytest.approx(0.001)
    made.add_all(["op"] * 3, [10**6, 10**6, 10**7])
    assert made.longest == math.inf
    made.update_longest()
    assert 0.001 < made.longest < 0.01
    assert alike(0.001, 29).longest == math.inf
