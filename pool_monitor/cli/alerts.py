"""``pool-monitor alerts``: what fires in a running service, what has fired, and who has dealt with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import get_args

import click
import msgspec

from pool_monitor.alerts.quantity import parse
from pool_monitor.alerts.recording import decode_transition
from pool_monitor.cli import text_width
from pool_monitor.cli.output import print_json, print_text, remark
from pool_monitor.cli.report_sources import is_store
from pool_monitor.dashboard.alert_actions import user
from pool_monitor.dashboard.terminal import stdout_glyphs
from pool_monitor.errors import ConfigError
from pool_monitor.service.client import open_client, resolve
from pool_monitor.snapshot import AlertReport, AlertState, AlertTransition, AlertView, Snapshot
from pool_monitor.storage import Reader
from pool_monitor.view import alert_words, plain
from pool_monitor.view import format as fmt
from pool_monitor.view.alert_report import change_columns
from pool_monitor.view.alerts_page import alert_columns, evaluation
from pool_monitor.view.table import Column, Row, table
from pool_monitor.view.text import clean

STATES = get_args(AlertState)[1:]
HISTORY_MAX = 10_000
"""The most changes of one answer."""


@click.group("alerts")
def command() -> None:
    """Show the alerts of a running service, silence them, and acknowledge them.

    ADDRESS is a running service: its name or pid, the path of its socket, a URL or HOST:PORT. Without ADDRESS, it is
    the only service running here. A service does what silence, unsilence and ack ask for only if its configuration has
    [service] actions = true.
    """


_ADDRESS = click.argument("address", required=False)
_AT = click.option("--address", metavar="ADDRESS", help="The service; by default, the only one running here.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")


# -- reading ----------------------------------------------------------------------------------------------------------


@command.command("list")
@_ADDRESS
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; may be given often.")
@_JSON
def list_(address: str | None, states: tuple[str, ...], as_json: bool) -> None:
    """List the alerts of a service: what fires first, and the silences.

    The exit code is 0, whether anything fires or not: use --json in scripts.
    """
    snapshot, report = asyncio.run(_now(address))
    chosen = [alert for alert in alert_words.in_order(report.alerts) if not states or alert.state in states]
    if as_json:
        _print_json(chosen)
        return
    width = text_width()
    shown = msgspec.structs.replace(snapshot, alerts=report.alerts)
    lines = [evaluation(shown)]
    if chosen:
        lines.append(_table(alert_columns(snapshot.taken_at), chosen, width))
        lines += [f"{clean(alert.fingerprint)}  {alert_words.name(alert)}" for alert in chosen]
    if report.silences:
        lines += ["", "silences:"]
        lines += [f"{clean(one.id)}  {alert_words.silence_words(one, snapshot.taken_at)}" for one in report.silences]
    print_text("".join(f"{line}\n" for line in lines))


@command.command("history")
@click.argument("source", required=False, metavar="[ADDRESS|STORE.db]")
@click.option("--limit", type=click.IntRange(1, HISTORY_MAX), default=100, show_default=True, help="The most changes.")
@_JSON
def history(source: str | None, limit: int, as_json: bool) -> None:
    """List the latest changes of alerts, the newest first.

    STORE.db is the file of a history; its process need not run any more.
    """
    if source is not None and is_store(source):
        changes = _stored(source, limit)
    else:
        changes = list(asyncio.run(_report(source, limit)).transitions[:limit])
    if as_json:
        _print_json(list(changes))
    elif changes:
        length = changes[0].at - changes[-1].at
        columns = change_columns(lambda at: fmt.short_time(at, length, 1))
        print_text(f"{_table(columns, changes, text_width())}\n")
    else:
        print_text("no alert has changed yet\n")


async def _report(address: str | None, limit: int) -> AlertReport:
    async with open_client(resolve(address)) as service:
        return await service.alerts(limit=limit)


async def _now(address: str | None) -> tuple[Snapshot, AlertReport]:
    async with open_client(resolve(address)) as service:
        return await service.snapshot("1m"), await service.alerts(limit=1)


def _stored(path: str, limit: int) -> list[AlertTransition]:
    """The latest changes in a history. Those that cannot be read are left out, with a remark."""
    with Reader(path) as reader:
        bodies = [body for _at, body in reader.transitions(0.0, float(2**40))][-limit:]
    found, bad = [], 0
    for body in reversed(bodies):
        try:
            found.append(decode_transition(body))
        except ValueError:
            bad += 1
    if bad:
        remark(f"{path}: {fmt.plural(bad, 'change')} cannot be read, and left out")
    return found


def _table(columns: Sequence[Column[Row]], rows: Sequence[Row], width: int) -> str:
    glyphs = stdout_glyphs()
    return plain(glyphs.draw(line) for line in table(columns, rows, width, len(rows) + 1)).rstrip("\n")


def _print_json(rows: Sequence[AlertView] | Sequence[AlertTransition]) -> None:
    encoded = msgspec.json.encode(rows)
    print_json(encoded, msgspec.json.format(encoded, indent=2))


# -- acting -----------------------------------------------------------------------------------------------------------


def _duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """The callback of an option that is a duration: it is checked here, and the service gets its text."""
    try:
        if value is not None:
            parse(value, "s")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


_AUTHOR = click.option("--author", help="Who does it; by default, the name of the user.")
_COMMENT = click.option("--comment", default="", help="Why, in words.")


@command.command("silence")
@click.argument("matchers", nargs=-1, required=True, metavar="LABEL=VALUE...")
@click.option(
    "--duration", metavar="2h", required=True, callback=_duration, help="How long it lasts, such as 30m or 2d."
)
@click.option("--glob", is_flag=True, help="Take the values as shell patterns, such as pool='text*'.")
@_COMMENT
@_AUTHOR
@_AT
def silence(
    matchers: tuple[str, ...], duration: str, glob: bool, comment: str, author: str | None, address: str | None
) -> None:
    """Silence the alerts whose labels match: nobody is told of them until it ends. Their states go on beneath.

    An alert has the labels alertname and severity, those of its instance (pool, operation, worker) and those of its
    rule. Without --glob, a value matches itself to the letter. All of LABEL=VALUE must match.

    Prints the id of the silence, which `unsilence` takes.
    """
    asked = _matchers(matchers, glob=glob)
    by = user() if author is None else author
    print_text(f"{asyncio.run(_silence(address, asked, duration, comment, by))}\n")


@command.command("unsilence")
@click.argument("silence_id", metavar="ID")
@_AT
def unsilence(silence_id: str, address: str | None) -> None:
    """End a silence."""
    asyncio.run(_unsilence(address, silence_id))


@command.command("ack")
@click.argument("fingerprint")
@click.option(
    "--duration", metavar="2h", callback=_duration, help="How long it lasts; by default, until the alert is resolved."
)
@click.option("--undo", is_flag=True, help="Take an acknowledgement back.")
@_COMMENT
@_AUTHOR
@_AT
def ack(
    fingerprint: str, duration: str | None, undo: bool, comment: str, author: str | None, address: str | None
) -> None:
    """Acknowledge an alert: somebody is dealing with it, and it is no notice any more, until it is resolved.

    FINGERPRINT is what `alerts list` prints below the table; its first digits are enough.
    """
    by = user() if author is None else author
    alert = asyncio.run(_ack(address, fingerprint, None if undo else (by, comment, duration)))
    print_text(f"{'not acknowledged any more' if undo else 'acknowledged'}: {alert_words.name(alert)}\n")


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
) -> str:
    async with open_client(resolve(address)) as service:
        return await service.silence(matchers, duration=duration, comment=comment, author=author)


async def _unsilence(address: str | None, silence_id: str) -> None:
    async with open_client(resolve(address)) as service:
        await service.unsilence(silence_id)


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
