"""Pure functions that turn a Snapshot and a size into lines of text with meanings: no terminal, no clock.

The dashboard shows these lines, reports print them, and tests compare them with golden files.
"""

from pool_monitor.findings import NO_LEVELS, Levels, levels
from pool_monitor.view.advice_page import advice_rows, selected_advice
from pool_monitor.view.alerts_page import alert_rows, selected_alert
from pool_monitor.view.columns import sorted_workers
from pool_monitor.view.errors_page import error_rows, selected_row
from pool_monitor.view.freshness import LIVE, Freshness
from pool_monitor.view.glyphs import ASCII, UNICODE, Glyphs
from pool_monitor.view.help import help_page, waiting_page
from pool_monitor.view.overview import visible_workers
from pool_monitor.view.page_frame import PageState, WorkerStack, pool_shown
from pool_monitor.view.pages import PAGES, Page, PageName, draw, listing, max_offset, overview
from pool_monitor.view.snapshot_report import report
from pool_monitor.view.text import Line, Meaning, PageSize, Segment, plain

__all__ = [
    "ASCII",
    "LIVE",
    "NO_LEVELS",
    "PAGES",
    "UNICODE",
    "Freshness",
    "Glyphs",
    "Levels",
    "Line",
    "Meaning",
    "Page",
    "PageName",
    "PageSize",
    "PageState",
    "Segment",
    "WorkerStack",
    "advice_rows",
    "alert_rows",
    "draw",
    "error_rows",
    "help_page",
    "levels",
    "listing",
    "max_offset",
    "overview",
    "plain",
    "pool_shown",
    "report",
    "selected_advice",
    "selected_alert",
    "selected_row",
    "sorted_workers",
    "visible_workers",
    "waiting_page",
]
