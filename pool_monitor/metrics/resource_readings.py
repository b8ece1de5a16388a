"""The latest readings of resources, from their events. A reading that is not renewed expires."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_monitor.clock import SteadyClock
from pool_monitor.events import RESOURCE_HOST, RESOURCE_PROCESS, EventSpec
from pool_monitor.snapshot import HostView, PressureView, ProcessView, ResourceView
from pool_monitor.snapshot.validation import checked
from pool_monitor.telemetry import EventName, HandlerFunction, Measurements, Metadata


class ResourceReadings:
    """Keeps one reading per subject."""

    def __init__(self, clock: SteadyClock) -> None:
        self._clock = clock
        self._host, self._process = HostView(), ProcessView()
        self._at_ns: int | None = None

    def handlers(self) -> dict[str, tuple[EventSpec, HandlerFunction]]:
        """The handlers to attach, by the last part of their ids."""
        return {"host": (RESOURCE_HOST, self._on_host), "process": (RESOURCE_PROCESS, self._on_process)}

    def view(self) -> ResourceView:
        """What is known now."""
        age = None if self._at_ns is None else (self._clock.now_ns() - self._at_ns) / 1e9
        return ResourceView(host=self._host, process=self._process, sampled_age=age)

    def _on_host(self, _name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        self._at_ns = self._clock.now_ns()
        pressure = {name: measurements.get(f"pressure_{name}") for name in PressureView.__struct_fields__}
        fields = {
            name: value for name, value in {**metadata, **measurements}.items() if not name.startswith("pressure_")
        }
        host = checked(HostView, {k: v for k, v in fields.items() if k in HostView.__struct_fields__})
        if any(value is not None for value in pressure.values()):
            host = msgspec.structs.replace(host, pressure=checked(PressureView, pressure))
        self._host = host

    def _on_process(self, _name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        fields = {**metadata, **measurements}
        self._process = checked(ProcessView, {k: v for k, v in fields.items() if k in ProcessView.__struct_fields__})
