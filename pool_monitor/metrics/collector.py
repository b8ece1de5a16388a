"""The collector: keeps the windows that Snapshots are made from.

The intake (`pool_monitor.metrics.intake`) counts events into the stores. The collector owns both: it attaches and
detaches the handlers, advances time, bounds the memory, and reads the stores.

Its clock starts at the time of the wall clock and never steps (`SteadyClock`). So steps of windows begin on full
minutes of the wall clock, as long as the wall clock is not set.

A collector is used from one thread, that of the event loop of its pools. Nothing here waits, blocks or does I/O.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from pool_monitor import telemetry
from pool_monitor.clock import Clock, ManualClock, SteadyClock
from pool_monitor.errors import ConfigError
from pool_monitor.events import OPERATION_STOP, EventSpec
from pool_monitor.metrics import pool_stats
from pool_monitor.metrics.block import Block
from pool_monitor.metrics.columns import DISTRIBUTIONS, GAUGE_SUMS, GAUGES, PEAK_GAUGES, SAMPLES
from pool_monitor.metrics.error_groups import LIMIT, ErrorGroups, GroupCount
from pool_monitor.metrics.gauges import GaugeBlock, TimedGauges
from pool_monitor.metrics.group_reader import GroupReader
from pool_monitor.metrics.intake import BUFFER_BYTES, Intake
from pool_monitor.metrics.ladder import Mode, Rungs
from pool_monitor.metrics.memory_watch import MemoryWatch
from pool_monitor.metrics.pool_stats import PoolStats
from pool_monitor.metrics.recent import RecentGrowth
from pool_monitor.metrics.recording import Recording, TimedBlock
from pool_monitor.metrics.resource_readings import ResourceReadings
from pool_monitor.metrics.series import ROW_BYTES, Names, RowRegistry
from pool_monitor.metrics.stores import Stores
from pool_monitor.metrics.totals import Totals, totals_of
from pool_monitor.metrics.window import SECOND_NS, Window, Windows
from pool_monitor.snapshot import MonitorView, PoolView
from pool_monitor.telemetry import HandlerFunction, describe

MEMORY_LIMIT = 64 * 1024 * 1024
MEMORY_PER_SERIES, MEMORY_PER_POOL, MEMORY_SPARE = 32 * 1024, 256 * 1024, 512 * 1024
"""Memory per series, and per pool beside its error groups. The limit is their sum with the error groups, less what is
spare in it, when that exceeds `MEMORY_LIMIT`."""
_DRIFT_S = 0.75
"""A difference from the last drift above this many seconds counts as a step of the wall clock."""
_numbers = itertools.count(1)
SecondListener: TypeAlias = Callable[[int, Block, Names, Sequence[GroupCount]], object]
"""What `Collector.on_second` takes."""


class Collector:
    """Counts the calls of *pools* (names). Calls of other pools are ignored.

    *instances* has the ids of pools by name, where they are known. Events with another id belong to another pool of the
    same name, and are ignored too.

    *series_limit* is the maximum number of histograms (`pool_monitor.metrics.series`). *memory_limit* is the maximum
    number of bytes held; None: 64 MiB, or 32 KiB per series plus 256 KiB per pool plus the error groups if that is
    more. Before the windows would need more, the collector keeps less of each call (`pool_monitor.metrics.ladder`;
    *rungs* says when). Until that takes effect, they reach back less far; `covered_seconds` returns how far.
    *error_groups* is the maximum number of groups of a pool (`pool_monitor.metrics.error_groups`). *unmeasured* is the
    reason why resources are not measured; None: they are. Raises ConfigError when *memory_limit* is too low for
    *series_limit* and *error_groups*, and when the process may not have that much address space.
    """

    def __init__(
        self,
        pools: Iterable[str],
        clock: Clock,
        series_limit: int = 2000,
        memory_limit: int | None = None,
        *,
        instances: Mapping[str, str] | None = None,
        error_groups: int = LIMIT,
        rungs: Rungs = Rungs(),  # noqa: B008 - immutable
        unmeasured: str | None = None,
    ) -> None:
        number = next(_numbers)
        self.id = f"pool_monitor.collector-{number}"
        self.monitor = f"monitor-{number}"
        """The id of the monitor that this collector belongs to, in the events of its parts."""
        self._clock = SteadyClock(clock)
        self._registry = RowRegistry(pools, series_limit, instances)
        self.series_limit = series_limit
        rows, pools_number = self._registry.row_limit, len(self._registry.pools)
        groups_bytes = ErrorGroups.bytes_for(pools_number, error_groups)
        asked = series_limit * MEMORY_PER_SERIES + pools_number * MEMORY_PER_POOL + groups_bytes - MEMORY_SPARE
        self.memory_limit = max(MEMORY_LIMIT, asked) if memory_limit is None else memory_limit
        fixed = BUFFER_BYTES + rows * ROW_BYTES + Stores.bytes_beside_windows(rows, pools_number, error_groups)
        fixed += ResourceReadings.FIXED_BYTES
        needed = fixed + Windows.least_bytes(rows, pools_number)
        if needed > self.memory_limit:
            raise ConfigError(
                f"series_limit={series_limit} needs {needed:,} bytes, more than memory_limit={self.memory_limit:,} "
                f"({groups_bytes:,} of them for error_groups={error_groups}); set memory_limit in [metrics] to "
                f"{needed:,} or more, or lower series_limit or error_groups there"
            )
        self._shared = self.memory_limit - fixed
        """The memory that the windows and the readings of resources share."""
        # A test lets time pass in steps of any length, and the process ran in it.
        gapless = isinstance(clock, ManualClock)
        self._stores = Stores(self._registry.pools, rows, self._shared, error_groups, gapless=gapless)
        self._intake = Intake(self.id, self._registry, self._stores, self._clock)
        self.readings = ResourceReadings(self._clock, self._registry.is_collected, unmeasured, self.monitor)
        """The latest readings of resources, for Snapshots."""
        self.errors = GroupReader(self._stores, self._registry.pools, self._intake.catch_up, self._drift_s)
        """The error groups."""
        self._listener: SecondListener | None = None
        self.memory = MemoryWatch(
            self._intake,
            self._stores,
            self._clock,
            rungs,
            self.memory_limit - needed,
            lambda: _attach(self._intake.handlers(), self._intake),
            lambda: _detach(self._intake.handlers()),
        )
        """The mode, and what is held elsewhere."""
        self._gauge_listener: Callable[[int, GaugeBlock], object] | None = None
        self._start()

    def _start(self) -> None:
        """Begin with empty stores. Raises ConfigError when the system has no room for them."""
        self._clock.set()
        self._drift = 0
        now_ns = self._clock.now_ns()
        self._since_ns = now_ns
        self.memory.reset(now_ns)
        self._sampled_at: dict[str, int] = {}
        self._recent = RecentGrowth(3)
        self._intake.reset()
        self.readings.reset()
        try:
            self._stores.reset(now_ns, self._on_closed)
        except (OSError, MemoryError) as error:
            wanted = Windows.most_fixed_bytes(self._registry.row_limit, len(self._registry.pools)) / 2**20
            raise ConfigError(
                f"series_limit={self.series_limit} reserves {wanted:,.0f} MiB of address space, which the system "
                f"refused ({describe(error)}); lower series_limit in [metrics], or raise the limit (ulimit -v)"
            ) from error

    # -- lifecycle ------------------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Attach the handlers. The windows are empty and begin now. Attaching again starts over."""
        self.detach()
        self._start()
        _attach(_handlers(self._intake, self.id, self.readings), self._intake)

    def detach(self) -> None:
        """Detach the handlers, if they are attached. What was counted can still be read."""
        _detach(_handlers(self._intake, self.id, self.readings))

    @property
    def collecting(self) -> bool:
        """Whether all handlers are attached. Telemetry detaches a handler that raises, the mode ``off`` all."""
        return self._intake.handlers().keys() <= {handler.id for handler in telemetry.list_handlers()}

    def tick(self) -> None:
        """Fold the buffer, drop old steps, merge blocks. Call it once a second, best after `until_tick` seconds."""
        for _ in self.ticking():
            pass

    def ticking(self) -> Iterator[None]:
        """`tick` in pieces. The first brings everything up to now; the others are short, and can be delayed."""
        self._intake.catch_up()
        if self.memory.mode is Mode.OFF:
            self._on_closed(self._stores.windows.second - 1, None)
        yield
        yield from self._stores.windows.tidy()
        self.memory.tick()
        self._recent.sample(self._clock.now_ns() / SECOND_NS, self._grown())

    def _grown(self) -> tuple[int, int, int]:
        """The counters whose growth of late is shown."""
        intake = self._intake
        return intake.dropped + self.readings.dropped, intake.handler_failures, intake.overflowed

    def until_tick(self) -> float:
        """Seconds to the next full second of the collector's clock."""
        return (SECOND_NS - self._clock.now_ns() % SECOND_NS) / SECOND_NS

    def sample(self, status: PoolView) -> None:
        """Count a sample of a pool's gauges. Only the first sample in a second counts, in the mode ``off`` none."""
        self._intake.catch_up()
        if self.memory.mode is Mode.OFF:
            return
        windows = self._stores.windows
        if status.name not in self._registry.pools or self._sampled_at.get(status.name) == windows.second:
            return
        self._sampled_at[status.name] = windows.second
        pool, opened = self._registry.pools.index(status.name), windows.open
        opened.sums.pool_sums[pool, SAMPLES] += 1
        opened.sums.pool_sums[pool, GAUGE_SUMS] += [getattr(status, gauge) for gauge in GAUGES]
        peaks = opened.high_water.peaks
        peaks[pool] = [max(high, getattr(status, gauge)) for high, gauge in zip(peaks[pool], PEAK_GAUGES, strict=True)]

    def on_second(self, listener: SecondListener | None) -> None:
        """Call *listener* for every second that closes, with its start on the wall clock (whole seconds), the block
        that was counted in it, the names of the block, and the failures in it by error group. There is one listener;
        None removes it.
        """
        self._listener = listener

    def on_gauges(self, listener: Callable[[int, GaugeBlock], object] | None) -> None:
        """Call *listener* for every second with readings of resources, as `on_second` does, with these readings."""
        self._gauge_listener = listener

    def fold(self) -> None:
        """Count the calls that wait, all at the time of the first of them."""
        self._intake.fold()

    def finish(self) -> None:
        """Close the open second, so that the listener receives it too."""
        self._stores.windows.close_second(self._intake.catch_up())

    def _on_closed(self, second: int, block: Block | None) -> None:
        """Pass on what was counted in *second*. *block* is None in the mode ``off``: only resources are measured."""
        windows, drift_s = self._stores.windows, self._drift_s()
        if block is not None:
            self._stores.trend.add(second, block.pool_sums)
            failures = self._stores.error_groups.closed(second, drift_s * SECOND_NS)
            if self._listener is not None:
                self._listener(second + drift_s, block, self._registry.names(), failures)
        self.readings.limit_gauges(min(self._shared - windows.nbytes, self.memory.yielded_max))
        gauges = self.readings.close_second(second)
        self.memory.hold_readings(self.readings.nbytes)
        if gauges is not None and self._gauge_listener is not None:
            self._gauge_listener(second + drift_s, gauges)

    def _drift_s(self) -> int:
        """By how many seconds the wall clock has been set ahead since the beginning.

        The last result is kept while it is nearly right. When the clock is ahead by half a second, the rounded value
        would otherwise change from call to call.
        """
        ahead_s = (self._clock.wall_ns() - self._clock.now_ns()) / SECOND_NS
        if abs(ahead_s - self._drift) > _DRIFT_S:
            self._drift = round(ahead_s)
        return self._drift

    # -- reading --------------------------------------------------------------------------------------------------

    def pool_stats(self, pool: str, window: Window) -> PoolStats:
        """The measurements of *pool* in *window*, up to now. Raises KeyError for a pool that is not collected."""
        if pool not in self._registry.pools:
            raise KeyError(pool)
        now_ns = self._intake.catch_up()
        index, store = self._registry.pools.index(pool), self._stores.windows[window]
        return pool_stats.pool_stats(
            windows=self._stores.windows,
            window=window,
            pool_rows=self._registry.pool_rows(pool),
            trend=self._stores.trend.trend(index, window, now_ns, self._clock.wall_ns()),
            sums=(store.running.pool_sums + self._stores.windows.open.sums.pool_sums)[index],
            last_death=self._stores.last_errors.last_death(pool),
            failures=self._stores.failures.of(pool, now_ns),
            covered_s=store.covered_ns(now_ns) / SECOND_NS,
            last_errors=self._stores.last_errors.of(pool, now_ns),
            error_groups=self.errors.of(pool, window),
        )

    def gauges(self, start: int, step: int) -> list[TimedGauges]:
        """The readings of resources from *start* (wall clock) on, in blocks that *step* is a multiple of."""
        self._intake.catch_up()
        drift_s = self._drift_s()
        found = self.readings.store.read(step, start - drift_s)
        return [timed._replace(start=timed.start + drift_s) for timed in found]

    def block(self, window: Window) -> tuple[Block, Names]:
        """Everything in *window*, up to now, and the names of its rows and pools."""
        self._intake.catch_up()
        return self._stores.windows.block(window), self._registry.names()

    def recording(self, window: Window) -> Recording:
        """Everything in *window*, up to now, step by step."""
        self._intake.catch_up()
        store, drift_s = self._stores.windows[window], self._drift_s()
        blocks = [
            TimedBlock(step * window.step + drift_s, window.step, block)
            for step, held in store.steps.items()
            for block in held
        ]
        # A wall clock that is ahead by a fraction of a second must not put the open step into the future.
        started = min(store.open * window.step + drift_s, int(self.wall_s()))
        blocks.append(TimedBlock(started, window.step, self._stores.windows.open.block()))
        return Recording(self._registry.names(), blocks)

    def totals(self) -> Totals:
        """Everything counted since the collector was attached."""
        self._intake.catch_up()
        return totals_of(
            self._stores.windows,
            self._registry,
            self._stores.failure_histograms,
            self._intake.event_counters,
            since_s=self.since_s,
            at_s=self.wall_s(),
            drift_s=self._drift_s(),
            lag=self.readings.lag_totals(),
            processes=self.readings.process_totals(),
        )

    def reach(self, window: Window) -> tuple[float, bool]:
        """When *window* begins, in seconds since the epoch, and whether it has everything that was ever counted."""
        self._intake.catch_up()
        store = self._stores.windows[window]
        first_ns = max(store.since_ns, store.first * store.step_ns)
        return first_ns / SECOND_NS + self._drift_s(), first_ns == self._since_ns

    @property
    def since_s(self) -> float:
        """When counting began, in seconds since the epoch, by the current setting of the wall clock."""
        return self._since_ns / SECOND_NS + self._drift_s()

    def wall_s(self) -> float:
        """The wall clock, in seconds."""
        return self._clock.wall_ns() / SECOND_NS

    def covered_seconds(self, window: Window) -> float:
        """How many seconds *window* reaches back from now."""
        now_ns = self._intake.catch_up()
        return self._stores.windows[window].covered_ns(now_ns) / SECOND_NS

    def self_view(self, viewers: int = 0) -> MonitorView:
        """The state of the collector, for a Snapshot."""
        buffered = self._intake.buffered  # before catch_up empties the buffer
        now_ns = self._intake.catch_up()
        dropped, failures, overflowed = self._recent.growth(self._grown())
        return MonitorView(
            collecting=self.collecting,
            events=self._intake.events,
            dropped=self._intake.dropped + self.readings.dropped,
            clamped=self._intake.clamped,
            handler_failures=self._intake.handler_failures,
            series=len(self._registry) * len(DISTRIBUTIONS),
            series_limit=self.series_limit,
            overflowed=self._intake.overflowed,
            dropped_recent=dropped,
            handler_failures_recent=failures,
            overflowed_recent=overflowed,
            memory_bytes=self.memory_bytes() + self.memory.elsewhere,
            memory_limit_bytes=self.memory_limit,
            viewers=viewers,
            weights={
                spec.dotted: weight
                for spec, _function in self._intake.snapshot_handlers().values()
                if (weight := telemetry.weight(spec.name)) != 1
            },
            buffered=buffered,
            **self.memory.figures(now_ns),
        )

    def memory_bytes(self) -> int:
        """Bytes that the stores of the collector hold now: at most ``memory_limit``."""
        of_resources = ResourceReadings.FIXED_BYTES + self.readings.nbytes
        return self._intake.nbytes + len(self._registry) * ROW_BYTES + self._stores.nbytes + of_resources


def _handlers(
    intake: Intake, collector_id: str, resources: ResourceReadings
) -> dict[str, tuple[EventSpec, HandlerFunction]]:
    of_resources = {f"{collector_id}.resource.{name}": pair for name, pair in resources.handlers().items()}
    return intake.handlers() | of_resources


def _attach(handlers: Mapping[str, tuple[EventSpec, HandlerFunction]], intake: Intake) -> None:
    for handler_id, (spec, function) in handlers.items():
        telemetry.attach(handler_id, spec.name, function, bind=intake.bind if spec is OPERATION_STOP else None)


def _detach(handler_ids: Iterable[str]) -> None:
    for handler_id in handler_ids:
        telemetry.detach(handler_id)
