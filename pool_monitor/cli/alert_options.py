"""Options and output that the commands about alerts share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
import msgspec

from pool_monitor.alerts.quantity import parse
from pool_monitor.cli.output import print_json
from pool_monitor.dashboard.terminal import stdout_glyphs
from pool_monitor.snapshot import AlertTransition, AlertView, ReceiverView
from pool_monitor.view import plain
from pool_monitor.view.table import Column, Row, table
from pool_monitor.view.text import Line

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
ADDRESS_OPTION = click.option(
    "--address", metavar="ADDRESS", help="The service: its name, pid, socket, or URL; by default, the only one here."
)
AUTHOR_OPTION = click.option("--author", help="Who does it; by default, the name of the user.")
COMMENT_OPTION = click.option("--comment", default="", help="Why, in words.")


def duration_of(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """The callback of an option that is a duration: it is checked here, and the service gets its text."""
    try:
        if value is not None:
            parse(value, "s")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def table_text(columns: Sequence[Column[Row]], rows: Sequence[Row], width: int) -> str:
    """All *rows* as a table."""
    return lines_text(table(columns, rows, width, len(rows) + 1))


def lines_text(lines: Iterable[Line]) -> str:
    """*lines* as stdout can show them."""
    glyphs = stdout_glyphs()
    return plain(glyphs.draw(line) for line in lines).rstrip("\n")


def print_rows(rows: Sequence[AlertView] | Sequence[AlertTransition] | Sequence[ReceiverView]) -> None:
    """Print *rows* as JSON."""
    encoded = msgspec.json.encode(rows)
    print_json(encoded, msgspec.json.format(encoded, indent=2))
