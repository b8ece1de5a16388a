"""A group of commands that imports a command when it is called, so that ``--help`` imports none."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from pool_monitor.cli import output


class LazyGroup(click.Group):
    """The commands of *table*, which maps each to its help in one line.

    The module of that name within *commands_of*, such as ``pool_monitor.cli``, or with that prefix, such as
    ``pool_monitor.cli.rules_``, defines ``command``.
    """

    def __init__(self, *args: Any, table: Mapping[str, str], commands_of: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        self._prefix = commands_of if commands_of.endswith("_") else f"{commands_of}."

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._table:
            return None
        found: click.Command = importlib.import_module(f"{self._prefix}{name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self._table and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, self._table, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid names: {', '.join(self._table)}"
            ctx.fail(f"No such command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would turn it into exit code 1
            raise output.ReaderGone from error

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._table.items()))
