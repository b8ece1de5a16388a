"""The overview: the state of a pool on one screen of any size."""

from __future__ import annotations

from dataclasses import dataclass

from pool_monitor.snapshot import PoolDetail, Snapshot, WorkerView
from pool_monitor.view import columns, header, panels
from pool_monitor.view.gauges import gauge_line
from pool_monitor.view.page_frame import Content, PageState, dimmed, pool_shown, too_small
from pool_monitor.view.table import rows_shown, table
from pool_monitor.view.text import Line, PageSize, Segment

_CHARTS_FROM_ROWS = 20
_SIDE_BY_SIDE_FROM = 100
"""The screen width, in columns, from which the latency distribution is drawn beside the throughput."""
_FRAME_ROWS = 5
"""Lines outside the body: header, two of key figures, notices, keys."""
_GAUGES_FROM_ROWS = 18
"""The screen height from which a row of resource gauges stands below the notices."""


@dataclass(frozen=True, slots=True)
class OverviewLayout:
    """How many lines each part of the page's body gets, from the top. 0: the part is left out."""

    charts: int
    workers: int
    operations: int
    gap: int
    """Blank lines before each table."""


def layout(pool: PoolDetail, size: PageSize, taken: int = 0) -> OverviewLayout:
    """Divide the lines between header and footer, except *taken* of them. Tables get what they need, charts get the
    rest, within limits.
    """
    body = size.height - _FRAME_ROWS - taken
    workers = 1 + max(1, len(pool.workers))
    operations = 1 + len(pool.operations) if pool.operations else 0
    charts = 0
    if size.height >= _CHARTS_FROM_ROWS:
        least, most = (size.height - taken) // 3, size.height // 2
        charts = min(max(body - workers - operations - 1, least), most)
    rest = body - charts
    if workers + operations <= rest:
        return OverviewLayout(charts, workers, operations, gap=1 if workers + operations < rest and operations else 0)
    # Not everything fits: operations keep a third if that is enough to be useful; workers get the rest.
    reserved = min(operations, max(4, rest // 3)) if rest >= 8 else 0
    workers = min(workers, rest - reserved)
    operations = min(operations, rest - workers)
    if operations < 3:
        return OverviewLayout(charts, rest, 0, gap=0)
    return OverviewLayout(charts, workers, operations, gap=0)


def visible_workers(
    snapshot: Snapshot, size: tuple[int, int], pool: str | None = None, selected: str | None = None
) -> int:
    """Return how many worker rows the page shows at this size: the step of a page-down."""
    shown = pool_shown(snapshot, pool)
    size = PageSize(*size)
    if shown is None or too_small(size):
        return 0
    taken = int(selected in shown.workers) + len(_gauges(snapshot, size))
    return rows_shown(len(shown.workers), layout(shown, size, taken).workers)


def overview_page(snapshot: Snapshot, pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return key figures, notices, gauges, charts, and as many rows as fit. The page does not scroll: *state.offset* is
    the first worker row.
    """
    old = state.freshness.outdated
    notice = header.notice_line(snapshot, pool, state.freshness, size.width, state.levels)
    if pool is None:
        return Content([[], [], notice, *dimmed(_no_pool(size))], [])
    figures = header.key_figures(pool, size.width, state.levels)
    body = _body(snapshot, pool, size, state.offset, state.selected)
    return Content([*dimmed(figures), notice, *dimmed(body)] if old else [*figures, notice, *body], [])


def _body(snapshot: Snapshot, pool: PoolDetail, size: PageSize, offset: int, selected: str | None) -> list[Line]:
    chosen, gauges = pool.workers.get(selected or ""), _gauges(snapshot, size)
    lines = [*gauges, *_parts(snapshot, pool, size, offset, chosen, len(gauges))]
    if chosen is None:
        return lines
    room = size.height - _FRAME_ROWS - 1
    return [*lines, *([] for _ in range(room - len(lines))), header.worker_line(snapshot, chosen, size.width)]


def _gauges(snapshot: Snapshot, size: PageSize) -> list[Line]:
    line = gauge_line(snapshot, size.width) if size.height >= _GAUGES_FROM_ROWS else []
    return [line] if line else []


def _parts(
    snapshot: Snapshot, pool: PoolDetail, size: PageSize, offset: int, chosen: WorkerView | None, taken: int
) -> list[Line]:
    parts = layout(pool, size, taken + int(chosen is not None))
    lines: list[Line] = []
    if parts.charts:
        side = size.width * 3 // 8 if size.width >= _SIDE_BY_SIDE_FROM else 0
        lines = panels.throughput(snapshot, pool, size.width - side, parts.charts)
        if side:
            right = panels.latency(snapshot, pool, side, parts.charts)
            lines = [[*one, *two] for one, two in zip(lines, right, strict=True)]
    workers = columns.sorted_workers(pool)
    lines += table(columns.worker_columns(pool), workers, size.width, parts.workers, offset=offset, selected=chosen)
    if not workers:
        lines.append([Segment(" no worker yet", "dim")])
    lines += [[] for _ in range(parts.gap)]
    return lines + table(columns.OPERATIONS, columns.sorted_operations(pool), size.width, parts.operations)


def _no_pool(size: PageSize) -> list[Line]:
    words = "no pool yet: this service has a monitor, but no pool has been entered"
    return [[] for _ in range((size.height - _FRAME_ROWS) // 2)] + [[Segment(words.center(size.width))]]
