"""The report on a period: right numbers, right moments, and text that fits every width and format."""

from __future__ import annotations

import re
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.cells import cell_len

from pool_monitor.snapshot import CallStats, Distribution, ErrorRate, PoolSummary, Range, Summary
from pool_monitor.view import ASCII, UNICODE, Glyphs, plain, timeline
from pool_monitor.view.alert_report import fired_alerts
from pool_monitor.view.notices import Notice, notices_for_summary
from pool_monitor.view.period_report import CHANGES_MAX, PeriodReport, markdown, text
from tests.helpers import alert_samples, golden, samples

DASH = "\N{EN DASH}"
BERLIN = ZoneInfo("Europe/Berlin")


def report(*names: str, **changes: Any) -> PeriodReport:
    """Return a report on the `samples.summary` of these pools, with *changes* to the first pool."""
    summary = samples.summary(*names)
    name, pool = next(iter(summary.pools.items()))
    summary = replace(summary, pools={**summary.pools, name: replace(pool, **changes)})
    return PeriodReport(
        source="articles, pid 4101@host-1",
        summary=summary,
        courses={name: samples.course(name) for name in summary.pools},
    )


def complete() -> PeriodReport:
    """Return a report with error groups and resources."""
    end = samples.summary().end
    return replace(report(), error_groups={"text": samples.error_groups(end)}, resources=samples.resources(end))


def unmeasured() -> PeriodReport:
    """Return a report on a period that was not measured."""
    pool = PoolSummary(
        covered_seconds=0.0, total=CallStats(), operations={}, workers={}, by_category={}, by_session_kind={},
        busy_seconds=0.0, utilisation=None, deaths=0, size=None, busy=None, busy_max=None, waiting=None,
        waiting_max=None,
    )  # fmt: skip
    whole = samples.course()
    gaps = tuple(samples.point(int(point.start), gap=True) for point in whole.points)
    return replace(report(), summary=replace(samples.summary(), pools={"text": pool}),
                   courses={"text": replace(whole, points=gaps)})  # fmt: skip


def row(page: str, start: str) -> list[str]:
    """Return the words of the first line that begins with *start*."""
    return next(line for line in page.splitlines() if line.split()[:1] == [start]).split()


# errors and resources


def test_the_most_frequent_errors_are_shown_with_their_samples() -> None:
    for written in (text(complete(), width=100, zone=UTC), markdown(complete(), zone=UTC)):
        assert "31 in that time (0.10/s), 120 since the start; first 11m42s ago, last 8s ago" in written
        assert 'File "/srv/shop/summaries/client.py", line 88, in send' in written
        assert "what the worker ran when it was interrupted:" in written
    many = tuple(replace(samples.error_groups()[0], fingerprint=f"{number:016}") for number in range(14))
    written = text(replace(complete(), error_groups={"text": many}), width=100, zone=UTC)
    assert written.count("one of them") == 10
    assert "4 more groups" in written


def test_resources_and_faults_at_the_end_are_shown() -> None:
    for written in (text(complete(), width=100, zone=UTC), markdown(complete(), zone=UTC)):
        assert "resources at the end" in written
        assert "worker text-3: leaks 1.1M/s: reaches its limit of 2.0G in 10m; for 2m04s" in written
        assert "57 of 1024" in written
    assert "resources" not in text(report(), width=100, zone=UTC)


def test_a_stack_cannot_end_its_block_in_markdown() -> None:
    stack = "```\n# a heading\n````text"
    sample = replace(samples.error_groups()[0].sample, traceback=stack)
    group = replace(samples.error_groups()[0], sample=sample)
    written = markdown(replace(complete(), error_groups={"text": (group,)}), zone=UTC)
    block = written[: written.index("# a heading")].splitlines()
    assert "`````text" in block
    assert "`````" in written[written.index("# a heading") :].splitlines()


# what people see


def test_a_report_matches_the_golden_files() -> None:
    doubtful = replace(report(), doubts=("12 events dropped: counts are lower bounds",))
    golden.check("postmortem.txt", text(doubtful, zone=BERLIN))
    golden.check("postmortem.md", markdown(doubtful, zone=BERLIN))


def test_it_says_how_calls_ended_how_long_they_took_and_how_busy_the_workers_were() -> None:
    page = text(report(), zone=UTC)
    assert "10620 calls, 11.8/s; 10494 ok, 126 failed (1.2%), 0 cancelled" in page
    workers = "workers: 72% busy, 40m12s in calls that ended; in samples: 2.87 of 4 busy on average, 4 at most; 3 died"
    assert workers in " ".join(page.split())
    assert "queue: 0.41 waiting on average, 31 at most" in page
    assert "measured: 14m00s" in page
    assert row(page, "call")[5:7] == ["1.3s", "2.9s"]
    assert row(page, "queue")[5:7] == ["62ms", "180ms"]
    assert row(page, "execution")[5:7] == ["1.2s", "2.8s"]
    assert row(page, "timeout") == ["timeout", "12", "0.1%"]
    assert row(page, "hint") == ["hint", "506", "26", "5.1%"]
    assert row(page, "text-3")[:2] == ["text-3", "2592"]


def test_operations_are_in_the_order_of_the_summary_and_not_by_name() -> None:
    page = text(report())
    found = [
        line.split()[0] for line in page.splitlines() if line.startswith((" chat", " generate", " summary", " key"))
    ]
    assert found == ["chat", "generate", "summary", "keywords"]


def test_sessions_are_listed_only_if_there_are_any() -> None:
    without = {"none": ErrorRate(calls=4, errors=0, error_ratio=0.0)}
    assert "SESSION" in text(report())
    assert "SESSION" not in text(report(by_session_kind=without))


def test_a_report_on_several_pools_begins_with_a_comparison() -> None:
    page = text(report("text", "vision"))
    assert page.index(" POOL ") < page.index(" pool text") < page.index(" pool vision")
    assert row(page, "vision")[:6] == ["vision", "72%", "31", "3", "10620", "11.8"]
    assert " POOL " not in text(report())


def test_what_was_not_measured_is_unknown_and_not_zero() -> None:
    page = text(unmeasured(), zone=UTC)
    assert f"workers: {DASH} busy, 0.0s in calls" in page
    assert f"in samples: {DASH} of {DASH} busy on average, {DASH} at most" in " ".join(page.split())
    assert f"queue: {DASH} waiting on average, {DASH} at most" in page
    assert f"0 calls, {DASH}/s; 0 ok, 0 failed ({DASH})" in page
    assert row(page, "call") == ["call", "0", *[DASH] * 7]
    assert "not measured: 15:51:40 to 16:06:40" in page
    assert "throughput" not in page


def test_a_report_without_pools_says_so() -> None:
    empty = replace(report(), summary=replace(samples.summary(), pools={}), courses={})
    assert text(empty).splitlines()[-1] == " nothing was measured"
    assert "nothing was measured" in markdown(empty)


def test_percentiles_of_few_calls_are_marked_and_the_mark_is_explained() -> None:
    few = Distribution(count=7, mean=0.1, max=0.2, p50=0.084, p90=0.1, p95=0.13, p99=0.2, p999=0.2)
    page = text(report(total=replace(samples.summary().pools["text"].total, latency=few)))
    assert row(page, "call")[3] == "~84ms"
    assert "~: of fewer than 20 calls" in page


@pytest.mark.parametrize(
    ("changes", "of_total", "wanted"),
    [
        ({"deaths": 0}, {}, []),
        ({"deaths": 1}, {}, [("warn", "1 worker died")]),
        ({"deaths": 8}, {}, [("bad", "8 workers died")]),
        ({"deaths": 2, "size": None}, {}, [("bad", "2 workers died")]),
        ({"deaths": 0}, {"error_ratio": 0.0199}, []),
        (
            {"deaths": 0},
            {"error_ratio": 0.02},
            [("warn", "2.0% of 10620 calls failed, mostly with category operation")],
        ),
        ({"deaths": 0, "by_category": {}}, {"error_ratio": 0.5}, [("bad", "50% of 10620 calls failed")]),
        (
            {"deaths": 1, "by_category": {}},
            {"error_ratio": 0.5, "rejected": 9},
            [
                ("bad", "50% of 10620 calls failed"),
                ("warn", "9 of 10629 calls rejected (0.1%)"),
                ("warn", "1 worker died"),
            ],
        ),
    ],
)  # fmt: skip
def test_the_notices_of_a_summary(changes: dict[str, Any], of_total: dict[str, Any], wanted: list[Notice]) -> None:
    pool = samples.summary().pools["text"]
    assert notices_for_summary(replace(pool, total=replace(pool.total, **of_total), **changes)) == wanted


# when


@pytest.mark.parametrize(
    ("zone", "written"),
    [
        (UTC, "from 2025-06-15 15:51:40+00:00 to 2025-06-15 16:06:40+00:00, 15m"),
        (BERLIN, "from 2025-06-15 17:51:40+02:00 to 2025-06-15 18:06:40+02:00, 15m"),
    ],
)
def test_times_are_those_of_the_zone_and_name_it(zone: Any, written: str) -> None:
    assert text(report(), zone=zone).splitlines()[2] == f" {written}"
    assert f"- {written}\n" in markdown(report(), zone=zone)


def test_it_says_when_things_were_worst_and_when_nothing_was_measured() -> None:
    assert timeline.highlights(samples.course(), UTC) == [
        "most failed: 21 of 67 calls, in the 10s from 16:03:50",
        "slowest: p99 5.1s, in the 10s from 16:03:40",
        "most waiting: 31 calls, in the 10s from 16:03:40",
        "workers died: 16:04:00, 16:04:30 (2)",
        "not measured: 15:53:00 to 15:54:00",
    ]


def test_the_first_of_many_moments_are_named_and_the_rest_counted() -> None:
    whole = samples.course()
    deaths = tuple(replace(point, deaths=1) for point in whole.points)
    gaps = tuple(
        samples.point(int(point.start), gap=True) if index % 20 == 1 else point
        for index, point in enumerate(whole.points)
    )
    assert "workers died: 15:51:40, 15:51:50, 15:52:00 and 87 more" in timeline.highlights(
        replace(whole, points=deaths), UTC
    )
    last = timeline.highlights(replace(whole, points=gaps), UTC)[-1]
    assert last.startswith("not measured: 15:51:50 to 15:52:00, 15:53:00 to 15:54:00, 15:55:10 to 15:55:20 and ")


def test_a_quiet_period_has_no_highlights() -> None:
    whole = samples.course()
    quiet = replace(samples.point(0), errors=0, latency=Distribution(), waiting_max=0, deaths=0)
    assert timeline.highlights(replace(whole, points=(quiet,) * 90)) == []


@pytest.mark.parametrize(
    ("step", "number", "times"),
    [
        (1, 60, ["16:05:40", "16:06:10", "16:06:40"]),
        (60, 60, ["15:06", "15:36", "16:06"]),
        (600, 144, ["16:06", "04:06", "16:06"]),
        (7200, 84, ["06-08 16:06", "06-12 04:06", "06-15 16:06"]),
        (86_400, 365, ["2024-06-15", "2024-12-15", "2025-06-15"]),
    ],
)
def test_the_times_at_the_axis_are_as_fine_as_the_steps(step: int, number: int, times: list[str]) -> None:
    whole = samples.course(step=step, number=number)
    foot = next(line for line in plain(timeline.charts(whole, 100, UTC)).splitlines() if line.startswith("╰"))
    assert re.findall(r"[\d][\d: -]+\d", foot) == times


# charts


def drawn(whole: Range, cells: int = 100) -> list[str]:
    """Return the parts of the chart lines right of the axes, from the top."""
    lines = plain(timeline.charts(whole, cells, UTC)).splitlines()
    return [line[7:-1] for line in lines if re.match(r"│ *\S*[┤│]", line)]


def test_errors_stand_under_the_step_they_happened_in_and_gaps_stay_empty() -> None:
    whole = samples.course(number=92)  # as many as columns
    ok, errors, p99 = drawn(whole)[:4], drawn(whole)[4], drawn(whole)[5:]
    assert [index for index, cell in enumerate(errors) if cell not in " ·"] == list(range(74, 80))
    assert len(ok) == len(p99) == 4
    [gap] = re.finditer("·+", errors)
    assert 1 <= len(gap[0]) <= 7
    for line in (*ok, *p99):
        assert set(line[gap.start() : gap.end()]) == {"⠀"}


@pytest.mark.parametrize("number", [1, 2, 7, 90, 1000])
def test_every_step_has_its_place_from_edge_to_edge(number: int) -> None:
    whole = samples.course(number=number)
    same = tuple(replace(samples.point(int(point.start)), ok=100, errors=7) for point in whole.points)
    lines = drawn(replace(whole, points=same))
    assert lines[0] == "⠉" * 92
    assert lines[4] == "█" * 92


def test_the_first_and_the_last_step_are_never_lost() -> None:
    for number in (3, 89, 90, 91, 700):
        whole = samples.course(number=number)
        calm = [replace(samples.point(int(point.start)), errors=0) for point in whole.points]
        calm[0], calm[-1] = replace(calm[0], errors=9), replace(calm[-1], errors=9)
        errors = drawn(replace(whole, points=tuple(calm)))[4]
        assert errors[0] != " "
        assert errors[-1] != " "


def test_without_calls_or_room_there_is_no_chart() -> None:
    assert timeline.charts(unmeasured().courses["text"], 100) == []
    assert timeline.charts(samples.course(), 39) == []


# anywhere


@pytest.mark.parametrize("width", [20, 40, 80, 100, 120, 200])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_no_line_is_wider_than_the_width(width: int, glyphs: Glyphs) -> None:
    page = text(report("text", "vision"), width=width, glyphs=glyphs)
    assert max(map(cell_len, page.splitlines())) <= width
    assert glyphs is UNICODE or page.isascii()


names = st.text(max_size=24) | st.sampled_from(["\x1b[2Jboom", "要約" * 9, "a\nb", "", "a|b`*_[x](y)<b>", "# no"])


@pytest.mark.slow
@pytest.mark.gate
@settings(max_examples=60, deadline=None)
@given(st.lists(names, min_size=1, max_size=3, unique=True), names)
def test_no_name_can_break_the_layout(pools: list[str], other: str) -> None:
    errors = {other: ErrorRate(calls=3, errors=3, error_ratio=1.0)}
    found = report(*pools, workers={other: CallStats()}, by_category=errors, deaths=0)
    found = replace(found, source=other, doubts=(other,))
    page = text(found, width=60)
    assert all(line.isprintable() and cell_len(line) <= 60 for line in page.split("\n"))
    written = markdown(found)
    assert all(line.isprintable() for line in written.split("\n"))
    for table in re.findall(r"(?:^\|.*\n)+", written, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table.splitlines()}
        assert len(columns) == 1
    assert len(re.findall(r"^# ", written, re.MULTILINE)) == 1
    assert len(re.findall(r"^## ", written, re.MULTILINE)) == len(pools)


def test_markdown_has_the_tables_whole_and_its_charts_between_fences() -> None:
    written = markdown(report(), zone=UTC)
    assert "| chat | 1518 | 1.69 | 0.9% | 610ms | 2.4s | 4.1s | 61ms | 2.3s | 7.8s | 4 | 0 | 0 |" in written
    assert "| --- | --: |" in written
    assert written.count("```") == 2
    assert re.search(r"^```text\n╭─ throughput", written, re.MULTILINE)
    assert "| keywords | 4044 | 4.49 | \\<0.1% |" in written


def test_a_summary_survives_json_and_is_the_same_report() -> None:
    there = report("text", "vision")
    back = msgspec.json.decode(msgspec.json.encode(there), type=PeriodReport)
    assert back == there
    assert isinstance(back.summary, Summary)
    assert text(back, zone=UTC) == text(there, zone=UTC)


# alerts


def with_alerts(**changes: Any) -> PeriodReport:
    """Return a report with the alerts of `alert_samples`."""
    known: dict[str, Any] = {"alerts": alert_samples.alerts(), "transitions": alert_samples.transitions()[::-1]}
    return replace(report(), **{**known, **changes})


def test_alerts_and_their_changes_are_shown() -> None:
    written = text(with_alerts(), width=160, zone=UTC)
    assert (
        "at the end: 4 firing, 1 recovering, 1 pending, 1 resolved, 1 acknowledged, 1 silenced, 1 inhibited" in written
    )
    assert "in that time: 1 alert fired" in written
    assert "firing > recovering" in written
    assert "▲ warning  firing     WorkerMemory" in written
    shown = markdown(with_alerts(), zone=UTC)
    assert "| ✖ critical | FailingCalls | text/chat | 1 | 8m50s | over |" in shown
    assert "| firing \\> firing | 31% | level | 31% of chat fail |" in shown


def test_receivers_are_shown_with_what_has_not_arrived() -> None:
    receivers = alert_samples.troubled()["receivers"]
    written = text(with_alerts(receivers=receivers), width=160, zone=UTC)
    assert "chat: open, tried again in 40s after 5 failures: HTTP 503 service unavailable" in written
    assert "▲ parked " in written
    assert "| pager | webhook | ▲ parked | 2 | 1 | 3m30s |" in markdown(with_alerts(receivers=receivers), zone=UTC)
    assert "RECEIVER" not in text(with_alerts(), zone=UTC)


def test_alerts_that_are_not_known_are_left_out() -> None:
    assert "alerts" not in text(report(), zone=UTC)
    assert "at the end: none" in text(with_alerts(alerts=(), transitions=()), zone=UTC)
    assert "at the end" not in text(with_alerts(alerts=None), zone=UTC)


def test_only_the_latest_changes_are_shown() -> None:
    first = alert_samples.transitions()[-1]
    many = tuple(replace(first, seq=number, alert=f"Rule{number:03}") for number in range(100))
    written = text(with_alerts(transitions=many), width=160, zone=UTC)
    assert f"the latest {CHANGES_MAX} of 100 changes:" in written
    assert "Rule069" not in written
    assert "Rule070" in written
    assert len(msgspec.json.decode(msgspec.json.encode(with_alerts(transitions=many)))["transitions"]) == 100


CHANGES = [
    ([], []),
    ([("inactive", "pending", 10)], []),
    ([("pending", "firing", 10)], [(1, 90.0, 10.0, True)]),
    ([("pending", "firing", 10), ("firing", "resolved", 40)], [(1, 30.0, 10.0, False)]),
    ([("firing", "recovering", 10), ("recovering", "resolved", 40)], [(0, 40.0, 0.0, False)]),
    ([("firing", "recovering", 10), ("recovering", "firing", 40)], [(0, 100.0, 0.0, True)]),
    (
        [("inactive", "firing", 10), ("firing", "resolved", 20), ("resolved", "firing", 50), ("firing", "pending", 70)],
        [(2, 30.0, 10.0, False)],
    ),
    ([("firing", "firing", 5)], [(0, 100.0, 0.0, True)]),
]


@pytest.mark.parametrize(("changes", "wanted"), CHANGES)
def test_how_often_and_how_long_an_alert_fired_follows_from_its_changes(changes: Any, wanted: Any) -> None:
    first = alert_samples.transitions()[-1]
    made = [
        replace(first, seq=seq, at=float(at), from_state=before, to_state=after)
        for seq, (before, after, at) in enumerate(changes)
    ]
    for order in (made, made[::-1]):
        found = fired_alerts(order, 0.0, 100.0)
        assert [(one.times, one.seconds, one.first, one.fires_still) for one in found] == wanted


def test_the_worst_severity_of_an_alert_that_fired_is_shown() -> None:
    (fired,) = fired_alerts(alert_samples.transitions(), 0.0, alert_samples.NOW)
    assert (fired.severity, fired.times, fired.seconds) == ("critical", 1, 530.0)
