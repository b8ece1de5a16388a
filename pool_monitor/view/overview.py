"""The overview page: how a pool is doing, on one screen of any size."""

from __future__ import annotations

from dataclasses import dataclass

from pool_monitor import findings
from pool_monitor.findings import Levels
from pool_monitor.snapshot import PoolDetail, Snapshot, WorkerView
from pool_monitor.view import columns, header, panels
from pool_monitor.view import format as fmt
from pool_monitor.view.glyphs import UNICODE, Glyphs
from pool_monitor.view.mode import LIVE, Mode
from pool_monitor.view.table import rows_shown, table
from pool_monitor.view.text import Line, Size, Span, cut, fit_line

SMALLEST = Size(40, 8)
"""Below it there is one line of words instead of a page."""
_CHARTS_FROM_ROWS = 20
_SIDE_BY_SIDE_FROM = 100
"""Columns from which the latency distribution stands beside the throughput."""
_FRAME_ROWS = 5
"""Header, two lines of key figures, attention, keys."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Lines for each part of the page's body, from the top; 0 where a part is left out."""

    charts: int
    workers: int
    operations: int
    gap: int
    """Blank lines before each table."""


def layout(pool: PoolDetail, size: Size, taken: int = 0) -> Layout:
    """Share the lines between header and footer out, but for *taken* of them: tables get what they need, charts what is
    left, within limits.
    """
    body = size.height - _FRAME_ROWS - taken
    workers = 1 + max(1, len(pool.workers))
    operations = 1 + len(pool.operations) if pool.operations else 0
    charts = 0
    if size.height >= _CHARTS_FROM_ROWS:
        least, most = size.height // 3, size.height // 2
        charts = min(max(body - workers - operations - 1, least), most)
    rest = body - charts
    if workers + operations <= rest:
        return Layout(charts, workers, operations, gap=1 if workers + operations < rest and operations else 0)
    # Not everything fits: operations keep a third where that is enough to be of use, workers get the others.
    reserved = min(operations, max(4, rest // 3)) if rest >= 8 else 0
    workers = min(workers, rest - reserved)
    operations = min(operations, rest - workers)
    if operations < 3:
        return Layout(charts, rest, 0, gap=0)
    return Layout(charts, workers, operations, gap=0)


def pool_shown(snapshot: Snapshot, pool: str | None) -> PoolDetail | None:
    """The pool of that name, else the first one; None when there is none."""
    return snapshot.pools.get(pool or "") or next(iter(snapshot.pools.values()), None)


def visible_workers(
    snapshot: Snapshot, size: tuple[int, int], pool: str | None = None, selected: str | None = None
) -> int:
    """How many worker rows `overview` shows at this size: what a page-down moves by."""
    shown = pool_shown(snapshot, pool)
    size = Size(*size)
    if shown is None or too_small(size):
        return 0
    return rows_shown(len(shown.workers), layout(shown, size, taken=int(selected in shown.workers)).workers)


def overview(
    snapshot: Snapshot,
    size: tuple[int, int],
    *,
    mode: Mode = LIVE,
    pool: str | None = None,
    offset: int = 0,
    selected: str | None = None,
    levels: Levels | None = None,
    glyphs: Glyphs = UNICODE,
) -> list[Line]:
    """The page for *pool* (the first one if None) in exactly *size* columns and rows.

    *offset* is the first worker row to show. The row of the slot *selected* is highlighted, and a line above the keys
    has more about it. *levels* are those of the shares (`findings.levels`), if known. When *mode* is STALE or LOST,
    everything except the words that say so is dim.
    """
    size = Size(*size)
    shown = pool_shown(snapshot, pool)
    if too_small(size):
        return finish([[Span(in_words(shown, mode, size), "bad" if mode.old else "plain")]], size, glyphs)
    found = findings.levels(snapshot) if levels is None else levels
    lines = [header.header(snapshot, shown, mode, size.width, found)]
    notice = header.attention(snapshot, shown, mode, size.width, found)
    if shown is None:
        lines += [[], [], notice, *dimmed(_no_pool(size))]
    else:
        figures = header.kpis(shown, size.width, found)
        body = _body(snapshot, shown, size, offset, selected)
        lines += [*dimmed(figures), notice, *dimmed(body)] if mode.old else [*figures, notice, *body]
    return finish(lines, size, glyphs, footer=header.footer(len(snapshot.pools), size.width))


def _body(snapshot: Snapshot, pool: PoolDetail, size: Size, offset: int, selected: str | None) -> list[Line]:
    chosen = pool.workers.get(selected or "")
    lines = _parts(snapshot, pool, size, offset, chosen)
    if chosen is None:
        return lines
    room = size.height - _FRAME_ROWS - 1
    return [*lines, *([] for _ in range(room - len(lines))), header.about_worker(chosen, size.width)]


def _parts(snapshot: Snapshot, pool: PoolDetail, size: Size, offset: int, chosen: WorkerView | None) -> list[Line]:
    parts = layout(pool, size, taken=int(chosen is not None))
    lines: list[Line] = []
    if parts.charts:
        side = size.width * 3 // 8 if size.width >= _SIDE_BY_SIDE_FROM else 0
        lines = panels.throughput(snapshot, pool, size.width - side, parts.charts)
        if side:
            right = panels.latency(snapshot, pool, side, parts.charts)
            lines = [[*one, *two] for one, two in zip(lines, right, strict=True)]
    workers = columns.workers(pool)
    lines += table(columns.WORKERS, workers, size.width, parts.workers, offset=offset, selected=chosen)
    if not workers:
        lines.append([Span(" no worker yet", "dim")])
    lines += [[] for _ in range(parts.gap)]
    return lines + table(columns.OPERATIONS, columns.operations(pool), size.width, parts.operations)


def _no_pool(size: Size) -> list[Line]:
    words = "no pool yet: this service has a monitor, but no pool has been entered"
    return [[] for _ in range((size.height - _FRAME_ROWS) // 2)] + [[Span(words.center(size.width))]]


def dimmed(lines: list[Line]) -> list[Line]:
    """The same lines, of numbers that are old."""
    return [[Span(text, "dim") for text, _ in line] for line in lines]


def too_small(size: Size) -> bool:
    return size.width < SMALLEST.width or size.height < SMALLEST.height


def in_words(pool: PoolDetail | None, mode: Mode, size: Size) -> str:
    """What is said on a screen that is too small."""
    needs = f"needs {SMALLEST.width}x{SMALLEST.height}, has {size.width}x{size.height}"
    word = f"{mode.word} " if mode.word != "LIVE" else ""
    if pool is None:
        return cut(f"{word}{needs}", size.width)
    state = f"{fmt.count(pool.busy)}/{fmt.count(pool.size)} busy, {fmt.count(pool.waiting)} waiting"
    both = f"{word}{state}; {needs}"
    return both if len(both) <= size.width else cut(f"{word}{needs}", size.width)


def finish(lines: list[Line], size: Size, glyphs: Glyphs, footer: Line | None = None) -> list[Line]:
    """Exactly *size* lines and columns, *footer* on the last one, drawn in *glyphs*."""
    room = size.height - (footer is not None)
    page = (lines + [[] for _ in range(room)])[:room] + ([footer] if footer is not None else [])
    return [glyphs.draw(fit_line(line, size.width)) for line in page[: size.height]]
