"""One alert in words: its severity, its instance, its value, and what keeps it quiet. Pages, notices and reports share
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isnan
from typing import cast

from pool_monitor.alerts.catalogue import Unit
from pool_monitor.alerts.lifecycle import ACTIVE_PHASES, FIRING_PHASES
from pool_monitor.alerts.quantity import text_of
from pool_monitor.findings import Level
from pool_monitor.snapshot import AlertState, AlertTransition, AlertView, SilenceView
from pool_monitor.view import format as fmt
from pool_monitor.view.text import clean, one_line

SEVERE = frozenset({"critical", "page", "emergency", "fatal"})
"""The severities that are marked ✖. All others are marked ▲."""
STATES: tuple[AlertState, ...] = ("firing", "recovering", "pending", "resolved", "inactive")
"""In the order of lists."""
OLD_ACK_S = 8 * 3600.0
"""From this age on, seconds, an acknowledgement stands out: whoever gave it may have gone home."""
_FIRST_LABELS = ("pool", "operation", "worker")
_NOT_OF_INSTANCE = frozenset({"severity", "alertname"})


def level_of(severity: str) -> Level:
    """Return how urgent *severity* is on a screen."""
    return "bad" if severity.lower() in SEVERE else "warn"


def fires(alert: AlertView) -> bool:
    """Whether *alert* fires. A recovering one is still firing for everybody who was told."""
    return alert.state in FIRING_PHASES


def is_quiet(alert: AlertView) -> bool:
    """Whether somebody or something has dealt with *alert*, so that it does not ask for attention."""
    return alert.silenced or alert.acknowledged or alert.inhibited or alert.muted


def loud(alerts: Iterable[AlertView]) -> list[AlertView]:
    """Return the alerts that fire and are not quiet, in the order of `in_order`."""
    return in_order(alert for alert in alerts if fires(alert) and not is_quiet(alert))


def in_order(alerts: Iterable[AlertView]) -> list[AlertView]:
    """Return *alerts* by state, the most urgent first; the latest first within a severity, of those that are over."""
    return sorted(alerts, key=_rank)


def _rank(alert: AlertView) -> tuple[object, ...]:
    over = alert.state not in ACTIVE_PHASES
    return (
        STATES.index(alert.state),
        -alert.since if over else 0.0,
        level_of(alert.severity) != "bad",
        is_quiet(alert),
        alert.since,
        alert.alertname,
        sorted(alert.labels.items()),
    )


def labels(pairs: dict[str, str]) -> list[tuple[str, str]]:
    """Return the labels *pairs* without the severity, safe to show: pool, operation and worker first."""
    first = [name for name in _FIRST_LABELS if name in pairs]
    others = sorted(pairs.keys() - _NOT_OF_INSTANCE - set(first))
    return [(clean(name), one_line(pairs[name])) for name in (*first, *others)]


def instance(alert: AlertView | AlertTransition) -> str:
    """Return the subject of *alert*, as short as it is clear: the worker, else the pool and the operation."""
    found = alert.labels
    if "worker" in found:
        return one_line(found["worker"])
    return "/".join(one_line(found[name]) for name in ("pool", "operation") if name in found)


def name(alert: AlertView | AlertTransition) -> str:
    """Return the name and the subject of *alert*."""
    rule = alert.alertname if isinstance(alert, AlertView) else alert.alert
    return " ".join(filter(None, (one_line(rule), instance(alert))))


def quantity(value: float | None, unit: str) -> str:
    """Return *value* with its unit (`AlertView.unit`), as the texts of rules have it."""
    if value is None or isnan(value):
        return fmt.UNKNOWN
    return text_of(value, cast("Unit", unit))


def statuses(alert: AlertView, now: float) -> list[str]:
    """Return what else is to be known about *alert*, a word or two each: the acknowledgement first."""
    found = []
    if alert.acknowledged:
        given = alert.acknowledgement
        found.append(f"acked {age(now, given.at)}" if given else "acked")
    words = {
        "parked": any(one.status == "parked" for one in alert.told),
        "escalated": alert.escalated_at is not None,
        "silenced": alert.silenced,
        "inhibited": alert.inhibited,
        "muted": alert.muted,
        "unknown": alert.unknown,
        "flapping": alert.flapping,
    }
    return [*found, *(word for word, holds in words.items() if holds)]


def acknowledged(alert: AlertView, now: float) -> str:
    """Return who deals with *alert*, since when and why. Empty: nobody."""
    given = alert.acknowledgement
    if not alert.acknowledged or given is None:
        return ""
    until = "" if given.until is None else f", for another {left(now, given.until)}"
    comment = f": {one_line(given.comment)}" if given.comment else ""
    return f"acknowledged by {one_line(given.author) or '?'} {age(now, given.at)} ago{until}{comment}"


def ack_is_old(alert: AlertView, now: float) -> bool:
    """Whether *alert* was acknowledged so long ago that somebody should look at it again."""
    given = alert.acknowledgement
    return alert.acknowledged and given is not None and now - given.at >= OLD_ACK_S and alert.state != "resolved"


def quiet_counts(alerts: Iterable[AlertView]) -> list[str]:
    """Return how many firing alerts are quiet, and why, in words. Each is counted once."""
    counts: dict[str, int] = {}
    for alert in alerts:
        if fires(alert) and is_quiet(alert):
            word = next(word for word in ("acknowledged", "silenced", "inhibited", "muted") if getattr(alert, word))
            counts[word] = counts.get(word, 0) + 1
    return [f"{fmt.count(number)} {word}" for word, number in counts.items()]


def matchers(silence: SilenceView) -> str:
    """Return what *silence* matches, as the command line takes it."""
    return " ".join(f"{clean(label)}={one_line(value)}" for label, value in sorted(silence.matchers.items()))


def silence_words(silence: SilenceView, now: float) -> str:
    """Return what *silence* matches, when it ends, who set it and why."""
    starts = f"begins in {left(now, silence.starts_at)}, " if silence.starts_at > now else ""
    who = f", by {one_line(silence.author)}" if silence.author else ""
    why = f": {one_line(silence.comment)}" if silence.comment else ""
    return f"{matchers(silence)}, {starts}ends in {left(now, silence.ends_at)}{who}{why}"


def left(now: float, at: float) -> str:
    """Return how long it is until *at*."""
    return fmt.whole_age(max(at - now, 0.0))


def age(now: float, at: float) -> str:
    """Return how long ago *at* was."""
    return fmt.whole_age(max(now - at, 0.0))


def counted(alerts: Sequence[AlertView], states: Iterable[AlertState] = STATES) -> Iterator[str]:
    """Yield how many *alerts* are in each of *states*, in words."""
    for state in states:
        number = sum(alert.state == state for alert in alerts)
        if number:
            yield f"{fmt.count(number)} {state}"
