"""``pool-monitor report`` on a history: reports match the recorded calls, and faults of a file are reported."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import Monitor
from pool_monitor.cli.report_sources import ReportQuery, period, step_for
from pool_monitor.clock import ManualClock
from pool_monitor.config import MonitorConfig
from pool_monitor.storage import History, HistoryConfig
from pool_monitor.testing import InlinePool
from tests.helpers.programs import Done
from tests.helpers.recordings import recording

Command = Callable[..., Done]
pytestmark = pytest.mark.usefixtures("utf8")
MS = 1_000_000
HOUR = 3600
T0 = 1_750_003_200  # a full hour
TEXT, CHAT, VISION = (("text", "summary", "text-0"), ("text", "chat", "text-1"), ("vision", "label", "vision-0"))


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local times are two hours ahead of UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "CEST-02:00")
        time.tzset()
        yield
    time.tzset()


def history(path: Path, seconds: dict[int, dict[Any, list[int]]], **settings: Any) -> Path:
    """Write a history with calls of these durations (ms), by second after `T0` and by row. It is left as by a kill."""
    slots = [
        (T0 + second, {key: ([ms * MS for ms in times],) * 3 for key, times in calls.items()})
        for second, calls in sorted(seconds.items())
    ]

    async def write() -> None:
        clock = ManualClock(float(T0))
        written = await History.open(path, HistoryConfig(**settings), clock=clock)
        found = recording(slots, length=1, measured=1)
        for timed in found.blocks:
            clock.advance(timed.start + 1 - clock.wall_ns() / 1e9)
            written.put(timed.start, timed.length, timed.block, found.names)
        assert await written.flush(), written.degraded
        await written.close()

    asyncio.run(write())
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes with one call a second, which are slow in the third minute, and a few calls of the pool vision."""
    calls = {second: {TEXT: [800 if 120 <= second < 180 else 20], CHAT: [5, 5]} for second in range(600)}
    for second in range(0, 600, 60):
        calls[second][VISION] = [100]
    return history(tmp_path_factory.mktemp("store") / "text.db", calls)


def rows(done: Done) -> list[dict[str, str]]:
    assert (done.code, done.err) == (0, "")
    return list(csv.DictReader(io.StringIO(done.out, newline="")))


def answered(done: Done) -> dict[str, Any]:
    assert (done.code, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    return found


# what was recorded


def test_the_text_says_which_pool_when_and_how_it_went(
    store: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # a long path would be cut to the width
    done = command("report", store)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(
        f" history in {store}\n\n from 2025-06-15 18:00:00+02:00 to 2025-06-15 18:10:00+02:00, 10m\n"
    )
    assert " 1800 calls, 3.00/s; 1800 ok, 0 failed (0%), 0 cancelled\n" in done.out
    assert re.search(r"slowest: p99 ~(79|80)\dms, in the 5s from 18:02:00", done.out)
    assert "│  err┤" in done.out
    assert re.search(r"^ text-0 +600 ", done.out, re.MULTILINE)
    assert re.search(r"^ label +10 .* ~100ms", done.out, re.MULTILINE)


class Shop:
    def order(self, number: int) -> None:
        raise LookupError(f"no item {number}")


def test_the_errors_and_the_resources_of_a_history_are_reported(tmp_path: Path, command: Command) -> None:
    path = tmp_path / "shop.db"

    async def run() -> None:
        config = MonitorConfig(history=HistoryConfig(path=str(path)))
        async with InlinePool(Shop, name="shop", size=1) as pool, Monitor(pool, config=config) as monitor:
            await asyncio.gather(*(pool.run("order", number) for number in range(5)), return_exceptions=True)
            while monitor.snapshot().resources.sampled_age is None:
                await asyncio.sleep(0.01)

    asyncio.run(run())
    done = command("report", path, "--format", "md")
    assert (done.code, done.err) == (0, "")
    assert r"LookupError: no item \<n\>" in done.out
    assert 'raise LookupError(f"no item {number}")' in done.out
    assert "| process | rss |" in done.out


def test_markdown_says_the_same(store: Path, command: Command) -> None:
    done = command("report", store, "--format", "md")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"# history in {store}\n".replace("_", r"\_"))
    assert "- 1800 calls, 3.00/s; 1800 ok, 0 failed (0%), 0 cancelled\n" in done.out
    assert re.search(r"^\| summary \| 600 \| 1.00 \| 0% \|", done.out, re.MULTILINE)


def test_json_has_the_summary_and_the_timeline_of_every_pool(store: Path, command: Command) -> None:
    found = answered(command("report", store, "--format", "json"))
    assert (found["version"], found["source"], found["doubts"]) == (1, f"history in {store}", [])
    summary, courses = found["summary"], found["courses"]
    assert (summary["start"], summary["end"]) == (T0, T0 + 600)
    assert {name: pool["total"]["calls"] for name, pool in summary["pools"].items()} == {"text": 1800, "vision": 10}
    assert courses.keys() == {"text", "vision"}
    assert (courses["text"]["start"], courses["text"]["end"], courses["text"]["step"]) == (T0, T0 + 600, 5)
    assert sum(point["calls"] for point in courses["text"]["points"]) == 1800
    assert sum(point["covered_seconds"] for point in courses["text"]["points"]) == 600
    slow = [point["start"] - T0 for point in courses["text"]["points"] if point["latency"]["p99"] > 0.5]
    assert slow == list(range(120, 180, 5))


def test_hlog_is_read_by_the_hdrhistogram_tools(store: Path, command: Command, tmp_path: Path) -> None:
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader

    path = tmp_path / "text.hlog"
    path.write_text(command("report", store, "--format", "hlog", "--step", "1m").out)
    counted = sum(int(row["ok"]) for row in rows(command("report", store, "--format", "csv")))
    reader = HistogramLogReader(str(path), HdrHistogram(1, 10**13, 3))
    found = 0
    while (histogram := reader.get_next_interval_histogram()) is not None:
        if histogram.get_tag().endswith("/latency"):
            found += histogram.get_total_count()
    reader.close()
    assert found == counted > 0


def test_hlog_of_a_running_service_is_refused_with_the_remedy(command: Command) -> None:
    done = command("report", "http://127.0.0.1:9", "--format", "hlog")
    assert (done.code, "give a STORE.db" in done.err) == (2, True)


def test_csv_has_a_row_per_operation_and_step_that_was_measured(store: Path, command: Command) -> None:
    found = rows(command("report", store, "--format", "csv", "--step", "1m"))
    counted = {(row["pool"], row["operation"], float(row["start"]) - T0): int(row["calls"]) for row in found}
    assert len(counted) == len(found) == 30
    for minute in range(0, 600, 60):
        assert counted["text", "summary", minute] == 60
        assert counted["text", "chat", minute] == 120
        assert counted["vision", "label", minute] == 1
    slow = [float(row["start"]) - T0 for row in found if float(row["latency_p99_s"]) > 0.5]
    assert slow == [120]


def test_steps_that_were_not_measured_are_no_rows_and_a_reported_gap(tmp_path: Path, command: Command) -> None:
    store = history(tmp_path / "gap.db", {second: {TEXT: [20]} for second in (*range(60), *range(300, 360))})
    starts = {float(row["start"]) - T0 for row in rows(command("report", store, "--format", "csv", "--step", "1m"))}
    assert starts == {0, 300}
    assert "not measured: 18:01 to 18:05" in command("report", store, "--step", "1m").out
    assert answered(command("report", store, "--format", "json"))["summary"]["pools"]["text"]["covered_seconds"] == 120


def test_a_report_begins_where_measuring_began_within_the_first_block(tmp_path: Path, command: Command) -> None:
    # The minutes are merged into whole hours. The first hour begins long before anything was recorded.
    tiers = ((1, 10), (60, 7200), (3600, 86_400))
    calls = {second: {TEXT: [20]} for second in range(2400, 2400 + 3600, 60)}
    found = answered(command("report", history(tmp_path / "h.db", calls, tiers=tiers), "--format", "json"))
    assert found["summary"]["start"] - T0 == 2400
    assert found["courses"]["text"]["points"][0]["covered_seconds"] > 0


# which time


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        ((), 0, 600),
        (("--since", "24h"), 0, 600),
        (("--since", "2m"), 480, 600),
        (("--window", "5m"), 300, 600),
        (("--start", "2025-06-15T18:02:00"), 120, 600),
        (("--start", "2025-06-15 18:02:00", "--end", "2025-06-15T16:03:00Z"), 120, 180),
        (("--end", "2025-06-15 18:03:00+02:00"), 0, 180),
        (("--end", "2025-06-15 18:03", "--since", "1m"), 120, 180),
        (("--start", "2025-06-15 17:59", "--end", "2025-06-15 18:11"), -60, 660),
    ],
)
def test_the_time_reported_on_is_the_one_asked_for(
    options: tuple[str, ...], first: int, last: int, store: Path, command: Command
) -> None:
    found = answered(command("report", store, "--format", "json", *options))
    assert (found["summary"]["start"] - T0, found["summary"]["end"] - T0) == (first, last)
    seconds = min(last, 600) - max(first, 0)
    assert found["summary"]["pools"]["text"]["total"]["calls"] == 3 * seconds
    assert sum(point["calls"] for point in found["courses"]["text"]["points"]) == 3 * seconds


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (ReportQuery(), (100_000 - 86_400, 100_000)),
        (ReportQuery(since=60), (99_940, 100_000)),
        (ReportQuery(since=999_999), (1000, 100_000)),
        (ReportQuery(start=7.0), (7.0, 100_000)),
        (ReportQuery(start=7.0, end=8.0), (7.0, 8.0)),
        (ReportQuery(end=50_000.0), (1000, 50_000)),
        (ReportQuery(end=50_000.0, since=60), (49_940, 50_000)),
        (ReportQuery(end=500.0, since=60), (440, 500)),
    ],
)
def test_the_default_period_is_the_last_day_in_the_file(query: ReportQuery, wanted: tuple[float, float]) -> None:
    assert period((1000, 100_000), query) == wanted


@pytest.mark.parametrize(
    ("length", "kept", "step"),
    [
        (60, [1, 10, 60, 3600], 1),
        (900, [1, 10, 60, 3600], 10),
        (HOUR, [1, 10, 60, 3600], 30),
        (HOUR, [60, 3600], 60),
        (24 * HOUR, [10, 60, 3600], 600),
        (24 * HOUR, [3600], 3600),
        (7 * 24 * HOUR, [60, 3600], 7200),
        (365 * 24 * HOUR, [3600], 86_400),
        (9000 * 24 * HOUR, [3600], 86_400),
        (600, [7], 7),
        (600, [], 86_400),
    ],
)
def test_a_step_is_as_fine_as_the_file_and_a_chart_allow(length: int, kept: list[int], step: int) -> None:
    assert step_for(length, kept) == step


# what is wrong


def refused(done: Done, code: int = 2) -> str:
    assert (done.code, done.out) == (code, "")
    return done.err


def test_a_period_without_data_is_refused_with_the_recorded_period(store: Path, command: Command) -> None:
    refusal = refused(command("report", store, "--start", "2020-01-01", "--end", "2020-01-02"))
    assert refusal == (
        f"Error: {store}: nothing was recorded from 2020-01-01 00:00:00+02:00 to 2020-01-02 00:00:00+02:00; "
        "the recorded period is from 2025-06-15 18:00:00+02:00 to 2025-06-15 18:10:00+02:00\n"
    )
    assert "nothing was recorded from" in refused(command("report", store, "--end", "2030-01-01", "--since", "1h"))
    refusal = refused(command("report", store, "--start", "2025-06-16"))  # the history ends before
    assert refusal == (
        f"Error: {store}: nothing was recorded from 2025-06-16 00:00:00+02:00 on; "
        "the recorded period is from 2025-06-15 18:00:00+02:00 to 2025-06-15 18:10:00+02:00\n"
    )


def test_a_step_that_is_too_fine_for_its_age_is_refused_with_the_available_steps(
    tmp_path: Path, command: Command
) -> None:
    calls = {second: {TEXT: [20]} for second in range(200)}
    store = history(tmp_path / "old.db", calls, tiers=((1, 5), (10, 10_000)))
    assert "ask for a step of 10 s" in refused(command("report", store, "--start", "2025-06-15 18:00", "--step", "1s"))
    found = answered(command("report", store, "--start", "2025-06-15 18:00", "--format", "json"))
    assert (found["courses"]["text"]["step"], found["summary"]["pools"]["text"]["total"]["calls"]) == (10, 200)
    assert "more than 4,000" in refused(command("report", store, "--start", "2020-01-01", "--step", "10s"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "nothing has been recorded|is a history of version 0"),
        (b"PNG and so on", "is not a history file"),
        (None, "there is no such file"),
    ],
)
def test_a_file_that_is_no_history_is_refused(
    content: bytes | None, complaint: str, tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "some.db"
    if content is not None:
        path.write_bytes(content)
    assert re.match(rf"Error: {path}: .*({complaint})", refused(command("report", path)))


def test_another_programs_database_is_refused(tmp_path: Path, command: Command) -> None:
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    assert "is a database of another program" in refused(command("report", tmp_path / "other.sqlite"))


def test_an_empty_history_is_reported_as_empty(tmp_path: Path, command: Command) -> None:
    store = history(tmp_path / "empty.db", {})
    assert refused(command("report", store)) == f"Error: {store}: nothing has been recorded in it yet\n"


def test_blocks_that_cannot_be_read_are_a_doubt(store: Path, tmp_path: Path, command: Command) -> None:
    store = Path(shutil.copy(store, tmp_path / "damaged.db"))
    connection = sqlite3.connect(store)
    with connection:
        connection.execute("UPDATE blocks SET body = x'00' WHERE step = 1 AND start = ?", (T0 + 599,))
    connection.close()
    done = command("report", store, "--since", "10s")
    assert "▲ 1 block of the file cannot be read: counts are lower bounds\n" in done.out
    assert " 27 calls, " in done.out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--since", "soon"), "--since='soon': needs whole seconds"),
        (("--step", "0"), "--step='0': needs whole seconds"),
        (("--start", "soon"), "'soon': needs a date and a time, such as"),
        (("--start", "2025-06-15", "--end", "2025-06-14"), "--end must be after --start"),
        (("--since", "1h", "--start", "2025-06-15"), "give only one of them"),
        (("--since", "1h", "--window", "5m"), "give only one of them"),
        (("--window", "2h"), "'1m', '5m', '15m', '1h'"),
        (("--format", "html"), "'text', 'md', 'json', 'csv', 'hlog'"),
    ],
)
def test_wrong_usage_says_what_would_be_right(
    options: tuple[str, ...], complaint: str, store: Path, command: Command
) -> None:
    assert complaint in refused(command("report", store, *options))
