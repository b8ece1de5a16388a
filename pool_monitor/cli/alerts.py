"""``pool-monitor alerts``: the commands about the alerts of a running service."""

from __future__ import annotations

import click

from pool_monitor.cli.lazy_group import LazyGroup

COMMANDS = {
    "list": "List the alerts of a service, what fires first, and the silences.",
    "history": "List the latest changes of alerts.",
    "receivers": "List who is told of alerts, and what they are owed.",
    "silence": "Tell nobody of the alerts that match, for some time.",
    "unsilence": "End a silence.",
    "test": "Send a test message to a receiver.",
    "ack": "Acknowledge an alert: somebody is dealing with it.",
}
"""Command -> its help in one line. The module ``alerts_`` and that name defines ``command``."""


@click.group("alerts", cls=LazyGroup, commands_of="pool_monitor.cli.alerts_", table=COMMANDS)
def command() -> None:
    """Show the alerts of a running service and who is told of them, silence them, and acknowledge them.

    A service does what silence, unsilence, ack and test ask for only if its configuration has [service]
    actions = true.
    """
