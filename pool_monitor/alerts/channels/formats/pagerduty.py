"""The format ``pagerduty``: an event of PagerDuty's Events API, version 2. A group is one incident."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pool_monitor.alerts.channels.formats.format import Format, confirmed
from pool_monitor.alerts.channels.formats.writing import encoded, is_link, rfc3339
from pool_monitor.alerts.channels.text import cut, paragraph, subject

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, ToldAlert

EVENT_MAX = 512_000
"""Most bytes of an event. A hundred alerts stay below, also where a character has several bytes or is escaped."""
SUMMARY_MAX, DETAIL_MAX, DETAIL_BYTES_MAX = 1024, 1500, 3000
LINKS_MAX, LINK_BYTES_MAX = 20, 2048
_SEVERITIES = {
    "critical": "critical", "emergency": "critical", "fatal": "critical", "page": "critical",
    "error": "error", "warning": "warning", "info": "info",
}  # fmt: skip
_UNKNOWN = "error"


def _body(notification: Notification, key: str) -> bytes:
    event: dict[str, Any] = {
        "routing_key": key,
        "event_action": "trigger" if notification.status == "firing" else "resolve",
        "dedup_key": dedup_key(notification),
        "client": "pool_monitor",
        "payload": _payload(notification),
        "links": _links(notification),
    }
    return encoded({name: value for name, value in event.items() if value})


def dedup_key(notification: Notification) -> str:
    """Return what names the incident. It is the same for all messages of a group, so its end ends the incident."""
    return hashlib.sha256((notification.group_key or notification.id).encode(errors="replace")).hexdigest()


def _payload(notification: Notification) -> dict[str, Any]:
    worst = notification.alerts[0] if notification.alerts else None
    return {
        "summary": cut(subject(notification), SUMMARY_MAX),
        "source": cut(notification.service or "pool_monitor"),
        "severity": _UNKNOWN if worst is None else _SEVERITIES.get(worst.severity, _UNKNOWN),
        "timestamp": rfc3339(notification.at),
        "class": cut("" if worst is None else worst.alertname),
        "group": cut(" ".join(f"{name}={value}" for name, value in notification.group_labels.items())),
        "custom_details": {
            "reason": cut(notification.reason),
            "about": cut(notification.about),
            "num_firing": notification.firing,
            "num_resolved": notification.resolved,
            "alerts": [_detail(alert) for alert in notification.alerts],
            "not_listed": notification.truncated,
        },
    }


def _detail(alert: ToldAlert) -> str:
    text = "\n".join(paragraph(alert))[:DETAIL_MAX]
    return text.encode(errors="replace")[:DETAIL_BYTES_MAX].decode(errors="ignore")


def _links(notification: Notification) -> list[dict[str, str]]:
    """The runbooks, each once."""
    found = dict.fromkeys(
        alert.runbook
        for alert in notification.alerts
        if is_link(alert.runbook) and len(alert.runbook.encode()) <= LINK_BYTES_MAX
    )
    return [{"href": url, "text": "runbook"} for url in list(found)[:LINKS_MAX]]


PAGERDUTY = Format(_body, confirmed, signed=False)
