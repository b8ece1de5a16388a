"""``pool-monitor rules``: the commands about rules of alerts."""

from __future__ import annotations

import click

from pool_monitor.cli.lazy_group import LazyGroup

COMMANDS = {
    "check": "Check rule files: all errors in one run.",
    "test": "Run tests of rules.",
    "list": "List the rules of a service, or of files.",
    "metrics": "List the metrics that rules may name.",
    "replay": "Say what rules would have done in the time that a history has.",
    "schema": "Print the JSON Schema of rule files.",
}
"""Command -> its help in one line. The module ``rules_`` and that name defines ``command``."""


@click.group("rules", cls=LazyGroup, commands_of="pool_monitor.cli.rules_", table=COMMANDS)
def command() -> None:
    """Check, test and replay rules, and see what they can measure."""
