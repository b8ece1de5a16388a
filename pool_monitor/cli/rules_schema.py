"""``pool-monitor rules schema``: what may stand in a rule file, for editors."""

from __future__ import annotations

import click
import msgspec

from pool_monitor.alerts.rule_file.schema import schema
from pool_monitor.cli.output import print_json


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of rule files, with which an editor completes and checks them while they are written.

    What the schema cannot say, rules check does: whether units fit, names exist and levels are in order.
    """
    encoded = msgspec.json.encode(schema())
    print_json(encoded, msgspec.json.format(encoded, indent=2))
