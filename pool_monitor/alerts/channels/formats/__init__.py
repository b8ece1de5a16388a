"""Formats: the bodies of webhooks, as pure functions of a notification."""

from __future__ import annotations

from pool_monitor.alerts.channels.formats.format import Format
from pool_monitor.alerts.channels.formats.native import NATIVE

FORMATS = {"native": NATIVE}
"""The formats by their names in rule files."""

__all__ = ["FORMATS", "Format"]
