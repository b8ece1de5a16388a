"""The report on a period, for people who did not watch it: a Summary and its timelines as text or Markdown.

Theory of operation: `_document` yields the content once, as headings, bullets, tables and charts. `text` and `markdown`
only write these elements in their format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, NamedTuple

from msgspec import Struct

from pool_monitor.snapshot import (
    AlertTransition,
    AlertView,
    CallStats,
    ErrorGroup,
    ErrorRate,
    PoolSummary,
    Range,
    ReceiverView,
    Recommendation,
    ResourceRange,
    ResourceView,
    Summary,
    TrialView,
)
from pool_monitor.view import advice_words, alert_words, columns, delivery_words, timeline
from pool_monitor.view import format as fmt
from pool_monitor.view.alert_report import change_columns, fired_alerts, fired_columns
from pool_monitor.view.alerts_page import alert_columns
from pool_monitor.view.errors_page import ERRORS, group_lines, group_row
from pool_monitor.view.glyphs import UNICODE, Glyphs
from pool_monitor.view.notices import SYMBOLS, notices_for_summary
from pool_monitor.view.resource_table import FIGURE_COLUMNS, figure_rows
from pool_monitor.view.resources_page import resource_lines
from pool_monitor.view.snapshot_report import GROUPS_MAX, STACK_LINES, outcome_details, outcomes
from pool_monitor.view.table import Column, number, table
from pool_monitor.view.text import Line, Segment, clean, plain, truncate, wrap
from pool_monitor.view.text import width as cells
from pool_monitor.view.tuning_report import trial_columns

REPORT_VERSION = 1
"""The version of the JSON form. It follows the rules of `snapshot.SCHEMA_VERSION`."""
CHANGES_MAX = 30
"""The most changes of alerts, and of settings, in a report as text or Markdown: the latest."""
MARKDOWN_WIDTH = 100
"""The width of charts in Markdown, in columns."""


class PeriodReport(Struct, frozen=True, kw_only=True):
    """A Summary, its timelines, and where the numbers come from."""

    version: int = REPORT_VERSION
    source: str
    """Where the numbers come from, in words."""
    doubts: tuple[str, ...] = ()
    """What makes the numbers doubtful, in words."""
    summary: Summary
    courses: dict[str, Range]
    """The timeline of each pool. It consists of whole steps, so it may begin before the Summary and end after it."""
    error_groups: dict[str, tuple[ErrorGroup, ...]] = {}
    """The error groups of each pool in that time, the most frequent first. A pool without an entry had none, or they
    are not known.
    """
    resources: ResourceView | None = None
    """The resources and faults at the end of that time. None: they are not known."""
    alerts: tuple[AlertView, ...] | None = None
    """The alerts at the end of that time. None: they are not known."""
    receivers: tuple[ReceiverView, ...] = ()
    """Who was told of alerts, and what they were owed at the end of that time. Empty: nobody, or it is not known."""
    transitions: tuple[AlertTransition, ...] = ()
    """The changes of alerts in that time, the oldest first, as far as they are known."""
    recommendations: tuple[Recommendation, ...] | None = None
    """What was recommended at the end of that time, the most urgent first. None: it is not known."""
    changes: tuple[TrialView, ...] = ()
    """The changes of settings in that time, the newest first, as far as they are known."""
    figures: ResourceRange | None = None
    """The figures of resources in that time. None: they are not known."""


class Heading(NamedTuple):
    text: str
    level: int


class Bullets(NamedTuple):
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[Column[Any]]
    rows: Sequence[Any]


class Charts(NamedTuple):
    lines: list[Line]


Element = Heading | Bullets | Table | Charts


# -- the content ------------------------------------------------------------------------------------------------------

_WorkerRow = tuple[str, CallStats]
_PoolRow = tuple[str, PoolSummary]
_ErrorRow = tuple[str, ErrorRate]


def _worker_stats(row: _WorkerRow) -> CallStats:
    return row[1]


def _pool_stats(row: _PoolRow) -> CallStats:
    return row[1].total


POOLS: tuple[Column[_PoolRow], ...] = (
    Column("POOL", lambda row: clean(row[0]), 14, "left", grow=19),
    Column("BUSY", lambda row: number(fmt.percent(row[1].utilisation)), 5),
    Column("WAITING", lambda row: number(fmt.count(row[1].waiting_max)), 7),
    Column("DIED", lambda row: number(fmt.count(row[1].deaths)), 5),
    *columns.call_stats_columns(_pool_stats),
)
WORKERS: tuple[Column[_WorkerRow], ...] = (
    Column("WORKER", lambda row: clean(row[0]), 14, "left", grow=19, keep_end=True),
    *columns.call_stats_columns(_worker_stats),
)
CATEGORIES: tuple[Column[_ErrorRow], ...] = (
    Column("CATEGORY", lambda row: clean(row[0]), 20, "left"),
    Column("FAILED", lambda row: number(fmt.count(row[1].errors)), 7),
    Column("OF ALL CALLS", lambda row: number(fmt.percent(row[1].error_ratio)), 12),
)
SESSIONS: tuple[Column[_ErrorRow], ...] = (
    Column("SESSION", lambda row: clean(row[0]), 20, "left"),
    Column("CALLS", lambda row: number(fmt.count(row[1].calls)), 7),
    Column("FAILED", lambda row: number(fmt.count(row[1].errors)), 7),
    Column("ERR", lambda row: number(fmt.percent(row[1].error_ratio)), 5),
)


def _document(report: PeriodReport, zone: tzinfo | None, width: int) -> Iterator[Element]:
    summary = report.summary
    yield Heading(clean(report.source), 1)
    ends = f"from {fmt.timestamp(summary.start, zone)} to {fmt.timestamp(summary.end, zone)}"
    doubts = [f"{SYMBOLS['warn']} {clean(doubt)}" for doubt in report.doubts]
    yield Bullets([f"{ends}, {fmt.period(round(summary.end - summary.start))}", *doubts])
    if not summary.pools:
        yield Bullets(["nothing was measured"])
        return
    if len(summary.pools) > 1:
        yield Table(POOLS, list(summary.pools.items()))
    for name, pool in summary.pools.items():
        yield Heading(f"pool {clean(name)}", 2)
        yield from _pool_section(pool, report.courses.get(name), zone, width)
        yield from _errors(report.error_groups.get(name, ()), summary, width)
    yield from _alerts(report, zone)
    yield from _advice(report, zone)
    if report.figures is not None and (rows := figure_rows(report.figures, zone)):
        yield Heading("resources", 2)
        yield Bullets(["mean of the readings, the highest of them, and when it was read"])
        yield Table(FIGURE_COLUMNS, rows)
    if report.resources is not None:
        yield Heading("resources at the end", 2)
        yield Charts(resource_lines(report.resources, summary.end, width))
    yield Bullets(
        [
            "durations are of calls that ended well; operations that took most of the workers' time come first",
            f"~: of fewer than {fmt.FEW} calls; {fmt.UNKNOWN}: unknown",
        ]
    )


def _pool_section(pool: PoolSummary, pool_timeline: Range | None, zone: tzinfo | None, width: int) -> Iterator[Element]:
    work = f"{fmt.percent(pool.utilisation)} busy, {fmt.age(pool.busy_seconds)} in calls that ended"
    sampled = f"{fmt.mean(pool.busy)} of {fmt.mean(pool.size)} busy on average, {fmt.count(pool.busy_max)} at most"
    yield Bullets(
        [
            *(f"{SYMBOLS[notice.level]} {notice.text}" for notice in notices_for_summary(pool)),
            outcomes(pool.total),
            outcome_details(pool.total),
            f"workers: {work}; in samples: {sampled}; {pool.deaths} died",
            f"queue: {fmt.mean(pool.waiting)} waiting on average, {fmt.count(pool.waiting_max)} at most",
            f"measured: {fmt.age(pool.covered_seconds)}",
        ]
    )
    if pool_timeline is not None:
        yield Charts(timeline.charts(pool_timeline, width, zone))
        yield Bullets(timeline.highlights(pool_timeline, zone))
    yield Table(columns.DURATIONS, columns.duration_rows(pool.total))
    yield Table(columns.OPERATIONS, list(pool.operations.values()))
    yield Table(WORKERS, list(pool.workers.items()))
    yield Table(CATEGORIES, list(pool.by_category.items()))
    if pool.by_session_kind.keys() - {"none"}:
        yield Table(SESSIONS, list(pool.by_session_kind.items()))


def _alerts(report: PeriodReport, zone: tzinfo | None) -> Iterator[Element]:
    """Yield the alerts now, those that fired in the time, and the latest changes."""
    start, end, now = report.summary.start, report.summary.end, alert_words.in_order(report.alerts or ())
    changes = report.transitions[-CHANGES_MAX:]
    fired = fired_alerts(report.transitions, start, end)
    if report.alerts is None and not changes:
        return
    yield Heading("alerts", 2)
    counts = [*alert_words.counted(now), *alert_words.quiet_counts(now)]
    yield Bullets([f"at the end: {', '.join(counts) or 'none'}"] if report.alerts is not None else [])
    yield Table(alert_columns(end), now)
    yield Bullets([trouble for one in report.receivers if (trouble := delivery_words.trouble(one))])
    yield Table(delivery_words.receiver_columns(), report.receivers)
    yield Bullets([f"in that time: {fmt.plural(len(fired), 'alert')} fired"])
    yield Table(fired_columns(end - start, zone), fired)
    if len(changes) < len(report.transitions):
        yield Bullets([f"the latest {fmt.count(len(changes))} of {fmt.count(len(report.transitions))} changes:"])
    yield Table(change_columns(lambda at: fmt.short_time(at, end - start, 1, zone)), changes)


def _advice(report: PeriodReport, zone: tzinfo | None) -> Iterator[Element]:
    """Yield what is recommended at the end, and the changes of settings in the time."""
    found, length = report.recommendations or (), report.summary.end - report.summary.start
    if not found and not report.changes:
        return
    yield Heading("advice and tuning", 2)
    yield Bullets([advice_words.recommendation_line(one) for one in found])
    yield Bullets([f"in that time: {fmt.plural(len(report.changes), 'change')} of settings"] if report.changes else [])
    rows = report.changes[:CHANGES_MAX]
    yield Table(trial_columns(lambda at: fmt.short_time(at, length, 1, zone)), rows)


def _errors(groups: Sequence[ErrorGroup], summary: Summary, width: int) -> Iterator[Element]:
    """Yield the most frequent error groups: a table, and each of them with its sample."""
    shown, now = groups[:GROUPS_MAX], summary.end
    if not shown:
        return
    yield Heading("errors", 3)
    yield Table(ERRORS, [group_row(group, now) for group in shown])
    if len(shown) < len(groups):
        yield Bullets([f"{fmt.count(len(groups) - len(shown))} more groups"])
    for group in shown:
        yield Charts(group_lines(group, "that time", now, width, STACK_LINES))


# -- the formats ------------------------------------------------------------------------------------------------------


def text(report: PeriodReport, *, width: int = 100, zone: tzinfo | None = None, glyphs: Glyphs = UNICODE) -> str:
    """Return *report* as text of at most *width* columns. Times are in *zone*. None: the zone of this machine."""
    lines: list[Line] = []
    for part in _document(report, zone, width):
        match part:
            case Heading(words, level):
                words = truncate(words, width - 1)
                more: list[Line] = [[Segment(f" {words}", "strong")]]
                more += [[Segment(" " + "─" * cells(words), "frame")]] if level > 1 else []
            case Bullets(texts):
                more = [[Segment(f" {line}")] for words in texts for line in wrap(words, width - 1)]
            case Table(columns, rows):
                more = table(columns, rows, width, len(rows) + 1) if rows else []
            case Charts(drawn):
                more = drawn
        lines += [[], *more] if more else []
    return plain(glyphs.draw(line) for line in lines[1:])


def markdown(report: PeriodReport, *, zone: tzinfo | None = None) -> str:
    """Return *report* as Markdown with tables, which GitHub and most other viewers show."""
    written: list[str] = []
    for part in _document(report, zone, MARKDOWN_WIDTH):
        match part:
            case Heading(words, level):
                written.append(f"{'#' * level} {_escaped(words)}\n")
            case Bullets(texts) if texts:
                written.append("".join(f"- {_escaped(words)}\n" for words in texts))
            case Table(columns, rows) if rows:
                written.append(_table(columns, rows))
            case Charts(drawn) if drawn:
                written.append(_fenced(plain(drawn)))
    return "\n".join(written)


def _fenced(text: str) -> str:
    """Return *text* as a block that no line of it can end: its fence is longer than any row of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return f"{fence}text\n{text}{fence}\n"


def _table(columns: Sequence[Column[Any]], rows: Sequence[Any]) -> str:
    lines = [
        [column.head for column in columns],
        ["---" if column.align == "left" else "--:" for column in columns],
        *([_escaped(column.content(row).text) for column in columns] for row in rows),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _escaped(words: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", words)
