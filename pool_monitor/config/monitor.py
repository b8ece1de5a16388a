"""The sections of a monitor, one field each. A new part of the monitor adds its section here."""

from __future__ import annotations

from pool_monitor.config.fields import Validated
from pool_monitor.config.history import HistoryConfig
from pool_monitor.config.metrics import MetricsConfig
from pool_monitor.config.otlp import OtlpConfig
from pool_monitor.config.service import ServiceConfig
from pool_monitor.config.telemetry import TelemetryConfig


class MonitorConfig(Validated, frozen=True, kw_only=True):
    """How a monitor watches and is watched."""

    service: ServiceConfig = ServiceConfig()
    metrics: MetricsConfig = MetricsConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    history: HistoryConfig = HistoryConfig()
    otlp: OtlpConfig = OtlpConfig()
