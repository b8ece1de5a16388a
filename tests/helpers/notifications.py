"""Notifications for tests of channels."""

from __future__ import annotations

from typing import Any

from pool_monitor.alerts.delivery.notification import Notification, ToldAlert

AT = 1_790_000_000.0


def told(number: int = 1, **changes: Any) -> ToldAlert:
    """An alert that fires, with *changes*."""
    usual: dict[str, Any] = {
        "alertname": "FailingCalls",
        "labels": {"pool": "text", "operation": f"summarize{number}", "severity": "critical"},
        "fingerprint": f"{number:016x}",
        "status": "firing",
        "severity": "critical",
        "starts_at": AT - 240,
        "summary": f"12% of summarize{number} fail",
        "runbook": "https://runbooks.example/failing-calls",
        "annotations": {
            "summary": f"12% of summarize{number} fail",
            "runbook": "https://runbooks.example/failing-calls",
        },
        "value": 0.12,
        "value_text": "12%",
        "unit": "ratio",
        "limit": 0.05,
        "values": (0.01, 0.01, None, 0.02, 0.05, 0.12),
        "values_s": 3600.0,
    }
    return ToldAlert(**{**usual, **changes})


def ended(number: int = 1, **changes: Any) -> ToldAlert:
    """The same, resolved."""
    return told(number, **{"status": "resolved", "ends_at": AT, **changes})


def notification(*alerts: ToldAlert, **changes: Any) -> Notification:
    """A notification of *alerts* (none: one that fires), with *changes*."""
    some = alerts or (told(),)
    firing = sum(one.status == "firing" for one in some)
    usual: dict[str, Any] = {
        "id": "msg_0123456789abcdef",
        "receiver": "ops",
        "group_key": '{}:{alertname="FailingCalls"}',
        "group_labels": {"alertname": "FailingCalls"},
        "reason": "first notification",
        "status": "firing" if firing else "resolved",
        "alerts": some,
        "firing": firing,
        "resolved": len(some) - firing,
        "at": AT,
        "service": "shop",
    }
    return Notification(**{**usual, **changes})
