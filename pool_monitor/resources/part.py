"""The measuring of resources as a part of the monitor."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import anyio
import anyio.to_thread

from pool_monitor.emit import PoolIdentity
from pool_monitor.parts import raise_if_ended
from pool_monitor.resources.host import HostSampler
from pool_monitor.resources.process import ProcessSampler
from pool_monitor.resources.sample import Execution, Moment, Sampler, Slot

if TYPE_CHECKING:
    from pool_monitor.config import ResourcesConfig
    from pool_monitor.parts import Context

_INTERVAL, _INTERVAL_OF_MANY, _MANY = 1.0, 2.0, 64


class ResourcesPart:
    """Samples at an interval while entered."""

    def __init__(self, config: ResourcesConfig, context: Context) -> None:
        self._config, self._context = config, context
        self._samplers: list[Sampler] = [HostSampler(), ProcessSampler()]
        self._limiter = anyio.CapacityLimiter(1)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="pool_monitor resources sampling")
        return self

    async def __aexit__(self, *_: object) -> None:
        task = self._task
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def view(self) -> None:
        """Nothing: what is measured stands in the Snapshot's own section."""

    def tick(self) -> None:
        """Raise when the task that samples has ended."""
        if self._task is not None:
            raise_if_ended(self._task)

    async def _run(self) -> None:
        while True:
            moment = self._moment()
            found = await anyio.to_thread.run_sync(self._sample, moment, limiter=self._limiter)
            for execution in found:
                execution.spec.event.emit(execution.measurements, execution.metadata)
            await asyncio.sleep(self._interval(len(moment.slots)))

    def _interval(self, workers: int) -> float:
        if self._config.interval is not None:
            return self._config.interval
        return _INTERVAL if workers < _MANY else _INTERVAL_OF_MANY

    def _moment(self) -> Moment:
        instances = self._context.pool_instances
        slots = [
            Slot(PoolIdentity(pool, instances.get(pool, "")), worker)
            for pool, workers in self._context.workers().items()
            for worker in workers
        ]
        return Moment(self._context.clock.monotonic_ns(), slots, len(asyncio.all_tasks()))

    def _sample(self, moment: Moment) -> Sequence[Execution]:
        began = time.thread_time()
        try:
            return [execution for sampler in self._samplers for execution in sampler.sample(moment)]
        finally:
            self._context.spent(time.thread_time() - began)
