"""Alerts for tests of what people see: deterministic, one of each kind that a page shows differently."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pool_monitor.snapshot import (
    Acknowledgement,
    AlertingView,
    AlertTransition,
    AlertView,
    HeartbeatView,
    ReceiverView,
    SilenceView,
    Snapshot,
    ToldView,
)
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
        alert(
            "FailingCalls", 1, severity="critical", value=0.31, limit=0.2, summary="31% of chat fail",
            values=(0.01, 0.01, 0.0, None, 0.02, 0.05, 0.08, 0.16, 0.24, 0.3, 0.31), values_s=165.0,
            escalated_at=NOW - 60.0,
            told=(
                ToldView(receiver="ops", status="told", at=NOW - 120.0),
                ToldView(receiver="pager", status="told", at=NOW - 118.0),
                ToldView(receiver="boss", status="waiting", at=NOW + 24.0),
            ),
        ),
        alert("QueueFull", 2, labels={"pool": "text"}, state="recovering", value=12.0, unit="count", limit=32.0,
              flapping=True, summary="12 calls wait"),
        alert("HostMemory", 6, labels={}, value=0.93, limit=0.9, silenced=True, silences=("s-1",), summary="memory"),
        alert("SlowChat", 7, inhibited=True, inhibited_by=(f"{1:016x}",), value=3.0, unit="s", limit=2.0),
    )  # fmt: skip


def receivers() -> tuple[ReceiverView, ...]:
    """Return receivers that have everything."""
    return (
        ReceiverView(
            name="ops", channel="webhook", where="https://hooks.example #1f2e3d4c", last_success_age=120.0, sent=41,
        ),
        ReceiverView(
            name="pager", channel="webhook", where="https://pager.example #a1b2c3d4", page=True,
            last_success_age=118.0, sent=3,
        ),
    )  # fmt: skip


def troubled() -> dict[str, Any]:
    """Return what an `AlertingView` has when messages do not arrive, for different reasons."""
    return {
        "owed": 37, "parked": 1, "held_back": 34, "lost": 2, "oldest_debt": 210.0, "notified_age": 18.0,
        "heartbeat": HeartbeatView(every=30.0, last_success_age=95.0, last_error="connection refused"),
        "receivers": (
            receivers()[0],
            ReceiverView(
                name="pager", channel="webhook", where="https://pager.example #a1b2c3d4", page=True, state="parked",
                owed=2, parked=1, oldest_debt=210.0, last_success_age=7000.0, last_error="HTTP 404 not found",
                failures=1, next_in=130.0, sent=3, failed=1,
            ),
            ReceiverView(
                name="chat", channel="webhook", where="http://chat.example #0badcafe", state="open", owed=1,
                oldest_debt=65.0, last_error="HTTP 503 service unavailable", failures=5, next_in=40.0, failed=5,
            ),
            ReceiverView(
                name="post", channel="email", where="smtp.example.org:587", held_back=34, owed=34, oldest_debt=18.0,
                last_success_age=18.0, next_in=12.0, sent=12, lost=2,
            ),
        ),
    }  # fmt: skip


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
        "notified_age": 118.0,
        "receivers": receivers(),
        "heartbeat": HeartbeatView(every=30.0, last_success_age=12.0),
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
