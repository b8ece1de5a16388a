"""The pages that a key opens: what the overview has no room for, in full, from top to bottom."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pool_monitor import findings
from pool_monitor.findings import Levels
from pool_monitor.snapshot import FailureView, PoolDetail, Snapshot
from pool_monitor.view import columns, header
from pool_monitor.view import format as fmt
from pool_monitor.view import notices as look
from pool_monitor.view.glyphs import UNICODE, Glyphs
from pool_monitor.view.mode import LIVE, Mode
from pool_monitor.view.notices import Notice
from pool_monitor.view.overview import dimmed, finish, in_words, pool_shown, too_small
from pool_monitor.view.table import left_out, table
from pool_monitor.view.text import Line, Size, Span, clean, cut_front, line_width, wrap

Kind = Literal["notices", "errors", "operations", "pools"]
_FRAME_ROWS = 3
"""Header, head, keys."""


class Listing(NamedTuple):
    """A line that stays, and lines that scroll under it."""

    head: Line
    lines: list[Line]


def listing(
    kind: Kind,
    snapshot: Snapshot,
    size: tuple[int, int],
    *,
    mode: Mode = LIVE,
    pool: str | None = None,
    offset: int = 0,
    levels: Levels | None = None,
    glyphs: Glyphs = UNICODE,
) -> list[Line]:
    """The page *kind* in exactly *size* columns and rows, from line *offset* on. Errors and operations are those of
    *pool* (the first one if None), notices and pools all there are.
    """
    size = Size(*size)
    shown = pool_shown(snapshot, pool)
    if too_small(size):
        return finish([[Span(in_words(shown, mode, size), "bad" if mode.old else "plain")]], size, glyphs)
    found = findings.levels(snapshot) if levels is None else levels
    body = _body(kind, snapshot, shown, mode, found, size.width)
    lines = [body.head, *_scrolled(body.lines, size.height - _FRAME_ROWS, offset)]
    top = header.header(snapshot, shown, mode, size.width, found)
    return finish([top, *(dimmed(lines) if mode.old else lines)], size, glyphs, footer=_footer(kind, size.width))


def furthest(
    kind: Kind, snapshot: Snapshot, size: tuple[int, int], *, mode: Mode = LIVE, pool: str | None = None
) -> int:
    """The largest offset that still fills the page."""
    size = Size(*size)
    if too_small(size):
        return 0
    shown = pool_shown(snapshot, pool)
    body = _body(kind, snapshot, shown, mode, findings.levels(snapshot), size.width)
    room = size.height - _FRAME_ROWS
    return len(body.lines) - room + 1 if len(body.lines) > room else 0


def _body(kind: Kind, snapshot: Snapshot, pool: PoolDetail | None, mode: Mode, found: Levels, cells: int) -> Listing:
    if kind == "notices":
        return Listing([Span(" WHAT DESERVES A LOOK", "head")], _notices(snapshot, mode, found, cells))
    if kind == "errors":
        head = " WHAT WENT WRONG LAST, of the last hour" if pool is not None else " WHAT WENT WRONG LAST"
        return Listing([Span(head, "head")], _failures(pool, cells))
    if kind == "operations":
        rows = columns.operations(pool) if pool is not None else []
        drawn = table(columns.OPERATIONS, rows, cells, len(rows) + 1)
    else:
        summaries = [
            columns.PoolRow(each, next(iter(look.of_pool(snapshot, each, found)), None))
            for each in snapshot.pools.values()
        ]
        chosen = next((row for row in summaries if row.pool is pool), None)
        drawn = table(columns.POOLS, summaries, cells, len(summaries) + 1, selected=chosen)
    return Listing(drawn[0], drawn[1:] or [[Span(f" no {kind[:-1]} yet", "dim")]])


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


def _scrolled(lines: list[Line], room: int, offset: int) -> list[Line]:
    """As many of *lines* as there is *room* for, and how many there are above and below them."""
    if len(lines) <= room:
        return lines
    shown = max(room - 1, 0)
    offset = max(0, min(offset, len(lines) - shown))
    return [*lines[offset : offset + shown], [Span(" " + left_out(offset, len(lines) - shown - offset), "dim")]]


def _footer(kind: Kind, cells: int) -> Line:
    keys = [("Esc", "back"), ("↑↓", "pool" if kind == "pools" else "scroll")]
    if kind in {"errors", "operations"}:
        keys.append(("tab", "pool"))
    return header.keys([*keys, ("q", "quit"), ("?", "help")], cells)
