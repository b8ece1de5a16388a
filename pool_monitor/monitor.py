"""The Monitor: wires the pools to everything that shows, stores or sends their numbers.

It collects the events of the pools and reads their gauges for each Snapshot. It runs the parts that use these numbers:
history, push, socket (part_table.py). It owns its tasks, and no failure of the monitor reaches the pools.
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from pool_monitor import telemetry
from pool_monitor.clock import Clock, ManualClock, WakefulClock
from pool_monitor.config import MonitorConfig, Settings, TelemetryConfig, load
from pool_monitor.errors import ConfigError, PoolError
from pool_monitor.events import MONITOR_DEGRADE, MONITOR_SELF
from pool_monitor.log import logger
from pool_monitor.metrics import KEPT, Collector, LiveMetrics, Mode, detail, parse_window
from pool_monitor.part_runner import PartRunner
from pool_monitor.part_table import PARTS
from pool_monitor.parts import Context
from pool_monitor.self_measuring import WorkMeter
from pool_monitor.snapshot import MonitorView, Readiness, ServiceView, Snapshot, pool_readiness
from pool_monitor.snapshot.validation import plain_text
from pool_monitor.ticker import Ticker
from pool_monitor.version import __version__
from pool_monitor.watched_pools import Monitored, WatchedPools

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.applications import Starlette

    from pool_monitor.advisor.manager import Advisor
    from pool_monitor.alerts.manager import AlertManager
    from pool_monitor.metrics import Window
    from pool_monitor.service.stacks import StackReading
    from pool_monitor.snapshot import PoolDetail
    from pool_monitor.storage import HistoryMetrics
    from pool_monitor.storage.shared_state import SharedState
    from pool_monitor.tuner.manager import Tuner


T = TypeVar("T")

_REASON_MAX = 500
"""Most characters of the reason why a part is degraded."""


class Monitor:
    """Watches one or more pools of this process. While entered, it collects, ticks and can be viewed from outside.

    *config* is a `MonitorConfig`, the path of a TOML file, or None for the defaults. Entering opens the local Unix
    socket that ``pool-monitor dashboard`` and ``snapshot`` find (unless ``[service] socket = false``). If the socket
    cannot be opened, the reason is logged, ``address`` stays None until a later try succeeds, and everything else
    works. Every other part fails in the same way. A forked process that also leaves the block stops nothing: the socket
    and the files belong to its parent.

    Raises ConfigError for a bad configuration or two pools with the same name, TypeError for an object that is not a
    pool. Pools may be entered before the monitor or after it. All methods must be called in the event loop that the
    monitor was entered in, and none of them blocks.
    """

    def __init__(
        self,
        pools: Monitored | Sequence[Monitored],
        *,
        config: MonitorConfig | str | Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._pools = WatchedPools(pools)
        self.config = config = _monitor_config(config)
        self.viewers = 0
        """Remote viewers that are attached now."""
        self._clock = clock or WakefulClock()
        names, instances = self._pools.names, self._pools.instances
        self._collector = Collector(
            names,
            self._clock,
            config.metrics.series_limit,
            config.metrics.memory_limit,
            instances=instances,
            error_groups=config.metrics.error_groups,
            unmeasured=None if config.resources.enabled else "[resources] enabled = false",
        )
        if isinstance(self._clock, ManualClock):
            self._clock.before_advance(self._collector.fold)
        self._collector.memory.listener = self._report_mode
        self.metrics = LiveMetrics(self._collector, self.snapshot)
        """Queries of the last hour: `range`, `worker`, `error_rates`, `summary`, `totals`."""
        self.work = WorkMeter()
        """The cost of the monitor's own work."""
        self._degraded: dict[str, str] = {}
        self._due = 0.0  # when the next tick is due, by the clock of the event loop
        self._seq = 0
        self._entered_ns = self._clock.monotonic_ns()
        self._service = ServiceView(
            name=config.service.name or names[0],
            pid=os.getpid(),
            host=plain_text(socket.gethostname()),
            python=platform.python_version(),
            started_at=self._clock.wall_ns() / 1e9,
            version=__version__,
        )
        # For the parts, and for the app.
        self.context = context = Context(
            service=self._service.name,
            monitor=self._collector.monitor,
            clock=self._clock,
            snapshot=self.snapshot,
            snapshot_in_steps=self._snapshot_in_steps,
            metrics=self.metrics,
            workers=self._pools.workers,
            pool_names=self._pools.names,
            pool_instances=self._pools.instances,
            on_second=self._collector.on_second,
            know_errors=self._collector.errors.know,
            on_gauges=self._collector.on_gauges,
            asgi=partial(self.asgi, local=True),
            outages=lambda: self._degraded,
            alerts=lambda: self.alerts,
            advisor=lambda: self.advisor,
            tuner=lambda: self.tuner,
            statuses=self._pools.statuses,
            history=lambda: self.history,
            record=lambda: self._from_part("history", "record"),
            tunables=self._pools.tunables,
            state=cache(partial(_shared_state, self)),
            degraded=partial(self._report, "degraded"),
            recovered=partial(self._report, "recovered"),
            spent=self.work.add,
        )
        self._parts = {
            entry: PartRunner(
                entry.name, partial(entry.make, config, context), entry.view, context, entry.limits, entry.modules
            )
            for entry in PARTS
            if entry.wanted(config)
        }
        self._ticker = Ticker(self._tick, self._until_tick, context.degraded, context.recovered)
        self._stack: AsyncExitStack | None = None
        self._next_tick: asyncio.Future[bool] | None = None
        self._closing = False

    def __repr__(self) -> str:
        state = "not entered" if self._stack is None else "entered"
        at = "" if self.address is None else f" at {self.address}"
        return f"<Monitor of {', '.join(map(repr, self._pools.names))} [{state}{at}]>"

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def history(self) -> HistoryMetrics | None:
        """Queries of the history on disk. None unless the monitor is entered and [history] has a path."""
        found: HistoryMetrics | None = self._from_part("history", "metrics")
        return found

    @property
    def address(self) -> Path | None:
        """The Unix socket of the monitor; None while it is not open."""
        found: Path | None = self._from_part("socket", "address")
        return found

    @cached_property
    def alerts(self) -> AlertManager:
        """The alerts: `add` and `remove` rules, `active`, `history`, `silence`, `ack`, `evaluate`."""
        from pool_monitor.alerts.manager import AlertManager

        return AlertManager(self.config, self.context)

    @cached_property
    def advisor(self) -> Advisor:
        """The advice: `recommendations`, the most urgent first, `explain`, `dismiss`."""
        from pool_monitor.advisor.manager import Advisor

        return Advisor(self.config, self.context)

    @cached_property
    def tuner(self) -> Tuner:
        """The tuner: its `mode`, `pending`, `approve`, `reject`, `rollback`, `freeze`, `history`."""
        from pool_monitor.tuner.manager import Tuner

        return Tuner(self.config, self.context)

    def _from_part(self, name: str, attribute: str) -> Any:
        part = next((runner.part for runner in self._parts.values() if runner.name == name), None)
        return getattr(part, attribute, None)

    def snapshot(self, window: str = "5m") -> Snapshot:
        """Everything known now about the last ``1m``, ``5m``, ``15m`` or ``1h``. Raises ConfigError for another window.

        Counts and distributions include every call that has ended; gauges are read now. A pool is left out when its
        gauges cannot be read, or differ in type from `PoolView` and `WorkerView`; the reason is logged. Text in gauges
        is cut after 1000 characters, and characters without a UTF-8 form are escaped.
        """
        *_, found = self._snapshot_in_steps(window)
        assert found is not None
        return found

    def _snapshot_in_steps(self, window: str) -> Iterator[Snapshot | None]:
        """Do what `snapshot` does. Yields None after each pool, where others may work, and the Snapshot last."""
        chosen = parse_window(window)
        pools = {}
        for number, name in enumerate(self._pools.names):
            with self.work.measure("snapshot", goes_on=number > 0):
                if (found := self._detail(name, chosen)) is not None:
                    pools[name] = found
            yield None
        with self.work.measure("snapshot", goes_on=True):
            snapshot = self._snapshot(chosen, pools)
        yield snapshot

    def _snapshot(self, chosen: Window, pools: dict[str, PoolDetail]) -> Snapshot:
        self._seq += 1
        return Snapshot(
            seq=self._seq,
            taken_at=self._clock.wall_ns() / 1e9,
            uptime=(self._clock.monotonic_ns() - self._entered_ns) / 1e9,
            window=chosen.name,
            window_seconds=chosen.seconds,
            covered_seconds=self._collector.covered_seconds(chosen),
            service=msgspec.structs.replace(self._service, started_at=self._collector.since_s),
            pools=pools,
            monitor=self._self_view(),
            resources=self._collector.readings.view(chosen),
            alerts=self.alerts.shown() if "alerts" in self.__dict__ else (),  # without them, nothing is imported
            recommendations=_or_else((), self.advisor.recommendations) if "advisor" in self.__dict__ else (),
            tuning=_or_else(None, self.tuner.view) if "tuner" in self.__dict__ else None,
        )

    def _detail(self, name: str, window: Window) -> PoolDetail | None:
        gauges = self._pools.gauges(name)
        if gauges is None:
            return None
        status, workers = gauges
        return detail(status, self._collector.readings.workers(name, workers), self._collector.pool_stats(name, window))

    def _self_view(self) -> MonitorView:
        views = {entry.name: runner.view() for entry, runner in self._parts.items() if entry.view is not None}
        view = self._collector.self_view(self.viewers)
        return msgspec.structs.replace(view, degraded=dict(self._degraded), **self.work.figures(), **views)

    def not_ready(self) -> str | None:
        """Why the pools cannot take calls now, in words; None when every pool is running and has a worker."""
        return self._pools.not_ready()

    def readiness(self) -> Readiness:
        """Whether the pools can take calls, their slots, and what is degraded, which does not make them unready."""
        statuses = {name: self._pools.status(name) for name in self._pools.names}
        reason = self._pools.not_ready(statuses)
        return Readiness(
            ready=reason is None,
            reason=reason,
            live=True,
            since=self._collector.since_s,
            degraded=tuple(f"{part}: {why}" for part, why in self._degraded.items()),
            mode=self._collector.memory.mode.value,
            pools={name: pool_readiness(status) for name, status in statuses.items()},
        )

    def asgi(self, *, local: bool = False) -> Starlette:
        """The HTTP interface as an ASGI app, to be mounted in the user's service (see service/app.py). *local*: it is
        for the local socket, which only our own user can open, so that it may act on the pools.
        """
        from pool_monitor.service.app import make_app

        return make_app(self, local=local)

    async def stack(self, pool: str, slot: str) -> StackReading:
        """What the worker in *slot* of *pool* does now, or why that is not available. Its call goes on undisturbed.
        Takes at most a second, or five with a pool of another package. Raises UnknownName for a pool or slot that does
        not exist.
        """
        from pool_monitor.service.stacks import StackReading

        text, reason = await self._pools.stack(pool, slot)
        return StackReading(stack=text, reason=reason)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count one more remote viewer while the block is open."""
        self.viewers += 1
        try:
            yield
        finally:
            self.viewers -= 1

    async def ticked(self) -> bool:
        """Wait for the next tick. Returns False at once when the monitor is closing, because no tick will follow."""
        if self._closing:
            return False
        if self._next_tick is None:
            self._next_tick = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._next_tick)

    # -- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise PoolError("the monitor is entered already; leave it first, or make another one")
        self._entered_ns = self._clock.monotonic_ns()
        # Read on entering, not in the constructor: a server may have forked in between.
        now = self._clock.wall_ns() / 1e9
        self._service = msgspec.structs.replace(self._service, pid=os.getpid(), started_at=now)
        self._closing = False
        async with AsyncExitStack() as stack:
            stack.enter_context(self._pools.entered())
            if self.config.telemetry != TelemetryConfig():
                stack.enter_context(_filters(self.config.telemetry))
            await self._start_parts(stack, before_collecting=True)
            stack.callback(self._collector.detach)
            self._collector.attach()
            stack.callback(_contained, self._collector.finish)
            # Adapters emit delayed events when their gauges are read: do so before the first tick, and at the end.
            _contained(self._sample)
            stack.callback(_contained, self._sample)
            stack.push_async_callback(self._ticker.stop)
            self._ticker.start()
            await self._start_parts(stack, before_collecting=False)
            stack.callback(self._release_viewers)  # runs first: the server waits for its viewers when it stops
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None and os.getpid() == self._service.pid:
            await stack.aclose()

    async def _start_parts(self, stack: AsyncExitStack, *, before_collecting: bool) -> None:
        for entry, runner in self._parts.items():
            if entry.before_collecting == before_collecting:
                stack.push_async_callback(runner.stop)
                await runner.start()

    def _report(self, state: str, part: str, reason: str, **more: str) -> None:
        reason = plain_text(reason, _REASON_MAX)  # it may have the text of any exception
        if state == "degraded":
            self._degraded[part] = reason
        else:
            self._degraded.pop(part, None)
        about = {
            "monitor": self._collector.monitor,
            "service": self._service.name,
            "part": part,
            "state": state,
            "reason": reason,
            **more,
        }
        MONITOR_DEGRADE.event.emit({"system_time": self._clock.wall_ns()}, about)
        logger("monitor").warning(f"{part} {state}", reason=reason)

    def _report_mode(self, before: Mode, mode: Mode, why: str) -> None:
        state, verb = ("recovered", "again keeps") if mode is Mode.FULL else ("degraded", "keeps")
        reason = f"the collector {verb} {KEPT[mode]} (it was {before.value}, now {mode.value}): {why}"
        self._report(state, "collector", reason, mode=mode.value)

    async def _tick(self) -> None:
        self.work.tick_late = max(asyncio.get_running_loop().time() - self._due, 0.0)
        failure: Exception | None = None
        try:
            await self._collect()
        except Exception as error:  # noqa: BLE001 - viewers are updated and parts do their work all the same
            failure = error
        self._wake(going_on=True)
        for runner in self._parts.values():
            await asyncio.sleep(0)
            with self.work.measure("part"):
                runner.tick()
        if failure is not None:
            raise failure

    async def _collect(self) -> None:
        """Bring the collector up to now, piece by piece, and measure what that takes."""
        elsewhere = sum(getattr(runner.part, "held_bytes", 0) for runner in self._parts.values())
        self._collector.memory.hold_elsewhere(elsewhere + self.viewers * (self.work.encoded_bytes or 0))
        steps, goes_on = self._collector.ticking(), False
        while True:
            with self.work.measure("tick", goes_on=goes_on):
                if next(steps, self) is self:
                    self._sample()
                    break
            goes_on = True
            await asyncio.sleep(0)
        self.work.turn()
        _emit_self(self._collector, self.work, self._service.name)

    def _until_tick(self) -> float:
        wait = self._collector.until_tick()
        self._due = asyncio.get_running_loop().time() + wait
        return wait

    def _sample(self) -> None:
        for status in self._pools.statuses():
            self._collector.sample(status)

    def _release_viewers(self) -> None:
        """End every wait in `ticked`."""
        self._closing = True
        self._wake(going_on=False)

    def _wake(self, *, going_on: bool) -> None:
        waiting, self._next_tick = self._next_tick, None
        if waiting is not None and not waiting.done():
            waiting.set_result(going_on)


def _emit_self(collector: Collector, work: WorkMeter, service: str) -> None:
    if MONITOR_SELF.event.on:
        view = collector.self_view()
        measurements: dict[str, Any] = {
            "memory": view.memory_bytes,
            "memory_limit": view.memory_limit_bytes,
            "buffered": view.buffered,
            "dropped": view.dropped,
        }
        if work.cpu_ratio is not None:
            measurements["cpu_ratio"] = work.cpu_ratio
        if view.lag is not None:
            measurements["lag_duration"] = round(view.lag * 1e9)
        about = {"monitor": collector.monitor, "service": service, "mode": view.mode}
        MONITOR_SELF.event.emit(measurements, about)


def _shared_state(monitor: Monitor) -> SharedState:
    """What must survive a restart. Nothing is imported for it before a part asks for it."""
    from pool_monitor.storage.shared_state import SharedState

    return SharedState(monitor.config.state.path, monitor.context, alerts=monitor.config.alerts.enabled)


def _monitor_config(config: MonitorConfig | str | Path | None) -> MonitorConfig:
    if config is None:
        return MonitorConfig()
    if isinstance(config, str | Path):
        return load(config).monitor
    if not isinstance(config, MonitorConfig):
        raise ConfigError(f"Monitor(config={config!r:.80}): needs a MonitorConfig, the path of a TOML file, or None")
    return config.monitor if isinstance(config, Settings) else config


@contextmanager
def _filters(config: TelemetryConfig) -> Iterator[None]:
    """Apply the filters of *config*, and restore the earlier ones at the end unless the service has changed them."""
    before = telemetry.filters()
    telemetry.configure(**msgspec.structs.asdict(config))
    chosen = telemetry.filters()
    try:
        yield
    finally:
        if telemetry.filters() is chosen:
            telemetry.configure(before.allow, before.deny, before.sample)


def _or_else(otherwise: T, read: Callable[[], T]) -> T:
    """What *read* returns. A defect of ours must not cost the Snapshot."""
    try:
        return read()
    except Exception:  # noqa: BLE001
        logger("monitor").exception("a Snapshot has a gap")
        return otherwise


def _contained(job: Callable[[], object]) -> None:
    """Call *job*. A defect of ours must not reach the service that enters or leaves the monitor."""
    try:
        job()
    except Exception:  # noqa: BLE001
        logger("monitor").exception("the monitor failed")
