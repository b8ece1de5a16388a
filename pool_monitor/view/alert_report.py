"""What alerts did over a time: one line for each alert that fired, and the latest changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo
from typing import NamedTuple

from pool_monitor.alerts.lifecycle import FIRING_PHASES
from pool_monitor.snapshot import AlertTransition
from pool_monitor.view import alert_words as words
from pool_monitor.view import format as fmt
from pool_monitor.view.notices import SYMBOLS
from pool_monitor.view.table import Column, number
from pool_monitor.view.text import Segment, one_line


class FiredAlert(NamedTuple):
    """One alert over a time. Times are seconds since the epoch."""

    latest: AlertTransition
    severity: str
    """The worst that it had while it fired; of equally marked ones, the first."""
    times: int
    """How often it began to fire. 0: it fired already when the time began, or its beginning is not known."""
    seconds: float
    """How long it fired."""
    first: float
    """When it first fired, or the start of the time."""
    fires_still: bool


def fired_alerts(transitions: Iterable[AlertTransition], start: float, end: float) -> list[FiredAlert]:
    """Return the alerts that fired from *start* to *end*, those that fired longest first. *transitions* are the changes
    in that time, in any order.
    """
    by_alert: dict[str, list[AlertTransition]] = {}
    for change in sorted(transitions, key=lambda change: (change.at, change.seq)):
        by_alert.setdefault(change.fingerprint, []).append(change)
    found = [_fired(changes, start, end) for changes in by_alert.values()]
    return sorted((one for one in found if one is not None), key=lambda one: -one.seconds)


def _fired(changes: Sequence[AlertTransition], start: float, end: float) -> FiredAlert | None:
    """Return what one alert did. *changes* are its own, the oldest first."""
    since = start if changes[0].from_state in FIRING_PHASES else None
    first, times, seconds, severity = since, 0, 0.0, changes[0].severity if since is not None else ""
    for change in changes:
        if change.to_state in FIRING_PHASES:
            if since is None:
                since, times = change.at, times + 1
                first = change.at if first is None else first
            if not severity or (words.level_of(severity), words.level_of(change.severity)) == ("warn", "bad"):
                severity = change.severity
        elif since is not None:
            seconds, since = seconds + max(change.at - since, 0.0), None
    if first is None:
        return None
    if since is not None:
        seconds += max(end - since, 0.0)
    return FiredAlert(changes[-1], severity, times, seconds, first, since is not None)


def fired_columns(length: float, zone: tzinfo | None) -> tuple[Column[FiredAlert], ...]:
    """Return the columns of the alerts that fired in a time of *length* seconds."""
    return (
        Column("SEVERITY", lambda row: _marked(row.severity), 10, "left"),
        Column("ALERT", lambda row: one_line(row.latest.alert), 16, "left", grow=14),
        Column("INSTANCE", lambda row: words.instance(row.latest), 12, "left", grow=14, keep_end=True),
        Column("TIMES", lambda row: number(fmt.count(row.times) if row.times else "before"), 6),
        Column("FIRED FOR", lambda row: fmt.age(row.seconds), 9),
        Column("NOW", lambda row: Segment(row.latest.to_state if row.fires_still else "over", "dim"), 10, "left"),
        Column("FIRST", lambda row: fmt.short_time(row.first, length, 1, zone), 14, "left"),
        Column("SUMMARY", lambda row: one_line(row.latest.summary), 20, "left", grow=1000),
    )


def change_columns(when: Callable[[float], str]) -> tuple[Column[AlertTransition], ...]:
    """Return the columns of the changes of alerts. *when* words a wall-clock time."""
    return (
        Column("AT", lambda row: when(row.at), 14, "left", grow=11),
        Column("SEVERITY", lambda row: _marked(row.severity), 10, "left"),
        Column("ALERT", lambda row: one_line(row.alert), 14, "left", grow=14),
        Column("INSTANCE", words.instance, 11, "left", grow=14, keep_end=True),
        Column("CHANGE", lambda row: f"{row.from_state} > {row.to_state}", 22, "left"),
        Column("VALUE", lambda row: number(one_line(row.value_text) or _plain(row.value)), 8),
        Column("REASON", lambda row: one_line(row.reason), 12, "left"),
        Column("SUMMARY", lambda row: one_line(row.summary), 20, "left", grow=1000),
    )


def _plain(value: float | None) -> str:
    return fmt.UNKNOWN if value is None else f"{value:.3g}"


def _marked(severity: str) -> Segment:
    level = words.level_of(severity)
    return Segment(f"{SYMBOLS[level]} {one_line(severity)}", level)
