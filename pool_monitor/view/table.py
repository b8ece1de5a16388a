"""Tables with fixed columns: widths depend on the page's width, never on the data, so columns never move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from pool_monitor.view import format as fmt
from pool_monitor.view.text import Align, Line, Meaning, Segment, fit, fit_line, truncate_front

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column: its head, what it shows of a row, and its width in cells.

    ``grow`` is how many more cells it takes if the page has spare cells. ``keep_end`` cuts text at its front.
    ``within`` is called in place of ``show``, with the number of cells.
    """

    head: str
    show: Callable[[Row], Segment | str]
    width: int
    align: Align = "right"
    grow: int = 0
    keep_end: bool = False
    within: Callable[[Row, int], Segment | str] | None = None

    def content(self, row: Row) -> Segment:
        """Return the whole content for *row*, of any width."""
        return _span(self.show(row))

    def cell(self, row: Row) -> Segment:
        """Return the content for *row* in the column's width."""
        text, meaning = self.content(row) if self.within is None else _span(self.within(row, self.width))
        return Segment(
            fit(truncate_front(text, self.width) if self.keep_end else text, self.width, self.align), meaning
        )


def _span(shown: Segment | str) -> Segment:
    return shown if isinstance(shown, Segment) else Segment(shown)


def columns_for(columns: Sequence[Column[Row]], width: int) -> list[Column[Row]]:
    """Return the columns that fit in *width*, with one blank before each. *columns* come in order of importance: the
    first column that does not fit and all after it are left out. Spare cells go to columns that grow, from the left.
    """
    spare = width
    chosen: list[Column[Row]] = []
    for column in columns:
        if spare < column.width + 1:
            break
        chosen.append(column)
        spare -= column.width + 1
    for index, column in enumerate(chosen):
        more = min(column.grow, spare)
        chosen[index] = replace(column, width=column.width + more)
        spare -= more
    return chosen


def rows_shown(total: int, height: int) -> int:
    """Return how many of *total* rows a table of *height* lines shows. One line is the head. If rows are left out, one
    line counts them.
    """
    room = max(height - 1, 0)
    return total if total <= room else max(room - 1, 0)


def table(
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    width: int,
    height: int,
    *,
    offset: int = 0,
    selected: Row | None = None,
) -> list[Line]:
    """Return the head and the rows from *offset* on, in at most *height* lines. *offset* is reduced if the rows behind
    it do not fill the table.
    """
    if height <= 0:
        return []
    chosen = columns_for(columns, width - 1)  # one blank at the right edge too
    shown = rows_shown(len(rows), height)
    offset = max(0, min(offset, len(rows) - shown))
    lines = [[Segment(" " + fit(column.head, column.width, column.align), "head") for column in chosen]]
    for row in rows[offset : offset + shown]:
        line = [Segment(" " + text, meaning) for text, meaning in (column.cell(row) for column in chosen)]
        lines.append(_highlighted(line, width) if row is selected else line)
    if shown < len(rows) and height > 1:
        lines.append([Segment(" " + left_out(offset, len(rows) - shown - offset), "dim")])
    return lines


def _highlighted(line: Line, width: int) -> Line:
    return fit_line([Segment(text, "selected") for text, _ in line], width, "selected")


def left_out(above: int, below: int) -> str:
    """Return the words that replace the rows above and below those shown."""
    if not above:
        return f"… {fmt.count(below)} more"
    return f"… {fmt.count(above)} above, {fmt.count(below)} below"


def number(text: str, meaning: Meaning = "plain") -> Segment:
    """Return the cell of a number: dim if it is unknown or zero."""
    return Segment(text, "dim" if text in {fmt.UNKNOWN, "0", "0%"} else meaning)
