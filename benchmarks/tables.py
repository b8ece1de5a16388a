"""Tables of text: for a terminal, and for a README."""

from __future__ import annotations

import textwrap
from typing import NamedTuple


class Table(NamedTuple):
    title: str
    about: str
    """What a reader has to know to read the figures."""
    head: list[str]
    rows: list[list[str]]
    """The first cell of each names it."""


def text(table: Table) -> str:
    """Columns in line, figures to the right."""
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [table.head, *table.rows]
    ]
    return "\n".join([table.title, *textwrap.wrap(table.about, 100), "", *lines])


def markdown(table: Table) -> str:
    rows = [table.head, ["---", *["---:"] * (len(table.head) - 1)], *table.rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"### {table.title}", "", table.about, "", *lines])
