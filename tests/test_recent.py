"""What counters have grown by of late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.clock import ManualClock
from pool_monitor.metrics import Collector
from pool_monitor.metrics.recent import SECONDS, STEP, RecentGrowth


def test_growth_is_shown_for_its_time_and_then_forgotten():
    growth = RecentGrowth(1)
    shown = []
    for second in range(2 * SECONDS):
        count = 0 if second < 10 else 7
        growth.sample(float(second), [count])
        shown.append(growth.growth([count]) == (7,))
    begin, end = shown.index(True), len(shown) - shown[::-1].index(True)
    assert begin == 10
    assert SECONDS - STEP <= end - begin <= SECONDS + STEP
    assert all(shown[begin:end])


@given(st.lists(st.tuples(st.floats(0.1, 400), st.integers(0, 9)), max_size=200))
def test_growth_covers_the_last_seconds_and_at_most_one_step_and_pause_more(steps):
    growth, now, count, added = RecentGrowth(1), 0.0, 0, []
    for pause, more in steps:
        now += pause
        count += more
        added.append((now, more))
        growth.sample(now, [count])
        [found] = growth.growth([count])
        assert found >= sum(some for at, some in added if at > now - SECONDS + STEP + max(p for p, _ in steps))
        assert found <= count
        assert len(growth._samples) <= SECONDS // STEP + 1


def test_the_collector_tells_what_was_dropped_of_late():
    clock = ManualClock()
    collector = Collector(["p"], clock)
    collector.attach()
    try:
        clock.advance(1)
        collector.tick()
        collector._intake.dropped = 3
        assert collector.self_view().dropped_recent == 3
        for _ in range(SECONDS // STEP + 3):
            clock.advance(STEP)
            collector.tick()
        view = collector.self_view()
        assert (view.dropped, view.dropped_recent) == (3, 0)
    finally:
        collector.detach()
