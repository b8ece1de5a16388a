"""``pool-monitor alerts ack``: somebody is dealing with an alert."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, AUTHOR_OPTION, COMMENT_OPTION, duration_of
from pool_monitor.cli.output import print_text
from pool_monitor.dashboard.prompt import user
from pool_monitor.errors import ConfigError
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import AlertView
from pool_monitor.view import alert_words


@click.command("ack")
@click.argument("fingerprint")
@click.option(
    "--duration", metavar="2h", callback=duration_of, help="How long it lasts; by default, until the alert is resolved."
)
@click.option("--undo", is_flag=True, help="Take an acknowledgement back.")
@COMMENT_OPTION
@AUTHOR_OPTION
@ADDRESS_OPTION
def command(
    fingerprint: str, duration: str | None, undo: bool, comment: str, author: str | None, address: str | None
) -> None:
    """Acknowledge an alert: somebody is dealing with it, and it is no notice any more, until it is resolved.

    FINGERPRINT is what `alerts list` prints below the table; its first digits are enough.
    """
    by = user() if author is None else author
    alert = asyncio.run(_ack(address, fingerprint, None if undo else (by, comment, duration)))
    print_text(f"{'not acknowledged any more' if undo else 'acknowledged'}: {alert_words.name(alert)}\n")


async def _ack(address: str | None, prefix: str, given: tuple[str, str, str | None] | None) -> AlertView:
    """Acknowledge the only alert whose fingerprint begins with *prefix*; *given* None: take it back."""
    async with open_client(resolve(address)) as service:
        alert = _only((await service.alerts(limit=1)).alerts, prefix)
        if given is None:
            await service.unack(alert.fingerprint)
        else:
            author, comment, duration = given
            await service.ack(alert.fingerprint, author=author, comment=comment, duration=duration)
        return alert


def _only(alerts: Sequence[AlertView], prefix: str) -> AlertView:
    """The alert whose fingerprint begins with *prefix*. Raises ConfigError if there is none, or several."""
    found = [alert for alert in alerts if prefix and alert.fingerprint.startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"no alert has a fingerprint that begins with {prefix!r}; see pool-monitor alerts list")
    names = "".join(f"\n  {alert.fingerprint}  {alert_words.name(alert)}" for alert in found)
    raise ConfigError(f"several alerts have a fingerprint that begins with {prefix!r}:{names}")
