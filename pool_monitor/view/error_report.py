"""The error groups of a period as text: the answer of ``pool-monitor errors``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pool_monitor.snapshot import ErrorGroup, ErrorReport, ErrorSample
from pool_monitor.view import format as fmt
from pool_monitor.view.errors_page import title
from pool_monitor.view.glyphs import UNICODE, Glyphs
from pool_monitor.view.table import Column, number, table
from pool_monitor.view.text import Line, Segment, clean, plain, truncate, wrap

_INDENT = "    "
_ERRORS: tuple[Column[tuple[ErrorGroup, float]], ...] = (
    Column("count", lambda row: number(fmt.count(row[0].count), "strong"), 7),
    Column("rate/s", lambda row: number(fmt.rate(row[0].rate)), 6),
    Column("last", lambda row: fmt.age(_ago(row[1], row[0].last_seen)), 6),
    Column("first", lambda row: fmt.age(_ago(row[1], row[0].first_seen)), 6),
    Column("error", lambda row: title(row[0]), 30, "left", grow=400),
)


def text(report: ErrorReport, *, width: int = 100, full: bool = False, glyphs: Glyphs = UNICODE) -> str:
    """Return a table of the groups of every pool, in lines of at most *width* columns. *full*: below each group, its
    operations, workers, frames and its sample.
    """
    failed = {name: groups for name, groups in report.pools.items() if groups}
    covered = fmt.whole_age(report.covered_seconds)
    lines: list[Line] = [] if failed else [[Segment(f" nothing failed in {covered}")]]
    for name, groups in failed.items():
        failures = fmt.plural(sum(group.count for group in groups), "failure")
        lines += [] if not lines else [[]]
        lines.append([Segment(f" POOL {clean(name)}: {failures} in {fmt.plural(len(groups), 'group')}, {covered}")])
        rows = [(group, report.end) for group in groups]
        if not full:
            lines += [[], *table(_ERRORS, rows, width, len(rows) + 1)]
        for group in groups if full else ():
            lines += [[], *_in_full(group, report.end, width)]
    return plain(glyphs.draw(line) for line in lines)


def _in_full(group: ErrorGroup, now: float, width: int) -> Iterable[Line]:
    cells = max(width - len(_INDENT) - 1, 20)
    yield [
        Segment(f" {fmt.plural(group.count, 'failure')} "),
        Segment(truncate(title(group), max(width - 16, 20)), "strong"),
    ]
    seen = f"{fmt.timestamp(group.first_seen)}, last {fmt.age(_ago(now, group.last_seen))} ago"
    facts = [
        f"group {clean(group.fingerprint)}, {fmt.rate(group.rate)}/s, {fmt.count(group.total)} in total",
        f"first seen {seen}",
        *_named("operations", group.operations),
        *_named("workers", group.workers),
        *_named("in", group.frames),
    ]
    yield from _block(part for fact in facts for part in wrap(fact, cells))
    if group.sample is not None:
        yield from _block(_sample(group.sample, cells))


def _named(what: str, names: Sequence[str]) -> list[str]:
    return [f"{what} {', '.join(map(clean, names))}"] if names else []


def _sample(sample: ErrorSample, cells: int) -> Iterable[str]:
    where = f"{clean(sample.operation or '?')} on {clean(sample.worker or '?')}"
    yield truncate(f"one of them, at {fmt.timestamp(sample.at)}: {where}", cells)
    for heading, body in (("", sample.message), ("", sample.traceback), ("what the worker was running:", sample.stack)):
        if body:
            yield from ([heading] if heading else [])
            yield from (truncate(clean(line.expandtabs()), cells) for line in body.rstrip().splitlines())


def _block(texts: Iterable[str]) -> list[Line]:
    return [[Segment(f"{_INDENT}{part}")] for part in texts]


def _ago(now: float, at: float) -> float:
    return max(now - at, 0.0)
