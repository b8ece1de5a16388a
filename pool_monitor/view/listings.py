"""The pages that a key opens. Each shows in full what the overview has no room for."""

from __future__ import annotations

from pool_monitor.findings import Levels
from pool_monitor.snapshot import FailureView, PoolDetail, Snapshot
from pool_monitor.view import columns
from pool_monitor.view import format as fmt
from pool_monitor.view.freshness import Freshness
from pool_monitor.view.notices import SYMBOLS, Notice, notices, pool_notices
from pool_monitor.view.page_frame import Content, PageState, dimmed
from pool_monitor.view.table import table
from pool_monitor.view.text import Line, PageSize, Segment, clean, line_width, truncate_front, wrap


def notices_page(snapshot: Snapshot, _pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the page of all notices, each in full."""
    lines = _notice_lines(snapshot, state.freshness, state.levels, size.width)
    return _content([Segment(" WHAT DESERVES A LOOK", "head")], lines, state)


def errors_page(_snapshot: Snapshot, pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the page of the latest failures of *pool*, with their error texts."""
    head = " LATEST ERRORS of the last hour" if pool is not None else " LATEST ERRORS"
    return _content([Segment(head, "head")], _failure_lines(pool, size.width), state)


def operations_page(_snapshot: Snapshot, pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the page of all operations of *pool*."""
    rows = columns.sorted_operations(pool) if pool is not None else []
    drawn = table(columns.OPERATIONS, rows, size.width, len(rows) + 1)
    return _content(drawn[0], drawn[1:] or [[Segment(" no operation yet", "dim")]], state)


def pools_page(snapshot: Snapshot, pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the page of all pools, one per line. *pool* is highlighted."""
    rows = [
        columns.PoolRow(each, next(iter(pool_notices(snapshot, each, state.levels)), None))
        for each in snapshot.pools.values()
    ]
    chosen = next((row for row in rows if row.pool is pool), None)
    drawn = table(columns.POOLS, rows, size.width, len(rows) + 1, selected=chosen)
    return _content(drawn[0], drawn[1:] or [[Segment(" no pool yet", "dim")]], state)


def _content(head: Line, lines: list[Line], state: PageState) -> Content:
    return Content(dimmed([head]) if state.freshness.outdated else [head], lines)


def _notice_lines(snapshot: Snapshot, freshness: Freshness, levels: Levels, cells: int) -> list[Line]:
    """Return all notices in full: first the service's own, then pool by pool."""
    lines = [line for notice in notices(snapshot, None, freshness, levels) for line in _in_full(notice, cells)]
    for pool in snapshot.pools.values():
        of_pool = [line for notice in pool_notices(snapshot, pool, levels) for line in _in_full(notice, cells)]
        if of_pool:
            lines += [[Segment(f" pool {clean(pool.name)}", "strong")], *of_pool]
    return lines or [[Segment(" nothing needs attention", "dim")]]


def _in_full(notice: Notice, cells: int) -> list[Line]:
    words = f"{SYMBOLS[notice.level]} {notice.text}"
    return [[Segment(f"  {part}", notice.level)] for part in wrap(words, max(cells - 3, 1))]


def _failure_lines(pool: PoolDetail | None, cells: int) -> list[Line]:
    if pool is None or not pool.failures:
        return [[Segment(" nothing went wrong", "dim")]]
    return [line for failure in pool.failures for line in _lines_of_failure(failure, cells)]


def _lines_of_failure(failure: FailureView, cells: int) -> list[Line]:
    """Return one line with time, number, error, operation and worker, and below it the error text."""
    times = f" x{fmt.count(failure.count)}" if failure.count > 1 else ""
    operation = f"  in {clean(failure.operation)}" if failure.operation is not None else ""
    line: Line = [
        Segment(f" {fmt.whole_age(failure.age):>6} ago ", "dim"),
        Segment(f" {clean(failure.error)}", "strong"),
        Segment(f"{times}{operation}"),
    ]
    if failure.worker is not None:
        line.append(Segment(f"  on {truncate_front(clean(failure.worker), max(cells - line_width(line) - 5, 1))}"))
    texts = [" ".join(clean(text).split()) for text in (failure.message or "").splitlines()]
    parts = [part for text in texts if text for part in wrap(text, max(cells - 13, 1))]
    return [line, *([Segment(f"{'':12}{part}")] for part in parts)]
