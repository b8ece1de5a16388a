"""The latest readings of resources, from their events, and what they were before.

Theory of operation
-------------------
Each event of `pool_monitor.events.resource` replaces the latest reading of its subject. A reading says how long it
takes until the next one (``interval``), and expires when three have been missed: a gauge that nobody renews is unknown,
never frozen. The readings of a second are also added to the means and maxima of that second, for ranges and the history
(`pool_monitor.metrics.gauges`).

Any code can emit these events, with any values. What does not fit is dropped and counted, and no handler raises.

``resource.loop`` comes from the thread of a watchdog, while the event loop is blocked. Its handler takes no lock: it
counts, and replaces a reference.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from pool_monitor.clock import SteadyClock
from pool_monitor.events import (
    LOOP_LAG,
    LOOP_RESUME,
    MONITOR_DEGRADE,
    RESOURCE_GPU,
    RESOURCE_HOST,
    RESOURCE_LIMIT,
    RESOURCE_LOOP,
    RESOURCE_PROCESS,
    RESOURCE_WORKER,
    EventSpec,
)
from pool_monitor.metrics.gauges import GaugeBlock, GaugeStore, OpenGauges
from pool_monitor.metrics.loop_lag import LagTotals, LoopLag, Peaks
from pool_monitor.metrics.open_faults import OpenFaults
from pool_monitor.metrics.resource_values import (
    INTERVAL_NS,
    ReadingCheck,
    interval_of,
    is_duration,
    text_or_none,
)
from pool_monitor.metrics.window import Window
from pool_monitor.metrics.worker_readings import DURATIONS, FIGURES, INTERVALS, STOPPED, ProcessTotals, WorkerReadings
from pool_monitor.snapshot import (
    GpuView,
    HostView,
    LoopView,
    PressureView,
    ProcessView,
    ResourceView,
    WorkerView,
)
from pool_monitor.snapshot.validation import plain_text
from pool_monitor.telemetry import FAILURES, EventName, HandlerFunction, Measurements, Metadata, pass_on

GPUS_MAX = 64
STACK_MAX = 16_000
"""Characters kept of a stack: the last ones, because the innermost frame is last."""
LAGS_MAX = 8192
"""Most measurements of lag that wait to be counted. There are ten a second, and they are counted every second; after a
block, those that were missed come at once."""
_LAG_MAX_NS = 10**15
GAUGE_BYTES = 4 * 2**20
"""Most bytes for the means and maxima of the last hour."""
_FAULTS_AFTER = 10
"""Without a sample for this many intervals, it is not known whether a fault is still open."""
_HOST, _PRESSURE, _GPU = ReadingCheck(HostView, RESOURCE_HOST), ReadingCheck(PressureView), ReadingCheck(GpuView)
_PROCESS = ReadingCheck(
    ProcessView,
    RESOURCE_PROCESS,
    {"oldest_task_duration": "oldest_task", "gc_pause_duration": "gc_pause", "gc_duration": "gc_time"},
)
_WORKER = ReadingCheck(WorkerView, RESOURCE_WORKER, DURATIONS)
_NOT_GAUGES = frozenset({"pid", "index"})


class _Reading(NamedTuple):
    view: Any
    at_ns: int
    interval_ns: int


class _Block(NamedTuple):
    """The latest block of the event loop."""

    began_ns: int
    stack: str | None
    stack_at_ns: int
    over: bool


class ResourceReadings:
    """Keeps one reading per subject.

    *is_collected* decides from a pool's name and instance whether its workers are wanted. *unmeasured* is the reason
    why resources are not measured; None: they are. *monitor* is the id of the monitor that reads: what other ones in
    this process measure is ignored. Bounds: `WorkerReadings`, `OpenFaults`, `GaugeStore` and `LoopLag`
    have theirs; `GPUS_MAX` GPUs; `LAGS_MAX` measurements of lag that wait to be counted.
    """

    FIXED_BYTES = LoopLag.FIXED_BYTES + 2 * Peaks.NBYTES + LAGS_MAX * 9
    """Bytes held at all times."""

    def __init__(
        self,
        clock: SteadyClock,
        is_collected: Callable[[str, str | None], bool],
        unmeasured: str | None = None,
        monitor: str = "",
    ) -> None:
        self._monitor = monitor
        self._clock, self._is_collected, self._unmeasured = clock, is_collected, unmeasured
        self.dropped = 0
        """Values and events that were dropped because they do not fit, or because there was no room."""
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._latest: dict[str, _Reading] = {}
        self._gpus_missing: str | None = None
        self._degraded: str | None = None
        self._block: _Block | None = None
        self._blocks: int | None = None
        self._lags = array("q")
        self._lag, self._gc_pauses, self._block_peaks = LoopLag(), Peaks(), Peaks()
        self._workers, self._faults = WorkerReadings(), OpenFaults()
        self._open, self._store = OpenGauges(), GaugeStore(GAUGE_BYTES)

    @property
    def nbytes(self) -> int:
        """Bytes held now beside `FIXED_BYTES`: what the stores say."""
        return self._workers.nbytes + self._store.nbytes + self._lag.nbytes

    def limit_gauges(self, free: int) -> None:
        """Keep the means and maxima of the last hour within *free* bytes beside the readings, and `GAUGE_BYTES`."""
        self._store.limit = min(max(free - self._workers.nbytes, 0), GAUGE_BYTES)

    # -- events -------------------------------------------------------------------------------------------------

    def handlers(self) -> dict[str, tuple[EventSpec, HandlerFunction]]:
        """The handlers to attach, by the last part of their ids."""
        return {
            "host": (RESOURCE_HOST, self._guarded(self._on_host)),
            "process": (RESOURCE_PROCESS, self._guarded(self._on_process)),
            "worker": (RESOURCE_WORKER, self._guarded(self._on_worker)),
            "gpu": (RESOURCE_GPU, self._guarded(self._on_gpu)),
            "loop": (RESOURCE_LOOP, self._guarded(self._on_loop)),
            "loop_resume": (LOOP_RESUME, self._guarded(self._on_resume)),
            "lag": (LOOP_LAG, self._guarded(self._on_lag)),
            "limit": (RESOURCE_LIMIT, self._guarded(self._on_limit)),
            "degrade": (MONITOR_DEGRADE, self._guarded(self._on_degrade)),
        }

    def _guarded(self, function: Callable[[Measurements, Metadata], object]) -> HandlerFunction:
        """*function* as a handler of what this monitor has measured. It counts what it cannot read."""

        def handler(_name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
            try:
                if metadata.get("monitor", self._monitor) != self._monitor:
                    return
                function(measurements, metadata)
            except FAILURES as error:
                pass_on(error)
                self.dropped += 1

        return handler

    def _on_host(self, measurements: Measurements, metadata: Metadata) -> None:
        checked = _HOST(measurements, metadata)
        names = {name: f"pressure_{name}" for name in PressureView.__struct_fields__}
        shares = {name: measurements.get(key) for name, key in names.items()}
        pressure = _PRESSURE(shares)
        self.dropped += checked.wrong + pressure.wrong
        view = PressureView(**pressure.figures) if pressure.figures else None
        self._keep("host", HostView(**checked.figures, pressure=view, missing=checked.missing), checked.interval_ns)
        figures = checked.figures | {names[name]: value for name, value in pressure.figures.items()}
        self._note("host", figures)

    def _on_process(self, measurements: Measurements, metadata: Metadata) -> None:
        checked = _PROCESS(measurements, metadata)
        self.dropped += checked.wrong
        figures = checked.figures
        in_gc, pause = figures.pop("gc_time", None), figures.pop("gc_pause", None)
        earlier = self._latest.get("process")
        if in_gc is not None and earlier is not None and (passed := self._clock.now_ns() - earlier.at_ns) > 0:
            figures["gc_ratio"] = min(in_gc * 1e9 / passed, 1.0)
        if pause is not None:
            self._gc_pauses.add(pause, self._clock.now_ns())
        self._keep("process", ProcessView(**figures, missing=checked.missing), checked.interval_ns)
        self._note("process", figures if pause is None else {**figures, "gc_pause": pause})

    def _on_worker(self, measurements: Measurements, metadata: Metadata) -> None:
        pool, worker, pid = metadata["pool"], metadata["worker"], metadata["pid"]
        if text_or_none(pool) != pool or text_or_none(worker) != worker or type(pid) is not int:
            raise ValueError("an event of no worker")
        if not self._is_collected(pool, metadata.get("pool_instance")):
            return
        checked = _WORKER(measurements, metadata)
        self.dropped += checked.wrong
        if not self._workers.put(pool, worker, pid, checked, self._clock.now_ns()):
            self.dropped += 1
        if checked.figures.get("state_letter") not in STOPPED:
            self._note(f"worker {worker}", {name: checked.figures[name] for name in FIGURES if name in checked.figures})

    def _on_gpu(self, measurements: Measurements, metadata: Metadata) -> None:
        found = []
        gpus = metadata.get("gpus", ())
        if type(gpus) not in (tuple, list):
            raise TypeError("gpus is not a tuple")
        self.dropped += max(len(gpus) - GPUS_MAX, 0)
        for gpu in gpus[:GPUS_MAX]:
            checked = _GPU(gpu)
            self.dropped += checked.wrong
            if "index" not in checked.figures:
                self.dropped += 1
                continue
            found.append(GpuView(**checked.figures))
            self._note(f"gpu {checked.figures['index']}", checked.figures)
        self._gpus_missing = text_or_none(metadata.get("missing"))
        interval_ns = interval_of(measurements)
        self.dropped += interval_ns is None
        self._keep("gpus", tuple(found), interval_ns or INTERVAL_NS)

    def _on_limit(self, measurements: Measurements, metadata: Metadata) -> None:
        if not self._faults.put(measurements, metadata):
            self.dropped += 1

    def _on_degrade(self, _measurements: Measurements, metadata: Metadata) -> None:
        if metadata.get("part") == "resources":
            degraded = metadata.get("state") == "degraded"
            self._degraded = text_or_none(metadata.get("reason")) if degraded else None

    # Runs in the thread of the watchdog.
    def _on_loop(self, measurements: Measurements, metadata: Metadata) -> None:
        duration, stack = measurements["duration"], metadata.get("stack")
        if not is_duration(duration):
            raise ValueError("no duration")
        now_ns, earlier = self._clock.now_ns(), self._block
        if type(stack) is str and stack:
            stack, stack_at_ns = plain_text(stack[-STACK_MAX:], STACK_MAX), now_ns
        else:
            stack, stack_at_ns = (earlier.stack, earlier.stack_at_ns) if earlier else (None, now_ns)
        self._blocks = (self._blocks or 0) + 1
        self._block = _Block(now_ns - duration, stack, stack_at_ns, over=False)

    def _on_resume(self, measurements: Measurements, _metadata: Metadata) -> None:
        duration = measurements["duration"]
        if not is_duration(duration):
            raise ValueError("no duration")
        self._block_peaks.add(duration / 1e9, self._clock.now_ns())
        self._end_block()

    def _on_lag(self, measurements: Measurements, _metadata: Metadata) -> None:
        duration = measurements["duration"]
        if not is_duration(duration) or duration > _LAG_MAX_NS or len(self._lags) >= LAGS_MAX:
            raise ValueError("no duration")
        self._lags.append(duration)
        if self._blocks is None:
            self._blocks = 0
        self._end_block()

    def _end_block(self) -> None:
        """The loop has run a callback."""
        block = self._block
        if block is not None and not block.over:
            self._block = block._replace(over=True)

    # -- keeping ------------------------------------------------------------------------------------------------

    def _keep(self, subject: str, view: Any, interval_ns: int) -> None:
        self._latest[subject] = _Reading(view, self._clock.now_ns(), interval_ns)

    def _note(self, subject: str, figures: dict[str, Any]) -> None:
        numbers = {name: value for name, value in figures.items() if type(value) is not str and name not in _NOT_GAUGES}
        if not self._open.add(subject, numbers):
            self.dropped += 1

    def close_second(self, second: int) -> GaugeBlock | None:
        """End a *second* of the collector's clock. Returns its readings; None: there were none."""
        self._count_lags()
        block = self._open.close()
        if block is not None:
            self._store.add(second, block)
        return block

    def _count_lags(self) -> None:
        number = len(self._lags)
        lags = self._lags[:number].tolist()
        del self._lags[:number]
        if lags:
            self._lag.add(lags, self._clock.now_ns())
            for lag in lags:
                self._open.add("loop", {"lag": lag / 1e9})

    # -- reading ------------------------------------------------------------------------------------------------

    def view(self, window: Window) -> ResourceView:
        """What is known now."""
        self._count_lags()
        now_ns = self._clock.now_ns()
        missing: dict[str, str] = {}
        host: HostView = self._current("host", HostView(), now_ns, missing)
        process: ProcessView = self._current("process", ProcessView(), now_ns, missing)
        gpus: tuple[GpuView, ...] = self._current("gpus", (), now_ns, missing)
        if self._gpus_missing is not None and "gpus" not in missing:
            missing["gpus"] = self._gpus_missing
        if "process" not in missing:
            pause = self._gc_pauses.highest(window, now_ns)
            process = msgspec.structs.replace(process, gc_pause=pause)
        loop = self._loop(window, now_ns)
        if loop.blocks is None:
            missing["loop"] = self._why() or "not measured yet"
        sampled = self._latest.get("host")
        lately = sampled is not None and now_ns - sampled.at_ns <= _FAULTS_AFTER * sampled.interval_ns
        return ResourceView(
            host=host,
            process=process,
            loop=loop,
            gpus=gpus,
            faults=self._faults.view(sampled=lately),
            missing=missing,
            sampled_age=None if sampled is None else (now_ns - sampled.at_ns) / 1e9,
        )

    def workers(self, pool: str, workers: Iterable[WorkerView]) -> list[WorkerView]:
        """*workers*, the present slots of *pool*, with the figures of their processes.

        While resources are measured, ``rss`` is the latest reading or None, never what the worker has reported.
        """
        if self._unmeasured is not None:
            return list(workers)
        return self._workers.merged(pool, workers, self._clock.now_ns())

    def lag_totals(self) -> LagTotals:
        """Every measurement of the loop's lag since the beginning."""
        self._count_lags()
        return self._lag.totals()

    def process_totals(self) -> list[ProcessTotals]:
        """What the processes of each slot have used together."""
        return self._workers.totals()

    @property
    def store(self) -> GaugeStore:
        """The means and maxima of the last hour."""
        return self._store

    def _why(self) -> str | None:
        return self._unmeasured or self._degraded

    def _current(self, subject: str, unknown: Any, now_ns: int, missing: dict[str, str]) -> Any:
        """The latest reading of *subject*, or *unknown* when it has expired."""
        reading = self._latest.get(subject)
        if reading is not None and now_ns - reading.at_ns <= INTERVALS * reading.interval_ns:
            return reading.view
        why = self._why() or "not measured yet"
        if reading is not None:
            last = reading.at_ns + self._clock.wall_ns() - now_ns
            since = datetime.fromtimestamp(last // 10**9, UTC)
            why = f"not measured since {since:%Y-%m-%d %H:%M:%S} UTC"
            why += f": {self._why()}" if self._why() else ""
        missing[subject] = why
        return unknown

    def _loop(self, window: Window, now_ns: int) -> LoopView:
        block, lag = self._block, self._lag.distribution(window, now_ns)
        longest = None if self._blocks is None else self._block_peaks.highest(window, now_ns) or 0.0
        if block is None:
            return LoopView(lag=lag, longest_block=longest, blocks=self._blocks)
        return LoopView(
            lag=lag,
            longest_block=longest,
            blocked=None if block.over else max(now_ns - block.began_ns, 0) / 1e9,
            stack=block.stack,
            stack_age=None if block.stack is None else max(now_ns - block.stack_at_ns, 0) / 1e9,
            blocks=self._blocks,
        )
