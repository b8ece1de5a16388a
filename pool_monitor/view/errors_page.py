"""The page of errors: one line for each error group, and the selected one in full.

Failures of workers without a call, such as a process that died while idle or did not start, belong to no group. They
follow the groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from pool_monitor.snapshot import ErrorGroup, ErrorSample, FailureView, PoolDetail, Snapshot
from pool_monitor.view import format as fmt
from pool_monitor.view.page_frame import Content, PageState, page_content
from pool_monitor.view.stack_lines import LINES_MAX, stack_lines
from pool_monitor.view.table import Column, number, rows_shown, table
from pool_monitor.view.text import Line, PageSize, Segment, clean, one_line, paragraph, truncate

WITHOUT_CALL = frozenset({"crash", "start"})
"""The errors of a `FailureView` that no call raised."""
_LIST_SHARE = 3
"""The list of groups gets one line of this many, and the selected group the others."""
_LIST_LEAST = 4


class ErrorRow(NamedTuple):
    """One line of the list: an error group, or failures of one kind that belong to no group."""

    key: str
    """What selects the row: the fingerprint of the group, or the words of the failure."""
    times: int
    rate: float | None
    age: float
    """Seconds since it was last seen."""
    type: str
    message: str
    where: tuple[str, ...]
    group: ErrorGroup | None = None
    failure: FailureView | None = None


def error_rows(pool: PoolDetail | None, now: float) -> list[ErrorRow]:
    """Return the rows of the list: the groups as the Snapshot sorts them, then the failures that belong to no group,
    latest first. *now* is the wall-clock time of the Snapshot.
    """
    if pool is None:
        return []
    rows = [group_row(group, now) for group in pool.error_groups]
    raised = {name for group in pool.error_groups if group.type == "WorkerDied" for name in group.operations}
    loose = [failure for failure in pool.failures if not pool.error_groups or _without_call(failure, raised)]
    return [*rows, *map(_of_failure, loose)]


def _without_call(failure: FailureView, raised: AbstractSet[str]) -> bool:
    """Whether no group counts *failure*. *raised* are the operations whose calls have raised WorkerDied: a process that
    ended during one of them is in the group of that error.
    """
    return failure.operation is None or (failure.error in WITHOUT_CALL and failure.operation not in raised)


def group_row(group: ErrorGroup, now: float) -> ErrorRow:
    """Return the row of one error group. *now* is the wall-clock time."""
    return ErrorRow(
        group.fingerprint,
        group.count,
        group.rate,
        max(now - group.last_seen, 0.0),
        group.type,
        group.message,
        group.operations,
        group=group,
    )


def _of_failure(failure: FailureView) -> ErrorRow:
    where = () if failure.operation is None else (failure.operation,)
    message = failure.message or ""
    key = f"{failure.error}\n{message}\n{failure.operation}"
    return ErrorRow(key, failure.count, None, failure.age, failure.error, message, where, failure=failure)


def selected_row(rows: Sequence[ErrorRow], key: str | None) -> ErrorRow | None:
    """Return the row with *key*, else the first one. None: there is no row."""
    return next((row for row in rows if row.key == key), rows[0] if rows else None)


def title(error: ErrorGroup | ErrorRow) -> str:
    """Return the type and the message of *error* in one line, safe to show."""
    words = one_line(error.message)
    return f"{clean(error.type)}: {words}" if words else clean(error.type)


def _error(row: ErrorRow, cells: int = 1000) -> Segment:
    return Segment(truncate(title(row), cells))


ERRORS: tuple[Column[ErrorRow], ...] = (
    Column("COUNT", lambda row: number(fmt.count(row.times)), 6),
    Column("LAST", lambda row: Segment(f"{fmt.whole_age(row.age)} ago", "dim"), 10),
    Column("ERROR", _error, 20, "left", grow=94, within=_error),
    Column("RATE/s", lambda row: number(fmt.rate(row.rate)), 6),
    Column("OPERATIONS", lambda row: clean(", ".join(row.where)), 14, "left", grow=16),
)
"""The list of errors."""


def errors_page(snapshot: Snapshot, pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the list of errors of *pool* and, below it, the selected one in full. The arrows select; the text of the
    selected one scrolls.
    """
    rows = error_rows(pool, snapshot.taken_at)
    chosen = selected_row(rows, state.error)
    if chosen is None:
        return page_content([[Segment(" ERRORS", "head")]], [[Segment(" nothing went wrong", "dim")]], state)
    height = _list_height(len(rows), size)
    place = rows.index(chosen)
    listed = table(ERRORS, rows, size.width, height, offset=_offset(place, len(rows), height), selected=chosen)
    edge: Line = [Segment("─" * size.width, "frame")]
    return page_content([*listed, edge], _details(snapshot, chosen, size.width), state)


def _list_height(rows: int, size: PageSize) -> int:
    return min(rows + 1, max(size.height // _LIST_SHARE, _LIST_LEAST))


def _offset(place: int, rows: int, height: int) -> int:
    """Return the first row of the list, so that the row at *place* is in its middle where possible."""
    return max(0, place - rows_shown(rows, height) // 2)


def _details(snapshot: Snapshot, row: ErrorRow, cells: int) -> list[Line]:
    if row.group is not None:
        return group_lines(row.group, f"the last {clean(snapshot.window)}", snapshot.taken_at, cells)
    return failure_lines(row.failure, cells) if row.failure is not None else []


def group_lines(group: ErrorGroup, window: str, now: float, cells: int, last: int = LINES_MAX) -> list[Line]:
    """Return everything about one error group, with the last *last* lines of its sample's traceback and stack.

    *window* is what its count covers, in words, and *now* the wall-clock time.
    """
    lines = paragraph(title(group), cells, "strong")
    seen = (
        f"{fmt.count(group.count)} in {window} ({fmt.rate(group.rate)}/s), "
        f"{fmt.count(group.total)} since the start; first {_ago(now, group.first_seen)}, "
        f"last {_ago(now, group.last_seen)}"
    )
    lines += paragraph(seen, cells)
    if group.operations:
        lines += paragraph(f"in {', '.join(map(clean, group.operations))}", cells)
    if group.workers:
        lines += paragraph(f"on {', '.join(map(clean, group.workers))}", cells)
    if group.frames:
        lines += paragraph(f"at {' called by '.join(map(clean, group.frames))}", cells)
    if group.sample is not None:
        lines += [[], *sample_lines(group.sample, now, cells, last)]
    return [*lines, *paragraph(f"group {clean(group.fingerprint)}", cells, "dim")]


def sample_lines(sample: ErrorSample, now: float, cells: int, last: int = LINES_MAX) -> list[Line]:
    """Return one failure of a group: its message, its traceback, and the stack of its worker."""
    lines = paragraph(f"one of them, {_ago(now, sample.at)}{_where(sample)}; secrets are replaced:", cells, "dim")
    for part in sample.message.splitlines():
        lines += paragraph(one_line(part), cells) if part.strip() else []
    if sample.traceback:
        lines += stack_lines(sample.traceback, cells, indent=1, last=last)
    if sample.stack:
        lines += paragraph("what the worker ran when it was interrupted:", cells, "dim")
        lines += stack_lines(sample.stack, cells, indent=1, last=last)
    return lines


def failure_lines(failure: FailureView, cells: int) -> list[Line]:
    """Return everything about one kind of failure that belongs to no group."""
    lines = paragraph(clean(failure.error), cells, "strong")
    for part in (failure.message or "").splitlines():
        lines += paragraph(one_line(part), cells) if part.strip() else []
    latest = f"the latest {fmt.whole_age(failure.age)} ago{_where(failure)}"
    return [*lines, *paragraph(f"{fmt.plural(failure.count, 'time')} in the last hour, {latest}", cells)]


def _where(failure: ErrorSample | FailureView) -> str:
    """Return the operation and the worker of a failure, as far as they are known."""
    operation = f" in {clean(failure.operation)}" if failure.operation is not None else ""
    return operation + (f" on {clean(failure.worker)}" if failure.worker is not None else "")


def _ago(now: float, at: float) -> str:
    return f"{fmt.whole_age(max(now - at, 0.0))} ago"
