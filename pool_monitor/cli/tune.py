"""``pool-monitor tune``: the commands about advice and the tuner of a running service."""

from __future__ import annotations

import click

from pool_monitor.cli.lazy_group import LazyGroup

COMMANDS = {
    "status": "Show the tuner, what waits, and what is recommended.",
    "history": "List the latest changes of settings.",
    "explain": "Say why a change was tried, or something is recommended.",
    "propose": "Propose a change by hand.",
    "approve": "Let a change that waits begin, on trial.",
    "reject": "End a change that waits.",
    "rollback": "Restore the value before a change.",
    "dismiss": "Show a recommendation no more.",
    "freeze": "Let the tuner change nothing for some time.",
    "thaw": "End a freeze.",
    "mode": "Show or set the mode: off, recommend or auto.",
}
"""Command -> its help in one line. The module ``tune_`` and that name defines ``command``."""


@click.group("tune", cls=LazyGroup, commands_of="pool_monitor.cli.tune_", table=COMMANDS)
def command() -> None:
    """Show what a running service recommends and tunes, and decide about it.

    A service does what the commands from propose on ask for only if its configuration has [service] actions = true.
    """
