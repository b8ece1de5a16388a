"""The replay of calls: exact waits, the size that is needed, and forecasts that hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.advisor.history import OK, REJECTED
from pool_monitor.advisor.replay import FEWEST, CallTrace, forecast, needed, replay
from tests.helpers.histories import Floats, played, poisson

CALLS = st.lists(st.tuples(st.floats(0, 2), st.floats(0, 3)), min_size=1, max_size=25)


def _trace(calls: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    gaps, services = zip(*calls, strict=True)
    return np.cumsum(gaps), np.asarray(services)


def test_one_server_takes_one_call_after_the_other() -> None:
    assert replay([0, 1, 2, 10], [3, 1, 1, 1], 1).tolist() == [0, 2, 2, 0]
    assert replay([0, 1, 2, 10], [3, 1, 1, 1], 2).tolist() == [0, 0, 0, 0]


def test_no_calls_and_no_servers_have_an_answer() -> None:
    assert replay([], [], 3).tolist() == []
    assert replay([0.0], [1.0], 0).tolist() == [math.inf]
    assert needed([], [], 0.1) == 1


def test_a_call_that_gives_up_takes_no_server() -> None:
    assert replay([0, 1, 2], [10, 5, 1], 1, patience=8.5).tolist() == [0, 8.5, 8.0]


@settings(max_examples=30)
@given(calls=CALLS)
def test_one_more_server_never_makes_a_wait_longer(calls: list[tuple[float, float]]) -> None:
    arrivals, services = _trace(calls)
    before = replay(arrivals, services, 1)
    for servers in range(2, 6):
        waits = replay(arrivals, services, servers)
        assert (waits <= before + 1e-9).all()
        before = waits


@settings(max_examples=30)
@given(calls=CALLS, target=st.floats(0, 4), share=st.sampled_from([0.5, 0.9, 0.95]))
def test_the_size_needed_is_the_smallest_that_is_enough(
    calls: list[tuple[float, float]], target: float, share: float
) -> None:
    arrivals, services = _trace(calls)
    size = needed(arrivals, services, target, share)
    assert size is not None
    allowed = math.floor(len(calls) * (1 - share) + 1e-9)
    assert (replay(arrivals, services, size) > target).sum() <= allowed
    assert size == 1 or (replay(arrivals, services, size - 1) > target).sum() > allowed


def test_no_size_within_the_limit_is_none() -> None:
    assert needed(np.zeros(50), np.ones(50), 0.5, most=4) is None


def test_a_forecast_needs_calls_and_a_size_that_is_known() -> None:
    assert played(*poisson(1, 80, 0.1, 1), 4).forecast([5]) is None  # some 80 calls
    history = played(*poisson(1, 80, 0.1, 60), 10)
    assert history.forecast([11]) is not None
    assert history.resized_at(62.0, 12).forecast([11]) is None  # the last calls alone are too few


def test_the_replay_of_what_was_seen_has_full_fidelity() -> None:
    found = played(*poisson(3, 20, 0.4, 600), 9, target=0.4).forecast([8, 10, 12])
    assert found is not None
    assert found.now == 9
    assert found.fidelity > 0.95
    assert found.trusted
    assert list(found.sizes) == [8, 9, 10, 12]
    p95 = [outlook.p95.value for outlook in found.sizes.values()]
    assert p95 == sorted(p95, reverse=True)
    assert [o.worker_hours for o in found.sizes.values()] == [192, 216, 240, 288]


def test_waits_that_the_queue_does_not_explain_are_not_trusted() -> None:
    found = played(*poisson(3, 20, 0.4, 600), 9, target=0.4).delayed(4.0).forecast([10])
    assert found is not None
    assert not found.trusted


def test_calls_that_gave_up_are_part_of_the_load() -> None:
    found = played(*poisson(3, 60, 0.1, 200), 5, patience=5.0).forecast([6, 8])
    assert found is not None
    assert found.fidelity > 0.9
    assert found.sizes[6].p95.value > 0.1
    assert found.sizes[8].p95.value < 0.5


def test_calls_that_were_refused_at_once_are_part_of_the_load_too() -> None:
    case = played(*poisson(3, 60, 0.1, 200), 5, patience=2.0)
    calls = case.history.calls
    lost = np.isnan(calls.started)
    refused = calls._replace(
        ended=np.where(lost, calls.arrived, calls.ended), outcome=np.where(lost, REJECTED, OK).astype(np.int32)
    )
    order = np.argsort(refused.ended, kind="stable")
    found = case.with_(calls=type(calls)(*(column[order] for column in refused))).forecast([8])
    assert found is not None
    assert found.fidelity > 0.9
    assert found.sizes[5].utilisation > 1.1
    assert found.sizes[8].p95.value < 0.5


@pytest.mark.parametrize(
    ("service_cv", "bursts", "size", "other"),
    [(1.0, True, 11, 12), (1.0, False, 10, 11), (1.0, False, 10, 12), (2.0, False, 10, 12), (1.0, False, 11, 10)],
)
@pytest.mark.slow
@pytest.mark.gate
def test_the_wait_after_a_change_is_within_the_interval(service_cv: float, bursts: bool, size: int, other: int) -> None:
    held = 0
    for seed in range(20):
        arrivals, services = poisson(seed, 75, 0.1, 600, cv=service_cv, bursts=bursts)
        half = int(np.searchsorted(arrivals, 300.0))
        before, after = slice(None, half), slice(half, None)
        waits = replay(arrivals[before], services[before], size)
        one = np.zeros(len(waits), np.int32)
        found = forecast(CallTrace(arrivals[before], services[before], waits, one, one, size), [other], 0.1)
        real = float(np.quantile(replay(arrivals[after], services[after], other), 0.95))
        interval = found.sizes[other].p95
        assert found.calls >= FEWEST
        held += interval.low <= real <= interval.high
    assert held >= 17
