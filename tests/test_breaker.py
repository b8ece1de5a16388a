"""The circuit breaker: all events in all states; it never lets through more calls than documented."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pool_monitor.pool.policy.breaker import TRANSITIONS, Breaker, BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
Steps = list[tuple[BreakerState, BreakerState, str, float]]


def made(**fields: float) -> tuple[Breaker, Steps]:
    """Return a breaker with the default settings, and the list that collects its transitions."""
    given = {
        "failures": 5, "ratio": 0.5, "minimum": 20, "window": 10.0, "open_for": 60.0, "trials": 3, "successes": 3,
        **fields,
    }  # fmt: skip
    breaker, steps = Breaker(**given), []  # type: ignore[arg-type]
    breaker.on_transition = lambda before, after, trigger, now: steps.append((before, after, trigger, now))
    return breaker, steps


def opened(**fields: float) -> tuple[Breaker, Steps]:
    """Return a breaker that opened at 0."""
    breaker, steps = made(**{"failures": 1, **fields})
    breaker.start_failed(0)
    assert breaker.state is OPEN
    steps.clear()
    return breaker, steps


def opened_by_calls(**fields: float) -> tuple[Breaker, Steps]:
    """The same, opened by calls and not by a failed start."""
    breaker, steps = made(**{"failures": 1, **fields})
    breaker.record(False, 0, trial=False)
    assert breaker.state is OPEN
    return breaker, steps


def half_open(**fields: float) -> tuple[Breaker, Steps]:
    """Return a breaker that let its first trial through at 60."""
    breaker, steps = opened(**fields)
    assert breaker.allow(60)
    assert breaker.state is HALF_OPEN
    steps.clear()
    return breaker, steps


def test_the_table_has_no_dead_end() -> None:
    assert set(TRANSITIONS) == set(BreakerState)
    assert {after for row in TRANSITIONS.values() for after in row.values()} == set(BreakerState)


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not_let_them_count() -> None:
    breaker, steps = made(failures=3)
    for ok in (False, False, True, False, False):
        breaker.record(ok, 1.0, trial=False)
    assert breaker.state is CLOSED
    breaker.record(False, 2.0, trial=False)
    assert steps == [(CLOSED, OPEN, "failures", 2.0)]


@pytest.mark.parametrize(
    ("endings", "opens"),
    [
        ("+-" * 9 + "+", False),  # 9 of 19
        ("+-" * 10, True),  # 10 of 20
        ("++-" * 20, False),  # a third of the calls
        ("+" * 10 + "+-" * 20, False),  # 20 of 50
        ("+--" * 6 + "+", False),  # two thirds, but of 19
        ("+--" * 6 + "+-", True),
    ],
)
def test_a_share_of_enough_calls_opens_it(endings: str, opens: bool) -> None:
    breaker, steps = made()
    for ending in endings:
        breaker.record(ending == "+", 5.0, trial=False)
    assert [step[2] for step in steps] == (["ratio"] if opens else [])


def test_what_ended_before_the_window_does_not_count() -> None:
    breaker, _ = made(failures=100, minimum=4)
    for now in (0.0, 0.1, 0.2):
        breaker.record(False, now, trial=False)
    breaker.record(False, 10.1, trial=False)
    assert breaker.state is CLOSED
    for now in (10.2, 10.3, 10.4):
        breaker.record(False, now, trial=False)
    assert breaker.state is OPEN


def test_an_ending_that_tells_nothing_counts_for_nothing() -> None:
    breaker, _ = made(failures=2)
    for ok in (False, None, False):
        breaker.record(ok, 0, trial=False)
    assert breaker.state is OPEN


def test_failures_without_a_call_count_like_those_with_one() -> None:
    breaker, steps = made(failures=3)
    breaker.start_failed(1)
    breaker.record(False, 1, trial=False)
    breaker.start_failed(2)
    breaker.start_failed(2)  # counts for nothing while open
    assert steps == [(CLOSED, OPEN, "failures", 2)]


def test_while_open_calls_are_refused_and_told_how_long() -> None:
    breaker, _ = opened()
    assert (breaker.retry_after(0), breaker.retry_after(45), breaker.retry_after(61)) == (60, 15, 0)
    assert not breaker.allow(59.9)
    breaker.record(True, 59.9, trial=False)  # a call from before it opened
    breaker.record(False, 59.9, trial=False)
    assert breaker.state is OPEN
    assert breaker.allow(60)
    assert breaker.retry_after(60) is None, "it depends on those on trial"
    assert made()[0].retry_after(0) == 0


def test_on_trial_only_so_many_are_let_through_at_once() -> None:
    breaker, steps = opened(trials=3)
    assert [breaker.allow(60) for _ in range(5)] == [True, True, True, False, False]
    assert steps == [(OPEN, HALF_OPEN, "elapsed", 60)]
    breaker.record(None, 61, trial=True)
    assert [breaker.allow(61), breaker.allow(61)] == [True, False]
    assert breaker.state is HALF_OPEN


def test_enough_good_trials_close_it() -> None:
    breaker, steps = half_open(trials=1, successes=3)
    for now in (61, 62, 63):
        breaker.record(True, now, trial=True)
        assert breaker.allow(now)
    assert steps == [(HALF_OPEN, CLOSED, "trials_succeeded", 63)]


def test_one_bad_trial_opens_it_again_for_as_long() -> None:
    breaker, steps = half_open()
    breaker.record(True, 61, trial=True)
    assert breaker.allow(61)
    breaker.record(False, 62, trial=True)
    assert steps == [(HALF_OPEN, OPEN, "trial_failed", 62)]
    assert not breaker.allow(121)
    assert breaker.allow(122)
    for _ in range(2):  # the successful trial of last time does not count
        breaker.record(True, 123, trial=True)
        assert breaker.allow(123)
    assert breaker.state is HALF_OPEN


def test_a_worker_that_cannot_start_ends_the_trial() -> None:
    breaker, _ = half_open()
    breaker.start_failed(61)
    assert breaker.state is OPEN


def test_where_workers_could_not_start_trials_begin_as_soon_as_one_could() -> None:
    breaker, steps = made(failures=2, trials=1)
    for now in (1, 2, 3):
        breaker.start_failed(now)
    breaker.start_succeeded(4)
    breaker.start_succeeded(4)
    assert steps == [(CLOSED, OPEN, "failures", 2), (OPEN, HALF_OPEN, "worker_started", 4)]
    assert [breaker.allow(4), breaker.allow(4)] == [True, False]
    breaker.start_failed(5)  # the next worker cannot start either
    breaker.start_succeeded(6)
    assert [step[2] for step in steps[2:]] == ["trial_failed", "worker_started"]


def test_where_calls_failed_a_worker_that_starts_proves_nothing() -> None:
    breaker, _ = opened_by_calls()
    breaker.start_failed(1)  # counts for nothing while open
    breaker.start_succeeded(2)
    assert breaker.state is OPEN
    breaker, _ = half_open()
    breaker.record(False, 61, trial=True)
    breaker.start_succeeded(62)
    assert breaker.state is OPEN, "it was a call that opened it this time"
    assert not breaker.allow(62)


def test_calls_from_before_decide_nothing_on_trial() -> None:
    breaker, _ = half_open(successes=1)
    breaker.record(True, 61, trial=False)
    breaker.record(False, 61, trial=False)
    assert breaker.state is HALF_OPEN


def test_a_trial_that_outlives_the_trial_frees_its_place_whatever_it_says() -> None:
    breaker, _ = opened(trials=2)
    assert breaker.allow(60)
    assert breaker.allow(60)
    breaker.record(False, 61, trial=True)
    breaker.record(True, 62, trial=True)  # while open it counts for nothing, but frees its place
    assert breaker.state is OPEN
    assert [breaker.allow(121) for _ in range(3)] == [True, True, False]


def test_once_closed_nothing_of_the_past_is_held_against_it() -> None:
    breaker, steps = made(failures=100, minimum=4, successes=1, open_for=1.0)
    for _ in range(4):
        breaker.record(False, 0.5, trial=False)
    assert breaker.allow(1.5)
    breaker.record(True, 1.6, trial=True)
    assert breaker.state is CLOSED
    steps.clear()
    for _ in range(3):
        breaker.record(False, 1.7, trial=False)
    assert steps == []
    breaker.record(False, 1.7, trial=False)
    assert [step[2] for step in steps] == ["ratio"]


class AgainstAModel(RuleBasedStateMachine):
    """Compares the breaker with a list of all ends of calls. Times lie in the middle of the window's buckets."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.steps = made(failures=4, minimum=6, window=10.0, open_for=7.0, trials=2, successes=3)
        self.now = 0.5
        self.ended: list[tuple[float, bool]] = []  # ends of calls since it last closed
        self.row = self.good = self.under_way = 0
        self.state, self.until = CLOSED, 0.0
        self.by_start = False  # a failed start opened it

    def step(self, state: BreakerState) -> None:
        self.state = state
        self.ended, self.row, self.good = [], 0, 0
        self.by_start = False
        if state is OPEN:
            self.until = self.now + 7.0

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def allow(self) -> None:
        if self.state is OPEN and self.now >= self.until:
            self.step(HALF_OPEN)
            expected = self.under_way < 2
        else:
            expected = self.state is CLOSED or (self.state is HALF_OPEN and self.under_way < 2)
        assert self.breaker.allow(self.now) == expected
        self.under_way += expected and self.state is HALF_OPEN

    @rule(ok=st.sampled_from([True, False, False, None]), belongs=st.booleans())
    def plain_end(self, ok: bool | None, belongs: bool) -> None:
        if belongs or ok is not False:
            self.breaker.record(ok, self.now, trial=False)
        else:
            self.breaker.start_failed(self.now)
        before = self.state
        if ok is not None and self.state is CLOSED:
            self.closed_end(ok)
        elif ok is False and not belongs and self.state is HALF_OPEN:
            self.step(OPEN)
        if ok is False and not belongs and before is not OPEN:
            self.by_start = self.state is OPEN

    @rule()
    def worker_starts(self) -> None:
        self.breaker.start_succeeded(self.now)
        if self.state is OPEN and self.by_start:
            self.step(HALF_OPEN)

    @precondition(lambda self: self.under_way)
    @rule(ok=st.sampled_from([True, True, False, None]))
    def trial_end(self, ok: bool | None) -> None:
        self.breaker.record(ok, self.now, trial=True)
        self.under_way -= 1
        if ok is None or self.state is OPEN:
            return
        if self.state is CLOSED:
            self.closed_end(ok)
        elif not ok:
            self.step(OPEN)
        else:
            self.good += 1
            if self.good == 3:
                self.step(CLOSED)

    def closed_end(self, ok: bool) -> None:
        self.ended.append((self.now, ok))
        self.row = 0 if ok else self.row + 1
        recent = [good for at, good in self.ended if at > self.now - 10]
        if not ok and (self.row >= 4 or (len(recent) >= 6 and recent.count(False) * 2 >= len(recent))):
            self.step(OPEN)

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.state is self.state
        left = {OPEN: max(0, self.until - self.now), HALF_OPEN: None}.get(self.state, 0)
        assert self.breaker.retry_after(self.now) == left

    @invariant()
    def told_of_every_step(self) -> None:
        states = [CLOSED, *(after for _, after, _, _ in self.steps)]
        assert states == [*(before for before, _, _, _ in self.steps), self.state]
        assert all(TRANSITIONS[before][trigger] is after for before, after, trigger, _ in self.steps)

    @invariant()
    def keeps_little(self) -> None:
        assert isinstance(self.breaker._marks, deque)
        assert len(self.breaker._marks) == self.breaker._marks.maxlen == 10


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=200, stateful_step_count=60)


@pytest.mark.parametrize("before", ["", "f", "ffff", "fsfsf"])
def test_successes_that_are_told_together_count_like_as_many_one_by_one(before: str) -> None:
    (together, _), (apart, _) = made(), made()
    for one in (together, apart):
        for number, ending in enumerate(before):
            one.record(ending == "s", number * 0.1, trial=False)
    together.record_successes(1.0, 3)
    for _ in range(3):
        apart.record(True, 1.0, trial=False)
    for number in range(4):
        assert together.state is apart.state
        for one in (together, apart):
            one.record(False, 2.0 + number, trial=False)
    assert together.state is apart.state
