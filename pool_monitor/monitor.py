"""The Monitor: the one object that sees both sides, and wires them.

It hears the pools through telemetry, pulls their gauges when a Snapshot is asked for, and lets others look. It owns
its tasks; nothing it does or fails to do reaches the pools.
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import msgspec
from msgspec import Struct

from pool_monitor import telemetry
from pool_monitor.clock import Clock, WakefulClock
from pool_monitor.config import MonitorConfig, TelemetryConfig, load
from pool_monitor.errors import ConfigError, PoolError
from pool_monitor.events import MONITOR_DEGRADE
from pool_monitor.log import logger
from pool_monitor.metrics import Collector, LiveMetrics, detail, parse_window
from pool_monitor.snapshot import HistoryView, MonitorView, OtlpView, PoolView, ServiceView, Snapshot, WorkerView
from pool_monitor.snapshot.checks import checked, plain_text
from pool_monitor.telemetry import FAILURES, describe, pass_on
from pool_monitor.version import __version__

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.applications import Starlette

    from pool_monitor.export.otlp import OtlpExporter
    from pool_monitor.metrics import Window
    from pool_monitor.snapshot import PoolDetail
    from pool_monitor.storage import HistoryMetrics


T = TypeVar("T")
StructT = TypeVar("StructT", bound=Struct)


class Monitored(Protocol):
    """What a monitor needs of a pool besides its events. `Pool` is one."""

    @property
    def name(self) -> str:
        """What its events call it, unique among the pools of one monitor."""

    def status(self) -> PoolView:
        """Its gauges now."""

    def workers(self) -> list[WorkerView]:
        """The gauges of its slots now."""


class Monitor:
    """Watches one pool or several of this process; while entered it collects, ticks, and can be looked at.

    *config* is a `MonitorConfig`, the path of a TOML file, or None for the defaults. Entering opens the local Unix
    socket that ``pool-monitor dashboard`` and ``snapshot`` find (unless ``[service] socket = false``); should that
    fail, the reason is logged, ``address`` stays None and everything else works. A process forked meanwhile that
    leaves the block as well ends nothing: what was opened is its parent's.

    Raises ConfigError for a bad configuration or two pools of one name, TypeError for what is no pool. Pools may be
    entered before or after. All methods belong to the event loop the monitor was entered in, and none of them blocks.
    """

    def __init__(
        self,
        pools: Monitored | Sequence[Monitored],
        *,
        config: MonitorConfig | str | Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        watched = list(pools) if isinstance(pools, Sequence) and not isinstance(pools, str) else [pools]
        for pool in watched:
            if not all(hasattr(pool, name) for name in ("name", "status", "workers")):
                raise TypeError(f"Monitor({pool!r:.80}): needs a Pool, or a sequence of them")
        names = [pool.name for pool in watched]
        for name in names:
            if not isinstance(name, str) or not name or not name.isprintable():
                raise ConfigError(f"Monitor: the name of a pool is {name!r:.80}; it needs a non-empty printable string")
        if not watched or len(set(names)) < len(names):
            raise ConfigError(f"Monitor(pools={names}): needs at least one pool, and a name of its own for each")
        if config is None:
            config = MonitorConfig()
        elif isinstance(config, str | Path):
            config = load(config).monitor
        elif not isinstance(config, MonitorConfig):
            raise ConfigError(
                f"Monitor(config={config!r:.80}): needs a MonitorConfig, the path of a TOML file, or None"
            )
        self.config = config
        self.history: HistoryMetrics | None = None
        """Questions about what is on disk, while the monitor is entered and [history] has a path."""
        self.address: Path | None = None
        """The Unix socket it can be reached at, while it can."""
        self.viewers = 0
        """Remote viewers attached now."""
        self._pools = {pool.name: pool for pool in watched}
        self._clock = clock or WakefulClock()
        self._collector = Collector(names, self._clock, series_limit=config.metrics.series_limit)
        self.metrics = LiveMetrics(self._collector, self.snapshot)
        """Questions about the last hour: `range`, `worker`, `error_rates`, `summary`, `totals`."""
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
        self._exporter: OtlpExporter | None = None
        self._stack: AsyncExitStack | None = None
        self._unreadable: set[str] = set()  # pools whose gauges failed last time
        self._next_tick: asyncio.Future[bool] | None = None
        self._closing = False

    def __repr__(self) -> str:
        state = "not entered" if self._stack is None else "entered"
        at = "" if self.address is None else f" at {self.address}"
        return f"<Monitor of {', '.join(map(repr, self._pools))} [{state}{at}]>"

    # -- looking --------------------------------------------------------------------------------------------------

    def snapshot(self, window: str = "5m") -> Snapshot:
        """Everything known now about the last ``1m``, ``5m``, ``15m`` or ``1h``. Raises ConfigError for another window.

        Counts and distributions are up to the last call that ended; gauges are read now. A pool whose gauges cannot
        be read, or are of other types than `PoolView` and `WorkerView` say, is left out, and the log says why. Text in
        them is cut after 1000 characters, and what has no UTF-8 form is spelt out.
        """
        chosen = parse_window(window)
        self._seq += 1
        return Snapshot(
            seq=self._seq,
            taken_at=self._clock.wall_ns() / 1e9,
            uptime=(self._clock.monotonic_ns() - self._entered_ns) / 1e9,
            window=window,
            window_seconds=chosen.seconds,
            covered_seconds=self._collector.covered_seconds(chosen),
            service=msgspec.structs.replace(self._service, started_at=self._collector.since_s),
            pools={name: found for name in self._pools if (found := self._detail(name, chosen)) is not None},
            monitor=self._self_view(),
        )

    def _self_view(self) -> MonitorView:
        view = self._collector.self_view(self.viewers)
        history = None if self.history is None else _copied(HistoryView, self.history.stats())
        otlp = None if self._exporter is None else _copied(OtlpView, self._exporter)
        return msgspec.structs.replace(view, history=history, otlp=otlp)

    def not_ready(self) -> str | None:
        """Why calls cannot be taken now, in words; None when every pool has a worker and is open."""
        for name in self._pools:
            status = self._status(name)
            if status is None:
                return f"pool {name}: its state is unknown"
            if status.state != "running":
                return f"pool {name} is {status.state}"
            if not status.busy + status.idle:
                return f"pool {name} has no worker that could take a call"
        return None

    def asgi(self) -> Starlette:
        """The read-only HTTP face as an ASGI app, to mount in a service of one's own (see service/app.py)."""
        from pool_monitor.service.app import make_app

        return make_app(self)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Counts a remote viewer while it is open."""
        self.viewers += 1
        try:
            yield
        finally:
            self.viewers -= 1

    async def ticked(self) -> bool:
        """Wait for the next tick. False, at once, when there will be none: the monitor is closing."""
        if self._closing:
            return False
        if self._next_tick is None:
            self._next_tick = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._next_tick)

    def _detail(self, name: str, window: Window) -> PoolDetail | None:
        gauges = self._guarded(name, lambda pool: (_status_of(pool), _workers_of(pool)))
        return None if gauges is None else detail(*gauges, self._collector.pool_stats(name, window))

    def _status(self, name: str) -> PoolView | None:
        return self._guarded(name, _status_of)

    def _guarded(self, name: str, read: Callable[[Monitored], T]) -> T | None:
        """What *read* finds of a pool, or None: a pool of the user's own may fail. Logged when it begins to."""
        try:
            found = read(self._pools[name])
        except FAILURES as error:
            pass_on(error)
            if name not in self._unreadable:
                logger("monitor").exception("gauges cannot be read", pool=name)
            self._unreadable.add(name)
            return None
        self._unreadable.discard(name)
        return found

    # -- life -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _filters(self) -> Iterator[None]:
        """Those of the configuration, until the service chooses others."""
        before = telemetry.filters()
        telemetry.configure(**msgspec.structs.asdict(self.config.telemetry))
        chosen = telemetry.filters()
        try:
            yield
        finally:
            if telemetry.filters() is chosen:
                telemetry.configure(before.allow, before.deny, before.sample)

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise PoolError("the monitor is entered already; leave it first, or make another one")
        self._entered_ns = self._clock.monotonic_ns()
        # Now and not when it was made: a server may have forked since.
        now = self._clock.wall_ns() / 1e9
        self._service = msgspec.structs.replace(self._service, pid=os.getpid(), started_at=now)
        self._closing = False
        async with AsyncExitStack() as stack:
            if self.config.telemetry != TelemetryConfig():
                stack.enter_context(self._filters())
            await self._open_history(stack)
            stack.callback(self._collector.detach)
            self._collector.attach()
            stack.callback(self._collector.finish)
            # Adapters tell what they have kept back when they are asked: before the first tick, and for the last time.
            self._sample()
            stack.callback(self._sample)
            self._start_export(stack)
            ticker = asyncio.get_running_loop().create_task(self._tick(), name="pool_monitor tick")
            stack.push_async_callback(_ended, ticker)
            if self.config.service.socket:
                await self._open_socket(stack)
            stack.callback(self._say_goodbye)  # first of all, so that viewers leave before the server waits for them
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None and os.getpid() == self._service.pid:
            await stack.aclose()

    def _start_export(self, stack: AsyncExitStack) -> None:
        config = self.config.otlp
        if config.endpoint is None:
            return
        from pool_monitor.export.otlp import OtlpExporter

        self._exporter = OtlpExporter(
            config.endpoint,
            interval=config.interval,
            timeout=config.timeout,
            headers=config.headers,
            compression=config.compression,
        )
        pushing = self._exporter.run(lambda: (self.snapshot(), self.metrics.totals()))
        task = asyncio.get_running_loop().create_task(pushing, name="pool_monitor otlp")
        stack.push_async_callback(_ended, task)

    async def _open_history(self, stack: AsyncExitStack) -> None:
        config = self.config.history
        if config.path is None:
            return
        from pool_monitor.storage import History, HistoryMetrics

        history = await History.open(
            config.path,
            config,
            clock=self._clock,
            on_degrade=partial(self._degraded, "history", "degraded"),
            on_recover=partial(self._degraded, "history", "recovered", f"{config.path} is written again"),
        )
        stack.push_async_callback(history.close)
        stack.callback(setattr, self, "history", None)
        self.history = HistoryMetrics(history, self._clock)
        stack.callback(self._collector.on_second, None)
        self._collector.on_second(lambda start, block, names: history.put(start, 1, block, names))

    def _degraded(self, part: str, state: str, reason: str) -> None:
        about = {"service": self._service.name, "part": part, "state": state, "reason": reason}
        MONITOR_DEGRADE.event.emit({"system_time": self._clock.wall_ns()}, about)
        logger("monitor").warning(f"{part} {state}", reason=reason)

    async def _open_socket(self, stack: AsyncExitStack) -> None:
        from pool_monitor.service.discovery import socket_path
        from pool_monitor.service.server import serve

        try:
            path = socket_path(self._service.name)
            await stack.enter_async_context(serve(self.asgi(), path))
        except Exception as error:  # noqa: BLE001 - whatever it is, the service can do without
            logger("monitor").warning("no local socket: dashboards cannot attach", reason=describe(error))
            return
        self.address = path
        stack.callback(setattr, self, "address", None)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._collector.until_tick())
            try:
                for _ in self._collector.ticking():
                    await asyncio.sleep(0)  # let others go first
                self._sample()
            except Exception:  # noqa: BLE001 - a defect of ours must not end the ticking, or the viewers' updates
                logger("monitor").exception("tick failed")
            self._wake(going_on=True)

    def _sample(self) -> None:
        for name in self._pools:
            status = self._status(name)
            if status is not None:
                self._collector.sample(status)

    def _say_goodbye(self) -> None:
        self._closing = True
        self._wake(going_on=False)

    def _wake(self, *, going_on: bool) -> None:
        waiting, self._next_tick = self._next_tick, None
        if waiting is not None and not waiting.done():
            waiting.set_result(going_on)


def _copied(kind: type[StructT], source: object) -> StructT:
    """A *kind* with the fields that *source* has of it."""
    return checked(kind, {name: getattr(source, name) for name in kind.__struct_fields__})


def _status_of(pool: Monitored) -> PoolView:
    return checked(PoolView, msgspec.structs.asdict(pool.status()))


def _workers_of(pool: Monitored) -> list[WorkerView]:
    return [checked(WorkerView, msgspec.structs.asdict(worker)) for worker in pool.workers()]


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
