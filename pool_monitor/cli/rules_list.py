"""``pool-monitor rules list``: which rules a service evaluates."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click
import msgspec

from pool_monitor.alerts.defaults import default_rules
from pool_monitor.alerts.rule_book import view_of
from pool_monitor.alerts.rule_file import load
from pool_monitor.cli import text_width
from pool_monitor.cli.output import print_json, print_text
from pool_monitor.dashboard.terminal import stdout_glyphs
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import RuleView
from pool_monitor.view import format as fmt
from pool_monitor.view import plain
from pool_monitor.view.table import Column, table
from pool_monitor.view.text import clean

_COLUMNS: tuple[Column[RuleView], ...] = (
    Column("RULE", lambda rule: clean(rule.alertname), 20, "left", grow=20),
    Column("STATE", lambda rule: "failing" if rule.failing else rule.state or "-", 10, "left"),
    Column("ALERTS", lambda rule: fmt.count(rule.alerts) if rule.state else "-", 6),
    Column("KIND", lambda rule: rule.kind.replace("_", " "), 14, "left"),
    Column("NEXT", lambda rule: fmt.age(rule.next_in), 6),
    Column("LEVELS", lambda rule: clean(", ".join(rule.severities)), 17, "left"),
    Column("FROM", lambda rule: clean(rule.origin) or "the program", 20, "left", grow=60, keep_end=True),
)


@click.command("list")
@click.argument("address", required=False)
@click.option("--file", "files", multiple=True, metavar="FILE", help="List those of a rule file instead.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def command(address: str | None, files: tuple[str, ...], as_json: bool) -> None:
    """List the rules that a service evaluates, with the state of the worst alert of each.

    ADDRESS is a service's name or pid, or the path of its socket. Without it, it is the only service running here. With
    --file, which may be given often, the rules of files are listed without a service.
    """
    if address is not None and files:
        raise click.UsageError("give an ADDRESS or --file, not both")
    if files:
        rules = [view_of(rule) for rule in load(files, default_rules()).rules]
    else:
        rules = asyncio.run(_of_service(address))
    if as_json:
        encoded = msgspec.json.encode(rules)
        print_json(encoded, msgspec.json.format(encoded, indent=2))
    elif not rules:
        print_text("there are no rules: name files in [alerts] rules of the configuration\n")
    else:
        print_text(_text(rules))


async def _of_service(address: str | None) -> list[RuleView]:
    async with open_client(resolve(address)) as service:
        return await service.rules()


def _text(rules: Sequence[RuleView]) -> str:
    glyphs = stdout_glyphs()
    shown = [msgspec.structs.replace(rule, origin="the package") if rule.default else rule for rule in rules]
    text = plain(glyphs.draw(line) for line in table(_COLUMNS, shown, text_width(), len(rules) + 1))
    failing = [f"{clean(rule.alertname)} fails: {clean(rule.failing)}" for rule in rules if rule.failing]
    return "\n".join([text.rstrip("\n"), *failing, ""])
