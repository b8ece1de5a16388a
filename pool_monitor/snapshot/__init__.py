"""What every reader sees: immutable values, assembled on request.

Dashboard, exporters, alerts, the command line and remote viewers all read the same `Snapshot`, so two screens can
never disagree. Times and durations are seconds (float), ratios run from 0 to 1, rates are per second. ``None``
means *unknown*: no call ended, no worker is there; never zero.

The JSON form is the struct as it stands. `SCHEMA_VERSION` grows only when a field changes its meaning or goes
away; readers ignore fields they do not know, so adding one is no change.
"""

from pool_monitor.snapshot.calls import Bar, CallStats, Distribution, ErrorRate, OperationView, Trend
from pool_monitor.snapshot.monitor import HistoryView, MonitorView, OtlpView, ServiceView
from pool_monitor.snapshot.pool import (
    CRASHED,
    START_FAILED,
    Breaker,
    FailureView,
    Health,
    PoolDetail,
    PoolState,
    PoolView,
    WorkerState,
    WorkerView,
)
from pool_monitor.snapshot.queries import Point, PoolSummary, Range, Summary
from pool_monitor.snapshot.schema import SCHEMA_VERSION, WINDOW_NAMES
from pool_monitor.snapshot.snapshot import Snapshot

__all__ = [
    "CRASHED",
    "SCHEMA_VERSION",
    "START_FAILED",
    "WINDOW_NAMES",
    "Bar",
    "Breaker",
    "CallStats",
    "Distribution",
    "ErrorRate",
    "FailureView",
    "Health",
    "HistoryView",
    "MonitorView",
    "OperationView",
    "OtlpView",
    "Point",
    "PoolDetail",
    "PoolState",
    "PoolSummary",
    "PoolView",
    "Range",
    "ServiceView",
    "Snapshot",
    "Summary",
    "Trend",
    "WorkerState",
    "WorkerView",
]
