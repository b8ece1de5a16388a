"""Health: which workers are replaced and which are not. Silence alone never condemns a busy worker."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pool_monitor.pool.policy.health import Health, Verdict

RESPONSIVE, LATE, UNRESPONSIVE = Verdict.RESPONSIVE, Verdict.LATE, Verdict.UNRESPONSIVE
BUSY, STUCK = Verdict.BUSY, Verdict.STUCK


def made(interval: float = 5.0, timeout: float = 2.0, misses: int = 3) -> Health:
    return Health(interval, timeout, misses)


def silent(late: int) -> Health:
    """Return a Health whose pings at 0, 5, 10, ... were not answered."""
    health = made()
    for number in range(late):
        health.ping(number * 5)
    return health


def test_the_first_ping_is_due_at_once_and_the_others_every_interval() -> None:
    health = made()
    assert health.due(100)
    token = health.ping(100)
    assert not health.due(100)
    health.pong(token, 100.1)
    assert not health.due(104.9)
    assert health.due(105)


def test_no_ping_follows_while_the_last_may_still_be_answered_in_time() -> None:
    health = made(interval=1, timeout=3)
    token = health.ping(0)
    assert not health.due(2)
    assert health.due(3)
    health.pong(token, 2)
    assert health.due(2)


def test_one_that_is_late_is_asked_again_when_it_would_be_asked_anyway() -> None:
    health = silent(1)
    assert not health.due(4.9)
    assert health.due(5)


def test_an_answer_tells_how_long_it_took() -> None:
    health = made()
    first = health.ping(1)
    assert health.pong(first, 1.25) == 0.25
    assert health.pong(first, 1.5) is None  # once
    second = health.ping(6)
    assert health.pong(first, 6.5) is None
    assert health.pong(second + 1, 6.5) is None  # never sent
    assert health.pong(second, 6.5) == 0.5


@pytest.mark.parametrize(
    ("late", "busy", "cpu", "expected"),
    [
        (0, False, 1.0, RESPONSIVE),
        (0, True, 1.0, RESPONSIVE),
        (1, False, 1.0, LATE),
        (2, False, None, LATE),
        (3, False, 1.0, UNRESPONSIVE),
        (3, False, None, UNRESPONSIVE),
        (4, False, 1.0, UNRESPONSIVE),
        (1, True, 1.0, BUSY),
        (3, True, 1.0, BUSY),
        (9, True, None, BUSY),
    ],
)
def test_the_verdict_by_what_is_known(late: int, busy: bool, cpu: float | None, expected: Verdict) -> None:
    assert silent(late).verdict(late * 5 - 2, busy, cpu) is expected


def test_a_ping_is_late_from_its_time_out_on() -> None:
    health = made(misses=1)
    health.ping(10)
    assert health.verdict(11.9, busy=False, cpu=None) is RESPONSIVE
    assert health.verdict(12, busy=False, cpu=None) is UNRESPONSIVE


def test_one_ping_is_one_miss_however_often_it_is_looked_at() -> None:
    health = silent(1)
    assert {health.verdict(now, busy=False, cpu=None) for now in range(2, 100)} == {LATE}
    assert health.late == 1


@pytest.mark.parametrize("again", [False, True])
def test_an_answer_that_comes_after_all_clears_the_worker(again: bool) -> None:
    health = silent(3)
    assert health.verdict(12, busy=False, cpu=None) is UNRESPONSIVE
    if again:
        health.ping(15)
    assert (health.pong(3, 16) is None) == again  # there is no time for an older ping
    assert health.verdict(16, busy=False, cpu=None) is RESPONSIVE
    assert health.late == 0


def test_busy_and_silent_it_is_stuck_when_its_processor_time_stands_still() -> None:
    health = silent(1)
    assert health.verdict(2, busy=True, cpu=7.0) is BUSY  # no earlier value to compare with
    assert health.verdict(3, busy=True, cpu=7.5) is BUSY
    assert health.verdict(4.9, busy=True, cpu=7.5) is BUSY
    assert health.verdict(5, busy=True, cpu=7.5) is STUCK
    assert health.verdict(6, busy=True, cpu=7.6) is BUSY
    assert health.verdict(9, busy=True, cpu=7.6) is STUCK
    assert health.verdict(9, busy=True, cpu=None) is BUSY  # the processor time is not known


def test_it_is_not_stuck_for_having_been_idle_before() -> None:
    health = silent(1)
    health.verdict(2, busy=True, cpu=7.0)
    health.verdict(3, busy=False, cpu=7.0)
    assert health.verdict(50, busy=True, cpu=7.0) is BUSY


def test_pings_missed_at_work_are_not_held_against_it_when_it_is_idle_again() -> None:
    health = silent(3)
    assert health.verdict(12, busy=True, cpu=1.0) is BUSY
    assert health.verdict(12.1, busy=False, cpu=1.0) is RESPONSIVE
    for now in (15, 20):
        health.ping(now)
        assert health.verdict(now + 2, busy=False, cpu=1.0) is LATE
    health.ping(25)
    assert health.verdict(27, busy=False, cpu=1.0) is UNRESPONSIVE


def test_an_answer_ends_the_indulgence_for_pings_missed_at_work() -> None:
    health = silent(3)
    health.verdict(12, busy=True, cpu=1.0)
    health.pong(3, 13)
    for now in (15, 20, 25):
        health.ping(now)
    assert health.verdict(27, busy=False, cpu=1.0) is UNRESPONSIVE


@given(
    st.floats(0.1, 10),
    st.floats(0.1, 10),
    st.integers(1, 4),
    st.lists(st.tuples(st.floats(0, 5), st.sampled_from(["look", "busy", "answer", "old answer"])), max_size=60),
)
@example(interval=2.0, timeout=0.5, misses=1, steps=[(0.0, "look"), (2.0, "look"), (1.0, "old answer")])
def test_whoever_is_at_work_or_answered_lately_is_never_replaced(
    interval: float, timeout: float, misses: int, steps: list[tuple[float, str]]
) -> None:
    health, now, asked, cleared = Health(interval, timeout, misses), 0.0, [], 0.0
    tokens: list[int] = []
    for pause, step in steps:
        now += pause
        if health.due(now):
            tokens.append(health.ping(now))
            asked.append(now)
        if step.endswith("answer") and tokens:
            token = tokens[-1 if step == "answer" else max(0, len(tokens) - 2)]
            fresh = token > health._answered
            health.pong(token, now)
            cleared = now if fresh else cleared
        verdict = health.verdict(now, step == "busy", None)
        if step == "busy":
            cleared = now
            assert verdict in (RESPONSIVE, BUSY)
        else:
            assert verdict in (RESPONSIVE, LATE, UNRESPONSIVE)
        if verdict is UNRESPONSIVE:  # enough pings have become late since it was last cleared
            assert sum(at + timeout <= now + 1e-9 and at + timeout >= cleared - 1e-9 for at in asked) >= misses
    assert all(later - earlier >= min(interval, timeout) for earlier, later in pairwise(asked))
