"""The Snapshot: everything known at one moment about one window."""

from __future__ import annotations

from msgspec import Struct

from pool_monitor.snapshot.advice import Recommendation
from pool_monitor.snapshot.alerts import AlertView
from pool_monitor.snapshot.monitor import MonitorView, ServiceView
from pool_monitor.snapshot.pool import PoolDetail
from pool_monitor.snapshot.resources import ResourceView
from pool_monitor.snapshot.schema import SCHEMA_VERSION
from pool_monitor.snapshot.tuning import TuningView


class Snapshot(Struct, frozen=True, kw_only=True):
    """Everything known at one moment about one window."""

    version: int = SCHEMA_VERSION
    seq: int
    """Grows with every Snapshot of this monitor."""
    taken_at: float
    """Wall-clock time, seconds since the epoch."""
    uptime: float
    """Seconds since the monitor was entered, monotonic."""
    window: str
    """``1m``, ``5m``, ``15m`` or ``1h``."""
    window_seconds: float
    covered_seconds: float
    """The time that the window covers: less than ``window_seconds`` until the monitor has run that long."""
    service: ServiceView
    pools: dict[str, PoolDetail]
    monitor: MonitorView
    resources: ResourceView = ResourceView()
    """The machine, the process, its event loop, and GPUs."""
    alerts: tuple[AlertView, ...] = ()
    """The alerts that are pending, firing or recovering, and those resolved of late: firing first, the worst first."""
    recommendations: tuple[Recommendation, ...] = ()
    """What the advisor recommends, the most urgent first."""
    tuning: TuningView | None = None
    """What the tuner does; None: it is off and has never been asked."""
