"""The deadline wheel: never early, at most a tick late, and its size does not grow with entries that were removed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.pool.policy.deadline_wheel import TICK, DeadlineWheel

ROUNDING = 1e-6  # the rounding of floats that count seconds
TIMES = st.floats(0, 1e6)


@given(TIMES)
def test_a_deadline_is_reported_never_early_and_at_most_a_tick_late(deadline: float) -> None:
    wheel: DeadlineWheel[str] = DeadlineWheel()
    wheel.add("call", deadline)
    due = wheel.next_at()
    assert due is not None
    assert deadline - ROUNDING <= due <= deadline + TICK + ROUNDING
    assert wheel.expired(due - ROUNDING) == []
    assert wheel.expired(due) == ["call"]
    assert wheel.next_at() is None


@given(st.lists(st.tuples(TIMES, st.booleans()), max_size=50), TIMES)
def test_everything_due_and_not_removed_is_reported_once_oldest_first(
    calls: list[tuple[float, bool]], now: float
) -> None:
    wheel: DeadlineWheel[int] = DeadlineWheel()
    ticks = [wheel.add(number, deadline) for number, (deadline, _) in enumerate(calls)]
    for number, (_, removed) in enumerate(calls):
        if removed:
            wheel.remove(number, ticks[number])
            wheel.remove(number, ticks[number])  # a second time does nothing
    kept = {number for number, (_, removed) in enumerate(calls) if not removed}
    assert len(wheel) == len(kept)
    due = wheel.expired(now)
    assert all(calls[number][0] <= now for number in due)
    assert [ticks[number] for number in due] == sorted(ticks[number] for number in due)
    assert {number for number in kept if calls[number][0] + TICK < now - ROUNDING} <= set(due) <= kept
    assert wheel.expired(now) == []
    assert sorted(due + wheel.expired(2e6)) == sorted(kept)


def test_removing_what_is_not_noted_does_nothing() -> None:
    wheel: DeadlineWheel[str] = DeadlineWheel()
    wheel.remove("call", 5)
    tick = wheel.add("call", 1.0)
    wheel.remove("other", tick)
    assert len(wheel) == 1


def test_calls_that_ended_long_before_a_far_deadline_leave_no_buckets_behind() -> None:
    wheel: DeadlineWheel[int] = DeadlineWheel()
    open_calls: list[tuple[int, int]] = []
    for number in range(50_000):  # one call every tick, each due in a day, ten of them open at a time
        open_calls.append((number, wheel.add(number, number * TICK + 86_400)))
        if len(open_calls) > 10:
            wheel.remove(*open_calls.pop(0))
    assert len(wheel) == 10
    assert len(wheel._buckets) == len(wheel._ticks) <= 2 * 10 + 1024
    assert sorted(wheel.expired(1e9)) == [number for number, _ in open_calls]
