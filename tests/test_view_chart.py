"""Charts and number formats: pure functions, checked by table and by property."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pool_monitor.view import ASCII, Segment, chart
from pool_monitor.view import format as fmt
from pool_monitor.view.chart import Bin, axis_labels, bar, bins, column_chart, line_chart, nice_limit, sparkline
from pool_monitor.view.text import (
    clean,
    fit,
    justify,
    line_width,
    truncate,
    truncate_front,
    truncate_line,
    truncate_middle,
    width,
    wrap,
)

DASH = "\N{EN DASH}"
rates = st.one_of(st.none(), st.floats(0, 1e6))


def flat(*values: float | None) -> list[Bin | None]:
    """Return one bin per value."""
    return [None if value is None else Bin(value, value, value) for value in values]


# bins


def test_a_bin_keeps_the_spike_of_a_single_second() -> None:
    values = [1.0] * 300
    values[137] = 50.0
    points = bins(values, 1.0, 1000.0, 60)
    assert [point.high for point in points if point].count(50.0) == 1
    assert all(point.low == 1.0 for point in points if point)


def test_a_bin_in_which_nothing_was_measured_is_a_gap() -> None:
    points = bins([None] * 50 + [3.0] * 50, 1.0, 1000.0, 10)
    assert [point is None for point in points] == [True] * 5 + [False] * 5


def test_no_values_are_all_gaps() -> None:
    assert bins([], 1.0, 1000.0, 4) == [None] * 4


@given(
    values=st.lists(rates, min_size=1, max_size=120),
    number=st.integers(1, 90),
    end=st.integers(10**9, 2 * 10**9),
    align=st.sampled_from([1, 2]),
)
def test_every_value_that_is_shown_was_measured_and_the_newest_is_shown(
    values: list[float | None], number: int, end: int, align: int
) -> None:
    points = bins(values, 1.0, float(end), number, align)
    assert len(points) == number
    measured = {value for value in values if value is not None}
    assert {edge for point in points if point for edge in (point.low, point.high)} <= measured
    if values[-1] is not None and number >= align:
        assert any(point and point.low <= values[-1] <= point.high for point in points[-align:])


@given(
    history=st.lists(st.floats(0, 100), min_size=90, max_size=90),
    number=st.integers(2, 120),
    start=st.integers(10**9, 2 * 10**9),
)
def test_bins_do_not_regroup_when_time_goes_on(history: list[float], number: int, start: int) -> None:
    """From one tick to the next, the chart only moves. Otherwise it would flicker."""
    align, window = 2, 60
    pictures = [bins(history[tick : tick + window], 1.0, float(start + tick), number, align) for tick in range(30)]
    for before, after in pairwise(pictures):
        moves = [
            moved
            for moved in range(0, number + align, align)
            if before[moved : number - align] == after[: max(number - align - moved, 0)]
        ]
        assert moves, "no whole number of cells moves the older picture onto the newer one"


# axes


@given(st.floats(1e-6, 1e12))
def test_an_axis_holds_its_highest_value_in_a_round_limit(highest: float) -> None:
    limit = nice_limit(highest)
    assert highest <= limit * (1 + 1e-6)
    assert limit <= highest * 2 * (1 + 1e-6)
    assert f"{limit:.6e}"[:8] in {"1.000000", "1.500000", "2.000000", "3.000000", "5.000000"}


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_higher_value_never_gets_a_lower_axis(one: float, two: float) -> None:
    assert nice_limit(min(one, two)) <= nice_limit(max(one, two)) or min(one, two) == 0


@given(rows=st.integers(1, 40), highest=st.floats(0, 1e6))
def test_axis_labels_fall_from_the_limit_to_zero(rows: int, highest: float) -> None:
    limit = nice_limit(highest)
    labels = [float(label) for label in axis_labels(rows, limit, lambda value: f"{value:.12g}") if label is not None]
    assert labels == sorted(labels, reverse=True)
    assert labels[0] == pytest.approx(limit)
    assert rows == 1 or labels[-1] == 0


# line chart


def test_a_rising_line_rises() -> None:
    assert line_chart(flat(0, 1, 2, 3, 4, 5, 6, 7), 2, 7) == ["⠀⠀⡠⠊", "⡠⠊⠀⠀"]


def test_zero_is_at_the_bottom_and_the_limit_at_the_top() -> None:
    assert line_chart(flat(0, 0), 2, 10) == ["⠀", "⣀"]
    assert line_chart(flat(10, 10), 2, 10) == ["⠉", "⠀"]


def test_a_gap_is_neither_zero_nor_joined_across() -> None:
    assert line_chart(flat(0, 0, None, None, 7, 7), 2, 7) == ["⠀⠀⠉", "⣀⠀⠀"]


def test_a_jump_is_joined_and_a_spread_is_filled() -> None:
    assert line_chart(flat(0, 7), 2, 7) == ["⢸", "⡸"]
    assert line_chart([Bin(0, 7, 3), None], 2, 7) == ["⡇", "⡇"]


@given(st.lists(rates, min_size=2, max_size=80), st.integers(1, 12))
def test_every_measured_column_has_ink_and_no_other(values: list[float | None], rows: int) -> None:
    values = values[: len(values) // 2 * 2]
    limit = nice_limit(max((value for value in values if value is not None), default=0.0))
    lines = line_chart(flat(*values), rows, limit)
    assert [len(line) for line in lines] == [len(values) // 2] * rows
    for index, value in enumerate(values):
        bits = 0x47 if index % 2 == 0 else 0xB8
        inked = any((ord(line[index // 2]) - 0x2800) & bits for line in lines)
        assert inked == (value is not None)


# bars and sparks


def test_a_sparkline_shows_zero_as_blank_a_small_value_as_ink_and_a_gap_as_a_dot() -> None:
    assert sparkline([0.0, 0.001, 4.0, 8.0, None]) == " ▁▄█·"


def test_upright_bars_grow_from_the_lowest_line() -> None:
    assert column_chart([0.0, 1.0, 2.0, 4.0], 2, 4.0) == ["   █", " ▄██"]


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0.0, "    "), (0.001, "▏   "), (0.5, "██  "), (0.53, "██▏ "), (1.0, "████"), (7.0, "████"), (-1.0, "    ")],
)
def test_a_bar_fills_its_share_to_an_eighth(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 30))
def test_a_larger_share_never_has_the_shorter_bar(one: float, two: float, cells: int) -> None:
    eighths = [sum(" ▏▎▍▌▋▊▉█".index(cell) for cell in bar(share, cells)) for share in sorted((one, two))]
    assert eighths == sorted(eighths)
    assert len(bar(one, cells)) == cells


def test_trend_bins_are_aligned_to_the_trends_own_end() -> None:
    from pool_monitor.snapshot import Trend

    trend = Trend(step=2.0, end=100.0, ok=(1.0, 2.0, 3.0), errors=(0.0, 0.0, 5.0))
    assert chart.trend_bins(trend, trend.ok, 3) == flat(1.0, 2.0, 3.0)
    assert chart.means(chart.trend_bins(trend, trend.errors, 3)) == [0.0, 0.0, 5.0]


# numbers


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, DASH),
        (float("nan"), DASH),
        (float("inf"), DASH),
        (0.0, "0s"),
        (4.2e-7, "0.4µs"),
        (0.00042, "420µs"),
        (0.0009996, "1.0ms"),
        (0.0084, "8.4ms"),
        (0.084, "84ms"),
        (0.412, "412ms"),
        (0.9994, "999ms"),
        (0.9996, "1.0s"),
        (1.32, "1.3s"),
        (15.8, "16s"),
        (99.4, "99s"),
        (99.6, "1m39s"),
        (124.0, "2m04s"),
        (11_100.0, "3h05m"),
        (1_062_000.0, "12d07h"),
        (20_000_000.0, "231d"),
    ],
)
def test_durations_carry_their_unit(seconds: float | None, text: str) -> None:
    assert fmt.duration(seconds) == text


@given(st.floats(0))
def test_durations_and_ages_are_short_whatever_they_are(seconds: float) -> None:
    assert len(fmt.duration(seconds)) <= 6
    assert len(fmt.age(seconds)) <= 6


@pytest.mark.parametrize("at", [1e300, -1e300, 1e15, float("nan"), float("-inf")])
def test_a_time_that_no_calendar_has_is_unknown(at: float) -> None:
    assert fmt.timestamp(at) == fmt.short_time(at, 60, 1) == fmt.short_time(at, 60, 86_400) == DASH


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, DASH), (0.03, "0.0s"), (9.99, "9.9s"), (10, "10s"), (59.9, "59s"), (60, "1m00s"), (86_399, "23h59m")],
)
def test_ages_round_down_like_clocks(seconds: float | None, text: str) -> None:
    assert fmt.age(seconds) == text


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        (UTC, "2026-03-29 00:59:30+00:00"),
        (ZoneInfo("Europe/Berlin"), "2026-03-29 01:59:30+01:00"),
        (ZoneInfo("Asia/Kolkata"), "2026-03-29 06:29:30+05:30"),
    ],
)
def test_a_moment_names_its_zone_and_can_be_read_back(zone: tzinfo, text: str) -> None:
    assert fmt.timestamp(1_774_745_970.7, zone) == text
    assert datetime.fromisoformat(text).timestamp() == 1_774_745_970


@pytest.mark.parametrize(
    ("length", "grain", "text"),
    [
        (600, 1, "01:59:30"),
        (86_400, 90, "01:59:30"),
        (86_400, 60, "01:59"),
        (86_460, 60, "03-29 01:59"),
        (86_460, 10, "03-29 01:59:30"),
        (1e7, 86_400, "2026-03-29"),
    ],
)
def test_a_moment_among_others_shows_only_what_distinguishes_it(length: float, grain: float, text: str) -> None:
    assert fmt.short_time(1_774_745_970.0, length, grain, ZoneInfo("Europe/Berlin")) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, DASH), (0.0, "0"), (4.0, "4"), (2.8714, "2.87"), (0.001, "<0.01"), (12.04, "12.0")]
)
def test_a_mean_is_whole_only_when_it_is(value: float | None, text: str) -> None:
    assert fmt.mean(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.005, "5ms"), (0.0075, "7.5ms"), (1.0, "1s"), (10.0, "10s"), (0, "0s")]
)
def test_bounds_are_round(seconds: float, text: str) -> None:
    assert fmt.axis_duration(seconds) == text


@pytest.mark.parametrize(
    ("power", "most", "more"),
    [
        (-19, "≤1.91µs", ">1.9µs"),
        (-10, "≤977µs", ">976µs"),
        (-6, "≤15.7ms", ">15.6ms"),
        (-4, "≤62.5ms", ">62.5ms"),
        (-2, "≤250ms", ">250ms"),
        (0, "≤1s", ">1s"),
        (6, "≤64s", ">64s"),
        (8, "≤4m16s", ">4m16s"),
    ],
)
def test_the_bound_of_a_bar_is_rounded_so_that_its_label_stays_true(power: int, most: str, more: str) -> None:
    assert (fmt.at_most(2.0**power), fmt.more_than(2.0**power)) == (most, more)


@given(st.text(st.sampled_from("ab 要|")), st.integers(4, 30))
def test_wrapped_text_fits_and_short_text_is_left_alone(words: str, cells: int) -> None:
    words = words.strip()
    lines = wrap(words, cells)
    assert all(width(line) <= cells for line in lines)
    assert width(words) > cells or lines == [words]


def test_wrapped_text_loses_no_word_that_fits() -> None:
    assert wrap("one two three four five", 12) == ["one two", "  three four", "  five"]
    assert wrap("an interminable word", 8) == ["an", "  inter…", "  word"]
    assert wrap("", 8) == [""]


@pytest.mark.parametrize(("seconds", "text"), [(60, "1m"), (300, "5m"), (900, "15m"), (150, "2m30s"), (3600, "1h")])
def test_windows_are_named_as_they_were_chosen(seconds: float, text: str) -> None:
    assert fmt.period(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, DASH),
        (0.0, "0%"),
        (0.0001, "<0.1%"),
        (0.012, "1.2%"),
        (0.0996, "10%"),
        (0.123, "12%"),
        (0.9999, ">99%"),
        (1.0, "100%"),
    ],
)
def test_ratios_never_round_to_none_or_all(share: float | None, text: str) -> None:
    assert fmt.percent(share) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, DASH),
        (0, "0"),
        (99_999, "99999"),
        (128_400, "128k"),
        (1_340_000, "1.3M"),
        (999_600, "1.0M"),
        (10**13, "10.0T"),
    ],
)
def test_counts_are_exact_while_they_are_short(number: int | None, text: str) -> None:
    assert fmt.count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, DASH),
        (0, "0B"),
        (812 * 1024, "812K"),
        (1023 * 1024, "1.0M"),
        (46 * 2**20, "46.0M"),
        (50_594_906, "48.3M"),
        (128 * 2**20, "128M"),
        (5 * 2**30 // 2, "2.5G"),
        (10**16, "9095T"),
    ],
)
def test_sizes_are_short_and_grow_visibly(number: int | None, text: str) -> None:
    assert fmt.size(number) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(None, DASH), (0.0, "0"), (0.003, "<0.01"), (1.84, "1.84"), (11.8, "11.8"), (412.3, "412"), (128_400.0, "128k")],
)
def test_rates_have_three_digits(per_second: float | None, text: str) -> None:
    assert fmt.rate(per_second) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.75, "0.75"), (20.0, "20"), (1500.0, "1.5k"), (300_000.0, "300k"), (3e6, "3M")]
)
def test_ticks_are_round(value: float, text: str) -> None:
    assert fmt.axis_number(value) == text


def test_percentiles_of_few_samples_are_marked() -> None:
    assert [fmt.percentile(0.084, 19), fmt.percentile(0.084, 20), fmt.percentile(None, 0)] == ["~84ms", "84ms", DASH]


# text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("summary", "summary"),
        ("\x1b[31mred\x1b[0m", "?[31mred?[0m"),
        ("two\nlines\tand more", "two lines and more"),
        ("a\u202eb\u200bc", "a?b?c"),
        ("e\u0301te\u0301", "été"),
        ("\ud800", "?"),
        ("要約", "要約"),
    ],
)
def test_foreign_text_is_made_safe_for_a_terminal(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@given(st.text(max_size=30))
def test_clean_text_is_as_wide_as_the_terminal_shows_it(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert width(cleaned) == cell_len(cleaned)
    assert clean(cleaned) == cleaned


@given(st.text(max_size=30), st.integers(0, 40))
def test_fitted_text_takes_exactly_its_cells(text: str, cells: int) -> None:
    assert width(fit(clean(text), cells)) == cells
    assert width(fit(clean(text), cells, "right")) == cells
    assert width(truncate(clean(text), cells)) <= cells
    assert width(truncate_front(clean(text), cells)) <= cells
    assert width(truncate_middle(clean(text), cells)) <= cells


def test_a_cut_is_marked_and_a_slot_keeps_its_number() -> None:
    assert truncate("summarize", 6) == "summa…"
    assert truncate_front("summarizers-12", 8) == "…zers-12"
    assert truncate("要約する", 4) == "要…"


@given(st.lists(st.text(max_size=8)), st.lists(st.text(max_size=8)), st.integers(0, 40))
def test_a_spread_line_takes_exactly_its_cells(left: list[str], right: list[str], cells: int) -> None:
    one, two = ([Segment(clean(text)) for text in texts] for texts in (left, right))
    assert line_width(justify(one, two, cells)) == cells
    assert line_width(truncate_line(one, cells)) <= cells


@given(st.text(max_size=30))
def test_ascii_drawing_keeps_every_width(text: str) -> None:
    line = [Segment(clean(text))]
    drawn = ASCII.draw(line)
    assert line_width(drawn) == line_width(line)
    assert all(segment.text.isascii() for segment in drawn)


def test_ascii_keeps_the_shape_of_a_line() -> None:
    lines = line_chart(flat(0, 1, 2, 3, 4, 5, 6, 7), 2, 7)
    assert [ASCII.draw([Segment(line)])[0].text for line in lines] == ["  .'", ".'  "]
