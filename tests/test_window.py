"""Windows and chart against a plain list of everything that happened."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.errors import ConfigError
from pool_monitor.metrics import WINDOWS, Window, parse_window
from pool_monitor.metrics.block import Block, merge
from pool_monitor.metrics.call_stats import summed_by_group
from pool_monitor.metrics.columns import BUSY, BY_SESSION_KIND, DISTRIBUTIONS, MEASURED_NS, OUTCOMES, POOL_SUMS, SUMS
from pool_monitor.metrics.fold import ABSENT, code_of, fold
from pool_monitor.metrics.histogram import RELATIVE_ERROR, SMALLEST_NS, quantiles
from pool_monitor.metrics.pool_stats import window_sums
from pool_monitor.metrics.series import Grouping
from pool_monitor.metrics.trend import TrendRing
from pool_monitor.metrics.window import SECOND_NS, Windows

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


ROWS = 8
EACH = Grouping([str(row) for row in range(ROWS)], list(range(ROWS)))


class Ledger:
    """The same windows, kept as a list of calls and computed by definition."""

    def __init__(self, now_ns: int, limit: int = PLENTY, *, gapless: bool = False) -> None:
        self.closed: list[tuple[int, Block]] = []
        self.tidy = False
        self.windows = Windows(
            now_ns,
            ROWS,
            pools=1,
            limit_bytes=limit,
            closed=lambda second, block: self.closed.append((second, block)),
            gapless=gapless,
        )
        self.calls: list[tuple[int, tuple[int, str, int, int, int]]] = []
        self.now_ns = now_ns

    def add(self, after_s: float, batch: list[tuple[int, str, int, int, int]]) -> None:
        self.now_ns += round(after_s * SECOND_NS)
        self.windows.advance(self.now_ns)
        if batch:
            buffer = [number for row, outcome, *times in batch for number in (code_of(row, outcome), *times)]
            self.windows.add(self.now_ns, fold(buffer, np.zeros(5, np.intp), 1))
        self.calls += [(self.now_ns, call) for call in batch]
        if self.tidy:
            for _ in self.windows.tidy():
                pass

    def inside(self, window: Window) -> list[tuple[int, str, int, int, int]]:
        """By definition: the open step and those before it, unless steps had to leave early."""
        step_ns = window.step * SECOND_NS
        first = max(self.now_ns // step_ns - window.steps + 1, self.windows[window].first)
        return [call for at_ns, call in self.calls if at_ns // step_ns >= first]

    def check(self) -> None:
        for window in WINDOWS.values():
            inside = self.inside(window)
            check_rows(*window_sums(self.windows, window, np.arange(ROWS), EACH), inside)
            check_rows(summed_by_group([(self.windows.block(window), np.arange(ROWS))], ROWS), inside)
        # Nothing that has closed is lost, however little of it the windows still hold.
        every = merge([block for _, block in self.closed] + [self.windows.open.block()])
        check_rows(summed_by_group([(every, np.arange(ROWS))], ROWS), [call for _, call in self.calls])
        totals = merge([self.windows.totals.block(np.arange(1, self.windows.pages.size), self.windows.open.high_water)])
        everything = sum(block.tallies.sum(axis=0) for _, block in self.closed)
        assert np.array_equal(totals.tallies.sum(axis=0), np.zeros(totals.tallies.shape[1]) + everything)


def check_rows(found, inside: list[tuple[int, str, int, int, int]]) -> None:
    """Every row of *found* has what the calls *inside* of it add up to."""
    for row in range(ROWS):
        calls_of_row = [call[1:] for call in inside if call[0] == row]
        outcomes = [sum(outcome == name for outcome, *_ in calls_of_row) for name in OUTCOMES]
        assert outcomes == found.tallies[row, : len(OUTCOMES)].tolist()
        busy = [max(d - q, 0) if e == ABSENT else e for _, d, q, e in calls_of_row]
        assert sum(busy) == found.tallies[row, BUSY]
        ok = [times for outcome, *times in calls_of_row if outcome == "ok"]
        for index in range(len(DISTRIBUTIONS)):
            values = sorted(times[index] for times in ok if times[index] != ABSENT)
            assert len(values) == found.counts[row, index].sum()
            assert sum(values) == found.tallies[row, SUMS][index]
            assert max(values, default=0) == found.maxima[row, index]
            check_quantiles(values, found.counts[row, index], found.first)


def check_quantiles(values: list[int], counts: np.ndarray, first: int) -> None:
    if not values:
        return
    for share, estimate in zip(SHARES, quantiles(counts, SHARES, first), strict=True):
        exact = values[math.ceil(round(share * 1000) * len(values) / 1000) - 1]
        error = max(exact * RELATIVE_ERROR * (1 + 1e-9), SMALLEST_NS if exact < SMALLEST_NS else 0)
        assert abs(estimate * 1e9 - exact) <= error


@given(st.integers(0, 10**13), histories)
@settings(max_examples=100, deadline=None)
def test_every_window_holds_exactly_what_happened_in_it(start_ns: int, history) -> None:
    """Counts, sums, maxima and all percentiles, across step edges, expiry, roll-ups and long gaps."""
    ledger = Ledger(start_ns)
    ledger.tidy = bool(start_ns % 2)
    for after_s, batch in history:
        ledger.add(after_s, batch)
        ledger.check()


@pytest.mark.slow
@pytest.mark.gate
@given(histories, st.integers(1, 20_000))
@settings(max_examples=60, deadline=None)
def test_a_window_that_had_to_forget_early_is_exact_for_the_time_it_still_covers(history, room: int) -> None:
    ledger = Ledger(0, Windows.most_fixed_bytes(ROWS, 1) + room)
    for after_s, batch in history:
        before = {name: ledger.windows[window].since_ns for name, window in WINDOWS.items()}
        ledger.add(after_s, batch)
        assert ledger.windows.nbytes <= ledger.windows.limit_bytes
        if before != {name: ledger.windows[window].since_ns for name, window in WINDOWS.items()}:
            return  # not even the open steps fitted in: all was let go, which is another matter
        ledger.check()


def test_when_not_even_the_open_slots_fit_in_the_windows_start_afresh() -> None:
    ledger = Ledger(0)
    ledger.windows.limit_bytes = ledger.windows.nbytes + 100
    ledger.add(0.5, [(0, "ok", value, value, value) for value in range(1_000, 10**9, 10**6)])
    ledger.add(1.0, [])
    assert not ledger.windows.used().any()
    assert not any(store.block_bytes for store in ledger.windows.stores())
    assert [ledger.windows[window].covered_ns(ledger.now_ns) for window in WINDOWS.values()] == [0, 0, 0, 0]


@pytest.mark.parametrize("name", list(WINDOWS))
def test_a_window_covers_its_length_at_most_and_one_slot_less_at_least(name: str) -> None:
    window = WINDOWS[name]
    windows = Windows(123_456_789, rows=4, pools=1, limit_bytes=PLENTY)
    covered = []
    for now_ns in range(123_456_789, 5000 * SECOND_NS, 777_777_777):
        windows.advance(now_ns)
        covered.append(windows[window].covered_ns(now_ns) / 1e9)
    assert covered[0] == 0
    assert covered[50] == pytest.approx(50 * 0.777777777)
    assert max(covered) <= window.seconds
    assert min(covered[-500:]) >= window.seconds - window.step


def test_after_a_long_gap_the_windows_are_empty_and_cover_the_gap() -> None:
    ledger = Ledger(0)
    ledger.add(0.5, [(0, "ok", 10**6, 10**3, 10**6)])
    ledger.add(7200, [])
    assert not ledger.windows.used().any()
    assert ledger.windows[WINDOWS["15m"]].covered_ns(ledger.now_ns) >= 885 * SECOND_NS


def test_a_second_says_how_much_of_it_was_measured_and_a_long_silence_was_not() -> None:
    ledger = Ledger(0)
    for after_s in (1, 3, 60, 1):
        ledger.add(after_s, [])
    assert [(second, block.pool_sums[0, MEASURED_NS] / 1e9) for second, block in ledger.closed] == [
        (0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (64, 1)
    ]  # fmt: skip


def test_the_steps_of_a_clock_for_tests_are_measured() -> None:
    ledger = Ledger(0, gapless=True)
    for after_s in (1, 60, 600, 1):
        ledger.add(after_s, [])
    assert [(second, block.pool_sums[0, MEASURED_NS] / 1e9) for second, block in ledger.closed] == [
        (0, 1), (1, 60), (61, 600), (661, 1)
    ]  # fmt: skip


def test_tidying_up_merges_every_closed_slot_in_small_steps() -> None:
    ledger = Ledger(60 * 10**9)
    for _ in range(3700):
        ledger.add(1, [(0, "ok", 10**6, 10**3, 10**6)])
        steps = sum(1 for _ in ledger.windows.tidy())
        assert steps <= (5 + 2) + (2 + 2) + (6 + 2)  # a step per block, one before and one after them
    for store in ledger.windows.stores():
        assert {len(blocks) for step, blocks in store.steps.items() if step < store.open} == {1}
        assert store.window.steps - 1 <= len(store.steps) <= store.window.steps
    ledger.check()


@given(histories, st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_happens_while_tidying_up_nothing_is_lost(history, data) -> None:
    ledger = Ledger(0, Windows.most_fixed_bytes(ROWS, 1) + data.draw(st.sampled_from([10_000, PLENTY])))
    tidying = ledger.windows.tidy()
    for after_s, batch in history:
        ledger.add(after_s, batch)
        for _ in range(data.draw(st.integers(0, 9))):
            if next(tidying, tidying) is tidying:
                tidying = ledger.windows.tidy()
    for window in WINDOWS.values():
        check_rows(*window_sums(ledger.windows, window, np.arange(ROWS), EACH), ledger.inside(window))


def test_a_row_is_in_use_as_long_as_any_window_counts_something_in_it() -> None:
    """Short of memory the longest window may have to let go of more than a shorter one: pages must not change hands."""
    ledger = Ledger(0)
    ledger.add(1, [(0, "ok", 10**6, 10**3, 10**6)])
    ledger.add(130, [])
    while ledger.windows[WINDOWS["1h"]].forget_oldest():
        pass
    assert not ledger.windows[WINDOWS["1h"]].running.tallies.any()
    assert ledger.windows.used()[0]


def test_memory_is_within_its_limit_also_within_a_second() -> None:
    ledger = Ledger(0)
    for _ in range(70):
        ledger.add(1, [(0, "ok", 10**6, 10**3, 10**6)])
    ledger.windows.limit_bytes = ledger.windows.nbytes
    ledger.add(0, [(row, "ok", 10**9, 10**8, 10**7) for row in range(5)])
    assert ledger.windows.nbytes <= ledger.windows.limit_bytes
    ledger.windows.close_second(ledger.now_ns)
    assert ledger.windows.nbytes <= ledger.windows.limit_bytes


@pytest.mark.parametrize("weights", [(1, 1), (1000, 1), (1, 7), (1_000_000, 1_000_000)])
def test_a_record_counts_as_often_as_its_weight_says_without_being_copied(weights: tuple[int, int]) -> None:
    records = [code_of(0), 4 * 10**6, 10**6, 3 * 10**6, code_of(0, "error"), 10**6, 10**6, ABSENT]
    batch = fold(records, np.zeros(1, np.intp), 1, weights)
    well, other = weights
    assert (len(batch.keys), batch.weight, batch.events) == (3, well, well + other)
    assert batch.tallies[0, : len(OUTCOMES)].tolist() == [well, other, 0, 0, 0, 0]
    assert batch.tallies[0, SUMS].tolist() == [well * 4 * 10**6, well * 10**6, well * 3 * 10**6]
    assert batch.tallies[0, BUSY] == well * 3 * 10**6
    assert batch.pool_sums[0, BY_SESSION_KIND].tolist()[:2] == [well, other]
    assert batch.maxima[0].tolist() == [4 * 10**6, 10**6, 3 * 10**6]


def test_a_second_that_is_closed_early_and_again_is_drawn_whole() -> None:
    ring = ring_of([(2, 5, 0), (2, 7, 1), (3, 0, 0)])
    trend = ring.trend(0, WINDOWS["1m"], 4 * SECOND_NS, WALL_NS)
    assert (trend.ok[-2], trend.errors[-2]) == (12.0, 1.0)


def test_rows_given_back_leave_no_trace_of_whoever_had_them() -> None:
    ledger = Ledger(0)
    ledger.add(1, [(0, "ok", 10**6, 10**3, 10**6), (1, "ok", 10**7, 10**4, 10**5)])
    ledger.add(4000, [])
    used = ledger.windows.pages.used
    ledger.windows.clear_rows([0, 1])
    assert ledger.windows.pages.used == used - 6
    ledger.calls.clear()
    ledger.closed.clear()
    ledger.add(1, [(1, "ok", 10**9, 10**8, 10**9)])
    ledger.add(1, [])
    ledger.windows.totals.pool_sums[:] = 0
    ledger.check()


def test_a_window_is_found_by_its_name() -> None:
    assert WINDOWS["5m"] is parse_window("5m")
    assert [window.seconds for window in WINDOWS.values()] == [60, 300, 900, 3600]


@pytest.mark.parametrize("name", ["5 m", "", "2h", None, ["1m"]])
def test_an_unknown_window_is_refused_with_the_choices(name) -> None:
    with pytest.raises(ConfigError, match=r"there is no window .*; choose one of 1m, 5m, 15m, 1h") as raised:
        parse_window(name)
    assert repr(name) in str(raised.value)


# -- the chart ----------------------------------------------------------------------------------------------------

WALL_NS = 1_700_000_000 * SECOND_NS + 250_000_000


def ring_of(seconds: list[tuple[int, int, int]]) -> TrendRing:
    ring = TrendRing(pools=1)
    for second, ok, errors in seconds:
        sums = np.zeros((1, POOL_SUMS), np.int64)
        sums[0, BY_SESSION_KIND] = [ok - ok // 2, errors - errors // 2, *[0] * 4, ok // 2, 0, errors // 2, *[0] * 9]
        ring.add(second, sums)
    return ring


@pytest.mark.parametrize(("name", "step", "values"), [("1m", 1, 60), ("5m", 1, 300), ("15m", 3, 300), ("1h", 12, 300)])
def test_a_chart_has_the_agreed_steps_and_ends_at_a_multiple_of_one(name: str, step: int, values: int) -> None:
    ring = ring_of([(second, second, 1) for second in range(5000)])
    trend = ring.trend(0, WINDOWS[name], 5000 * SECOND_NS, WALL_NS + 5000 * SECOND_NS)
    assert (step, values, values) == (trend.step, len(trend.ok), len(trend.errors))
    assert trend.end % step == 0
    assert 0 <= (WALL_NS / 1e9 + 5000) - trend.end < step + 1
    assert {1.0} == set(trend.errors)
    last_second = round(trend.end) - 1_700_000_000 - 1
    assert trend.ok[-1] == pytest.approx(last_second - (step - 1) / 2)


def test_a_second_nobody_told_of_was_not_measured() -> None:
    trend = ring_of([(2, 0, 0), (3, 2, 0), (4, 2, 1)]).trend(0, WINDOWS["1m"], 6 * SECOND_NS, WALL_NS)
    assert trend.ok[-5:] == (None, 0.0, 2.0, 2.0, None)
    assert trend.errors[-5:] == (None, 0.0, 0.0, 1.0, None)


def test_a_step_measured_in_part_is_a_rate_over_that_part() -> None:
    ring = ring_of([(second, 6, 0) for second in range(4, 30)])
    trend = ring.trend(0, WINDOWS["15m"], 30 * SECOND_NS, 30 * SECOND_NS)
    assert list(trend.ok[-10:-7]) == [None, 6.0, 6.0]


def test_a_chart_forgets_what_its_ring_has_overwritten() -> None:
    ring = ring_of([(0, 9, 9), (5000, 1, 0), (5001, 0, 0)])
    trend = ring.trend(0, WINDOWS["15m"], 5001 * SECOND_NS, 5001 * SECOND_NS)
    assert [rate for rate in trend.ok if rate is not None] == [1.0]
