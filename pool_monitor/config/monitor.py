"""The configuration of a monitor, one field per section. A new part of the monitor adds its section here."""

from __future__ import annotations

from pool_monitor.config.advisor import AdvisorConfig
from pool_monitor.config.alerts import AlertsConfig, StateConfig
from pool_monitor.config.fields import Validated
from pool_monitor.config.history import HistoryConfig
from pool_monitor.config.metrics import MetricsConfig
from pool_monitor.config.otlp import OtlpConfig
from pool_monitor.config.resources import ResourcesConfig
from pool_monitor.config.service import ServiceConfig
from pool_monitor.config.telemetry import TelemetryConfig
from pool_monitor.config.tuner import TunerConfig


class MonitorConfig(Validated, frozen=True, kw_only=True):
    """What a monitor measures, keeps and sends, and how it is reached."""

    service: ServiceConfig = ServiceConfig()
    metrics: MetricsConfig = MetricsConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    resources: ResourcesConfig = ResourcesConfig()
    history: HistoryConfig = HistoryConfig()
    otlp: OtlpConfig = OtlpConfig()
    state: StateConfig = StateConfig()
    alerts: AlertsConfig = AlertsConfig()
    advisor: AdvisorConfig = AdvisorConfig()
    tuner: TunerConfig = TunerConfig()
