"""What a notification says, in words for people: a subject, and lines of plain text.

All text that comes from elsewhere, such as labels and summaries, is cleaned: it has one line, and no character that
changes how a terminal or a mail reader shows the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from pool_monitor.alerts.catalogue import Unit
from pool_monitor.alerts.channels.sparkline import known, sparkline
from pool_monitor.alerts.delivery.notification import TEST
from pool_monitor.alerts.quantity import FAMILIES, text_of
from pool_monitor.answers import cleaned

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, ToldAlert

SUBJECT_MAX = 200
"""Most characters of a subject."""
LINE_MAX = 500
"""Most characters of a text from elsewhere."""


def subject(notification: Notification) -> str:
    """Return one line: ``[FIRING 2, RESOLVED 1] FailingCalls critical: 12% of summarize fail (and 2 more)``."""
    counts = [f"{word} {count}" for word, count in _counts(notification) if count]
    if notification.reason == TEST:
        counts = ["TEST"]
    text = f"[{', '.join(counts) or notification.status.upper()}]"
    if notification.alerts:
        text += f" {headline(notification.alerts[0])}"
        more = notification.firing + notification.resolved - 1
        rest = f" (and {more} more)" if more > 0 else ""
    else:
        rest = f" {_listed(notification.group_labels)}" if notification.group_labels else ""
    if notification.service:
        rest += f" - {cut(notification.service, 40)}"
    return cut(text, SUBJECT_MAX - len(rest)) + rest if len(rest) < SUBJECT_MAX else cut(text + rest, SUBJECT_MAX)


def headline(alert: ToldAlert) -> str:
    """Return what is wrong, in one line: ``FailingCalls critical: 12% of summarize fail``. The name comes with the
    reason, if something else than the value is one: ``FailingCalls critical (no data)``.
    """
    said = cut(alert.summary) or ", ".join(filter(None, (own_labels(alert), measured(alert))))
    why = f" ({cut(alert.reason.replace('_', ' '), 60)})" if alert.reason else ""
    name = cut(f"{alert.alertname} {alert.severity}".strip(), 120) + why
    return f"{name}: {said}" if said else name


def details(alert: ToldAlert) -> Iterator[str]:
    """Yield what the headline does not say: the value, its course, since when, and what the alert is about."""
    said = not cut(alert.summary)
    found = ("" if said else measured(alert), trend(alert), times(alert), "" if said else own_labels(alert))
    yield from filter(None, found)


def lines(notification: Notification) -> Iterator[str]:
    """Yield the lines of the text: why it is told, then a paragraph for each alert."""
    counts = " and ".join(f"{count} {word.lower()}" for word, count in _counts(notification) if count)
    yield f"{counts or notification.status}: {cut(notification.reason)}."
    if notification.about:
        yield cut(notification.about)
    if notification.service:
        yield f"Service: {cut(notification.service)}"
    if notification.group_labels:
        yield f"Group: {_listed(notification.group_labels)}"
    for alert in notification.alerts:
        yield ""
        yield from paragraph(alert)
    if notification.truncated > 0:
        yield ""
        yield f"{notification.truncated} more alerts are not listed."


def paragraph(alert: ToldAlert) -> Iterator[str]:
    """Yield the lines that tell one alert."""
    yield f"{alert.status.upper()}  {headline(alert)}"
    for line in (*details(alert), *_notes(alert)):
        yield f"  {line}"


def measured(alert: ToldAlert) -> str:
    """Return the value beside its bound, such as ``value 12%, bound 5%``; empty: neither is known."""
    value = cut(alert.value_text) or (quantity(alert.value, alert.unit) if alert.value is not None else "")
    bound = quantity(alert.limit, alert.unit) if alert.limit is not None else ""
    return ", ".join(f"{word} {text}" for word, text in (("value", value), ("bound", bound)) if text)


def trend(alert: ToldAlert) -> str:
    """Return the values up to now: ``▁▁▂▅█ between 1% and 12% in 1h``; empty: none is known."""
    some = known(alert.values)
    if not some:
        return ""
    low, high = quantity(min(some), alert.unit), quantity(max(some), alert.unit)
    course = f"between {low} and {high}" if len(some) > 1 else low
    span = f" in {text_of(alert.values_s, 's')}" if alert.values_s > 0 else ""
    return f"{sparkline(alert.values)} {course}{span}"


def annotations_of(alert: ToldAlert) -> dict[str, str]:
    """Return what Alertmanager and its receivers read as annotations: those of the rule, and what else there is to say
    of the alert. What the rule says under one of these names stays.
    """
    said = {"summary": alert.summary, "runbook": alert.runbook, "sparkline": trend(alert)}
    return {name: text for name, text in sorted({**said, **alert.annotations}.items()) if text}


def own_labels(alert: ToldAlert) -> str:
    """Return what tells it from others of its rule: ``pool=text operation=chat``."""
    return _listed({name: value for name, value in alert.labels.items() if name not in ("severity", "alertname")})


def times(alert: ToldAlert) -> str:
    """Return since when it fires, or from when to when it did."""
    began = moment(alert.starts_at)
    if alert.ends_at is None:
        return f"since {began}"
    lasted = text_of(max(alert.ends_at - alert.starts_at, 0.0), "s")
    return f"fired {began}, resolved {moment(alert.ends_at)}, after {lasted}"


def quantity(value: float, unit: str) -> str:
    """Return *value* as a person reads it."""
    return text_of(value, cast("Unit", unit if unit in FAMILIES else ""))


def moment(at: float) -> str:
    """Return a time in UTC, to the second."""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"


def cut(text: str, most: int = LINE_MAX) -> str:
    """Return *text* cleaned, in one line of at most *most* characters."""
    text = cleaned(text[: 4 * most])
    return text if len(text) <= most else f"{text[: max(most - 1, 0)]}…"


def _notes(alert: ToldAlert) -> Iterator[str]:
    if alert.delayed:
        yield "This message was delayed: it began and ended before it could be told."
    if alert.flapping:
        yield "It is flapping: it begins and ends again and again."
    if alert.acknowledged_by:
        yield f"acknowledged by {cut(alert.acknowledged_by)}"
    if alert.runbook:
        yield f"runbook: {cut(alert.runbook, 2000)}"
    for name, text in alert.annotations.items():
        if name not in ("summary", "runbook"):
            yield f"{cut(name, 100)}: {cut(text)}"


def _listed(labels: dict[str, str]) -> str:
    return cut(" ".join(f"{name}={value}" for name, value in labels.items()))


def _counts(notification: Notification) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("FIRING", notification.firing), ("RESOLVED", notification.resolved)
