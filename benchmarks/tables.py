"""Tables of text: for a terminal, and for a README."""

from __future__ import annotations

import os
import platform
import textwrap
import time
from collections.abc import Iterable
from typing import NamedTuple


class Table(NamedTuple):
    title: str
    about: str
    """What a reader has to know to read the figures."""
    head: list[str]
    rows: list[list[str]]
    """The first cell of each row is its name."""


def text(table: Table) -> str:
    """Return *table* as text with aligned columns, figures to the right."""
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


def show(tables: Iterable[Table], *, as_markdown: bool) -> None:
    """Print a line about the machine, then each table as soon as it is measured."""
    render = markdown if as_markdown else text
    print(f"\n{machine()}\n", flush=True)
    for table in tables:
        print(render(table), end="\n\n", flush=True)


def machine() -> str:
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} processors (load before: {load:.1f}), {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )
