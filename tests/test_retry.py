"""Which failures are retried, how often and after how long; retries cannot multiply the load."""

from __future__ import annotations

import random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import errors
from pool_monitor.errors import OperationError, PayloadError, PoolError, WorkerDied
from pool_monitor.pool.policy.retry import RETRIES, RetryBudget, RetryPolicy

LONG = 1000.0  # seconds left
DIED = WorkerDied("it died", worker="p-0", exit_code=-9)
REFUSAL = {"pool": "p", "waited_s": 0.0, "waiting": 0, "size": 1}


def policy(retries: int | None = None, *listed: str, budget: RetryBudget | None = None) -> RetryPolicy:
    return RetryPolicy(
        retries, frozenset(listed), budget or RetryBudget(1.0, cap=10_000, initial=10_000), random.Random()
    )


def tries(made: RetryPolicy, error: PoolError) -> int:
    """Return how often a call that always fails with *error* is sent again."""
    attempts = 1
    while attempts < 100 and made.decide(error, attempts, LONG) is not None:
        attempts += 1
    return attempts - 1


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (errors.ConfigError("wrong"), 0),
        (errors.UnknownOperation("none such"), 0),
        (errors.StartError("it did not start"), 3),
        (DIED, 2),
        (errors.ConnectError("nobody there"), 2),
        (errors.ProtocolError("nonsense"), 2),
        (errors.OperationTimeout("too slow"), 1),
        (errors.SessionLost("gone"), 1),
        (errors.PoolSaturated("full", **REFUSAL), 0),
        (errors.QueueTimeout("too late", **REFUSAL), 0),
        (errors.CircuitOpen("open", **REFUSAL), 0),
        (errors.PoolClosed("closed", **REFUSAL), 0),
        (errors.OperationCancelled("closed"), 0),
        (OperationError("op", "ValueError", "bad"), 0),
        (OperationError("op", "Busy", "later"), 2),
        (PayloadError("op", "Busy", "a set"), 0),  # it could not be serialised the next time either
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_the_table_says_how_often(error: PoolError, times: int) -> None:
    assert tries(policy(None, "Busy"), error) == times
    assert tries(policy(7, "Busy"), error) == (7 if times else 0)
    assert tries(policy(0, "Busy"), error) == 0


def test_every_category_has_its_row() -> None:
    assert set(RETRIES) == set(get_args(errors.Category))


def test_a_broken_conversation_is_tried_again_at_once() -> None:
    assert policy().decide(errors.ProtocolError("nonsense"), 1, LONG) == 0.0


@pytest.mark.parametrize(("attempts", "bound"), [(1, 0.05), (2, 0.1), (3, 0.2), (7, 3.2), (8, 5.0), (99, 5.0)])
def test_pauses_lie_anywhere_below_a_bound_that_doubles(attempts: int, bound: float) -> None:
    made = RetryPolicy(100, frozenset(), RetryBudget(1.0, cap=10_000, initial=10_000), random.Random(1))
    pauses = [made.decide(DIED, attempts, LONG) or 0.0 for _ in range(200)]
    assert max(pauses) <= bound
    assert max(pauses) > 0.9 * bound
    assert min(pauses) < 0.1 * bound


@given(st.integers(1, 3), st.floats(0, 0.2), st.integers())
def test_no_pause_reaches_the_deadline(attempts: int, time_left: float, seed: int) -> None:
    made = RetryPolicy(3, frozenset(), RetryBudget(1.0), random.Random(seed))
    pause = made.decide(DIED, attempts, time_left)
    assert pause is None or 0 <= pause < time_left


def test_what_is_out_of_time_costs_nothing() -> None:
    budget = RetryBudget(0.1, initial=1)
    made = policy(None, budget=budget)
    assert made.decide(DIED, 1, 0.0) is None
    assert made.decide(errors.ProtocolError("nonsense"), 1, 0.0) is None
    assert made.decide(DIED, 3, LONG) is None
    assert made.decide(DIED, 1, LONG) is not None
    assert made.decide(DIED, 1, LONG) is None


@pytest.mark.parametrize(("ratio", "calls"), [(0.1, 10), (0.3, 4), (0.5, 2), (1.0, 1)])
def test_a_share_of_the_calls_made_may_be_sent_again(ratio: float, calls: int) -> None:
    budget = RetryBudget(ratio, initial=0)
    for _ in range(calls - 1):
        budget.earn()
        assert not budget.spend()
    budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_retries_are_saved_up_to_a_bound_and_there_are_some_to_begin_with() -> None:
    budget = RetryBudget(0.1, cap=50, initial=10)
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]
    for _ in range(10_000):
        budget.earn()
    assert [budget.spend() for _ in range(51)] == [True] * 50 + [False]


def test_with_a_ratio_of_nothing_nothing_is_sent_again() -> None:
    budget = RetryBudget(0.0)
    budget.earn()
    assert not budget.spend()


@given(st.floats(0.01, 1), st.integers(0, 60), st.integers(0, 60), st.lists(st.booleans(), max_size=300))
def test_never_more_retries_than_were_earned(ratio: float, cap: int, initial: int, steps: list[bool]) -> None:
    budget, earned, spent = RetryBudget(ratio, cap, initial), 0, 0
    for earn in steps:
        if earn:
            budget.earn()
            earned += 1
        else:
            spent += budget.spend()
    assert spent <= min(initial, cap) + earned * ratio + 1e-6
