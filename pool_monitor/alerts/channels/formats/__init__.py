"""Formats: the bodies of webhooks, as pure functions of a notification."""

from __future__ import annotations

from pool_monitor.alerts.channels.formats.alertmanager import ALERTMANAGER
from pool_monitor.alerts.channels.formats.format import Format
from pool_monitor.alerts.channels.formats.native import NATIVE
from pool_monitor.alerts.channels.formats.pagerduty import PAGERDUTY
from pool_monitor.alerts.channels.formats.slack import SLACK

FORMATS = {"native": NATIVE, "alertmanager": ALERTMANAGER, "slack": SLACK, "pagerduty": PAGERDUTY}
"""The formats by their names in rule files."""

__all__ = ["FORMATS", "Format"]
