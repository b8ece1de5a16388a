"""Windows and chart against a plain list of everything that happened."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.errors import ConfigError
from pool_monitor.metrics import WINDOWS, Window, parse_window
from pool_monitor.metrics.fold import ABSENT, BUSY, DISTRIBUTIONS, OUTCOMES, SUMS, code_of, fold
from pool_monitor.metrics.histogram import BUCKETS, RELATIVE_ERROR, SMALLEST_NS, quantiles
from pool_monitor.metrics.trend import TrendRing
from pool_monitor.metrics.window import SECOND_NS, SLOTS, Windows

SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)
PLENTY = 64 * 1024 * 1024

durations = st.one_of(st.integers(0, 2_000), st.integers(0, 10**10), st.sampled_from([10**6, 5 * 10**9]))
calls = st.tuples(
    st.integers(0, 4),
    st.sampled_from(["ok", "ok", "ok", "error", "timeout", "cancelled"]),
    durations,
    durations,
    st.one_of(durations, st.just(ABSENT)),
)
steps_s = st.one_of(
    st.floats(0, 1), st.sampled_from([0.0, 1.0, 4.5, 5.0, 15.0, 59.0, 60.0, 61.0, 299.5, 900.0, 5000.0])
)
histories = st.lists(st.tuples(steps_s, st.lists(calls, max_size=30)), min_size=1, max_size=25)


class Ledger:
    """The same windows, kept as a list of calls and computed by definition."""

    def __init__(self, now_ns: int, limit: int = PLENTY) -> None:
        self.windows = Windows(now_ns, row_limit=8, limit_bytes=limit)
        self.windows.grow(5)
        self.calls: list[tuple[int, tuple[int, str, int, int, int]]] = []
        self.now_ns = now_ns

    def add(self, after_s: float, batch: list[tuple[int, str, int, int, int]]) -> None:
        self.now_ns += round(after_s * SECOND_NS)
        self.windows.advance(self.now_ns)
        if batch:
            buffer = [number for row, outcome, *times in batch for number in (code_of(row, outcome), *times)]
            self.windows.add(self.now_ns, fold(buffer, 5))
        self.calls += [(self.now_ns, call) for call in batch]

    def inside(self, window: Window, row: int) -> list[tuple[str, int, int, int]]:
        """By definition: the open slot and the 59 before it, unless slots had to leave early."""
        slot_ns = window.slot * SECOND_NS
        first = max(self.now_ns // slot_ns - SLOTS + 1, self.windows[window].first)
        return [call[1:] for at_ns, call in self.calls if at_ns // slot_ns >= first and call[0] == row]

    def check(self) -> None:
        for window in WINDOWS.values():
            store = self.windows[window]
            counts = store.running.reshape(-1, len(DISTRIBUTIONS), BUCKETS)
            maxima = store.maxima()
            for row in range(5):
                inside = self.inside(window, row)
                outcomes = [sum(outcome == name for outcome, *_ in inside) for name in OUTCOMES]
                assert outcomes == store.tallies[row, : len(OUTCOMES)].tolist()
                busy = [max(d - q, 0) if e == ABSENT else e for _, d, q, e in inside]
                assert sum(busy) == store.tallies[row, BUSY]
                ok = [times for outcome, *times in inside if outcome == "ok"]
                for index in range(len(DISTRIBUTIONS)):
                    values = sorted(times[index] for times in ok if times[index] != ABSENT)
                    assert len(values) == counts[row, index].sum()
                    assert sum(values) == store.tallies[row, SUMS][index]
                    assert max(values, default=0) == maxima[row, index]
                    check_quantiles(values, counts[row, index])


def check_quantiles(values: list[int], counts: np.ndarray) -> None:
    if not values:
        return
    for share, estimate in zip(SHARES, quantiles(counts, SHARES), strict=True):
        exact = values[math.ceil(round(share * 1000) * len(values) / 1000) - 1]
        error = max(exact * RELATIVE_ERROR * (1 + 1e-9), SMALLEST_NS if exact < SMALLEST_NS else 0)
        assert abs(estimate * 1e9 - exact) <= error


@given(st.integers(0, 10**13), histories)
@settings(max_examples=150, deadline=None)
def test_every_window_holds_exactly_what_happened_in_it(start_ns: int, history) -> None:
    """Counts, sums, maxima and all percentiles, across slot edges, expiry and long gaps."""
    ledger = Ledger(start_ns)
    for after_s, batch in history:
        ledger.add(after_s, batch)
        ledger.check()


@given(histories, st.integers(1, 20_000))
@settings(max_examples=60, deadline=None)
def test_a_window_that_had_to_forget_early_is_exact_for_the_time_it_still_covers(history, room: int) -> None:
    ledger = Ledger(0, Windows.fixed_bytes(8) + room)
    for after_s, batch in history:
        before = {name: ledger.windows[window].since_ns for name, window in WINDOWS.items()}
        ledger.add(after_s, batch)
        assert ledger.windows.nbytes <= ledger.windows.limit_bytes
        if before != {name: ledger.windows[window].since_ns for name, window in WINDOWS.items()}:
            return  # not even the open slots fitted in: all was let go, which is another matter
        ledger.check()


def test_when_not_even_the_open_slots_fit_in_the_windows_start_afresh() -> None:
    ledger = Ledger(0, Windows.fixed_bytes(8) + 100)
    ledger.add(0.5, [(0, "ok", value, value, value) for value in range(1_000, 10**9, 10**6)])
    ledger.add(1.0, [])
    assert not ledger.windows.used().any()
    assert ledger.windows.nbytes <= ledger.windows.limit_bytes
    assert [ledger.windows[window].covered_ns(ledger.now_ns) for window in WINDOWS.values()] == [0, 0, 0]


@pytest.mark.parametrize("name", ["1m", "5m", "15m"])
def test_a_window_covers_its_length_at_most_and_one_slot_less_at_least(name: str) -> None:
    window = WINDOWS[name]
    windows = Windows(123_456_789, row_limit=4, limit_bytes=PLENTY)
    covered = []
    for now_ns in range(123_456_789, 2000 * SECOND_NS, 777_777_777):
        windows.advance(now_ns)
        covered.append(windows[window].covered_ns(now_ns) / 1e9)
    assert covered[0] == 0
    assert covered[50] == pytest.approx(50 * 0.777777777)
    assert max(covered) <= window.seconds
    assert min(covered[-500:]) >= window.seconds - window.slot


def test_after_a_long_gap_the_windows_are_empty_and_cover_the_gap() -> None:
    ledger = Ledger(0)
    ledger.add(0.5, [(0, "ok", 10**6, 10**3, 10**6)])
    ledger.add(7200, [])
    assert not ledger.windows.used().any()
    assert ledger.windows[WINDOWS["15m"]].covered_ns(ledger.now_ns) >= 885 * SECOND_NS


def test_growing_keeps_what_was_counted() -> None:
    ledger = Ledger(0)
    ledger.add(1, [(0, "ok", 10**6, 10**3, 10**6)])
    ledger.windows.grow(8)
    ledger.add(1, [(4, "ok", 10**6, 10**3, 10**6)])
    ledger.check()
    assert ledger.windows.used()[:8].tolist() == [True, False, False, False, True, False, False, False]


def test_a_window_is_found_by_its_name() -> None:
    assert WINDOWS["5m"] is parse_window("5m")
    assert [window.seconds for window in WINDOWS.values()] == [60, 300, 900]


@pytest.mark.parametrize("name", ["5 m", "", "1h", None, ["1m"]])
def test_an_unknown_window_is_refused_with_the_choices(name) -> None:
    with pytest.raises(ConfigError, match=r"there is no window .*; choose one of 1m, 5m, 15m") as raised:
        parse_window(name)
    assert repr(name) in str(raised.value)


# -- the chart ----------------------------------------------------------------------------------------------------

WALL_NS = 1_700_000_000 * SECOND_NS + 250_000_000


def ring_of(seconds: list[tuple[int, int, int]], start_ns: int = 0) -> TrendRing:
    ring = TrendRing(start_ns, pools=1)
    for second, ok, errors in seconds:
        ring.add(second * SECOND_NS, np.zeros(1, np.intp), np.array([ok]), np.array([errors]))
    return ring


@pytest.mark.parametrize(("name", "step", "values"), [("1m", 1, 60), ("5m", 1, 300), ("15m", 3, 300)])
def test_a_chart_has_the_agreed_steps_and_ends_at_a_multiple_of_one(name: str, step: int, values: int) -> None:
    ring = ring_of([(second, second, 1) for second in range(2000)])
    trend = ring.trend(0, WINDOWS[name], 2000 * SECOND_NS, WALL_NS + 2000 * SECOND_NS)
    assert (step, values, values) == (trend.step, len(trend.ok), len(trend.errors))
    assert trend.end % step == 0
    assert 0 <= (WALL_NS / 1e9 + 2000) - trend.end < step + 1
    assert {1.0} == set(trend.errors)
    last_second = round(trend.end) - 1_700_000_000 - 1
    assert trend.ok[-1] == pytest.approx(last_second - (step - 1) / 2)


def test_the_second_under_way_is_not_drawn() -> None:
    trend = ring_of([(0, 5, 0), (1, 7, 0)]).trend(0, WINDOWS["1m"], 1_900_000_000, WALL_NS)
    assert trend.ok[-2:] == (None, 5.0)


def test_what_came_before_the_start_was_not_measured() -> None:
    """The second it fell into counts as it is: a rate over what is left of it could be a spike nobody saw."""
    ring = ring_of([(3, 2, 0), (4, 2, 1)], start_ns=2 * SECOND_NS + 1)
    trend = ring.trend(0, WINDOWS["1m"], 5 * SECOND_NS, WALL_NS)
    assert trend.ok[-4:] == (None, 0.0, 2.0, 2.0)
    assert trend.errors[-4:] == (None, 0.0, 0.0, 1.0)


def test_short_silence_is_no_calls_and_long_silence_is_not_measured() -> None:
    ring = ring_of([(0, 1, 0), (3, 1, 0), (10, 1, 0), (11, 0, 0)])
    trend = ring.trend(0, WINDOWS["1m"], 11 * SECOND_NS, WALL_NS)
    assert trend.ok[-11:] == (1.0, 0.0, 0.0, 1.0, None, None, None, None, None, None, 1.0)


def test_a_step_measured_in_part_is_a_rate_over_that_part() -> None:
    ring = ring_of([(second, 6, 0) for second in range(4, 30)], start_ns=4 * SECOND_NS)
    trend = ring.trend(0, WINDOWS["15m"], 30 * SECOND_NS, 30 * SECOND_NS)
    assert list(trend.ok[-10:-7]) == [None, 6.0, 6.0]


def test_a_chart_forgets_what_its_ring_has_overwritten() -> None:
    ring = ring_of([(0, 9, 9), (5000, 1, 0), (5001, 0, 0)])
    trend = ring.trend(0, WINDOWS["15m"], 5001 * SECOND_NS, 5001 * SECOND_NS)
    assert [rate for rate in trend.ok if rate is not None] == [1.0]
