"""What every page has in common: its exact size, the pool it is about, and how old numbers look."""

from __future__ import annotations

from typing import NamedTuple

from pool_monitor.findings import NO_LEVELS, Levels
from pool_monitor.snapshot import PoolDetail, Snapshot
from pool_monitor.view import format as fmt
from pool_monitor.view.glyphs import Glyphs
from pool_monitor.view.mode import LIVE, Mode
from pool_monitor.view.text import Line, Size, Span, cut, fit_line

SMALLEST = Size(40, 8)
"""Below it there is one line of words instead of a page."""


class PageState(NamedTuple):
    """How a page is shown: what the reader has chosen, and how fresh the numbers are."""

    mode: Mode = LIVE
    offset: int = 0
    """The first worker row of the overview, the first scrolled line of any other page."""
    selected: str | None = None
    """The slot whose row is highlighted."""
    levels: Levels = NO_LEVELS
    """Of the shares of the Snapshot (`findings.levels`)."""


class Content(NamedTuple):
    """What stands between a page's header and its footer."""

    fixed: list[Line]
    """Lines that stay,"""
    scrolled: list[Line]
    """and lines that scroll below them. They take what room is left."""


def pool_shown(snapshot: Snapshot, pool: str | None) -> PoolDetail | None:
    """The pool of that name, else the first one; None when there is none."""
    return snapshot.pools.get(pool or "") or next(iter(snapshot.pools.values()), None)


def dimmed(lines: list[Line]) -> list[Line]:
    """The same lines, of numbers that are old."""
    return [[Span(text, "dim") for text, _ in line] for line in lines]


def too_small(size: Size) -> bool:
    return size.width < SMALLEST.width or size.height < SMALLEST.height


def in_words(pool: PoolDetail | None, mode: Mode, size: Size) -> Line:
    """What a screen shows that is too small for a page."""
    needs = f"needs {SMALLEST.width}x{SMALLEST.height}, has {size.width}x{size.height}"
    word = f"{mode.word} " if mode.word != "LIVE" else ""
    text = f"{word}{needs}"
    if pool is not None:
        state = f"{fmt.count(pool.busy)}/{fmt.count(pool.size)} busy, {fmt.count(pool.waiting)} waiting"
        both = f"{word}{state}; {needs}"
        text = both if len(both) <= size.width else text
    return [Span(cut(text, size.width), "bad" if mode.old else "plain")]


def finish(lines: list[Line], size: Size, glyphs: Glyphs, footer: Line | None = None) -> list[Line]:
    """Exactly *size* lines and columns, *footer* on the last one, drawn in *glyphs*."""
    room = size.height - (footer is not None)
    page = (lines + [[] for _ in range(room)])[:room] + ([footer] if footer is not None else [])
    return [glyphs.draw(fit_line(line, size.width)) for line in page[: size.height]]
