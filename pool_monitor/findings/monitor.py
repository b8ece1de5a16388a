"""Checks of the monitor itself: what makes its numbers doubtful."""

from __future__ import annotations

from collections.abc import Iterator

from pool_monitor.findings.finding import Finding
from pool_monitor.snapshot import MonitorView, ReceiverView

NEAR = 0.9
"""From this share of their limit on, series, the memory and the history's file are nearly used up."""
DISK_LEFT = {"bad": 0.05, "warn": 0.10}
"""Below this share of the disk that is still free, it is nearly full."""
LATE_INTERVALS, LATE_S = 5, 90.0
"""Rules are evaluated late when this many intervals, and this many seconds, have passed since the last time. After a
gap, such as a suspend, the evaluation waits on purpose for up to a minute, until windows have filled.
"""

DEBT_S = 300.0
"""A message about alerts is late when it is owed for so long."""


def collecting_stopped(monitor: MonitorView) -> Iterator[Finding]:
    if not monitor.collecting and monitor.mode != "off":
        yield Finding("collecting_stopped", "bad")


def mode_reduced(monitor: MonitorView) -> Iterator[Finding]:
    if monitor.mode != "full":
        yield Finding(
            "mode_reduced", "bad" if monitor.mode == "off" else "warn", names=(monitor.mode,),
            reason=monitor.degraded.get("collector"),
        )  # fmt: skip


def memory_near(monitor: MonitorView) -> Iterator[Finding]:
    yield from _near("memory_near", monitor.memory_bytes, monitor.memory_limit_bytes)


def series_near(monitor: MonitorView) -> Iterator[Finding]:
    if not monitor.overflowed:
        yield from _near("series_near", monitor.series, monitor.series_limit)


def series_overflowed(monitor: MonitorView) -> Iterator[Finding]:
    if monitor.overflowed:
        yield Finding("series_overflowed", "warn", value=monitor.overflowed, limit=0)


def events_dropped(monitor: MonitorView) -> Iterator[Finding]:
    if monitor.dropped:
        yield Finding("events_dropped", "warn", value=monitor.dropped, limit=0)


def handlers_detached(monitor: MonitorView) -> Iterator[Finding]:
    if monitor.handler_failures:
        yield Finding("handlers_detached", "warn", value=monitor.handler_failures, limit=0)


def events_filtered_out(monitor: MonitorView) -> Iterator[Finding]:
    silent = tuple(event for event, weight in monitor.weights.items() if not weight)
    if silent:
        yield Finding("events_filtered_out", "warn", names=silent, value=len(silent), limit=0)


def history_degraded(monitor: MonitorView) -> Iterator[Finding]:
    if monitor.history is not None and monitor.history.degraded is not None:
        yield Finding("history_degraded", "warn", reason=monitor.history.degraded)


def history_near(monitor: MonitorView) -> Iterator[Finding]:
    if monitor.history is not None:
        yield from _near("history_near", monitor.history.file_bytes, monitor.history.size_limit)


def history_disk(monitor: MonitorView) -> Iterator[Finding]:
    history = monitor.history
    if monitor.resources is not None or history is None or history.disk_free is None or not history.disk_total:
        return  # where resources are measured, a full disk is one of their faults
    used = 1 - history.disk_free / history.disk_total
    for level in ("bad", "warn"):
        limit = 1 - DISK_LEFT[level]
        if used > limit:
            counts = {"free": history.disk_free, "total": history.disk_total}
            yield Finding("history_disk", level, value=used, limit=limit, counts=counts)
            return


def part_degraded(monitor: MonitorView) -> Iterator[Finding]:
    told = {"collector"} | ({"history"} if any(history_degraded(monitor)) else set())
    told |= {"alerts"} if any(state_degraded(monitor)) else set()
    for part, reason in monitor.degraded.items():
        if part not in told:
            yield Finding("part_degraded", "warn", names=(part,), reason=reason)


def rules_failing(monitor: MonitorView) -> Iterator[Finding]:
    if monitor.alerts is not None and monitor.alerts.failing:
        names, reasons = zip(*monitor.alerts.failing.items(), strict=True)
        yield Finding("rules_failing", "warn", names=names, value=len(names), limit=0, reason=reasons[0])


def rules_late(monitor: MonitorView) -> Iterator[Finding]:
    alerting = monitor.alerts
    if alerting is None or not alerting.rules or alerting.evaluated_age is None:
        return
    limit = max(LATE_INTERVALS * alerting.interval, LATE_S)
    if alerting.evaluated_age >= limit:
        yield Finding("rules_late", "warn", value=alerting.evaluated_age, limit=limit)


def rules_stale(monitor: MonitorView) -> Iterator[Finding]:
    if monitor.alerts is not None and monitor.alerts.reload_error is not None:
        yield Finding("rules_stale", "warn", reason=monitor.alerts.reload_error)


def state_degraded(monitor: MonitorView) -> Iterator[Finding]:
    if monitor.alerts is not None and monitor.alerts.state_degraded is not None:
        yield Finding("state_degraded", "warn", reason=monitor.alerts.state_degraded)


def alerts_refused(monitor: MonitorView) -> Iterator[Finding]:
    if monitor.alerts is not None and monitor.alerts.refused:
        yield Finding("alerts_refused", "warn", value=monitor.alerts.refused, limit=0)


def undelivered(monitor: MonitorView) -> Iterator[Finding]:
    """Messages that a receiver refuses, or that are owed for `DEBT_S`."""
    late = [] if monitor.alerts is None else [one for one in monitor.alerts.receivers if _is_late(one)]
    if late:
        late.sort(key=lambda one: (-one.parked, -(one.oldest_debt or 0.0)))
        owed, parked = sum(one.owed for one in late), sum(one.parked for one in late)
        yield Finding(
            "undelivered", "warn", names=tuple(one.name for one in late), value=owed, limit=0,
            counts={"owed": owed, "parked": parked}, reason=late[0].last_error,
        )  # fmt: skip


def _is_late(receiver: ReceiverView) -> bool:
    return receiver.parked > 0 or (receiver.oldest_debt is not None and receiver.oldest_debt >= DEBT_S)


def _near(kind: str, used: int | None, limit: int) -> Iterator[Finding]:
    if used is not None and limit and used >= limit * NEAR:
        yield Finding(kind, "warn", value=used / limit, limit=NEAR, counts={"used": used, "limit": limit})
