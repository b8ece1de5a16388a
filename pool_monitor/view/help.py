"""The pages that need no Snapshot: the help, and the page before the first Snapshot."""

from __future__ import annotations

from pool_monitor.snapshot import WINDOW_NAMES
from pool_monitor.view import columns
from pool_monitor.view import format as fmt
from pool_monitor.view.freshness import Freshness
from pool_monitor.view.glyphs import UNICODE, Glyphs
from pool_monitor.view.header import PRODUCT
from pool_monitor.view.page_frame import fit_page, too_small
from pool_monitor.view.pages import PAGES, Page
from pool_monitor.view.text import Line, PageSize, Segment, justify, one_line, truncate, width, wrap


def _opening(pages: list[Page], *more: tuple[str, str]) -> tuple[str, str]:
    """Return the keys that open *pages*, and the titles of the pages."""
    entries = [*((page.key, page.title) for page in pages), *more]
    return "  ".join(key for key, _ in entries), "; ".join(title for _, title in entries)


_KEYS = (
    ("q  Ctrl-C", "quit"),
    ("space", "pause the display; recording goes on"),
    (
        f"1-{len(WINDOW_NAMES)}  + -",
        f"window: {', '.join(WINDOW_NAMES[:-1])} or {WINDOW_NAMES[-1]} (goes back to live)",
    ),
    _opening([page for page in PAGES.values() if page.key and page.arrows != "pool" and not page.later]),
    _opening([page for page in PAGES.values() if page.later]),
    _opening([page for page in PAGES.values() if page.arrows == "pool"], ("tab", "the next pool")),
    ("↑ ↓ j k", "select a worker (or scroll a page): PgUp PgDn, Esc none"),
    ("?  Esc", "this help, and back"),
)
_WORDS = (
    ("OK/s", "calls that ended well per second; RATE/s: however they ended"),
    ("ERR  REJ", "calls that failed / all that ended; refused / all offered"),
    ("p95", "of calls that ended well, from call to end; QUEUE: to hand-over"),
    ("RESTARTS", "workers started after one had ended unexpectedly"),
    ("LAG", "p99 of the loop; CPU MEM LOAD DISK: machine; RSS FDS TASKS: service"),
    ("~", "based on fewer than 20 calls"),
    (fmt.UNKNOWN, "unknown: nothing measured yet, never 0"),
)


def help_page(size: tuple[int, int], *, glyphs: Glyphs = UNICODE) -> list[Line]:
    """Return the help: the keys, and what the words on the overview mean."""
    size = PageSize(*size)
    states = "  ".join(text for text, _ in columns.STATES.values())
    lines: list[Line] = [
        justify([Segment(f" {PRODUCT} help", "bar-strong")], [Segment("Esc back ", "bar")], size.width, "bar")
    ]
    lines += [[], [Segment(" KEYS", "head")], *(_entry(name, text) for name, text in _KEYS)]
    lines += [[], [Segment(" NUMBERS", "head")], *(_entry(name, text) for name, text in _WORDS)]
    lines += [[], [Segment(" WORKERS", "head")], [Segment(f" {states}")]]
    marks = [Segment(" ▲", "warn"), Segment(" look soon   "), Segment("✖", "bad"), Segment(" look now   ")]
    lines.append([*marks, Segment("alerts ✖2 ▲1: they fire, and nobody knows yet")])
    return fit_page(lines, size, glyphs)


def _entry(name: str, text: str) -> Line:
    return [Segment(f" {name:<12}", "key"), Segment(text)]


def waiting_page(
    size: tuple[int, int], text: str, *, freshness: Freshness | None = None, glyphs: Glyphs = UNICODE
) -> list[Line]:
    """Return the page before the first Snapshot. *text* says what the dashboard waits for, and why if known."""
    size = PageSize(*size)
    words = one_line(text)
    if too_small(size):
        return fit_page([[Segment(truncate(words, size.width))]], size, glyphs)
    right = [freshness.segment(), Segment(" ", "bar")] if freshness is not None else []
    lines: list[Line] = [justify([Segment(f" {PRODUCT}", "bar-strong")], right, size.width, "bar")]
    wrapped = wrap(words, size.width - 2)
    lines += [[] for _ in range(max(size.height // 2 - len(wrapped), 0))]
    left = " " * max((size.width - width(wrapped[0])) // 2, 1) if len(wrapped) == 1 else " "
    lines += [[Segment(left), Segment(part, "bad" if freshness else "plain")] for part in wrapped]
    return fit_page(lines, size, glyphs, footer=[Segment(" q", "key"), Segment(" quit", "dim")])
