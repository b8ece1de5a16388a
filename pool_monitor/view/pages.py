"""The table of the dashboard's pages: their keys, their texts in help and footers, and the functions that draw them.

A new page needs a function that returns its `Content`, and a row in `PAGES`. Its key, its line in the help and its
footer follow from the row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from pool_monitor import findings
from pool_monitor.findings import Levels
from pool_monitor.snapshot import WINDOW_NAMES, PoolDetail, Snapshot
from pool_monitor.view import header, listings
from pool_monitor.view.advice_page import advice_page
from pool_monitor.view.alerts_page import alerts_page
from pool_monitor.view.errors_page import errors_page
from pool_monitor.view.freshness import LIVE, Freshness
from pool_monitor.view.glyphs import UNICODE, Glyphs
from pool_monitor.view.overview import overview_page
from pool_monitor.view.page_frame import (
    Content,
    PageState,
    WorkerStack,
    dimmed,
    fit_page,
    pool_shown,
    too_small,
    too_small_line,
)
from pool_monitor.view.resources_page import resources_page
from pool_monitor.view.stack_page import stack_page
from pool_monitor.view.table import left_out
from pool_monitor.view.text import Line, PageSize, Segment

PageName = Literal["overview", "notices", "alerts", "advice", "errors", "resources", "operations", "stack", "pools"]
Arrows = Literal["worker", "line", "pool", "error", "alert", "advice"]
"""What the arrow keys move: the selected worker, the lines of the page, the pool that is shown, the selected error, the
selected alert, or the selected change or recommendation.
"""


class Page(NamedTuple):
    name: PageName
    key: str
    """The key that opens the page. Empty for the overview, which is below all others."""
    label: str
    """Its name in the footer of the overview."""
    title: str
    """Its text in the help."""
    draw: Callable[[Snapshot, PoolDetail | None, PageSize, PageState], Content]
    arrows: Arrows = "line"
    of_pool: bool = False
    """Whether the page shows one pool, so that `tab` shows the next pool."""
    later: bool = False
    """Whether its key stands behind the keys of the window in the footer, where narrow screens leave it out."""


PAGES: dict[PageName, Page] = {
    page.name: page
    for page in (
        Page("overview", "", "", "", overview_page, arrows="worker", of_pool=True),
        Page("notices", "n", "notices", "all notices", listings.notices_page),
        Page("alerts", "a", "alerts", "alerts and silences", alerts_page, arrows="alert"),
        Page("errors", "e", "errors", "errors, in groups", errors_page, arrows="error", of_pool=True),
        Page("operations", "o", "ops", "operations", listings.operations_page, of_pool=True, later=True),
        Page("resources", "r", "res", "resources", resources_page, later=True),
        Page("stack", "s", "stack", "a worker's stack", stack_page, later=True),
        Page("advice", "t", "tune", "advice and tuning", advice_page, arrows="advice", later=True),
        Page("pools", "p", "pools", "all pools at a glance", listings.pools_page, arrows="pool"),
    )
}
"""Every page that shows a Snapshot, in the order of the help and the footer."""


def draw(
    name: PageName,
    snapshot: Snapshot,
    size: tuple[int, int],
    pool: str | None,
    state: PageState,
    glyphs: Glyphs = UNICODE,
) -> list[Line]:
    """Return the page *name* in exactly *size* columns and rows. It shows *pool*, or the first pool if None."""
    size, page = PageSize(*size), PAGES[name]
    shown = pool_shown(snapshot, pool)
    if too_small(size):
        return fit_page([too_small_line(shown, state.freshness, size)], size, glyphs)
    content = page.draw(snapshot, shown, size, state)
    scrolled = _window_of(content.scrolled, _room(content, size), state.offset)
    lines = [
        header.header(snapshot, shown, state.freshness, size.width, state.levels),
        *content.fixed,
        *(dimmed(scrolled) if state.freshness.outdated else scrolled),
    ]
    return fit_page(lines, size, glyphs, footer=footer(page, len(snapshot.pools), size.width))


def _room(content: Content, size: PageSize) -> int:
    """How many lines are left for the scrolled part, below header and fixed lines and above the footer."""
    return size.height - len(content.fixed) - 2


def _window_of(lines: list[Line], room: int, offset: int) -> list[Line]:
    """Return as many of *lines* as fit in *room*. If not all fit, the last line counts the lines above and below."""
    if len(lines) <= room:
        return lines
    shown = max(room - 1, 0)
    offset = max(0, min(offset, len(lines) - shown))
    return [*lines[offset : offset + shown], [Segment(" " + left_out(offset, len(lines) - shown - offset), "dim")]]


def max_offset(
    name: PageName,
    snapshot: Snapshot,
    size: tuple[int, int],
    *,
    pool: str | None = None,
    state: PageState | None = None,
) -> int:
    """Return the largest offset that still fills the page *name*. None: the state that a page has at first."""
    size = PageSize(*size)
    if too_small(size):
        return 0
    state = PageState(levels=findings.levels(snapshot)) if state is None else state
    content = PAGES[name].draw(snapshot, pool_shown(snapshot, pool), size, state)
    room = _room(content, size)
    return len(content.scrolled) - room + 1 if len(content.scrolled) > room else 0


def overview(
    snapshot: Snapshot,
    size: tuple[int, int],
    *,
    freshness: Freshness = LIVE,
    pool: str | None = None,
    offset: int = 0,
    selected: str | None = None,
    levels: Levels | None = None,
    glyphs: Glyphs = UNICODE,
) -> list[Line]:
    """Return the overview of *pool* (the first pool if None) in exactly *size* columns and rows.

    *offset* is the first worker row to show. The row of the slot *selected* is highlighted, and a line above the keys
    gives more details of its worker. *levels* are the levels of the shares; None computes them (`findings.levels`).
    When *freshness* is STALE or LOST, everything is dim except that word and its notice.
    """
    state = PageState(freshness, offset, selected, findings.levels(snapshot) if levels is None else levels)
    return draw("overview", snapshot, size, pool, state, glyphs)


def listing(
    name: PageName,
    snapshot: Snapshot,
    size: tuple[int, int],
    *,
    freshness: Freshness = LIVE,
    pool: str | None = None,
    offset: int = 0,
    levels: Levels | None = None,
    glyphs: Glyphs = UNICODE,
    error: str | None = None,
    alert: str | None = None,
    advice: str | None = None,
    explanation: str = "",
    stack: WorkerStack | None = None,
    frame_seconds: float | None = None,
) -> list[Line]:
    """Return the page *name* in exactly *size* columns and rows, from line *offset* on.

    The pages of errors, operations and the stack show *pool* (the first pool if None). The pages of notices and pools
    show all pools. *error*, *alert*, *advice*, *explanation*, *stack* and *frame_seconds* are
    the fields of `PageState`.
    """
    state = PageState(
        freshness,
        offset,
        levels=findings.levels(snapshot) if levels is None else levels,
        error=error,
        alert=alert,
        advice=advice,
        explanation=explanation,
        stack=stack,
        frame_seconds=frame_seconds,
    )
    return draw(name, snapshot, size, pool, state, glyphs)


def footer(page: Page, pools: int, cells: int) -> Line:
    """Return the keys of *page*, the most important first. Keys that do not fit are left out whole."""
    if not page.key:
        return header.key_line(_keys_of_overview(pools), cells)
    shown = [("Esc", "back"), ("↑↓", {"line": "scroll"}.get(page.arrows, page.arrows))]
    if page.arrows == "advice":
        shown += [("Enter", "why"), ("A", "approve"), ("R", "reject"), ("B", "undo"), ("D", "dismiss")]
    if page.arrows in ("error", "alert", "advice"):
        shown.append(("PgUp PgDn", "scroll"))
    if page.arrows == "alert":
        shown += [("A", "acknowledge"), ("S", "silence")]
    if page.of_pool:
        shown.append(("tab", "pool"))
    return header.key_line([*shown, ("q", "quit"), ("?", "help")], cells)


def _keys_of_overview(pools: int) -> list[tuple[str, str]]:
    opened = [page for page in PAGES.values() if page.key and (page.arrows != "pool" or pools > 1)]
    shown = [("q", "quit"), ("?", "help"), *((page.key, page.label) for page in opened if not page.later)]
    if pools > 1:
        shown.append(("tab", "next"))
    shown.append((f"1-{len(WINDOW_NAMES)}", "window"))
    shown += [(page.key, page.label) for page in opened if page.later]
    return [*shown, ("↑↓", "select"), ("space", "pause")]
