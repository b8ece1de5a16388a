"""Collect events in tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pool_monitor.telemetry.bus import attach_tap, detach
from pool_monitor.telemetry.types import EventName, Measurements, Metadata
from pool_monitor.telemetry.validation import checked_prefix

_capture_ids = itertools.count(1)


class CapturedEvent(NamedTuple):
    """One execution of an event, as `capture` recorded it."""

    name: EventName
    measurements: dict[str, int | float]
    metadata: dict[str, Any]


@contextmanager
def capture(prefix: EventName = ()) -> Iterator[list[CapturedEvent]]:
    """Collect every event whose name starts with *prefix*, for tests: the list grows while the block is open.

    Events of all threads and tasks of the process are collected. Mappings are copied at the execution.
    """
    captured: list[CapturedEvent] = []

    def record(name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        captured.append(CapturedEvent(name, dict(measurements), dict(metadata)))

    tap_id = f"telemetry.capture-{next(_capture_ids)}"
    attach_tap(tap_id, checked_prefix(prefix), record)
    try:
        yield captured
    finally:
        detach(tap_id)
