"""The page of alerts: what is evaluated, one line for each alert, the selected alert in full, the receivers and the
silences.

What is firing comes first, the worst of it at the top; then what recovers, what may fire soon, and what is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pool_monitor.snapshot import AlertingView, AlertView, PoolDetail, Snapshot
from pool_monitor.view import alert_words as words
from pool_monitor.view import delivery_words as delivery
from pool_monitor.view import format as fmt
from pool_monitor.view.notices import SYMBOLS
from pool_monitor.view.page_frame import Content, PageState, page_content
from pool_monitor.view.table import Column, number, rows_shown, table
from pool_monitor.view.text import Line, Meaning, PageSize, Segment, clean, one_line, paragraph, truncate

_LIST_SHARE = 2
"""The list of alerts gets one line of this many, and the selected alert the others."""
_LIST_LEAST = 4
_REASONS = {
    "no_data": "its value has been unknown for too long (no_data)",
    "error": "its rule cannot be evaluated (error)",
    "rule_removed": "its rule is no longer in force (rule_removed)",
    "rule_changed": "its rule was changed (rule_changed)",
}
"""Why the state of an alert began, in words."""
_NOWHERE = "a restart forgets them: [state] path is not set"


def alert_rows(snapshot: Snapshot) -> list[AlertView]:
    """Return the alerts in the order of the list."""
    return words.in_order(snapshot.alerts)


def selected_alert(rows: Sequence[AlertView], fingerprint: str | None) -> AlertView | None:
    """Return the alert with *fingerprint*, else the first one. None: there is no alert."""
    return next((row for row in rows if row.fingerprint == fingerprint), rows[0] if rows else None)


# -- the list ---------------------------------------------------------------------------------------------------------


def _meaning(alert: AlertView) -> Meaning:
    return words.level_of(alert.severity) if words.fires(alert) and not words.is_quiet(alert) else "dim"


def _severity(alert: AlertView) -> Segment:
    return Segment(f"{SYMBOLS[words.level_of(alert.severity)]} {one_line(alert.severity)}", _meaning(alert))


def _state(alert: AlertView) -> Segment:
    return Segment(alert.state, "plain" if words.fires(alert) else "dim")


def alert_columns(now: float) -> tuple[Column[AlertView], ...]:
    """Return the columns of a list of alerts. *now* is the wall-clock time."""

    def status(alert: AlertView, cells: int = 1000) -> Segment:
        old = words.ack_is_old(alert, now)
        text = ", ".join(words.statuses(alert, now))
        return Segment(truncate(f"{SYMBOLS['warn']} {text}" if old else text, cells), "warn" if old else "dim")

    return (
        Column("SEVERITY", _severity, 10, "left"),
        Column("STATE", _state, 10, "left"),
        Column("ALERT", lambda alert: one_line(alert.alertname), 14, "left", grow=12),
        Column("INSTANCE", words.instance, 11, "left", grow=14, keep_end=True),
        Column("VALUE", lambda alert: number(words.quantity(alert.value, alert.unit)), 7),
        Column("FOR", lambda alert: words.age(now, alert.since), 6),
        Column("STATUS", status, 14, "left", grow=15, within=status),
        Column("BOUND", lambda alert: number(words.quantity(alert.limit, alert.unit)), 7),
        Column("SUMMARY", lambda alert: one_line(alert.summary), 20, "left", grow=1000),
    )


# -- the page ---------------------------------------------------------------------------------------------------------


def alerts_page(snapshot: Snapshot, _pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the list of alerts and, below it, the selected one in full, the receivers and the silences. The arrows
    select; what is below the list scrolls.
    """
    rows, now, alerting = alert_rows(snapshot), snapshot.taken_at, snapshot.monitor.alerts
    chosen = selected_alert(rows, state.alert)
    head = paragraph(evaluation(snapshot), size.width, "plain" if rows else "dim")
    below = list(_problems(alerting, size.width))
    if chosen is not None:
        height = min(len(rows) + 1, max((size.height - len(head)) // _LIST_SHARE, _LIST_LEAST))
        offset = max(0, rows.index(chosen) - rows_shown(len(rows), height) // 2)
        head += table(alert_columns(now), rows, size.width, height, offset=offset, selected=chosen)
        head.append([Segment("─" * size.width, "frame")])
        head += paragraph(state.prompt, size.width, "key") if state.prompt else []
        below = [*alert_lines(chosen, snapshot, size.width), *below]
    return page_content(head, [*below, *receiver_lines(alerting, size.width), *_silences(snapshot, size.width)], state)


def evaluation(snapshot: Snapshot) -> str:
    """Return what is evaluated, when that was last done, and how many alerts there are."""
    alerting = snapshot.monitor.alerts
    if alerting is None:
        reason = snapshot.monitor.degraded.get("alerts")
        why = f"the part is degraded: {one_line(reason)}" if reason else "[alerts] enabled = false, or an older service"
        return f"no rules are evaluated: {why}"
    if not alerting.rules:
        return "no rules are evaluated: there are none; name files with rules in [alerts] rules"
    when = alerting.evaluated_age
    evaluated = "not evaluated yet" if when is None else f"last evaluated {fmt.whole_age(when)} ago"
    counts = [*words.counted(snapshot.alerts), *words.quiet_counts(snapshot.alerts)]
    firing = any(map(words.fires, snapshot.alerts))
    found = ", ".join(counts if firing else ["nothing fires", *counts])
    return f"{fmt.plural(alerting.rules, 'rule')}, {evaluated}{', ' if when is not None or counts else ''}{found}"


def _problems(alerting: AlertingView | None, cells: int) -> Iterator[Line]:
    """Yield what is wrong with the evaluation, and what a restart would lose."""
    if alerting is None:
        return
    wrong = [f"rule {one_line(rule)} fails: {one_line(why)}" for rule, why in alerting.failing.items()]
    if alerting.reload_error is not None:
        wrong.append(f"the rules were not read again: {one_line(alerting.reload_error)}")
    if alerting.state_degraded is not None:
        wrong.append(f"states are not stored: {one_line(alerting.state_degraded)}")
    if alerting.refused:
        wrong.append(f"{fmt.plural(alerting.refused, 'alert')} refused: a rule has too many instances")
    for text in wrong:
        yield from paragraph(f"{SYMBOLS['warn']} {text}", cells, "warn")
    if alerting.rules and alerting.state_path is None:
        yield from paragraph(f"states, silences and acknowledgements are in memory; {_NOWHERE}", cells, "dim")


def receiver_lines(alerting: AlertingView | None, cells: int) -> list[Line]:
    """Return who is told of alerts, what is owed to each, and why it has not arrived; then the heartbeat."""
    if alerting is None or not (alerting.receivers or alerting.heartbeat):
        return []
    lines: list[Line] = [[]]
    if rows := alerting.receivers:
        lines += table(delivery.receiver_columns(), rows, cells, len(rows) + 1)
    for receiver in rows:
        if text := delivery.trouble(receiver):
            lines += _remark(text, receiver.state in delivery.WORRYING or receiver.lost > 0, cells)
    if alerting.heartbeat is not None:
        text, bad = delivery.heartbeat(alerting.heartbeat)
        lines += _remark(text, bad, cells)
    return lines


def _remark(text: str, bad: bool, cells: int) -> list[Line]:
    return paragraph(f"{SYMBOLS['warn']} {text}" if bad else text, cells, "warn" if bad else "plain")


def _silences(snapshot: Snapshot, cells: int) -> list[Line]:
    alerting = snapshot.monitor.alerts
    silences = alerting.silences if alerting is not None else ()
    if not silences:
        return []
    lines: list[Line] = [[], [Segment(" SILENCES", "head")]]
    for silence in sorted(silences, key=lambda silence: silence.ends_at):
        lines += paragraph(f"{clean(silence.id)}  {words.silence_words(silence, snapshot.taken_at)}", cells)
    return lines


# -- one alert --------------------------------------------------------------------------------------------------------


def alert_lines(alert: AlertView, snapshot: Snapshot, cells: int) -> list[Line]:
    """Return everything about one alert."""
    lines = paragraph(f"{words.name(alert)}: {_story(alert, snapshot.taken_at)}", cells, "strong")
    for text in _details(alert, snapshot, cells):
        lines += paragraph(text, cells)
    return [*lines, *paragraph(f"fingerprint {clean(alert.fingerprint)}", cells, "dim")]


def _story(alert: AlertView, now: float) -> str:
    """Return the severity, the state and its age, and the value against its bound."""
    parts = [f"{one_line(alert.severity)}, {alert.state} for {words.age(now, alert.since)}"]
    if alert.active_since is not None and alert.since - alert.active_since >= 1:
        over = alert.state == "resolved"
        parts.append(f"{'was ' if over else ''}bad for {words.age(alert.since if over else now, alert.active_since)}")
    bound = "" if alert.limit is None else f", bound {words.quantity(alert.limit, alert.unit)}"
    latest = "unknown now, was " if alert.unknown else ""
    parts.append(f"value {latest}{words.quantity(alert.value, alert.unit)}{bound}")
    return "; ".join(parts)


def _details(alert: AlertView, snapshot: Snapshot, cells: int) -> Iterator[str]:
    if alert.summary:
        yield one_line(alert.summary)
    if course := delivery.course(alert, cells):
        yield course
    if alert.reason:
        yield f"reason: {_REASONS.get(alert.reason) or one_line(alert.reason)}"
    for told in (_acknowledged, _silenced, _inhibited):
        yield from told(alert, snapshot)
    yield from delivery.told(alert, snapshot.taken_at)
    if alert.muted:
        yield "muted: a mute time of its rule lasts now"
    if alert.flapping:
        yield "flapping: it changes so often that the changes are held back"
    found = words.labels(alert.labels)
    if found:
        yield f"labels: {', '.join(f'{name}={value}' for name, value in found)}"
    if alert.runbook:
        yield f"runbook: {one_line(alert.runbook)}"
    for name, text in alert.annotations.items():
        if name not in {"summary", "runbook"}:
            yield f"{clean(name)}: {one_line(text)}"


def _acknowledged(alert: AlertView, snapshot: Snapshot) -> Iterator[str]:
    if given := words.acknowledged(alert, snapshot.taken_at):
        yield f"{SYMBOLS['warn']} {given}" if words.ack_is_old(alert, snapshot.taken_at) else given


def _silenced(alert: AlertView, snapshot: Snapshot) -> Iterator[str]:
    if not alert.silenced:
        return
    alerting = snapshot.monitor.alerts
    known = {silence.id: silence for silence in (alerting.silences if alerting else ())}
    for name in alert.silences:
        silence = known.get(name)
        more = "" if silence is None else f": {words.silence_words(silence, snapshot.taken_at)}"
        yield f"silenced by {clean(name)}{more}"
    if not alert.silences:
        yield "silenced"


def _inhibited(alert: AlertView, snapshot: Snapshot) -> Iterator[str]:
    if not alert.inhibited:
        return
    known = {other.fingerprint: words.name(other) for other in snapshot.alerts}
    sources = [known.get(fingerprint, clean(fingerprint)) for fingerprint in alert.inhibited_by]
    yield f"inhibited by {', '.join(sources)}" if sources else "inhibited"
