"""The latest reading of each worker's process. A reading never outlives its process or three intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from pool_monitor.events import RESOURCE_WORKER
from pool_monitor.metrics.resource_values import Checked
from pool_monitor.snapshot import WorkerView

LIMIT = 10_000
"""Most workers with a reading. Readings of further ones are dropped, and counted."""
READING_BYTES = 1500
"""Upper estimate of the memory for one reading."""
INTERVALS = 3
"""A reading expires when the next one is late by so many intervals that three were missed."""
NO_READING = "not measured yet"
STOPPED = {"T": "stopped by a signal", "t": "stopped by a debugger", "Z": "it has ended", "X": "it has ended"}
"""States in which a process has no figures, with the reason."""
DURATIONS = {"time_to_limit_duration": "time_to_limit", "cpu_duration": "cpu_seconds"}
"""Measurements in ns that become fields in seconds."""
FIGURES = tuple(
    name for name in (*RESOURCE_WORKER.measurements, *DURATIONS.values()) if name in WorkerView.__struct_fields__
)
"""What becomes a field of a `WorkerView`."""
COUNTED = ("cpu_seconds", "read_bytes", "written_bytes")
"""Figures that only grow while a process lives. They are also added up over the processes of a slot."""


class ProcessTotals(NamedTuple):
    """What the processes of one slot have used together, as far as it was measured: `COUNTED`. Never decreases."""

    pool: str
    worker: str
    numbers: tuple[float | None, ...]


class _Counts:
    """The sums of one slot."""

    __slots__ = ("last", "pid", "sums")

    def __init__(self) -> None:
        self.pid: int | None = None
        self.last: dict[str, float] = {}
        self.sums: dict[str, float] = {}

    def add(self, pid: int, figures: Mapping[str, Any]) -> None:
        if pid != self.pid:
            self.pid, self.last = pid, {}
        for name in COUNTED:
            value = figures.get(name)
            if value is not None:
                last = self.last.get(name, 0)
                # Below the last value, it is of another process with the same pid.
                self.sums[name] = self.sums.get(name, 0) + (value - last if value >= last else value)
                self.last[name] = value


class _Reading(NamedTuple):
    pid: int
    at_ns: int
    expires_ns: int
    values: tuple[Any, ...]
    """In the order of `FIGURES`."""
    letter: str | None
    reason: str | None


class WorkerReadings:
    """Keeps one reading per pool and slot: at most `LIMIT`."""

    def __init__(self) -> None:
        self._readings: dict[tuple[str, str], _Reading] = {}
        self._counts: dict[tuple[str, str], _Counts] = {}

    @property
    def nbytes(self) -> int:
        return len(self._readings) * READING_BYTES

    def put(self, pool: str, worker: str, pid: int, checked: Checked, now_ns: int) -> bool:
        """Keep the reading of the process *pid* in a slot. Returns whether there was room for it."""
        key = (pool, worker)
        if key not in self._readings and len(self._readings) >= LIMIT:
            self._forget_expired(now_ns)
            if len(self._readings) >= LIMIT:
                return False
        figures, letter = checked.figures, checked.figures.get("state_letter")
        reason = None
        if letter in STOPPED or not any(name in figures for name in FIGURES):
            unread = next(iter(checked.missing.values()), "it could not be read")
            reason = checked.missing.get("figures") or STOPPED.get(letter or "", unread)
        values = tuple(None if letter in STOPPED else figures.get(name) for name in FIGURES)
        expires_ns = now_ns + INTERVALS * checked.interval_ns
        self._counts.setdefault(key, _Counts()).add(pid, figures)
        self._readings[key] = _Reading(pid, now_ns, expires_ns, values, letter, reason)
        return True

    def merged(self, pool: str, workers: Iterable[WorkerView], now_ns: int) -> list[WorkerView]:
        """*workers*, the present slots of *pool*, with their figures. Readings of other slots of it are forgotten."""
        workers = list(workers)
        present = {worker.id for worker in workers}
        for key in [key for key in self._readings if key[0] == pool and key[1] not in present]:
            del self._readings[key], self._counts[key]
        return [replace(worker, **self._fields(pool, worker, now_ns)) for worker in workers]

    def totals(self) -> list[ProcessTotals]:
        """The sums of every slot, as long as it exists."""
        return [
            ProcessTotals(pool, worker, tuple(counts.sums.get(name) for name in COUNTED))
            for (pool, worker), counts in sorted(self._counts.items())
        ]

    def _fields(self, pool: str, worker: WorkerView, now_ns: int) -> Mapping[str, Any]:
        if worker.pid is None:
            return {}
        reading = self._readings.get((pool, worker.id))
        if reading is None or reading.pid != worker.pid:
            return {"rss": None, "figures_missing": NO_READING}
        if now_ns > reading.expires_ns:
            age_s = (now_ns - reading.at_ns) // 1_000_000_000
            return {"rss": None, "figures_missing": f"no reading for {age_s} s"}
        return {
            **dict(zip(FIGURES, reading.values, strict=True)),
            "state_letter": reading.letter,
            "figures_missing": reading.reason,
        }

    def _forget_expired(self, now_ns: int) -> None:
        for key in [key for key, kept in self._readings.items() if now_ns > kept.expires_ns]:
            del self._readings[key], self._counts[key]
