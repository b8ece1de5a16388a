"""How much of the time between two evaluations counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.alerts.clock_guard import PAUSE_MAX_S, ClockGuard

INTERVAL = 5.0


class Rig:
    """A guard that is asked every *interval*, and sees the loop once a second, as the manager does it."""

    def __init__(self, *, interval: float = INTERVAL) -> None:
        self.guard, self.interval, self.now, self.blocked = ClockGuard(interval), interval, 0.0, 0.0
        self.elapsed: list[float | None] = []

    def see(self) -> None:
        self.guard.seen(round(self.now * 1e9), self.blocked)

    def evaluate(self) -> float | None:
        self.see()
        self.elapsed.append(self.guard.scheduled(round(self.now * 1e9)))
        return self.elapsed[-1]

    def run(self, seconds: float) -> None:
        """Let *seconds* pass, and evaluate at their end."""
        end = self.now + seconds
        while self.now + 1 < end:
            self.now += 1
            self.see()
        self.now = end
        self.evaluate()

    def gap(self, seconds: float, *, blocked: bool = False) -> None:
        self.now, self.blocked = self.now + seconds, 0.9 * seconds if blocked else 0.0
        self.evaluate()
        self.blocked = 0.0


def started() -> Rig:
    rig = Rig()
    rig.evaluate()
    rig.run(INTERVAL)
    assert rig.elapsed == [0.0, INTERVAL]
    return rig


def test_the_first_evaluation_counts_nothing():
    assert Rig().evaluate() == 0.0


def test_what_is_late_counts_in_full_up_to_two_intervals():
    rig = started()
    rig.gap(2 * INTERVAL)
    assert rig.elapsed[-1] == 2 * INTERVAL
    assert rig.guard.missed == 1


@pytest.mark.parametrize(("gap", "pause"), [(11, 11), (30, 30), (59, 59), (3600, PAUSE_MAX_S), (1e6, PAUSE_MAX_S)])
def test_after_a_gap_nothing_is_evaluated_for_as_long_and_then_counts_nothing(gap: float, pause: float):
    rig = started()
    rig.gap(gap)
    assert rig.elapsed[-1] is None
    assert rig.guard.pause_left(round(rig.now * 1e9)) == pytest.approx(pause)
    rig.run(pause - 1)
    assert rig.elapsed[-1] is None
    rig.run(1.5)
    assert rig.elapsed[-1] == pytest.approx(0.0, abs=1.5), "only what passed after the pause"
    rig.run(INTERVAL)
    assert rig.elapsed[-1] == pytest.approx(INTERVAL)
    assert rig.guard.missed == pytest.approx((gap + pause) / INTERVAL, abs=2)


def test_a_second_gap_in_a_pause_lengthens_it():
    rig = started()
    rig.gap(20)
    rig.run(10)
    rig.gap(15)
    assert rig.elapsed[-1] is None
    rig.run(14)
    assert rig.elapsed[-1] is None
    rig.run(2)
    assert rig.elapsed[-1] is not None


def test_a_blocked_loop_is_evaluated_at_once_and_counts_in_part():
    rig = started()
    for _ in range(5):
        rig.gap(15, blocked=True)
        assert rig.elapsed[-1] == rig.guard.allowed


def test_a_gap_between_two_evaluations_does_not_cost_what_was_seen_after_the_pause():
    rig = started()
    rig.now += 1
    rig.see()
    rig.now += 30
    rig.see()  # the loop runs again, before the evaluation is due
    assert rig.evaluate() is None


def test_an_evaluation_that_somebody_asked_for_counts_everything_and_ends_the_pause():
    rig = started()
    rig.now += 600
    assert rig.guard.asked(round(rig.now * 1e9)) == 600
    rig.gap(60)
    rig.now += 1
    assert rig.guard.asked(round(rig.now * 1e9)) == 61
    rig.run(INTERVAL)
    assert rig.elapsed[-1] == INTERVAL


def test_after_a_restart_the_time_until_the_first_evaluation_does_not_count():
    rig = started()
    rig.guard.restart()
    rig.gap(1000)
    assert rig.elapsed[-1] == 0.0


@given(st.lists(st.tuples(st.floats(0.1, 500), st.booleans()), max_size=30), st.sampled_from([0.1, 1.0, 5.0, 60.0]))
def test_never_more_counts_than_passed_while_the_loop_was_seen(steps: list[tuple[float, bool]], interval: float):
    rig = Rig(interval=interval)
    rig.evaluate()
    lived = 0.0
    for seconds, blocked in steps:
        rig.gap(seconds, blocked=blocked)
        if seconds <= rig.guard.allowed or blocked:
            lived += min(seconds, rig.guard.allowed)
    assert sum(one or 0.0 for one in rig.elapsed) <= lived * (1 + 1e-6) + 1e-6
