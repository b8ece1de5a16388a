"""The values that all readers get: immutable structs, made on request.

The dashboard, exporters, alerts, the command line and remote viewers all read the same `Snapshot`, so two screens never
disagree. Times and durations are seconds (float), ratios are from 0 to 1, rates are per second. ``None`` means
*unknown*, because no call ended or there is no worker; it never means zero.

The JSON form has the fields of the structs. `SCHEMA_VERSION` grows only when a field changes its meaning or is removed.
Readers ignore fields that they do not know, so a new field does not change the version.
"""

from pool_monitor.snapshot.advice import (
    AdviceReport,
    Change,
    Effect,
    Explanation,
    Pattern,
    Recommendation,
    RecommendationState,
)
from pool_monitor.snapshot.alerts import (
    Acknowledgement,
    AlertingView,
    AlertReport,
    AlertState,
    AlertTransition,
    AlertView,
    HeartbeatView,
    ReceiverState,
    ReceiverView,
    RuleView,
    SilenceView,
    ToldStatus,
    ToldView,
)
from pool_monitor.snapshot.calls import Bar, CallStats, Distribution, ErrorRate, OperationView, Trend
from pool_monitor.snapshot.error_groups import ErrorGroup, ErrorReport, ErrorSample
from pool_monitor.snapshot.monitor import HistoryView, MonitorMode, MonitorView, OtlpView, SamplingView, ServiceView
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
from pool_monitor.snapshot.queries import GaugeSeries, Point, PoolSummary, Range, ResourceRange, Summary
from pool_monitor.snapshot.readiness import PoolReadiness, Readiness, SlotCounts, pool_readiness
from pool_monitor.snapshot.resources import (
    FaultLevel,
    FaultView,
    GpuView,
    HostView,
    LoopView,
    PressureView,
    ProcessView,
    ResourceView,
)
from pool_monitor.snapshot.schema import SCHEMA_VERSION, WINDOW_NAMES
from pool_monitor.snapshot.snapshot import Snapshot
from pool_monitor.snapshot.tuning import (
    TRIAL_OVER,
    TRIAL_RUNNING,
    TRIAL_WAITING,
    ChangeState,
    SizingView,
    TrialState,
    TrialView,
    TunerMode,
    TuningReport,
    TuningView,
)

__all__ = [
    "CRASHED",
    "SCHEMA_VERSION",
    "START_FAILED",
    "TRIAL_OVER",
    "TRIAL_RUNNING",
    "TRIAL_WAITING",
    "WINDOW_NAMES",
    "Acknowledgement",
    "AdviceReport",
    "AlertReport",
    "AlertState",
    "AlertTransition",
    "AlertView",
    "AlertingView",
    "Bar",
    "Breaker",
    "CallStats",
    "Change",
    "ChangeState",
    "Distribution",
    "Effect",
    "ErrorGroup",
    "ErrorRate",
    "ErrorReport",
    "ErrorSample",
    "Explanation",
    "FailureView",
    "FaultLevel",
    "FaultView",
    "GaugeSeries",
    "GpuView",
    "Health",
    "HeartbeatView",
    "HistoryView",
    "HostView",
    "LoopView",
    "MonitorMode",
    "MonitorView",
    "OperationView",
    "OtlpView",
    "Pattern",
    "Point",
    "PoolDetail",
    "PoolReadiness",
    "PoolState",
    "PoolSummary",
    "PoolView",
    "PressureView",
    "ProcessView",
    "Range",
    "Readiness",
    "ReceiverState",
    "ReceiverView",
    "Recommendation",
    "RecommendationState",
    "ResourceRange",
    "ResourceView",
    "RuleView",
    "SamplingView",
    "ServiceView",
    "SilenceView",
    "SizingView",
    "SlotCounts",
    "Snapshot",
    "Summary",
    "ToldStatus",
    "ToldView",
    "Trend",
    "TrialState",
    "TrialView",
    "TunerMode",
    "TuningReport",
    "TuningView",
    "WorkerState",
    "WorkerView",
    "pool_readiness",
]
