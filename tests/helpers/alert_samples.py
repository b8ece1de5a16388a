"""Alerts for tests of what people see: deterministic, one of each kind that a page shows differently."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pool_monitor.snapshot import Acknowledgement, AlertingView, AlertTransition, AlertView, SilenceView, Snapshot
from tests.helpers import samples

NOW = samples.START + samples.UPTIME


def alert(alertname: str = "FailingCalls", number: int = 1, **changes: Any) -> AlertView:
    """Return a firing alert of the operation ``chat``, with *changes*."""
    usual: dict[str, Any] = {
        "labels": {"pool": "text", "operation": "chat", "team": "search", "severity": "warning"},
        "state": "firing",
        "severity": "warning",
        "value": 0.051,
        "unit": "ratio",
        "value_text": "5.1%",
        "limit": 0.05,
        "since": NOW - 124.0,
        "active_since": NOW - 134.0,
        "summary": "5.1% of chat fail",
        "runbook": "https://runbooks.example/failing-calls",
        "fingerprint": f"{number:016x}",
        "annotations": {"summary": "5.1% of chat fail", "runbook": "https://runbooks.example/failing-calls"},
    }
    if "severity" in changes:
        labels = changes.get("labels", usual["labels"])
        changes = {**changes, "labels": {**labels, "severity": changes["severity"]}}
    return AlertView(alertname=alertname, **{**usual, **changes})


def alerts() -> tuple[AlertView, ...]:
    """Return alerts of every state and every overlay, in no order."""
    worker = {"pool": "text", "worker": "text-3", "severity": "warning"}
    return (
        alert("SlowCalls", 5, state="resolved", value=0.31, unit="s", limit=1.0, since=NOW - 45.0, reason="no_data"),
        alert("OddLatency", 4, state="pending", value=2.4, unit="s", limit=None, since=NOW - 4.0, unknown=True),
        alert(
            "WorkerMemory", 3, labels=worker, value=1.34e9, unit="bytes", limit=1.0e9, acknowledged=True,
            since=NOW - 40_000.0, summary="text-3 uses 1.2G",
            acknowledgement=Acknowledgement(author="anna", comment="restart tonight", at=NOW - 36_000.0),
        ),
        alert("FailingCalls", 1, severity="critical", value=0.31, limit=0.2, summary="31% of chat fail"),
        alert("QueueFull", 2, labels={"pool": "text"}, state="recovering", value=12.0, unit="count", limit=32.0,
              flapping=True, summary="12 calls wait"),
        alert("HostMemory", 6, labels={}, value=0.93, limit=0.9, silenced=True, silences=("s-1",), summary="memory"),
        alert("SlowChat", 7, inhibited=True, inhibited_by=(f"{1:016x}",), value=3.0, unit="s", limit=2.0),
    )  # fmt: skip


def silence(name: str = "s-1", **changes: Any) -> SilenceView:
    usual: dict[str, Any] = {
        "matchers": {"alertname": "HostMemory"},
        "starts_at": NOW - 600.0,
        "ends_at": NOW + 6_600.0,
        "author": "bert",
        "comment": "more memory arrives at noon",
    }
    return SilenceView(id=name, **{**usual, **changes})


def alerting(**changes: Any) -> AlertingView:
    """Return the evaluation of 23 rules without trouble."""
    usual: dict[str, Any] = {
        "rules": 23,
        "interval": 5.0,
        "states": {"firing": 4, "recovering": 1, "pending": 1},
        "evaluations": 144,
        "missed": 2,
        "evaluation_seconds": 0.0031,
        "longest_hold": 0.0011,
        "evaluated_age": 2.0,
        "reloaded_age": 700.0,
        "state_path": "var/state.db",
        "silences": (silence(),),
        "transitions": 17,
    }
    return AlertingView(**{**usual, **changes})


def snapshot(*found: AlertView, base: Snapshot | None = None, **changes: Any) -> Snapshot:
    """Return a Snapshot with the alerts *found*; *changes* are of its `AlertingView`."""
    made = base or samples.snapshot()
    return replace(made, alerts=found, monitor=replace(made.monitor, alerts=alerting(**changes)))


def transitions() -> tuple[AlertTransition, ...]:
    """Return the changes of one alert, the newest first."""
    labels = {"pool": "text", "operation": "chat", "severity": "critical"}
    steps = (
        ("inactive", "pending", "warning", 600.0, ""),
        ("pending", "firing", "warning", 590.0, ""),
        ("firing", "firing", "critical", 500.0, "level"),
        ("firing", "recovering", "critical", 90.0, ""),
        ("recovering", "resolved", "critical", 60.0, ""),
    )
    made = [
        AlertTransition(
            seq=number,
            at=NOW - ago,
            alert="FailingCalls",
            labels={**labels, "severity": severity},
            fingerprint=f"{1:016x}",
            from_state=before,
            to_state=after,
            severity=severity,
            value=0.31,
            value_text="31%",
            reason=reason,
            summary="31% of chat fail",
        )
        for number, (before, after, severity, ago, reason) in enumerate(steps, 1)
    ]
    return tuple(reversed(made))
