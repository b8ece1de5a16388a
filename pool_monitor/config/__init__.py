"""Settings: immutable structs, validated when they are made. Invalid values are refused, never repaired.

`Pool(..., **fields)` takes the fields of `PoolConfig`, and `Monitor(..., config=)` takes a `MonitorConfig`. `load`
reads both from one TOML file. Its tables ``[pool]``, ``[service]``, ``[metrics]``, ``[telemetry]``, ``[resources]``,
``[history]``, ``[otlp]``, ``[state]``, ``[alerts]``, ``[advisor]`` and ``[tuner]`` have the fields of the structs in
this folder.
"""

from pool_monitor.config.advisor import AdvisorConfig
from pool_monitor.config.alerts import AlertsConfig, StateConfig
from pool_monitor.config.history import DEFAULT_TIERS, HistoryConfig, Tier
from pool_monitor.config.metrics import MetricsConfig
from pool_monitor.config.monitor import MonitorConfig
from pool_monitor.config.otlp import OtlpConfig
from pool_monitor.config.pool import PoolConfig, PoolFields
from pool_monitor.config.resources import ResourcesConfig
from pool_monitor.config.service import ServiceConfig
from pool_monitor.config.settings import Settings, build, load
from pool_monitor.config.telemetry import TelemetryConfig
from pool_monitor.config.tuner import ScheduleEntry, TunerConfig

__all__ = [
    "DEFAULT_TIERS",
    "AdvisorConfig",
    "AlertsConfig",
    "HistoryConfig",
    "MetricsConfig",
    "MonitorConfig",
    "OtlpConfig",
    "PoolConfig",
    "PoolFields",
    "ResourcesConfig",
    "ScheduleEntry",
    "ServiceConfig",
    "Settings",
    "StateConfig",
    "TelemetryConfig",
    "Tier",
    "TunerConfig",
    "build",
    "load",
]
