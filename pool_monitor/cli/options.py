"""Options that several commands share."""

from __future__ import annotations

from datetime import datetime

import click

from pool_monitor.snapshot import WINDOW_NAMES

WINDOW_OPTION = click.option(
    "--window",
    type=click.Choice(WINDOW_NAMES),
    default="5m",
    show_default=True,
    help="The period up to now that the numbers cover.",
)
"""The option of every command that shows a window."""


def moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """The callback of an option that is a point in time: *value* in seconds since the epoch."""
    try:
        return None if value is None else datetime.fromisoformat(value).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r}: needs a date and a time, such as '2026-03-01 02:30' or 2026-03-01T01:30Z"
        ) from None


def check_period(window: str | None, since: str | None, start: float | None, end: float | None) -> None:
    """Raise UsageError if the options of a period do not fit together."""
    if sum(given is not None for given in (window, since, start)) > 1:
        raise click.UsageError("--window, --since and --start all set the start of the period: give only one of them")
    if start is not None and end is not None and end <= start:
        raise click.UsageError("--end must be after --start")
