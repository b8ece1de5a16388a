"""The page that shows what the selected worker is running."""

from __future__ import annotations

from pool_monitor.snapshot import PoolDetail, Snapshot, WorkerView
from pool_monitor.view import columns
from pool_monitor.view import format as fmt
from pool_monitor.view.page_frame import Content, PageState, WorkerStack, page_content
from pool_monitor.view.stack_lines import stack_lines
from pool_monitor.view.text import Line, PageSize, Segment, clean, one_line, paragraph


def stack_page(_snapshot: Snapshot, pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the page of the stack that was asked for last. Asking is not part of the page: a key does it."""
    shown = state.stack
    if shown is None:
        return page_content([[Segment(" STACK", "head")]], [[Segment(" no worker to ask", "dim")]], state)
    worker = pool.workers.get(shown.worker) if pool is not None else None
    return page_content([_head(shown, worker)], _lines(shown, size.width), state)


def _head(shown: WorkerStack, worker: WorkerView | None) -> Line:
    now = "asking …" if shown.asking else "" if shown.age is None else f"taken {fmt.whole_age(shown.age)} ago"
    doing = (
        ""
        if worker is None
        else f"  now {clean(worker.operation) if worker.operation else columns.STATES[worker.state][0]}"
    )
    return [
        Segment(f" STACK of {clean(shown.worker)}", "head"),
        Segment(f"{doing}  {now}  ", "dim"),
        Segment("s", "key"),
        Segment(" asks again", "dim"),
    ]


def _lines(shown: WorkerStack, cells: int) -> list[Line]:
    if shown.text:
        return stack_lines(shown.text, cells, indent=1)
    if shown.asking:
        return []
    words = f"not available: {one_line(shown.reason) or 'no reason is known'}"
    return paragraph(words, cells, "warn")
