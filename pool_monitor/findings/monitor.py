"""Checks of the monitor itself: what makes its numbers doubtful."""

from __future__ import annotations

from collections.abc import Iterator

from pool_monitor.findings.finding import Finding
from pool_monitor.snapshot import MonitorView


def collecting_stopped(monitor: MonitorView) -> Iterator[Finding]:
    if not monitor.collecting:
        yield Finding("collecting_stopped", "bad")


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
