"""Process pools behind one interface: start, call, close. Ours is one of them.

Each is set up as its documentation recommends for an asyncio service, with the requested number of workers. Only the
package in use is imported, in the constructor, before anything is timed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import multiprocessing
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from importlib.util import find_spec
from typing import Any, ClassVar

from benchmarks import targets
from benchmarks.load import MANY_CALLERS, PAYLOADS, Load, Slice, drive, measured


class Peer(ABC):
    """A pool of processes, used from one event loop."""

    label: ClassVar[str]
    package: ClassVar[str | None] = None
    """The package that has to be installed. None: nothing besides this one."""

    @classmethod
    def installed(cls) -> bool:
        return cls.package is None or find_spec(cls.package) is not None

    @classmethod
    def loop(cls) -> asyncio.AbstractEventLoop:
        """The event loop that uses the pool."""
        return asyncio.new_event_loop()

    @abstractmethod
    async def start(self, size: int) -> None:
        """Set up a pool of *size* workers. They may start later."""

    @abstractmethod
    def call(self, operation: str, *args: Any) -> Awaitable[Any]:
        """Run the function of that name in `targets` in one of the workers."""

    @abstractmethod
    async def close(self) -> None:
        """End the pool. Soon afterwards nothing of it is left."""

    async def drive(self, load: Load) -> Slice:
        """Measure a slice of *load*."""
        return await drive(lambda payload: self.call("echo", payload), load)


class Ours(Peer):
    label = "pool_monitor"
    fields: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        import pool_monitor

        self._make = pool_monitor.Pool
        self._open = contextlib.AsyncExitStack()

    async def start(self, size: int) -> None:
        pool = self._make("benchmarks.targets:Work", size=size, max_size=size, **self.fields)
        self._pool = await self._open.enter_async_context(pool)

    def call(self, operation: str, *args: Any) -> Awaitable[Any]:
        return self._pool.run(operation, *args)

    async def close(self) -> None:
        await self._open.aclose()


class OursOneInFlight(Ours):
    label = "pool_monitor, prefetch=1"
    fields: ClassVar[dict[str, Any]] = {"prefetch": 1}


class OursMonitored(Ours):
    label = "pool_monitor, monitored"

    def __init__(self) -> None:
        super().__init__()
        from pool_monitor import Monitor, MonitorConfig
        from pool_monitor.config import ServiceConfig

        self._watch, self._quiet = Monitor, MonitorConfig(service=ServiceConfig(socket=False))

    async def start(self, size: int) -> None:
        await super().start(size)
        self._monitor = await self._open.enter_async_context(self._watch(self._pool, config=self._quiet))

    async def drive(self, load: Load) -> Slice:
        # Calls that are not folded into the windows yet belong to the slice.
        def owed() -> None:
            next(self._monitor._collector.ticking())

        return await drive(lambda payload: self.call("echo", payload), load, then=owed)


class OursOnUvloop(Ours):
    label, package = "pool_monitor, on uvloop", "uvloop"

    @classmethod
    def loop(cls) -> asyncio.AbstractEventLoop:
        import uvloop

        made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return made


class OursMap(Ours):
    """``map`` in place of callers."""

    label = f"pool_monitor, map(in_flight={MANY_CALLERS})"

    async def drive(self, load: Load) -> Slice:
        payload, end = PAYLOADS[load.payload], time.perf_counter() + load.seconds

        def items() -> Iterator[Any]:
            yield from itertools.repeat(payload, load.callers)
            while time.perf_counter() < end:
                yield payload

        async def work(_taken: list[float]) -> int:
            results = self._pool.map("echo", items(), in_flight=load.callers)
            return sum([1 async for _ in results])

        return await measured(load, work)


ROOMY = {"queue_limit": 1_000_000, "timeout": 3_600.0}


class OursGathered(Ours):
    label = "asyncio.gather of Pool.run"
    fields: ClassVar[dict[str, Any]] = ROOMY


class OursMapped(OursMap):
    label = "Pool.map, all calls in flight"
    fields: ClassVar[dict[str, Any]] = ROOMY


class Tasks(Peer):
    """No pool: what asyncio takes for the same number of tasks that wait for the next turn of the event loop."""

    label = "asyncio.gather of sleep(0)"

    async def start(self, size: int) -> None:  # noqa: ARG002
        self._count = itertools.count()

    async def call(self, operation: str, *args: Any) -> int:  # noqa: ARG002
        await asyncio.sleep(0)
        return next(self._count)  # in place of a pid: any number of workers

    async def close(self) -> None:
        """Nothing to do."""


class OfExecutor(Peer):
    """Base of pools that are used through ``loop.run_in_executor``."""

    _executor: Executor

    def call(self, operation: str, *args: Any) -> Awaitable[Any]:
        return self._loop.run_in_executor(self._executor, getattr(targets, operation), *args)

    async def start(self, size: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._executor = self.make(size)

    @abstractmethod
    def make(self, size: int) -> Executor: ...

    async def close(self) -> None:
        self._executor.shutdown()


class Standard(OfExecutor):
    label = "ProcessPoolExecutor"

    def make(self, size: int) -> Executor:
        return ProcessPoolExecutor(size, mp_context=multiprocessing.get_context("fork"))


class Loky(OfExecutor):
    label = package = "loky"

    def __init__(self) -> None:
        import loky

        self._reusable = loky.get_reusable_executor

    def make(self, size: int) -> Executor:
        self._size = size
        executor: Executor = self._reusable(max_workers=size, timeout=600)
        return executor

    def call(self, operation: str, *args: Any) -> Awaitable[Any]:
        try:
            return super().call(operation, *args)
        except BrokenExecutor:
            self._executor = self.make(self._size)  # replace a broken executor, as its users do
            raise


class OfMultiprocessing(Peer):
    """multiprocessing.Pool, and the fork of it that Celery uses."""

    _module: ClassVar[str]

    def __init__(self) -> None:
        self._context: Any = importlib.import_module(self._module).get_context("fork")

    async def start(self, size: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = self._context.Pool(size)

    def call(self, operation: str, *args: Any) -> Awaitable[Any]:
        loop, answer = self._loop, self._loop.create_future()

        def settle(value: Any, error: BaseException | None = None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(value)
            else:
                answer.set_exception(error)

        self._pool.apply_async(
            getattr(targets, operation),
            args,
            callback=lambda value: loop.call_soon_threadsafe(settle, value),
            error_callback=lambda error: loop.call_soon_threadsafe(settle, None, error),
        )
        return answer

    async def close(self) -> None:
        self._pool.close()
        self._pool.join()


class Multiprocessing(OfMultiprocessing):
    label, _module = "multiprocessing.Pool", "multiprocessing"


class Billiard(OfMultiprocessing):
    label = package = _module = "billiard"


class Pebble(Peer):
    label = package = "pebble"

    def __init__(self) -> None:
        import pebble

        self._kind = pebble.ProcessPool

    async def start(self, size: int) -> None:
        self._pool: Any = self._kind(max_workers=size, context=multiprocessing.get_context("fork"))

    def call(self, operation: str, *args: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(self._pool.schedule(getattr(targets, operation), args=args))

    async def close(self) -> None:
        self._pool.close()
        self._pool.join()


class Anyio(Peer):
    label, package = "anyio.to_process", "anyio"

    def __init__(self) -> None:
        import anyio
        import anyio.to_process

        self._run, self._limiter = anyio.to_process.run_sync, anyio.CapacityLimiter

    async def start(self, size: int) -> None:
        self._limit = self._limiter(size)  # workers come when they are needed

    def call(self, operation: str, *args: Any) -> Awaitable[Any]:
        return self._run(getattr(targets, operation), *args, cancellable=True, limiter=self._limit)

    async def close(self) -> None:
        """Nothing to do: the workers end with the event loop."""


class Aiomisc(Peer):
    label, package = "aiomisc.WorkerPool", "aiomisc"

    def __init__(self) -> None:
        import aiomisc

        self._kind = aiomisc.WorkerPool

    async def start(self, size: int) -> None:
        self._pool: Any = self._kind(size)
        await self._pool.start()

    def call(self, operation: str, *args: Any) -> Awaitable[Any]:
        answer: Awaitable[Any] = self._pool.create_task(getattr(targets, operation), *args)
        return answer

    async def close(self) -> None:
        await self._pool.close()


class Ray(Peer):
    """Tasks, at most as many at once as there are workers."""

    label, package = "Ray", "ray"

    def __init__(self) -> None:
        import ray

        self._ray = ray

    async def start(self, size: int) -> None:
        self._ray.init(num_cpus=size, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self._remote = {
            name: self._ray.remote(max_retries=0)(getattr(targets, name)) for name in ("echo", "hold", "spin")
        }

    async def call(self, operation: str, *args: Any) -> Any:
        ref = self._remote[operation].remote(*args)
        try:
            return await ref
        except asyncio.CancelledError:
            self._ray.cancel(ref, force=True)
            raise

    async def close(self) -> None:
        self._ray.shutdown()


class Dask(Peer):
    label, package = "Dask", "distributed"

    def __init__(self) -> None:
        import distributed

        self._distributed = distributed

    async def start(self, size: int) -> None:
        cluster = self._distributed.LocalCluster(
            n_workers=size, threads_per_worker=1, asynchronous=True, dashboard_address=None, silence_logs=50
        )
        self._cluster = await cluster
        self._client = await self._distributed.Client(self._cluster, asynchronous=True)

    async def call(self, operation: str, *args: Any) -> Any:
        future = self._client.submit(getattr(targets, operation), *args, pure=False)
        try:
            return await future
        except asyncio.CancelledError:
            await future.cancel(force=True)
            raise

    async def close(self) -> None:
        await self._client.close()
        await self._cluster.close()


BASE = Standard.label
PEERS: dict[str, type[Peer]] = {
    kind.label: kind for kind in (Standard, Multiprocessing, Billiard, Pebble, Loky, Anyio, Aiomisc, Ray, Dask, Ours)
}
VARIANTS: dict[str, type[Peer]] = {kind.label: kind for kind in (OursOneInFlight, OursMonitored, OursOnUvloop, OursMap)}
"""Variants of our pool, where they make a difference."""
FLOODED: dict[str, type[Peer]] = {kind.label: kind for kind in (Tasks, OursGathered, OursMapped)}
"""The candidates for very many calls at once."""
ALL = {**PEERS, **VARIANTS, **FLOODED}


def parted(labels: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the labels that are installed, and those that are not."""
    here: list[str] = []
    missing: list[str] = []
    for label in labels:
        (here if ALL[label].installed() else missing).append(label)
    return here, missing
