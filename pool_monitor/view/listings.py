"""The pages that a key opens. Each shows in full what the overview has no room for."""

from __future__ import annotations

from pool_monitor.findings import Levels
from pool_monitor.snapshot import PoolDetail, Snapshot
from pool_monitor.view import alert_words, columns
from pool_monitor.view.freshness import Freshness
from pool_monitor.view.notices import SYMBOLS, Notice, notices, pool_notices
from pool_monitor.view.page_frame import Content, PageState, page_content
from pool_monitor.view.table import table
from pool_monitor.view.text import Line, PageSize, Segment, clean, paragraph


def notices_page(snapshot: Snapshot, _pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the page of all notices, each in full."""
    lines = _notice_lines(snapshot, state.freshness, state.levels, size.width)
    return page_content([[Segment(" WHAT DESERVES A LOOK", "head")]], lines, state)


def operations_page(_snapshot: Snapshot, pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the page of all operations of *pool*."""
    rows = columns.sorted_operations(pool) if pool is not None else []
    drawn = table(columns.OPERATIONS, rows, size.width, len(rows) + 1)
    return page_content(drawn[:1], drawn[1:] or [[Segment(" no operation yet", "dim")]], state)


def pools_page(snapshot: Snapshot, pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the page of all pools, one per line. *pool* is highlighted."""
    rows = [
        columns.PoolRow(each, next(iter(pool_notices(snapshot, each, state.levels)), None))
        for each in snapshot.pools.values()
    ]
    chosen = next((row for row in rows if row.pool is pool), None)
    drawn = table(columns.POOLS, rows, size.width, len(rows) + 1, selected=chosen)
    return page_content(drawn[:1], drawn[1:] or [[Segment(" no pool yet", "dim")]], state)


def _notice_lines(snapshot: Snapshot, freshness: Freshness, levels: Levels, cells: int) -> list[Line]:
    """Return all notices in full: first the service's own, then pool by pool."""
    lines = [line for notice in notices(snapshot, None, freshness, levels) for line in _in_full(notice, cells)]
    for pool in snapshot.pools.values():
        of_pool = [line for notice in pool_notices(snapshot, pool, levels) for line in _in_full(notice, cells)]
        if of_pool:
            lines += [[Segment(f" pool {clean(pool.name)}", "strong")], *of_pool]
    if quiet := alert_words.quiet_counts(snapshot.alerts):
        return [*lines, *paragraph(f"not shown here: alerts, {', '.join(quiet)}; see the page a", cells, "dim")]
    return lines or [[Segment(" nothing needs attention", "dim")]]


def _in_full(notice: Notice, cells: int) -> list[Line]:
    words = f"{SYMBOLS[notice.level]} {notice.text}"
    return paragraph(words, cells, notice.level, indent=2)
