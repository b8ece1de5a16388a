"""Delivery in words: the receivers, what each of them knows of an alert, and the heartbeat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite

from pool_monitor.snapshot import AlertView, HeartbeatView, ReceiverState, ReceiverView, ToldView
from pool_monitor.view import chart
from pool_monitor.view import format as fmt
from pool_monitor.view.alert_words import age, left, quantity
from pool_monitor.view.notices import SYMBOLS
from pool_monitor.view.table import Column, number
from pool_monitor.view.text import Segment, clean, one_line

WORRYING: frozenset[ReceiverState] = frozenset({"open", "parked", "gone"})
"""The states of receivers that somebody should look at."""
_COURSE_CELLS = 40
"""Most cells of a sparkline."""

# -- receivers ----------------------------------------------------------------------------------------------------


def receiver_columns() -> tuple[Column[ReceiverView], ...]:
    """Return the columns of a list of receivers."""
    return (
        Column("RECEIVER", lambda one: one_line(one.name), 12, "left", grow=8),
        Column("CHANNEL", lambda one: clean(one.channel), 12, "left"),
        Column("STATE", _state, 9, "left"),
        Column("OWED", lambda one: number(fmt.count(one.owed)), 5),
        Column("PARKED", lambda one: number(fmt.count(one.parked), "warn"), 6),
        Column("OLDEST", lambda one: number(fmt.age(one.oldest_debt)), 6),
        Column("LAST SENT", lambda one: number(_ago(one.last_success_age)), 10),
        Column("SENT", lambda one: number(fmt.count(one.sent)), 5),
        Column("FAILED", lambda one: number(fmt.count(one.failed)), 6),
        Column("LOST", lambda one: number(fmt.count(one.lost), "warn"), 5),
        Column("WHERE", lambda one: one_line(one.where), 20, "left", grow=1000),
    )


def _state(one: ReceiverView) -> Segment:
    if one.state in WORRYING:
        return Segment(f"{SYMBOLS['warn']} {clean(one.state)}", "warn")
    word = "held back" if one.held_back and one.state == "ready" else clean(one.state)
    return Segment(word, "plain" if one.owed or one.held_back else "dim")


def _ago(seconds: float | None) -> str:
    return fmt.UNKNOWN if seconds is None else f"{fmt.whole_age(seconds)} ago"


def trouble(one: ReceiverView) -> str:
    """Return in words why a receiver is not told at once. Empty: it is."""
    parts = []
    if one.state != "ready":
        parts.append(_STATES[one.state](one) if one.state in _STATES else clean(one.state))
    if one.held_back:
        when = "" if one.next_in is None else f", next digest in {fmt.whole_age(one.next_in)}"
        parts.append(f"held back: {fmt.plural(one.held_back, 'message')}{'' if parts else when}")
    if one.lost:
        parts.append(f"{fmt.plural(one.lost, 'message')} lost")
    return f"{one_line(one.name)}: {'; '.join(parts)}" if parts else ""


def _why(one: ReceiverView) -> str:
    return f": {one_line(one.last_error)}" if one.last_error else ""


def _again(one: ReceiverView, words: str) -> str:
    return "" if one.next_in is None else f", {words} in {fmt.whole_age(one.next_in)}"


def _open(one: ReceiverView) -> str:
    after = f" after {fmt.plural(one.failures, 'failure')}" if one.failures else ""
    return f"open{_again(one, 'tried again')}{after}{_why(one)}"


_STATES: dict[ReceiverState, Callable[[ReceiverView], str]] = {
    "retrying": lambda one: f"retrying{_again(one, 'tried again')}{_why(one)}",
    "paused": lambda one: f"asked for a pause{_again(one, 'tried again')}{_why(one)}",
    "open": _open,
    "parked": lambda one: f"refuses {fmt.plural(one.parked, 'message')}{_again(one, 'tried again')}{_why(one)}",
    "gone": lambda one: f"wants no message any more, until a test arrives or its configuration changes{_why(one)}",
}


def heartbeat(beat: HeartbeatView) -> tuple[str, bool]:
    """Return in words how the heartbeat goes, and whether somebody should look at it."""
    every = f"heartbeat every {fmt.period(beat.every)}"
    last = "none has arrived yet" if beat.last_success_age is None else f"the last {_ago(beat.last_success_age)}"
    if beat.last_error is not None:
        return f"{every} does not arrive: {one_line(beat.last_error)}; {last}", True
    says = f"; it says that the monitor fails: {one_line(', '.join(beat.failing))}" if beat.failing else ""
    return f"{every}, {last}{says}", bool(beat.failing)


# -- one alert ----------------------------------------------------------------------------------------------------


def told(alert: AlertView, now: float) -> Iterator[str]:
    """Yield whether *alert* was escalated, and for each receiver what it knows, or why it is told nothing now."""
    if alert.escalated_at is not None:
        yield f"escalated {age(now, alert.escalated_at)} ago: nobody had acknowledged it"
    for one in {(one.receiver, one.status, one.reason): one for one in alert.told}.values():  # by its routes: once
        yield f"{one_line(one.receiver)}: {_TOLD.get(one.status, _other)(one, now)}{_reason(one)}"


def _reason(one: ToldView) -> str:
    return f": {one_line(one.reason)}" if one.reason else ""


def _other(one: ToldView, _now: float) -> str:
    return f"told nothing, {clean(one.status)}"


def _time(words: str) -> Callable[[ToldView, float], str]:
    """Return a function that says when something comes, after *words*."""
    return lambda one, now: words if one.at is None or one.at <= now else f"{words} for another {left(now, one.at)}"


def _owed(one: ToldView, now: float) -> str:
    if one.at is not None:
        return f"owed for {age(now, one.at)}"
    return "owed" if one.reason else "the message is under way"


_TOLD: dict[str, Callable[[ToldView, float], str]] = {
    "told": lambda one, now: "told" if one.at is None else f"told {age(now, one.at)} ago",
    "waiting": _time("waits for its group"),
    "owed": _owed,
    "held_back": _time("held back by the rate limit"),
    "parked": lambda one, now: "parked" if one.at is None else f"parked {age(now, one.at)} ago",
}


def course(alert: AlertView, cells: int) -> str:
    """Return the course of the value of *alert*, with a sparkline, in about *cells* cells. Empty: it is not known."""
    values = [None if value is None or not isfinite(value) else value for value in alert.values]
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return ""
    low, high = (quantity(value, alert.unit) for value in (min(known), max(known)))
    words = f" {low} to {high}" if low != high else f" always {low}"
    return f"last {fmt.whole_age(alert.values_s)}: {sparkline(values, min(cells // 2, _COURSE_CELLS))}{words}"


def sparkline(values: Sequence[float | None], cells: int) -> str:
    """Return *values* as a sparkline of at most *cells* cells. The lowest value below 0, else 0, is at its bottom."""
    bottom = min([0.0, *(value for value in values if value is not None)])
    number = min(len(values), cells)
    shown = values if number == len(values) else chart.means(chart.bins(values, 1.0, len(values), number))
    return chart.sparkline([None if value is None else value - bottom for value in shown])
