"""The format ``alertmanager``: the body that Alertmanager posts to its receivers, version 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pool_monitor.alerts.channels.formats.format import Format
from pool_monitor.alerts.channels.formats.writing import cleaned_lines, encoded, rfc3339
from pool_monitor.alerts.channels.text import annotations_of

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, ToldAlert

NO_END = "0001-01-01T00:00:00Z"
"""The end of an alert that fires: the zero of Go's times."""


def _body(notification: Notification, _key: str) -> bytes:
    alerts = [_alert(alert, notification.at) for alert in notification.alerts]
    return encoded(
        {
            "receiver": notification.receiver,
            "status": notification.status,
            "alerts": alerts,
            "groupLabels": notification.group_labels,
            "commonLabels": _common([alert["labels"] for alert in alerts]),
            "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
            "externalURL": "",
            "version": "4",
            "groupKey": notification.group_key,
            "truncatedAlerts": notification.truncated,
        }
    )


def _alert(alert: ToldAlert, at: float) -> dict[str, Any]:
    ended = at if alert.ends_at is None else alert.ends_at
    return {
        "status": alert.status,
        "labels": dict(sorted({**alert.labels, "alertname": alert.alertname}.items())),
        "annotations": {name: cleaned_lines(text) for name, text in annotations_of(alert).items()},
        "startsAt": rfc3339(alert.starts_at),
        "endsAt": NO_END if alert.status == "firing" else rfc3339(ended),
        "generatorURL": "",
        "fingerprint": alert.fingerprint,
    }


def _common(some: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all of them have, with the same value."""
    shared = set(some[0].items()).intersection(*(one.items() for one in some)) if some else set()
    return dict(sorted(shared))


ALERTMANAGER = Format(_body)
