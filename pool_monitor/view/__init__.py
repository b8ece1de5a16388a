"""Snapshot and size in, lines of text with meaning out: pure functions, no terminal, no clock.

The same lines are shown by the dashboard, printed as reports and compared with golden files in tests.
"""

from pool_monitor.view.bars import WINDOWS
from pool_monitor.view.glyphs import ASCII, UNICODE, Glyphs
from pool_monitor.view.mode import LIVE, Mode
from pool_monitor.view.overview import overview, visible_workers
from pool_monitor.view.pages import help_page, waiting_page
from pool_monitor.view.report import report
from pool_monitor.view.text import Line, Meaning, Size, Span, plain

__all__ = [
    "ASCII",
    "LIVE",
    "UNICODE",
    "WINDOWS",
    "Glyphs",
    "Line",
    "Meaning",
    "Mode",
    "Size",
    "Span",
    "help_page",
    "overview",
    "plain",
    "report",
    "visible_workers",
    "waiting_page",
]
