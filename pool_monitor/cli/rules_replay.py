"""``pool-monitor rules replay``: what rules would have done in the time that a history has."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import click
import msgspec

from pool_monitor.alerts.defaults import default_rules
from pool_monitor.alerts.delivery.reasons import REPEAT
from pool_monitor.alerts.delivery.targets import routing_of
from pool_monitor.alerts.inputs import Input
from pool_monitor.alerts.overlays import Overlays
from pool_monitor.alerts.quantity import text_of
from pool_monitor.alerts.reconstruction import Reconstruction, without_recording
from pool_monitor.alerts.recording import Player, Recorded
from pool_monitor.alerts.rehearsal import Attempt, Rehearsal
from pool_monitor.alerts.replay import Replay
from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.alerts.rule_file import RuleSet, load, not_replaced, unit_of
from pool_monitor.alerts.tally import NotificationTally, ReceiverTally, RuleTally, Tally
from pool_monitor.alerts.what_if import changed_rules
from pool_monitor.cli.options import moment
from pool_monitor.cli.output import print_bytes, print_text, remark, stderr_is_terminal
from pool_monitor.cli.report_sources import from_to
from pool_monitor.errors import ConfigError
from pool_monitor.snapshot import AlertTransition
from pool_monitor.storage import Reader
from pool_monitor.view.format import age, plural, timestamp

_PROGRESS_S = 0.5
_HEADS = ("rule", "fired", "firing for", "flapped", "only pending", "worst", "messages")
_RECEIVER_HEADS = ("receiver", "messages", "firing", "resolved", "repeated", "most in a minute")


def _time(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A point in time, also in seconds since the epoch, as ``--json`` prints it."""
    try:
        seconds = float(value or "")
    except ValueError:
        seconds = math.nan
    return seconds if math.isfinite(seconds) else moment(ctx, param, value)


@click.command("replay")
@click.argument("rules", metavar="RULES")
@click.argument("store", metavar="STORE.db")
@click.option("--from", "start", callback=_time, metavar="TIME", help="Print what happened from then on; ISO 8601.")
@click.option("--to", "end", callback=_time, metavar="TIME", help="Print what happened before then.")
@click.option("--set", "settings", multiple=True, metavar="[NAME.]FIELD=VALUE", help="Change rules, as in for=10m.")
@click.option("--default-rules", "defaults", is_flag=True, help="Replay the rules of the package too.")
@click.option("--json", "as_json", is_flag=True, help="Print each transition and notification as a line of JSON.")
def command(
    rules: str,
    store: str,
    start: float | None,
    end: float | None,
    settings: tuple[str, ...],
    defaults: bool,
    as_json: bool,
) -> None:
    """Say what the rules in the file RULES would have done, from what a service has recorded in its history STORE.db:
    how often each would have fired, for how long, how often it would have flapped. If the file has a route: also how
    many messages each receiver would have got.

    The engine of the service runs over what the service has read, so the same rules do the same again. It begins with
    the first record, also with --from, so that timers and baselines are what they were.

    --set changes rules: for=10m changes all, NAME.above=5% one; NAME.critical=20% changes a level. It may be given more
    than once. Then each figure is there twice: as it is | changed. With --json, only the changed rules are replayed.

    Exit codes: 0 it was replayed; 2 RULES has an error, or STORE.db has nothing recorded.
    """
    if start is not None and end is not None and end <= start:
        raise click.UsageError("--to must be after --from")
    known = default_rules() if defaults else ()
    read = load([rules], known)
    loaded = (*not_replaced(known, read.rules), *read.rules)
    variants = [changed_rules(loaded, settings)] if settings else []
    if not as_json or not settings:
        variants.insert(0, loaded)
    period = _Period(-math.inf if start is None else start, math.inf if end is None else end)
    columns = [_Column(variant, read, period) for variant in variants]
    with Reader(store) as reader:
        if as_json:
            print_bytes(chain.from_iterable(_play(reader, store, columns, period)))
            for line in _remarks(columns[0]):
                remark(line)
            return
        for _ in _play(reader, store, columns, period):
            pass
    print_text("".join(f"{line}\n" for line in _report(rules, store, columns, period)))


class _Period(NamedTuple):
    start: float
    end: float


class _Column:
    """One set of rules and what became of it: of its alerts, and of those who would have been told."""

    def __init__(self, rules: Sequence[CheckedRule], read: RuleSet, period: _Period) -> None:
        self.rules = rules
        self.replay, self.tally = Replay(rules), Tally(rules, *period)
        self.told = NotificationTally(*period)
        self.reconstructed: frozenset[Input] = frozenset()
        self.step_s = 0.0
        self.routed = read.route is not None
        self.receivers = [one.name for one in read.receivers]
        self._overlays = Overlays()
        self._rehearsal = Rehearsal(routing_of(read.route, read.receivers), read.inhibit, self._overlays)

    def step(self, one: Recorded) -> Iterator[AlertTransition | Attempt]:
        """Replay one evaluation. Yields what happened since the one before, in the order of time."""
        at = one.inputs.at
        if one.restarted and self.replay.engine is not None:
            yield from self._counted(self._rehearsal.restart(at, keeps_state=one.keeps_state))
        else:
            yield from self.until(at)
        changes = self.replay.step(one)
        self.tally.note(at, one.inputs.elapsed, changes, self.replay.alerts, one.restarted)
        yield from changes
        if self.routed and self.replay.engine is not None:
            self._overlays.note(changes, one.inputs.elapsed)
            yield from self._counted(self._rehearsal.step(at, changes, self.replay.engine))

    def until(self, at: float) -> Iterator[Attempt]:
        """Yield what is told before *at*."""
        return self._counted(self._rehearsal.until(at)) if self.routed else iter(())

    def _counted(self, attempts: Iterable[Attempt]) -> Iterator[Attempt]:
        for one in attempts:
            self.told.note(one.at, one.notification)
            yield one


def _play(reader: Reader, store: str, columns: Sequence[_Column], period: _Period) -> Iterator[list[bytes]]:
    """Replay the recording with each of *columns*. Yields the transitions and notifications of the first in the period,
    encoded.
    """
    player = Player()
    played: Iterator[Recorded] = player.play(body for _at, body in reader.evaluations())
    first = next(played, None)
    if first is None:
        remark(f"{store}: has no recorded evaluations; everything is reconstructed from its calls and figures")
        recorded = without_recording(reader)
    else:
        recorded = chain([first], played)
    wanted = frozenset().union(*(column.replay.wanted for column in columns))
    with Reconstruction(reader, wanted) as reconstruction, _progress() as show:
        for read in recorded:
            one = reconstruction.filled(read)
            at = one.inputs.at
            over = at >= period.end
            lines: list[bytes] = []
            for column in columns:
                happened = column.until(period.end) if over else column.step(one)
                found = [change for change in happened if change.at >= period.start]
                if column is columns[0]:
                    lines = list(map(_line, found))
            show(columns[0].replay.evaluations, at)
            yield lines
            if over:
                break
    last = columns[0].replay.last
    if last is None or last < period.start:
        when = "" if last is None else f" from then on: what is recorded ends at {timestamp(last)}"
        raise ConfigError(f"{store}: has nothing recorded{when or ' that could be replayed'}")
    for column in columns:
        column.tally.finish(last)
        column.reconstructed = frozenset(reconstruction.used)
        column.step_s = reconstruction.step
    if player.damaged:
        remark(f"{plural(player.damaged, 'evaluation')} cannot be read: alerts around them may differ from what was")


def _line(one: AlertTransition | Attempt) -> bytes:
    """The line of JSON of a transition or a notification."""
    if isinstance(one, AlertTransition):
        return msgspec.json.encode(one) + b"\n"
    told = one.notification
    fields = {
        "receiver": told.receiver,
        "status": told.status,
        "at": one.at,
        "reason": told.reason,
        "group": told.group_key,
        "firing": told.firing,
        "resolved": told.resolved,
        "alerts": told.alerts,
    }
    return msgspec.json.encode(fields) + b"\n"


@contextmanager
def _progress() -> Iterator[Callable[[int, float], None]]:
    """Show how far a replay is, on a terminal."""
    shown = stderr_is_terminal()
    due = time.monotonic() + _PROGRESS_S

    def show(evaluations: int, at: float) -> None:
        nonlocal due
        if shown and time.monotonic() >= due:
            due = time.monotonic() + _PROGRESS_S
            click.echo(f"\r{evaluations:,} evaluations, up to {timestamp(at)} ", err=True, nl=False)

    yield show
    if shown:
        click.echo("\r\x1b[K", err=True, nl=False)


# -- words ------------------------------------------------------------------------------------------------------------


def _report(rules: str, store: str, columns: Sequence[_Column], period: _Period) -> Iterator[str]:
    first = columns[0].replay
    assert first.first is not None
    assert first.last is not None
    span = (max(first.first, period.start), min(first.last, period.end))
    restarts = f", {plural(first.restarts, 'restart')} of the service" if first.restarts else ""
    yield f"{rules} over {store}, {from_to(*span)}"
    yield f"{plural(first.evaluations, 'evaluation')} from {timestamp(first.first)} on{restarts}"
    yield ""
    heads = _HEADS if columns[0].routed else _HEADS[:-1]
    cells = [(rule.alert, [_cells(rule, column)[: len(heads) - 1] for column in columns]) for rule in columns[0].rules]
    yield from _table(heads, cells)
    if columns[0].routed:
        yield ""
        receivers = dict.fromkeys(name for column in columns for name in (*column.receivers, *column.told.receivers))
        yield from _table(_RECEIVER_HEADS, [(name, [_told(name, column) for column in columns]) for name in receivers])
    remarks = list(_remarks(columns[0]))
    if remarks:
        yield ""
        yield from remarks


def _table(heads: tuple[str, ...], found: Sequence[tuple[str, Sequence[tuple[str, ...]]]]) -> Iterator[str]:
    """Each row is a name and the cells of each column of rules, which are shown beside each other."""
    rows = [heads, *((name, *map(" | ".join, zip(*cells, strict=True))) for name, cells in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _told(name: str, column: _Column) -> tuple[str, ...]:
    found = column.told.receivers.get(name, ReceiverTally())
    numbers = (
        found.notifications,
        found.firing,
        found.notifications - found.firing,
        found.reasons[REPEAT],
        found.most_in_a_minute,
    )
    return tuple(map(str, numbers))


def _cells(rule: CheckedRule, column: _Column) -> tuple[str, ...]:
    if not column.replay.evaluated[rule.alert]:
        return ("-",) * (len(_HEADS) - 1)
    found: RuleTally = column.tally.rules[rule.alert]
    levels = ", ".join(f"{count} {name}" for name, count in found.severities.items())
    still = f", {found.firing} still" if found.firing else ""
    return (
        f"{found.fired}{f' ({levels})' if len(rule.severities) > 1 and levels else ''}{still}",
        age(found.firing_for) if found.firing_for else "0s",
        str(found.flapped),
        str(found.pending),
        "-" if found.worst is None else text_of(found.worst, unit_of(rule.kind)),
        str(column.told.rules[rule.alert]),
    )


def _remarks(column: _Column) -> Iterator[str]:
    replay = column.replay
    if column.told.receivers:
        yield "messages: silences and acknowledgements are not recorded; they are those without any"
    for name, evaluated in replay.evaluated.items():
        if not evaluated:
            yield f"{name}: not replayed, because {_missing(replay, name)} was neither recorded, nor is its past kept"
        elif evaluated < replay.evaluations:
            yield (
                f"{name}: replayed in {evaluated:,} of {replay.evaluations:,} evaluations; in the others, what it "
                "reads was not recorded"
            )
        if not_exact := sorted({one.metric for one in replay.needs(name) & column.reconstructed}):
            yield (
                f"{name}: {', '.join(not_exact)} was not recorded, and is reconstructed each {column.step_s:g} s: "
                "what happened may differ a little"
            )
        if name in replay.failed:
            yield f"{name}: failed at times: {replay.failed[name]}"


def _missing(replay: Replay, name: str) -> str:
    names = {f"the finding {one.metric}" if one.kind == "finding" else one.metric for one in replay.missing(name)}
    return ", ".join(sorted(names))
