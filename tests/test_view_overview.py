"""The overview page: right numbers, right words, and never wider or higher than the screen."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.cells import cell_len

from pool_monitor import metrics
from pool_monitor.snapshot import (
    WINDOW_NAMES,
    Bar,
    CallStats,
    Distribution,
    HistoryView,
    PoolDetail,
    Snapshot,
    Trend,
    WorkerView,
)
from pool_monitor.view import (
    ASCII,
    LIVE,
    UNICODE,
    Freshness,
    Glyphs,
    Line,
    help_page,
    overview,
    plain,
    report,
    visible_workers,
    waiting_page,
)
from pool_monitor.view import format as fmt
from pool_monitor.view.notices import Notice, notices
from pool_monitor.view.overview import layout
from pool_monitor.view.panels import fold_bars
from pool_monitor.view.text import PageSize
from tests.helpers import golden, samples
from tests.helpers.samples import with_pool, with_worker

DASH = "\N{EN DASH}"
STALE = Freshness("STALE", seconds=3)
LOST = Freshness("LOST", seconds=4, reason="connection refused")


def text(lines: list[Line]) -> str:
    return plain(lines)


def row(page: str, start: str) -> list[str]:
    """Return the words of the first line that begins with *start*."""
    return next(line for line in page.splitlines() if line.split()[:1] == [start]).split()


def meanings(lines: list[Line], word: str) -> set[str]:
    return {meaning for line in lines for segment, meaning in line if word in segment}


# golden pages: what people see


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("overview_80x24", (80, 24), {}),
        ("overview_120x40", (120, 40), {}),
        ("overview_200x60", (200, 60), {}),
        ("overview_narrow_60x15", (60, 15), {}),
        ("overview_stale_80x24", (80, 24), {"freshness": STALE}),
        ("overview_ascii_80x24", (80, 24), {"glyphs": ASCII}),
    ],
)
def test_the_overview_matches_the_golden_files(name: str, size: tuple[int, int], options: dict[str, Any]) -> None:
    golden.check(f"{name}.txt", text(overview(samples.measured(), size, **options)))


def test_an_empty_overview_explains_itself() -> None:
    golden.check("overview_empty_80x24.txt", text(overview(samples.empty(), (80, 24))))


def test_an_overview_with_problems_says_what_to_look_at() -> None:
    golden.check("overview_troubled_100x30.txt", text(overview(troubled(), (100, 30), selected="text-3")))


def test_help_and_report_match_the_golden_files() -> None:
    golden.check("help_80x24.txt", text(help_page((80, 24))))
    golden.check("report.txt", report(samples.snapshot()))


def troubled() -> Snapshot:
    snapshot = with_worker(samples.snapshot(), "text-2", state="terminated", pid=None, busy_ratio=None)
    snapshot = with_worker(snapshot, "text-1", state="initializing", operation=None)
    return with_pool(
        snapshot, busy=2, idle=0, starting=1, dead=1, waiting=40, rejected=7, error_ratio=0.123, errors=435
    )


# every size


def nasty_text() -> st.SearchStrategy[str]:
    return st.text(max_size=24) | st.sampled_from(["\x1b[2Jboom", "要約" * 9, "a\nb", "", "🎉" * 12])


def seconds() -> st.SearchStrategy[float | None]:
    return st.none() | st.floats(0, 1e7) | st.floats(0, 1)


def counts() -> st.SearchStrategy[int]:
    return st.integers(0, 30) | st.integers(0, 10**12)


distributions = st.builds(Distribution, count=counts(), mean=seconds(), max=seconds(), p50=seconds(), p95=seconds())
stats: dict[str, st.SearchStrategy[Any]] = {
    "calls": counts(),
    "errors": counts(),
    "rejected": counts(),
    "error_ratio": st.none() | st.floats(0, 1),
    "rate": seconds(),
    "latency": distributions,
    "queue": distributions,
}
worker_views = st.builds(
    WorkerView,
    id=nasty_text(),
    state=st.sampled_from(["initializing", "ready", "busy", "degraded", "terminating", "terminated"]),
    state_age=st.floats(-1, 1e9),
    pid=st.none() | counts(),
    age=seconds(),
    restarts=counts(),
    operation=st.none() | nasty_text(),
    busy_ratio=st.none() | st.floats(0, 1.5),
    last_error=st.none() | nasty_text(),
    last_error_age=seconds(),
    **stats,
)
series = st.lists(st.none() | st.floats(0, 1e6), max_size=90).map(tuple)
short_series = st.lists(st.none() | st.floats(0, 1e6), max_size=9).map(tuple)
trends = st.builds(
    Trend, step=st.sampled_from([1.0, 3.0, 12.0]), end=st.just(1.75e9), ok=series, errors=series, rejected=short_series
)
histograms = st.lists(st.builds(Bar, st.floats(1e-5, 100), counts()), max_size=24).map(
    lambda bars: (*sorted(bars, key=lambda bar: bar.upper or 0), Bar(None, 3))
)
pools = st.builds(
    PoolDetail,
    name=nasty_text(),
    state=st.sampled_from(["new", "starting", "running", "paused", "draining", "closed"]),
    breaker=st.sampled_from([None, "closed", "open", "half_open"]),
    refusals=st.dictionaries(nasty_text(), counts(), max_size=3),
    **{name: counts() for name in ("size", "busy", "idle", "starting", "draining", "dead", "waiting", "queue_limit")},
    **{name: counts() for name in ("sessions", "restarts", "completed")},
    total=st.builds(CallStats, **stats),
    histogram=histograms,
    trend=trends,
    operations=st.just(samples.snapshot().pools["text"].operations) | st.just({}),
    workers=st.lists(worker_views, max_size=9).map(lambda views: {view.id: view for view in views}),
)
snapshots = st.builds(
    lambda pools, host, window, covered: replace(
        samples.snapshot(),
        pools={pool.name: pool for pool in pools},
        service=replace(samples.snapshot().service, host=host, name=host),
        window=window,
        covered_seconds=covered,
    ),
    st.lists(pools, max_size=2),
    nasty_text(),
    st.sampled_from(WINDOW_NAMES),
    st.floats(0, 3600),
)
sizes = st.tuples(st.integers(1, 220), st.integers(1, 70))
freshness_states = st.sampled_from(
    [LIVE, STALE, LOST, Freshness("PAUSED", behind=12), Freshness("LOST", reason="\x1b[2J\n" * 40)]
)
glyph_sets = st.sampled_from([UNICODE, ASCII])


def assert_fits(lines: list[Line], size: tuple[int, int], glyphs: Glyphs) -> None:
    assert len(lines) == size[1]
    for line in lines:
        drawn = "".join(segment.text for segment in line)
        assert cell_len(drawn) <= size[0]
        assert drawn.isprintable()
        assert glyphs is UNICODE or drawn.isascii()


@settings(max_examples=150, deadline=None)
@given(snapshots, sizes, freshness_states, glyph_sets, st.integers(-3, 99))
def test_any_snapshot_fits_any_screen(
    snapshot: Snapshot, size: tuple[int, int], freshness: Freshness, glyphs: Glyphs, offset: int
) -> None:
    slots = [slot for pool in snapshot.pools.values() for slot in pool.workers]
    lines = overview(
        snapshot, size, freshness=freshness, offset=offset, selected=slots[0] if slots else None, glyphs=glyphs
    )
    assert_fits(lines, size, glyphs)
    assert visible_workers(snapshot, size) <= size[1]


@settings(max_examples=60, deadline=None)
@given(sizes, nasty_text(), freshness_states, glyph_sets)
def test_help_and_waiting_fit_any_screen(
    size: tuple[int, int], words: str, freshness: Freshness, glyphs: Glyphs
) -> None:
    assert_fits(help_page(size, glyphs=glyphs), size, glyphs)
    assert_fits(waiting_page(size, words, freshness=freshness, glyphs=glyphs), size, glyphs)


@settings(max_examples=60, deadline=None)
@given(snapshots, glyph_sets)
def test_any_snapshot_can_be_reported(snapshot: Snapshot, glyphs: Glyphs) -> None:
    written = report(snapshot, glyphs=glyphs)
    assert all(line.isprintable() for line in written.split("\n"))
    assert glyphs is UNICODE or written.isascii()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(8, 70), st.integers(40, 220))
def test_the_parts_of_the_body_fill_it_and_never_more(workers: int, operations: int, height: int, width: int) -> None:
    base = samples.snapshot().pools["text"]
    pool = replace(
        base,
        workers={str(i): base.workers["text-0"] for i in range(workers)},
        operations={str(i): base.operations["chat"] for i in range(operations)},
    )
    parts = layout(pool, PageSize(width, height))
    assert parts.charts + parts.workers + parts.gap + parts.operations <= height - 5
    assert parts.workers >= 2 or parts.workers == height - 5 - parts.charts
    assert (parts.charts > 0) == (height >= 20)
    assert parts.operations == 0 or parts.operations >= 2


# right numbers


@given(
    busy=st.integers(0, 99),
    size=st.integers(1, 99),
    waiting=st.integers(0, 999),
    restarts=st.integers(0, 9999),
    rate=st.floats(0, 999),
    p95=st.floats(0, 999),
    ratio=st.floats(0, 1),
)
def test_key_figures_are_the_snapshots(
    busy: int, size: int, waiting: int, restarts: int, rate: float, p95: float, ratio: float
) -> None:
    snapshot = with_pool(
        samples.snapshot(),
        busy=busy,
        size=size,
        waiting=waiting,
        queue_limit=999,
        restarts=restarts,
        rate=rate,
        error_ratio=ratio,
        latency=replace(samples.snapshot().pools["text"].total.latency, p95=p95),
    )
    figures = text(overview(snapshot, (140, 24))).splitlines()[1].replace("▲", "").replace("✖", "")
    assert figures.split() == [
        *("BUSY", f"{busy}/{size}", "QUEUE", f"{waiting}/999", "OK/s", fmt.rate(rate * 3498 / 3540)),
        *("p95", fmt.duration(p95), "ERR", fmt.percent(ratio), "RESTARTS", str(restarts)),
    ]


def test_a_worker_row_shows_its_worker() -> None:
    page = text(overview(samples.measured(), (200, 60)))
    bar = "█████"
    assert row(page, "WORKER") == [
        *("WORKER", "STATE", "OPERATION", "FOR", "CALLS", "ERR", "BUSY", "p95", "RESTARTS", "CPU", "RSS"),
        *("LAST", "ERROR", "PID", "p99", "FDS", "THREADS", "USS", "PS", "CHILDREN", "TIMEOUTS", "AGE"),
    ]
    assert row(page, "text-0") == [
        *("text-0", "●", "busy", "generate", "0.8s", "921", "12", bar, "83%", "1.3s"),
        *("0", "83%", "128M", "OperationTimeout", "42s", "4110", "2.8s", "14", "3", "116M", "R", "0", "4", "12m01s"),
    ]
    assert row(page, "text-3")[-9:] == ["4113", "2.8s", "212", "11", "1.2G", "R", "0", "3", "12m01s"]


def test_a_workers_processor_time_and_memory_are_shown_from_90_columns_on() -> None:
    for width in (90, 100, 120):
        page = text(overview(samples.measured(), (width, 40)))
        place = row(page, "WORKER").index("CPU")
        assert row(page, "WORKER")[place : place + 2] == ["CPU", "RSS"]
        assert row(page, "text-0")[place + 1 : place + 3] == ["83%", "128M"]


def test_a_pool_whose_processes_are_not_measured_has_no_columns_for_their_figures() -> None:
    page = text(overview(with_worker(samples.snapshot(), "text-1", rss=128 * 2**20), (120, 40)))
    assert row(page, "WORKER")[-4:] == ["LAST", "ERROR", "RSS", "PID"]
    assert row(page, "text-1")[-2:] == ["128M", "4188"]
    assert row(page, "text-0")[-2:] == [DASH, "4110"]


@pytest.mark.parametrize(("width", "unknown"), [(100, 2), (200, 6)])
def test_the_figures_of_a_stopped_worker_are_unknown_and_its_letter_says_why(width: int, unknown: int) -> None:
    words = row(text(overview(samples.measured(), (width, 60))), "text-2")
    assert words.count(DASH) == unknown
    assert ("T" in words) == (width == 200)
    selected = text(overview(samples.measured(), (120, 40), selected="text-2")).splitlines()[-2]
    assert f"rss {DASH}  cpu {DASH}  pid 4112  stopped  no figures: the process is stopped" in selected


def test_80_columns_have_room_for_restarts_and_cut_no_number() -> None:
    few = Distribution(count=3, p50=0.0005, p95=0.000504, p99=0.0006)
    hardly = with_worker(samples.snapshot(), "text-1", busy_ratio=0.0001, restarts=12, latency=few)
    page = text(overview(hardly, (80, 24)))
    assert row(page, "WORKER")[-3:] == ["BUSY", "p95", "RESTARTS"]
    assert row(page, "text-1")[-3:] == ["<0.1%", "~504µs", "12"]


@pytest.mark.parametrize("width", [80, 100, 120, 160, 200])
def test_a_tiny_share_is_never_cut(width: int) -> None:
    snapshot = with_worker(samples.snapshot(), "text-1", busy_ratio=0.0001)
    assert "<0.1%" in row(text(overview(snapshot, (width, 40))), "text-1")


def test_a_long_error_is_cut_before_its_age() -> None:
    error = "start: RuntimeError: no licence server answered"
    snapshot = with_worker(samples.snapshot(), "text-1", last_error=error, last_error_age=6.0)
    assert "start: RuntimeError… 6s" in text(overview(snapshot, (100, 30)))
    assert f"{error} 6s " in text(overview(snapshot, (200, 60)))
    short = with_worker(samples.snapshot(), "text-1", last_error="KeyError", last_error_age=6.0)
    assert "KeyError 6s ago" in text(overview(short, (100, 30)))


def test_an_operation_row_shows_its_operation() -> None:
    page = text(overview(samples.snapshot(), (200, 60)))
    assert row(page, "summary") == [
        *("summary", "984", "3.28", "0.8%", "120ms", "410ms", "720ms", "61ms", "389ms", "1.4s", "2", "0", "0"),
    ]


def test_numbers_do_not_change_the_order_of_operations() -> None:
    base = samples.snapshot().pools["text"].operations
    renamed = {name: replace(base["chat"], operation=name) for name in ("other", "zeta", "alpha")}
    page = text(overview(with_pool(samples.snapshot(), operations=renamed), (80, 24)))
    found = [line.split()[0] for line in page.splitlines() if line.startswith((" alpha", " zeta", " other"))]
    assert found == ["alpha", "zeta", "other"]


def test_the_report_has_the_totals_and_all_percentiles() -> None:
    written = report(samples.snapshot())
    assert "3540 calls, 11.8/s; 3498 ok, 42 failed (1.2%), 0 cancelled" in written
    assert row(written, "call") == ["call", "3498", "134ms", "84ms", "910ms", "1.3s", "2.9s", "4.1s", "5.5s"]
    assert row(written, "queue")[4:] == ["43ms", "62ms", "180ms", "252ms", "342ms"]


def test_the_report_has_error_groups_with_samples_and_the_resources() -> None:
    written = report(samples.measured())
    assert "31 in the last 5m (0.10/s), 120 since the start; first 11m42s ago, last 8s ago" in written
    assert 'File "/srv/shop/summaries/client.py", line 88, in send' in written
    assert "worker text-3: leaks 1.1M/s" in written
    assert "57 of 1024" in written
    assert "HOST" not in report(samples.snapshot())


def test_a_report_names_every_pool_or_says_that_there_is_none() -> None:
    assert "no pool yet" in report(replace(samples.snapshot(), pools={}))
    written = report(samples.snapshot(pools=("text", "vision")))
    assert "POOL text:" in written
    assert "POOL vision:" in written


def test_what_was_not_measured_is_unknown_and_not_zero() -> None:
    page = text(overview(samples.empty(), (80, 24)))
    figures = page.splitlines()[1]
    assert f"OK/s {DASH}" in figures
    assert f"p95 {DASH}" in figures
    assert f"ERR {DASH}" in figures
    assert row(page, "text-0")[-2:] == [DASH, "0"]
    unknown = with_worker(samples.snapshot(), "text-2", busy_ratio=None, pid=None, rss=None)
    assert row(text(overview(unknown, (140, 40))), "text-2").count(DASH) == 3


def test_percentiles_of_few_calls_are_marked() -> None:
    few = Distribution(count=7, p50=0.084, p95=1.3, p99=2.9)
    page = text(overview(with_pool(samples.snapshot(), latency=few), (120, 40)))
    assert "p95 ~1.3s" in page
    assert "p99 ~2.9s" in page
    assert "21% ~p50" in page


@pytest.mark.parametrize(
    ("width", "count", "mark"),
    [(120, 7, "~p50-99"), (140, 20, "p50 p95 p99"), (100, 7, "~p50-99"), (100, 20, "p50-99")],
)
def test_percentiles_that_share_a_bar_are_all_named(width: int, count: int, mark: str) -> None:
    same = Distribution(count=count, p50=0.003, p95=0.003, p99=0.003)
    page = text(overview(with_pool(samples.snapshot(), latency=same, histogram=(Bar(0.005, count),)), (width, 40)))
    assert re.search(r"100% (\S+(?: p\d\d)*) *│", page)[1] == mark
    assert "~" in mark or count == 20


# charts


def test_the_throughput_axis_carries_numbers_that_fall_to_zero_and_times_that_rise_to_now() -> None:
    page = text(overview(samples.snapshot(), (80, 24)))
    labels = [float(match) for match in re.findall(r"^│ +([\d.]+)┤", page, re.MULTILINE)]
    assert labels == [20, 10, 0]
    times = next(line for line in page.splitlines() if line.startswith("╰"))
    assert re.findall(r"-?[\dms]+[ms]|now", times) == ["-5m", "-2m30s", "now"]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_an_hour_has_its_times_at_its_axis_and_none_of_its_values_is_lost(size: tuple[int, int]) -> None:
    snapshot = replace(samples.snapshot(window="1h"), uptime=9e4, covered_seconds=3580.0)
    trend = samples.trend(int(snapshot.taken_at), "1h")
    spike = replace(trend, ok=tuple(50.0 if index == 137 else 1.0 for index in range(300)))
    lines = text(overview(with_pool(snapshot, trend=spike), size)).splitlines()
    times = next(line for line in lines if line.startswith("╰"))
    assert re.findall(r"-[\dmhs]+|now", times.partition("╯")[0]) == ["-1h", "-30m", "now"]
    assert "last 1h" in lines[0]
    assert "· last 1h ─" in text(overview(snapshot, size))
    [top] = [line for line in lines if re.match(r"│ +50┤", line)]
    assert len(top.partition("┤")[2].partition("│")[0].replace("⠀", "")) == 1


@pytest.mark.parametrize("pools", [("text",), ("text", "vision")])
def test_the_keys_of_what_needs_attention_have_room_in_80_columns(pools: tuple[str, ...]) -> None:
    last = text(overview(samples.snapshot(pools=pools), (80, 24))).splitlines()[-1]
    wanted = ["n notices", "a alerts", "e errors", "1-4 window"]
    wanted += ["p pools", "tab next"] if len(pools) > 1 else ["o ops", "r res"]
    assert all(f" {key} " in f"{last} " for key in wanted)


def test_time_that_was_not_measured_is_left_empty_in_line_and_errors() -> None:
    pool = samples.snapshot().pools["text"]
    half = replace(pool.trend, ok=(None,) * 150 + pool.trend.ok[150:], errors=(None,) * 150 + pool.trend.errors[150:])
    lines = text(overview(with_pool(samples.snapshot(), trend=half), (80, 24))).splitlines()
    chart = [line[7:-1] for line in lines if re.match(r"│ +[\d.]*[┤│]", line)]
    assert all(set(line[:35]) == {"⠀"} for line in chart)
    assert any(set(line[37:]) != {"⠀"} for line in chart)
    errors = next(line for line in lines if "err┤" in line)[7:-1]
    assert set(errors[:35]) == {"·"}
    assert "·" not in errors[37:]


def test_errors_stand_under_the_second_they_happened_in() -> None:
    errors = (0.0,) * 150 + (4.0,) + (0.0,) * 149
    trend = replace(samples.snapshot().pools["text"].trend, errors=errors)
    lines = text(overview(with_pool(samples.snapshot(), trend=trend), (80, 24))).splitlines()
    strip = next(line for line in lines if "err┤" in line)[7:-1]
    assert [index for index, cell in enumerate(strip) if cell != " "] == [len(strip) // 2 - 1]


def test_latency_bars_carry_their_share_and_the_percentiles_they_hold() -> None:
    page = text(overview(samples.snapshot(), (120, 40)))
    bars = re.findall(r"([≤>]\S+) ([█▏▎▍▌▋▊▉]+) +(\S+%)((?: p\d\d)*)", page)
    assert [bound for bound, *_ in bars][:4] == ["≤3.91ms", "≤7.82ms", "≤15.7ms", "≤31.3ms"]
    assert bars[-1][0] == ">2s"
    assert {bound: marks.strip() for bound, _, _, marks in bars if marks} == {
        "≤125ms": "p50",
        "≤2s": "p95",
        ">2s": "p99",
    }
    assert {bound: share for bound, _, share, _ in bars}["≤125ms"] == "21%"
    longest = max(bars, key=lambda found: len(found[1]))
    assert longest[0] == "≤125ms"


@given(st.lists(counts(), min_size=1, max_size=20), st.integers(1, 12))
def test_folded_bars_still_count_every_call(tallies: list[int], most: int) -> None:
    bars = [Bar(float(index + 1), tally) for index, tally in enumerate(tallies)]
    folded = fold_bars(bars, most)
    assert len(folded) == min(len(bars), most)
    assert sum(bar.count for bar in folded) == sum(tallies)
    below = 0
    for bar in folded:
        below += bar.count
        assert bar.upper is None or below == sum(tallies[: int(bar.upper)])


def test_a_window_without_calls_has_words_instead_of_a_chart() -> None:
    quiet = with_pool(samples.empty(), completed=8312)
    page = text(overview(quiet, (80, 24)))
    assert "no call ended in the last 5m" in page
    assert "8312 calls before" in page
    assert "no calls yet" in text(overview(samples.empty(), (80, 24)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"calls": 3, "ok": 3, "completed": 3}, ["3 calls ended in the last 5m", "this chart has them in a moment"]),
        ({"calls": 2, "errors": 2, "completed": 2}, ["no call ended well in the last 5m", "2 failed"]),
        (
            {"calls": 2, "cancelled": 2, "completed": 9},
            ["no call ended well in the last 5m", "2 cancelled, 7 calls before"],
        ),
        ({"rejected": 5, "completed": 5, "refusals": {"closed": 5}}, ["no call ended in the last 5m", "5 rejected "]),
        ({"completed": 8, "refusals": {"closed": 6, "timeout": 1}}, ["no call ended in the last 5m", " 1 call before"]),
        ({"completed": 7, "refusals": {"closed": 7}}, ["no call ended in the last 5m"]),
    ],
)
def test_the_words_for_an_empty_chart_match_the_tables(changes: dict[str, Any], expected: list[str]) -> None:
    page = text(overview(with_pool(samples.empty(), **changes), (120, 40)))
    throughput, latency = (
        "\n".join(part) for part in zip(*(line.split("││") for line in page.splitlines() if "││" in line), strict=True)
    )
    for words in expected:
        assert words in throughput
        assert words in latency
    if not any("before" in words for words in expected):
        assert "before" not in page
    assert "no calls yet" not in throughput


def test_a_window_with_only_failures_has_an_error_chart_and_no_latency_chart() -> None:
    failed = with_pool(samples.snapshot(), histogram=(), latency=Distribution(), ok=0, calls=42, completed=42)
    page = text(overview(failed, (120, 40)))
    assert "no call ended well in the last 5m" in page
    assert "errors up to" in page


def test_a_young_window_says_how_much_of_it_is_covered() -> None:
    assert "4s of 5m so far" in text(overview(samples.empty(), (80, 24)))
    assert "so far" not in text(overview(samples.snapshot(), (80, 24)))


@pytest.mark.parametrize("window", WINDOW_NAMES)
def test_a_window_that_slides_by_steps_is_not_taken_for_a_young_one(window: str) -> None:
    step = metrics.WINDOWS[window].step
    snapshot = samples.snapshot(window=window)
    whole = replace(snapshot, uptime=9e4, covered_seconds=snapshot.window_seconds - step)
    assert f"· last {window} ─" in text(overview(whole, (80, 24)))
    assert "so far" in text(overview(replace(whole, covered_seconds=whole.covered_seconds - 2 * step), (80, 24)))


def test_the_windows_to_choose_from_are_the_windows_that_exist() -> None:
    assert list(metrics.WINDOWS) == list(WINDOW_NAMES)


# attention


def trouble(**changes: Any) -> list[Notice]:
    snapshot = with_pool(samples.snapshot(), **changes)
    return notices(snapshot, snapshot.pools["text"], LIVE)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, []),
        ({"error_ratio": 0.0199}, []),
        ({"error_ratio": 0.02}, [("warn", "2.0% of 3540 calls failed")]),
        ({"error_ratio": 0.0999}, [("warn", "10% of 3540 calls failed")]),
        ({"error_ratio": 0.10}, [("bad", "10% of 3540 calls failed")]),
        ({"error_ratio": 0.5, "calls": 4, "errors": 2}, []),
        ({"error_ratio": 0.6, "calls": 5, "errors": 3}, [("bad", "60% of 5 calls failed")]),
        ({"deaths": 1}, [("warn", "1 worker died in the last 5m")]),
        ({"deaths": 1, "last_death": "exit code 70"}, [("warn", "1 worker died in the last 5m: exit code 70")]),
        (
            {"deaths": 7, "last_death": "exit\ncode 70"},
            [("warn", "7 workers died in the last 5m, the latest: exit code 70")],
        ),
        (
            {"deaths": 7, "error_ratio": 0.05},
            [("warn", "7 workers died in the last 5m"), ("warn", "5.0% of 3540 calls failed")],
        ),
        ({"deaths": 7}, [("warn", "7 workers died in the last 5m")]),
        ({"deaths": 8}, [("bad", "8 workers died in the last 5m")]),
        ({"deaths": 2, "size": 1}, [("bad", "2 workers died in the last 5m")]),
        ({"deaths": 2, "size": 0}, [("bad", "2 workers died in the last 5m")]),
        ({"error_ratio": None, "calls": 0}, []),
        ({"waiting": 31}, []),
        ({"waiting": 32}, [("warn", "queue: 32 of 64 places taken")]),
        ({"waiting": 52}, [("bad", "queue: 52 of 64 places taken")]),
        ({"waiting": 64}, [("bad", "queue is full: 64 of 64 places taken")]),
        ({"waiting": 0, "queue_limit": 0}, []),
        ({"rejected": 1}, [("warn", "1 of 3541 calls rejected (<0.1%)")]),
        ({"rejected": 2, "calls": 2}, [("warn", "2 of 4 calls rejected (50%)")]),
        ({"rejected": 3, "calls": 27}, [("bad", "3 of 30 calls rejected (10%)")]),
        (
            {"rejected": 900, "calls": 100, "refusals": {"saturated": 800, "timeout": 100, "closed": 0}},
            [("bad", "900 of 1000 calls rejected (90%); since the start: 800 saturated, 100 timeout")],
        ),
        ({"state": "draining"}, [("warn", "pool is draining")]),
        ({"state": "paused"}, [("bad", "pool is paused: 2 calls wait")]),
        ({"state": "paused", "waiting": 0}, [("warn", "pool is paused")]),
        ({"breaker": "closed"}, []),
        ({"breaker": "open"}, [("bad", "circuit breaker is open: calls are refused")]),
        (
            {"breaker": "half_open"},
            [("warn", "circuit breaker is half open: a few calls are let through on trial")],
        ),
    ],
)
def test_the_notices_of_a_pool(changes: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    assert trouble(**changes) == wanted


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ("ready", []),
        ("busy", []),
        ("terminating", []),
        ("terminated", [("bad", "1 worker dead: text-2")]),
        ("degraded", [("warn", "1 worker degraded, not answering: text-2")]),
        ("initializing", [("warn", "1 worker starting: text-2")]),
    ],
)
def test_the_notices_of_workers(state: str, wanted: list[tuple[str, str]]) -> None:
    snapshot = with_worker(samples.snapshot(), "text-2", state=state)
    assert notices(snapshot, snapshot.pools["text"], LIVE) == wanted


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"health": "busy"}, []),
        ({"health": "stuck"}, [("warn", "text-2 neither answers nor computes")]),
        ({"crash_loop": True}, [("bad", "text-2 is in a crash loop")]),
        ({"crash_loop": True, "last_error": "KeyError"}, [("bad", "text-2 is in a crash loop")]),
        ({"crash_loop": True, "last_error": "crash: signal 9"}, [("bad", "text-2 is in a crash loop: signal 9")]),
        ({"crash_loop": True, "last_error": "start: OSError: no"}, [("bad", "text-2 is in a crash loop: OSError: no")]),
        (
            {"crash_loop": True, "state": "terminated", "last_error": "crash: signal 9"},
            [("bad", "text-2 is in a crash loop: signal 9")],
        ),
        ({"state": "terminated", "last_error": "start: OSError: no"}, [("bad", "text-2 cannot start: OSError: no")]),
        ({"state": "initializing", "last_error": "start: OSError: no"}, [("bad", "text-2 cannot start: OSError: no")]),
        ({"state": "ready", "last_error": "start: OSError: no"}, []),
        ({"state": "terminated", "last_error": "crash: signal 9"}, [("bad", "1 worker dead: text-2")]),
        ({"state": "initializing", "last_error": "KeyError"}, [("warn", "1 worker starting: text-2")]),
    ],
)
def test_a_worker_that_is_stuck_or_in_a_crash_loop_has_a_notice(change: dict[str, Any], wanted: list[Any]) -> None:
    snapshot = with_worker(samples.snapshot(), "text-2", **change)
    assert notices(snapshot, snapshot.pools["text"], LIVE) == wanted


@pytest.mark.parametrize(
    ("state", "words", "meaning"),
    [
        ("ready", "○ idle", "dim"),
        ("busy", "● busy", "plain"),
        ("initializing", "◐ starting", "warn"),
        ("degraded", "▲ degraded", "warn"),
        ("terminating", "◌ draining", "dim"),
        ("terminated", "✖ dead", "bad"),
    ],
)
def test_a_workers_state_is_a_symbol_a_word_and_a_meaning(state: str, words: str, meaning: str) -> None:
    lines = overview(with_worker(samples.snapshot(), "text-2", state=state), (80, 24))
    worker = next(line for line in lines if line[0].text.strip() == "text-2")
    assert (worker[1].text.strip(), worker[1].meaning) == (words, meaning)


def test_many_workers_with_a_problem_are_counted_and_the_first_is_named() -> None:
    snapshot = samples.snapshot()
    for slot in ("text-0", "text-1", "text-2", "text-3"):
        snapshot = with_worker(snapshot, slot, state="terminated")
    assert notices(snapshot, snapshot.pools["text"], LIVE) == [("bad", "4 workers dead: text-0, …")]


def failing() -> Snapshot:
    """Return a Snapshot of a pool whose workers no longer start, with all consequences."""
    snapshot = with_pool(
        samples.snapshot(), breaker="open", rejected=99, error_ratio=0.3, errors=900, deaths=9, waiting=64, busy=0
    )
    for index, slot in enumerate(snapshot.pools["text"].workers):
        changes = {"last_error": f"start: OSError: no lic {index}", "last_error_age": abs(index - 2) + 0.5}
        snapshot = with_worker(
            snapshot, slot, state=("terminated", "initializing")[index % 2], crash_loop=True, **changes
        )
    return snapshot


def test_80_columns_show_why_workers_cannot_start_before_the_consequences() -> None:
    line = text(overview(failing(), (80, 24))).splitlines()[3]
    assert line.startswith(" ✖ 4 workers cannot start: OSError: no lic 2  ✖ circuit breaker is")
    assert line.endswith("… +4 more: n")


def test_the_reason_begins_even_behind_a_worse_notice() -> None:
    lost = Freshness("LOST", seconds=4, reason="connection refused")
    line = text(overview(failing(), (80, 24), freshness=lost)).splitlines()[3]
    assert line.startswith(" ✖ connection lost: connection refused  ✖ 4 workers cannot start… +5 more: n")
    last = with_pool(samples.snapshot(), state="paused", waiting=0)
    last = text(overview(last, (80, 24), freshness=lost)).splitlines()[3]
    assert last == " ✖ connection lost: connection refused  ▲ pool is paused"
    doubtful = replace(samples.snapshot(), monitor=replace(samples.snapshot().monitor, dropped=12))
    last = text(overview(doubtful, (80, 24), freshness=lost)).splitlines()[3]
    assert last == " ✖ connection lost: connection refused  +1 more: n"


def test_workers_of_a_starting_or_closed_pool_have_no_notices() -> None:
    starting = with_worker(with_pool(samples.snapshot(), state="starting"), "text-2", state="initializing")
    assert [notice.text for notice in notices(starting, starting.pools["text"], LIVE)] == ["pool is starting"]
    closed = with_worker(with_pool(samples.snapshot(), state="closed"), "text-2", state="terminated")
    assert [notice.text for notice in notices(closed, closed.pools["text"], LIVE)] == ["pool is closed"]


def history(degraded: str | None) -> HistoryView:
    return HistoryView(
        path="text.db", degraded=degraded, held=0, dropped=0, file_bytes=None, size_limit=1, flush_seconds=None
    )


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"collecting": False}, [("bad", "monitor stopped collecting: numbers stand still")]),
        ({"dropped": 12}, [("warn", "12 events dropped: counts are lower bounds")]),
        ({"handler_failures": 1}, [("warn", "1 telemetry handler failed and detached")]),
        ({"weights": {"pool.worker.crash": 1, "pool.operation.stop": 10}}, []),
        (
            {"weights": {"pool.worker.crash": 0, "pool.error": 0}},
            [("warn", "filtered out, and counted as nothing: pool.worker.crash, pool.error")],
        ),
        ({"history": history(None)}, []),
        ({"history": history("disk full")}, [("warn", "the history is not written: disk full")]),
    ],
)
def test_doubts_about_the_numbers_are_notices(changes: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    snapshot = samples.snapshot()
    snapshot = replace(snapshot, monitor=replace(snapshot.monitor, **changes))
    assert notices(snapshot, snapshot.pools["text"], LIVE) == wanted


def test_the_worst_comes_first_and_what_does_not_fit_is_counted() -> None:
    lines = overview(troubled(), (80, 24))
    assert text(lines).splitlines()[3] == " ✖ 1 worker dead: text-2  ✖ 12% of 3540 calls failed  +3 more: n"
    assert meanings(lines, "worker dead") == {"bad"}
    wide = overview(troubled(), (200, 24))
    assert meanings(wide, "worker starting") == {"warn"}
    levels = [segment.text.strip()[0] for segment in wide[3] if segment.text.strip()]
    assert levels == ["✖", "✖", "▲", "▲", "▲"]


def test_a_level_is_shown_by_a_symbol_and_not_by_colour_alone() -> None:
    figures = text(overview(troubled(), (120, 24))).splitlines()[1]
    assert "QUEUE 40/64▲" in figures
    assert "ERR 12%✖" in figures
    for line in overview(troubled(), (120, 40)):
        for segment, meaning in line:
            if meaning in {"warn", "bad"} and any(char.isalnum() for char in segment):
                assert any(symbol in segment for symbol in "▲✖◐"), segment


def test_the_absence_of_notices_is_stated_in_the_same_place() -> None:
    calm, tense = (text(overview(each, (80, 24))).splitlines() for each in (samples.snapshot(), troubled()))
    assert calm[3] == " nothing needs attention"
    assert calm[4] == tense[4]


# freshness


@pytest.mark.parametrize(
    ("freshness", "word"),
    [
        (LIVE, "● LIVE"),
        (Freshness("PAUSED"), "‖ PAUSED"),
        (Freshness("PAUSED", behind=12), "‖ PAUSED 12 behind"),
        (Freshness("STALE", seconds=3), "▲ STALE 3s"),
        (Freshness("STALE", seconds=125), "▲ STALE 2m05s"),
        (Freshness("LOST", seconds=4), "✖ LOST retry 4s"),
    ],
)
@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_freshness_is_always_at_the_right_end(freshness: Freshness, word: str, width: int) -> None:
    assert text(overview(samples.snapshot(), (width, 24), freshness=freshness)).splitlines()[0].endswith(f" {word}")


@pytest.mark.parametrize(
    ("freshness", "meaning"),
    [(LIVE, "bar-strong"), (Freshness("PAUSED"), "bar-strong"), (STALE, "bar-warn"), (LOST, "bar-bad")],
)
def test_the_freshness_stands_out_more_the_older_the_numbers_may_be(freshness: Freshness, meaning: str) -> None:
    assert meanings(overview(samples.snapshot(), (80, 24), freshness=freshness)[:1], freshness.state) == {meaning}


@pytest.mark.parametrize("freshness", [STALE, LOST])
def test_outdated_numbers_never_look_live(freshness: Freshness) -> None:
    lines = overview(troubled(), (120, 40), freshness=freshness, selected="text-3")
    body = [segment for index, line in enumerate(lines[1:-1], start=1) for segment in line if index != 3]
    assert {segment.meaning for segment in body if segment.text.strip()} == {"dim"}


def test_the_notice_line_says_why_numbers_are_old() -> None:
    assert "▲ no snapshot for 3s" in text(overview(samples.snapshot(), (80, 24), freshness=STALE)).splitlines()[3]
    lost = overview(samples.snapshot(), (80, 24), freshness=LOST)
    assert "✖ connection lost: connection refused" in text(lost).splitlines()[3]
    paused = overview(samples.snapshot(), (80, 24), freshness=Freshness("PAUSED", reason="gone"))
    assert "connection lost: gone" in text(paused)


def test_a_tiny_screen_says_what_it_needs() -> None:
    assert text(overview(samples.snapshot(), (60, 7))).splitlines()[0] == "3/4 busy, 2 waiting; needs 40x8, has 60x7"
    assert text(overview(samples.snapshot(), (38, 6), freshness=STALE)).splitlines()[0] == "STALE needs 40x8, has 38x6"


# layout


@pytest.mark.parametrize(
    ("size", "throughput", "latency", "figures"),
    [
        ((80, 24), True, False, 6),
        ((99, 24), True, False, 6),
        ((100, 24), True, True, 6),
        ((100, 19), False, False, 6),
        ((71, 24), True, False, 4),
        ((72, 19), False, False, 6),
        ((47, 10), False, False, 3),
    ],
)
def test_what_a_screen_shows_depends_on_its_size_alone(
    size: tuple[int, int], throughput: bool, latency: bool, figures: int
) -> None:
    page = text(overview(samples.snapshot(), size))
    assert ("throughput" in page) == throughput
    assert ("─ latency" in page) == latency
    names = ("BUSY", "QUEUE", "OK/s", "p95", "ERR", "RESTARTS")
    assert sum(name in page.splitlines()[1] for name in names) == figures


def test_columns_stay_where_they_are_whatever_the_data() -> None:
    pages = [text(overview(samples.snapshot(tick), (120, 40))).splitlines() for tick in range(0, 300, 37)]
    pages.append(text(overview(troubled(), (120, 40))).splitlines())
    for one, two in pairwise(pages):
        for index, line in enumerate(one):
            if line.startswith((" WORKER", " OPERATION", "╭", "╰")):
                assert re.sub("up to .*?/s ─", "", line)[:40] == re.sub("up to .*?/s ─", "", two[index])[:40]


def test_no_figure_loses_a_digit_on_a_narrow_screen() -> None:
    crowded = with_pool(samples.snapshot(), waiting=1024, queue_limit=4096, busy=128, size=256)
    assert row(text(overview(crowded, (40, 10))), "BUSY")[:4] == ["BUSY", "128/256", "QUEUE", "1024"]


def test_a_queue_without_a_limit_is_drawn_without_one() -> None:
    open_ended = with_pool(samples.snapshot(), waiting=3, queue_limit=0)
    assert row(text(overview(open_ended, (120, 40))), "BUSY")[2:4] == ["QUEUE", "3"]


# many workers, many pools


def test_workers_that_do_not_fit_are_counted() -> None:
    many = samples.snapshot(workers=64)
    page = text(overview(many, (80, 24)))
    shown = visible_workers(many, (80, 24))
    assert len(re.findall(r"^ text-\d+", page, re.MULTILINE)) == shown
    assert f"… {64 - shown} more" in page


def test_scrolling_shows_the_rows_from_the_offset_on() -> None:
    many = samples.snapshot(workers=64)
    shown = visible_workers(many, (80, 24))
    page = text(overview(many, (80, 24), offset=10))
    assert re.findall(r"^ (text-\d+)", page, re.MULTILINE) == [f"text-{index}" for index in range(10, 10 + shown)]
    assert f"… 10 above, {64 - 10 - shown} below" in page
    last = text(overview(many, (80, 24), offset=999))
    assert re.findall(r"^ (text-\d+)", last, re.MULTILINE)[-1] == "text-63"


def test_the_selected_row_is_marked_from_edge_to_edge() -> None:
    lines = overview(samples.snapshot(), (80, 24), selected="text-3")
    marked = [line for line in lines if any(segment.meaning == "selected" for segment in line)]
    assert len(marked) == 1
    assert {segment.meaning for segment in marked[0]} == {"selected"}
    assert sum(cell_len(segment.text) for segment in marked[0]) == 80


def test_a_line_above_the_keys_has_more_about_the_selected_worker() -> None:
    snapshot = with_worker(
        samples.snapshot(), "text-1", rss=48_234_496, health="responsive", last_error="crash: signal 9"
    )
    lines = text(overview(snapshot, (80, 24), selected="text-1")).splitlines()
    assert lines[-2] == f" text-1  crash: signal 9 6m42s ago  1 restart  rss 46.0M  cpu {DASH}  pid 4188"
    assert lines[-1].startswith(" q quit  ? help")
    wide = text(overview(snapshot, (120, 24), selected="text-1")).splitlines()
    assert wide[-2].endswith("pid 4188  up 6m42s  responsive")
    assert overview(snapshot, (80, 24), selected="gone") == overview(snapshot, (80, 24))


def test_a_long_error_of_the_selected_worker_leaves_room_for_its_restarts() -> None:
    snapshot = with_worker(samples.snapshot(), "text-1", last_error="start: " + "x" * 73)
    last = text(overview(snapshot, (80, 24), selected="text-1")).splitlines()[-2]
    assert last.endswith(f"xx… 6m42s  1 restart  rss {DASH}")
    leaking = text(overview(samples.measured(), (80, 24), selected="text-3")).splitlines()[-2]
    assert leaking == " text-3  ▲ leaks 1.1M/s: reaches its limit of 2.0G in 10m  0 restarts  rss 1.2G"
    stuck = with_worker(samples.snapshot(), "text-2", state="degraded", health="responsive")
    assert text(overview(stuck, (80, 24), selected="text-2")).splitlines()[-2].endswith("not answering")


def test_outdated_details_of_the_selected_worker_never_look_live() -> None:
    assert {
        segment.meaning for segment in overview(samples.snapshot(), (80, 24), freshness=STALE, selected="text-1")[-2]
    } <= {
        "dim",
        "plain",
    }


def test_the_pool_is_named_and_counted_when_there_are_several() -> None:
    two = samples.snapshot(pools=("text", "vision"))
    assert "pool 2/2 vision" in text(overview(two, (80, 24), pool="vision")).splitlines()[0]
    assert "vision-0" in text(overview(two, (80, 24), pool="vision"))
    assert "tab next" in text(overview(two, (80, 24)))
    assert "tab" not in text(overview(samples.snapshot(), (80, 24)))


def test_the_first_pool_replaces_a_pool_that_has_disappeared() -> None:
    assert "text-0" in text(overview(samples.snapshot(), (80, 24), pool="gone"))


def test_a_service_without_a_pool_is_explained() -> None:
    page = text(overview(replace(samples.snapshot(), pools={}), (80, 24)))
    assert "no pool has been entered" in page
    assert visible_workers(replace(samples.snapshot(), pools={}), (80, 24)) == 0


def test_the_waiting_page_says_what_the_dashboard_waits_for() -> None:
    page = waiting_page((80, 24), "connecting to articles")
    assert "connecting to articles" in text(page)
    lost = waiting_page((80, 24), "articles: refused", freshness=LOST)
    assert "✖ LOST retry 4s" in text(lost)
    assert meanings(lost, "refused") == {"bad"}


@pytest.mark.parametrize("module", ["pool_monitor.view", "pool_monitor.dashboard.terminal"])
def test_without_a_terminal_no_terminal_library_is_loaded(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('textual', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
