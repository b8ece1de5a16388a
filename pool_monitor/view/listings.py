"""The pages that a key opens: what the overview has no room for, in full, from top to bottom."""

from __future__ import annotations

from pool_monitor.findings import Levels
from pool_monitor.snapshot import FailureView, PoolDetail, Snapshot
from pool_monitor.view import columns
from pool_monitor.view import format as fmt
from pool_monitor.view import notices as look
from pool_monitor.view.mode import Mode
from pool_monitor.view.notices import Notice
from pool_monitor.view.page import Content, PageState, dimmed
from pool_monitor.view.table import table
from pool_monitor.view.text import Line, Size, Span, clean, cut_front, line_width, wrap


def notices(snapshot: Snapshot, _pool: PoolDetail | None, size: Size, state: PageState) -> Content:
    """All notices, in full."""
    lines = _notices(snapshot, state.mode, state.levels, size.width)
    return _content([Span(" WHAT DESERVES A LOOK", "head")], lines, state)


def errors(_snapshot: Snapshot, pool: PoolDetail | None, size: Size, state: PageState) -> Content:
    """The latest failures of *pool* with their texts."""
    head = " WHAT WENT WRONG LAST, of the last hour" if pool is not None else " WHAT WENT WRONG LAST"
    return _content([Span(head, "head")], _failures(pool, size.width), state)


def operations(_snapshot: Snapshot, pool: PoolDetail | None, size: Size, state: PageState) -> Content:
    """All operations of *pool*."""
    rows = columns.operations(pool) if pool is not None else []
    drawn = table(columns.OPERATIONS, rows, size.width, len(rows) + 1)
    return _content(drawn[0], drawn[1:] or [[Span(" no operation yet", "dim")]], state)


def pools(snapshot: Snapshot, pool: PoolDetail | None, size: Size, state: PageState) -> Content:
    """All pools, one a line. *pool* is highlighted."""
    rows = [
        columns.PoolRow(each, next(iter(look.of_pool(snapshot, each, state.levels)), None))
        for each in snapshot.pools.values()
    ]
    chosen = next((row for row in rows if row.pool is pool), None)
    drawn = table(columns.POOLS, rows, size.width, len(rows) + 1, selected=chosen)
    return _content(drawn[0], drawn[1:] or [[Span(" no pool yet", "dim")]], state)


def _content(head: Line, lines: list[Line], state: PageState) -> Content:
    return Content(dimmed([head]) if state.mode.old else [head], lines)


def _notices(snapshot: Snapshot, mode: Mode, found: Levels, cells: int) -> list[Line]:
    """All of them, in full: of the service first, then pool by pool."""
    lines = [line for notice in look.notices(snapshot, None, mode, found) for line in _in_full(notice, cells)]
    for pool in snapshot.pools.values():
        of_pool = [line for notice in look.of_pool(snapshot, pool, found) for line in _in_full(notice, cells)]
        if of_pool:
            lines += [[Span(f" pool {clean(pool.name)}", "strong")], *of_pool]
    return lines or [[Span(" nothing needs attention", "dim")]]


def _in_full(notice: Notice, cells: int) -> list[Line]:
    words = f"{look.SYMBOLS[notice.level]} {notice.text}"
    return [[Span(f"  {part}", notice.level)] for part in wrap(words, max(cells - 3, 1))]


def _failures(pool: PoolDetail | None, cells: int) -> list[Line]:
    if pool is None or not pool.failures:
        return [[Span(" nothing went wrong", "dim")]]
    return [line for failure in pool.failures for line in _failure(failure, cells)]


def _failure(failure: FailureView, cells: int) -> list[Line]:
    """When, how often, what and where; and under it what it says."""
    times = f" x{fmt.count(failure.count)}" if failure.count > 1 else ""
    operation = f"  in {clean(failure.operation)}" if failure.operation is not None else ""
    line: Line = [
        Span(f" {fmt.whole_age(failure.age):>6} ago ", "dim"),
        Span(f" {clean(failure.error)}", "strong"),
        Span(f"{times}{operation}"),
    ]
    if failure.worker is not None:
        line.append(Span(f"  on {cut_front(clean(failure.worker), max(cells - line_width(line) - 5, 1))}"))
    said = [" ".join(clean(text).split()) for text in (failure.message or "").splitlines()]
    parts = [part for text in said if text for part in wrap(text, max(cells - 13, 1))]
    return [line, *([Span(f"{'':12}{part}")] for part in parts)]
