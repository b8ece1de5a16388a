"""What every page has in common: its exact size, the pool it shows, and the look of outdated numbers."""

from __future__ import annotations

from typing import NamedTuple

from pool_monitor.findings import NO_LEVELS, Levels
from pool_monitor.snapshot import PoolDetail, Snapshot
from pool_monitor.view import format as fmt
from pool_monitor.view.freshness import LIVE, Freshness
from pool_monitor.view.glyphs import Glyphs
from pool_monitor.view.text import Line, PageSize, Segment, fit_line, truncate

SMALLEST = PageSize(40, 8)
"""A smaller screen shows one line of text instead of a page."""


class WorkerStack(NamedTuple):
    """The stack of one worker, as far as the screen has got it."""

    worker: str
    text: str | None = None
    """The stack, with the innermost frame last. None: there is none, or none yet."""
    reason: str = ""
    """Why there is none, in words."""
    asking: bool = False
    """Whether an answer is awaited. *text* is then the previous answer."""
    age: float | None = None
    """Seconds since the answer came."""


class PageState(NamedTuple):
    """How a page is shown: what the person at the screen has chosen, and how fresh the numbers are."""

    freshness: Freshness = LIVE
    offset: int = 0
    """The first worker row of the overview, the first scrolled line of any other page."""
    selected: str | None = None
    """The slot whose row is highlighted."""
    levels: Levels = NO_LEVELS
    """The levels of the shares in the Snapshot (`findings.levels`)."""
    error: str | None = None
    """The key of the row that is selected on the page of errors."""
    stack: WorkerStack | None = None
    """What the page of the stack shows."""
    frame_seconds: float | None = None
    """How long drawing a frame of this screen takes; None: not measured."""
    alert: str | None = None
    """The fingerprint of the alert that is selected on the page of alerts."""
    prompt: str = ""
    """What is asked about the selected alert, trial or recommendation, or what became of it."""
    advice: str | None = None
    """The id of the trial or recommendation that is selected on the page of advice."""
    explanation: str = ""
    """The explanation of that one, in lines; empty: it was not asked for."""


class Content(NamedTuple):
    """The part of a page between header and footer."""

    fixed: list[Line]
    """The lines at the top, which do not scroll."""
    scrolled: list[Line]
    """The lines that scroll below the fixed lines. They take the rest of the height."""


def pool_shown(snapshot: Snapshot, pool: str | None) -> PoolDetail | None:
    """Return the pool named *pool*, else the first pool. None: there is no pool."""
    return snapshot.pools.get(pool or "") or next(iter(snapshot.pools.values()), None)


def dimmed(lines: list[Line]) -> list[Line]:
    """Return the same lines, dim: for numbers that are outdated."""
    return [[Segment(text, "dim") for text, _ in line] for line in lines]


def page_content(fixed: list[Line], scrolled: list[Line], state: PageState) -> Content:
    """Return the content of a page, with its fixed lines dim if they are outdated. `pages.draw` dims the others."""
    return Content(dimmed(fixed) if state.freshness.outdated else fixed, scrolled)


def too_small(size: PageSize) -> bool:
    return size.width < SMALLEST.width or size.height < SMALLEST.height


def too_small_line(pool: PoolDetail | None, freshness: Freshness, size: PageSize) -> Line:
    """Return the line for a screen that is too small for a page."""
    needs = f"needs {SMALLEST.width}x{SMALLEST.height}, has {size.width}x{size.height}"
    word = f"{freshness.state} " if freshness.state != "LIVE" else ""
    text = f"{word}{needs}"
    if pool is not None:
        state = f"{fmt.count(pool.busy)}/{fmt.count(pool.size)} busy, {fmt.count(pool.waiting)} waiting"
        both = f"{word}{state}; {needs}"
        text = both if len(both) <= size.width else text
    return [Segment(truncate(text, size.width), "bad" if freshness.outdated else "plain")]


def fit_page(lines: list[Line], size: PageSize, glyphs: Glyphs, footer: Line | None = None) -> list[Line]:
    """Return *lines* in exactly *size* columns and rows, with *footer* in the last row, drawn in *glyphs*."""
    room = size.height - (footer is not None)
    page = (lines + [[] for _ in range(room)])[:room] + ([footer] if footer is not None else [])
    return [glyphs.draw(fit_line(line, size.width)) for line in page[: size.height]]
