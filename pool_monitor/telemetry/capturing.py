"""Collect events in tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pool_monitor.telemetry.bus import attach_tap, detach
from pool_monitor.telemetry.checks import checked_prefix
from pool_monitor.telemetry.types import EventName, Measurements, Metadata

_capture_ids = itertools.count(1)


class CapturedEvent(NamedTuple):
    """One event as `capture` saw it."""

    name: EventName
    measurements: dict[str, int | float]
    metadata: dict[str, Any]


@contextmanager
def capture(prefix: EventName = ()) -> Iterator[list[CapturedEvent]]:
    """Test helper: the list of every event whose name starts with *prefix*, growing while the block is open.

    Sees events from every thread and task of the process. Mappings are copied as they were at the execution.
    """
    seen: list[CapturedEvent] = []

    def record(name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        seen.append(CapturedEvent(name, dict(measurements), dict(metadata)))

    tap_id = f"telemetry.capture-{next(_capture_ids)}"
    attach_tap(tap_id, checked_prefix(prefix), record)
    try:
        yield seen
    finally:
        detach(tap_id)
