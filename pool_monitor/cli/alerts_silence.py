"""``pool-monitor alerts silence``: tell nobody of some alerts for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import click

from pool_monitor.cli.alert_options import ADDRESS_OPTION, AUTHOR_OPTION, COMMENT_OPTION, duration_of
from pool_monitor.cli.output import print_text, remark
from pool_monitor.dashboard.prompt import user
from pool_monitor.service.client import open_client, resolve
from pool_monitor.view.format import plural


@click.command("silence")
@click.argument("matchers", nargs=-1, required=True, metavar="LABEL=VALUE...")
@click.option(
    "--duration", metavar="2h", required=True, callback=duration_of, help="How long it lasts, such as 30m or 2d."
)
@click.option("--glob", is_flag=True, help="Take the values as shell patterns, such as pool='text*'.")
@COMMENT_OPTION
@AUTHOR_OPTION
@ADDRESS_OPTION
def command(
    matchers: tuple[str, ...], duration: str, glob: bool, comment: str, author: str | None, address: str | None
) -> None:
    """Silence the alerts whose labels match: nobody is told of them until it ends. Their states go on beneath.

    An alert has the labels alertname and severity, those of its instance (pool, operation, worker) and those of its
    rule. Without --glob, a value matches itself to the letter. All of LABEL=VALUE must match.

    Prints the id of the silence, which `unsilence` takes, and on stderr how many alerts it matches now.
    """
    asked = _matchers(matchers, glob=glob)
    by = user() if author is None else author
    name, number = asyncio.run(_silence(address, asked, duration, comment, by))
    print_text(f"{name}\n")
    remark(
        f"it matches {plural(number, 'alert')} now"
        if number
        else "it matches no alert now: see pool-monitor alerts list"
    )


def _matchers(given: Sequence[str], *, glob: bool) -> dict[str, str | Mapping[str, str]]:
    """What the arguments LABEL=VALUE match. Raises UsageError."""
    found: dict[str, str | Mapping[str, str]] = {}
    for one in given:
        label, equals, value = one.partition("=")
        if not equals or not label.strip():
            raise click.UsageError(f"{one!r}: needs LABEL=VALUE, such as alertname=FailingCalls or pool=text")
        if label in found:
            raise click.UsageError(f"{one!r}: {label} is given twice; an alert must match all of LABEL=VALUE")
        found[label] = {"glob": value} if glob else value
    return found


async def _silence(
    address: str | None, matchers: Mapping[str, str | Mapping[str, str]], duration: str, comment: str, author: str
) -> tuple[str, int]:
    """Return the id of the silence, and how many alerts it matches now."""
    async with open_client(resolve(address)) as service:
        name = await service.silence(matchers, duration=duration, comment=comment, author=author)
        alerts = (await service.alerts(limit=1)).alerts
    return name, sum(name in alert.silences for alert in alerts)
