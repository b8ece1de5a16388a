"""The gauges of the overview and the page of resources: right figures, right reasons, nothing that jumps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pool_monitor.snapshot import (
    Distribution,
    FaultView,
    GpuView,
    HistoryView,
    HostView,
    LoopView,
    MonitorMode,
    OtlpView,
    ProcessView,
    ResourceView,
    Snapshot,
)
from pool_monitor.view import ASCII, Glyphs, PageState, listing, max_offset, overview, plain
from pool_monitor.view.gauges import GAUGES, gauge_line
from pool_monitor.view.page_frame import WorkerStack
from pool_monitor.view.stack_lines import stack_lines
from pool_monitor.view.text import line_width, wrap_code
from tests.helpers import golden, samples
from tests.test_view_overview import assert_fits, glyph_sets, nasty_text, sizes

SIZES = [(80, 24), (120, 40), (200, 60)]
DASH = "\N{EN DASH}"


def having(**changes: Any) -> Snapshot:
    """Return `samples.measured` with *changes* to its resources."""
    snapshot = samples.measured()
    return replace(snapshot, resources=replace(snapshot.resources, **changes))


def page(snapshot: Snapshot, size: tuple[int, int] = (80, 60), **options: Any) -> str:
    return plain(listing("resources", snapshot, size, **options))


def gauges(snapshot: Snapshot, cells: int = 80) -> str:
    return plain([gauge_line(snapshot, cells)]).rstrip("\n")


# the gauges


def test_80_columns_have_the_six_most_important_gauges() -> None:
    words = " CPU 43% of 4 MEM 61%      LAG 8.4ms    RSS 128M     FDS 57/1024  LOAD 2.10"
    assert gauges(samples.measured()) == words
    assert plain(overview(samples.measured(), (80, 24))).splitlines()[4] == words


def test_wide_screens_have_all_gauges_and_narrow_ones_leave_some_out_whole() -> None:
    wide = gauges(samples.measured(), 200)
    assert all(f" {gauge.name} " in wide for gauge in GAUGES)
    assert gauges(samples.measured(), 40).split() == ["CPU", "43%", "of", "4", "MEM", "61%", "LAG", "8.4ms"]


@pytest.mark.parametrize("cells", [40, 79, 80, 120, 200])
def test_gauges_stand_in_the_same_places_whatever_they_show(cells: int) -> None:
    empty = having(host=HostView(), process=ProcessView(), loop=LoopView())
    lines = [gauges(samples.measured(), cells), gauges(empty, cells)]
    places = [[line.index(f" {gauge.name} ") for gauge in GAUGES if f" {gauge.name} " in line] for line in lines]
    assert places[0] == places[1]


def test_a_gauge_that_is_unknown_is_shown_as_that_and_without_a_sample_there_is_no_row() -> None:
    assert gauges(having(host=HostView())).split()[:4] == ["CPU", DASH, "MEM", DASH]
    assert gauges(having(sampled_age=None)) == ""
    without, with_row = (plain(overview(one, (80, 24))) for one in (having(sampled_age=None), samples.measured()))
    assert "LAG" not in without
    assert "LAG" in with_row


def test_a_small_screen_keeps_its_rows_for_workers() -> None:
    assert "LAG" not in plain(overview(samples.measured(), (80, 17)))


def test_a_blocked_loop_takes_the_place_of_its_lag() -> None:
    assert " BLOCKED 2s✖ " in gauges(having(loop=LoopView(blocked=2.4, blocks=3)))


@pytest.mark.parametrize(
    ("subject", "kind", "words"),
    [("host", "memory", "MEM 61%▲"), ("host", "cpu", "CPU 43%▲"), ("loop", "lag", "LAG 8.4ms▲")],
)
def test_a_gauge_with_a_fault_has_its_symbol(subject: str, kind: str, words: str) -> None:
    fault = FaultView(kind=kind, level="warn", subject=subject, since=samples.START)
    assert words in gauges(having(faults=(fault,)))
    bad = replace(fault, level="bad")
    assert words.replace("▲", "✖") in gauges(having(faults=(fault, bad)))


# the page


@pytest.mark.parametrize("size", SIZES)
def test_the_page_matches_the_golden_files(size: tuple[int, int]) -> None:
    golden.check(f"resources_frame_{size[0]}x{size[1]}.txt", page(samples.measured(), size, frame_seconds=0.0061))


def test_an_unmeasured_service_says_so() -> None:
    shown = page(samples.snapshot())
    assert "not sampled yet" in shown
    assert "none: no limit is reached" in shown
    assert not [line for line in shown.splitlines() if line.startswith("  cpu") and DASH not in line]


def test_reasons_of_missing_figures_are_given_once_for_all_they_hold_for() -> None:
    missing = {"swap_total": "no swap", "shm_total": "no\x1b shm", "swap_used": "no swap"}
    shown = page(having(host=HostView(missing=missing)))
    assert f"  {DASH} swap_total, swap_used: no swap\n" in shown
    assert f"  {DASH} shm_total: no? shm\n" in shown


def test_a_blocked_loop_shows_for_how_long_and_what_it_runs_last() -> None:
    shown = page(having(loop=replace(samples.resources().loop, blocked=2.4)))
    assert "✖ now, for 2s" in shown
    assert shown.index("in handle") < shown.index("in render") < shown.index("time.sleep")


def test_gpus_are_listed_or_their_absence_has_its_reason() -> None:
    assert "GPUS  not available: the library nvidia-ml-py is not installed" in page(samples.measured())
    gpu = GpuView(index=1, name="A100", utilisation=0.43, memory_total=2**35, memory_used=2**33, memory_ratio=0.25)
    shown = page(having(gpus=(gpu,), missing={}), (120, 60))
    assert " ".join(shown.partition("gpu 1")[2].split("\n")[0].split()) == (
        f"43% busy memory 8.0G of 32.0G, 25% {DASH}, {DASH} A100"
    )


def test_a_fault_is_shown_with_its_reason_and_since_when() -> None:
    assert "▲ worker text-3: leaks 1.1M/s: reaches its limit of 2.0G in 10m; for 2m04s" in page(samples.measured())


def test_of_very_many_faults_the_worst_are_listed_and_the_others_counted() -> None:
    fault = samples.resources().faults[0]
    shown = page(having(faults=(fault,) * 120), (80, 200))
    assert shown.count("worker text-3: leaks") == 50
    assert "… 70 more" in shown


def test_the_monitor_shows_its_parts() -> None:
    history = HistoryView(
        path="h.db", degraded="disk\nfull", held=3, dropped=0, file_bytes=2**20, size_limit=2**30, flush_seconds=0.002
    )
    otlp = OtlpView(endpoint="e", exported=7, failed=1, rejected=0, last_error="refused")
    snapshot = replace(samples.measured(), monitor=replace(samples.measured().monitor, history=history, otlp=otlp))
    shown = " ".join(page(snapshot, (120, 60)).split())
    assert f"history 1.0M of 1.0G flush 2.0ms waiting 3.0s disk {DASH} ▲ disk full" in shown
    assert "otlp accepted 7 failed 1 refused" in shown


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("full", "keeps everything (full)"),
        ("sampled", "keeps ▲ all counts, percentiles from a sample (sampled)"),
        ("counters", "keeps ▲ all counts, no durations (counters)"),
        ("off", "keeps ▲ nothing (off)"),
    ],
)
def test_the_monitor_says_what_it_keeps_and_what_is_degraded(mode: MonitorMode, words: str) -> None:
    monitor = replace(samples.measured().monitor, mode=mode, degraded={"otlp": "refused\x1b"}, off_seconds=75.0)
    shown = " ".join(page(replace(samples.measured(), monitor=monitor), (120, 60)).split())
    assert words in shown
    assert "off for 1m15s" in shown
    assert "▲ otlp: refused?" in shown


def test_the_monitor_says_that_it_kept_less_a_while_ago() -> None:
    monitor = replace(samples.measured().monitor, reduced_age=130.0)
    assert "less until 2m10s ago" in page(replace(samples.measured(), monitor=monitor), (120, 60))


def test_the_last_line_of_a_long_page_can_be_scrolled_to() -> None:
    most = max_offset("resources", samples.measured(), (80, 24), state=PageState(frame_seconds=0.0061))
    assert "this screen 6.1ms a frame" in page(samples.measured(), (80, 24), offset=most, frame_seconds=0.0061)


numbers = st.none() | st.floats(allow_nan=True) | st.integers(-1, 10**15)
resource_views = st.builds(
    ResourceView,
    host=st.builds(HostView, cpus=numbers, cpu_ratio=numbers, load1=numbers, disk_path=st.none() | nasty_text(),
                   memory_total=st.none() | st.integers(0, 10**15),
                   missing=st.dictionaries(nasty_text(), nasty_text(), max_size=3)),
    process=st.builds(ProcessView, rss=st.none() | st.integers(0, 10**15), fds=st.none() | st.integers(0, 10**9)),
    loop=st.builds(LoopView, lag=st.builds(Distribution, p99=st.none() | st.floats(0, 1e9)),
                   blocked=st.none() | st.floats(0, 1e9), stack=st.none() | nasty_text()),
    gpus=st.lists(st.builds(GpuView, index=st.integers(0, 9), name=st.none() | nasty_text()), max_size=2).map(tuple),
    faults=st.lists(st.builds(FaultView, kind=nasty_text(), level=st.sampled_from(["warn", "bad"]),
                              subject=nasty_text(), since=st.floats(0, 1e10), reason=nasty_text()),
                    max_size=3).map(tuple),
    sampled_age=st.none() | st.floats(0, 1e9),
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(resource_views, sizes, glyph_sets, st.integers(-3, 99))
def test_any_resources_fit_any_screen(found: ResourceView, size: tuple[int, int], glyphs: Glyphs, offset: int) -> None:
    snapshot = replace(samples.measured(), resources=found)
    assert_fits(listing("resources", snapshot, size, offset=offset, glyphs=glyphs), size, glyphs)
    assert_fits(overview(snapshot, size, selected="text-3", glyphs=glyphs), size, glyphs)


# the stack


def test_the_page_of_a_stack_matches_its_golden_file() -> None:
    shown = listing("stack", samples.measured(), (80, 24), stack=WorkerStack("text-3", samples.STACK, age=2.0))
    golden.check("stack_of_worker_80x24.txt", plain(shown))
    strong = [segment.text for line in shown for segment in line if segment.meaning == "strong"]
    assert strong == ['   File "/srv/shop/summaries/tools.py", line 57, in clean']


@settings(max_examples=30, deadline=None)
@given(st.none() | st.text(max_size=400), nasty_text(), sizes, glyph_sets)
def test_any_stack_fits_any_screen(text: str | None, reason: str, size: tuple[int, int], glyphs: Glyphs) -> None:
    stack = WorkerStack("text-3", text, reason, age=2.0)
    assert_fits(listing("stack", samples.measured(), size, stack=stack, glyphs=glyphs), size, glyphs)


@given(st.text(st.sampled_from("ab 要·\t"), max_size=120), st.integers(2, 60))
def test_wrapped_code_fits_and_loses_nothing(text: str, cells: int) -> None:
    parts = wrap_code(text.replace("\t", " "), cells)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(len(part) <= cells for part in parts) or cells < 4 or "要" in text


def test_the_innermost_frames_of_a_long_stack_are_kept() -> None:
    text = "\n".join(f'File "x.py", line {number}, in f' for number in range(500))
    lines = stack_lines(text, 80, last=10)
    assert lines[0][0].text.strip() == "… 490 lines before"
    assert "line 499" in lines[-1][0].text
    assert all(line_width(line) <= 80 for line in lines)


def test_the_pages_have_an_ascii_form() -> None:
    assert page(samples.measured(), glyphs=ASCII).isascii()
