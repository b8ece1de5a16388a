"""Snapshot and size in, lines of text with meaning out: pure functions, no terminal, no clock.

The same lines are shown by the dashboard, printed as reports and compared with golden files in tests.
"""

from pool_monitor.findings import NO_LEVELS, Levels, levels
from pool_monitor.view.columns import workers
from pool_monitor.view.glyphs import ASCII, UNICODE, Glyphs
from pool_monitor.view.listings import Kind, furthest, listing
from pool_monitor.view.mode import LIVE, Mode
from pool_monitor.view.overview import overview, pool_shown, visible_workers
from pool_monitor.view.pages import help_page, waiting_page
from pool_monitor.view.snapshot_report import report
from pool_monitor.view.text import Line, Meaning, Size, Span, plain

__all__ = [
    "ASCII",
    "LIVE",
    "NO_LEVELS",
    "UNICODE",
    "Glyphs",
    "Kind",
    "Levels",
    "Line",
    "Meaning",
    "Mode",
    "Size",
    "Span",
    "furthest",
    "help_page",
    "levels",
    "listing",
    "overview",
    "plain",
    "pool_shown",
    "report",
    "visible_workers",
    "waiting_page",
    "workers",
]
