"""The measuring of resources as a part of the monitor."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

from pool_monitor.emit import PoolIdentity
from pool_monitor.log import logger
from pool_monitor.parts import raise_if_ended
from pool_monitor.resources.cost import SamplingCost
from pool_monitor.resources.diagnosis import Diagnosis
from pool_monitor.resources.garbage import GarbagePauses
from pool_monitor.resources.gpu import GpuSampler
from pool_monitor.resources.host import HostSampler, folder_to_measure
from pool_monitor.resources.process import ProcessSampler
from pool_monitor.resources.sample import Execution, Moment, Sampler, Slot
from pool_monitor.resources.tasks import TaskCensus
from pool_monitor.resources.watchdog import Watchdog
from pool_monitor.resources.workers import WorkerSampler
from pool_monitor.side_thread import SideThread
from pool_monitor.snapshot import SamplingView
from pool_monitor.telemetry import describe

if TYPE_CHECKING:
    from pool_monitor.config import ResourcesConfig
    from pool_monitor.parts import Context

_INTERVAL, _INTERVAL_OF_MANY, _MANY = 1.0, 2.0, 64
_CALM = 3
"""Samples in a row in which no sampler fails, after which they count as recovered."""
_OVERDUE = 10.0  # seconds that a sample may take before it is reported: something hangs in the kernel


class ResourcesPart:
    """Samples at an interval while entered. *history* is the path of the history's file; its disk is measured.

    A sampler that raises costs its own figures, and is reported. A sample that hangs costs all of them until it
    returns; that is reported, and no second thread is started for it.
    """

    def __init__(self, config: ResourcesConfig, context: Context, history: str | None = None) -> None:
        self._config, self._context = config, context
        self._pauses, self._tasks = GarbagePauses(), TaskCensus()
        self._host = HostSampler(folder_to_measure(history))
        self._gpu = GpuSampler() if config.gpu else None
        self._processes = WorkerSampler()
        self._samplers: list[Sampler] = [self._host, ProcessSampler(self._pauses), self._processes]
        if self._gpu is not None:
            self._samplers.append(self._gpu)
        self._diagnosis = Diagnosis(config, context.clock, config.interval or _INTERVAL, monitor=context.monitor)
        self._thread = SideThread("sampling")
        self._task: asyncio.Task[None] | None = None
        self._watchdog = Watchdog(config, context.monitor)
        self._cost = SamplingCost()
        self._failed: set[str] = set()  # samplers that have raised, each logged once
        self._failing: dict[str, str] = {}  # those that raised in the latest sample, and what; written by the thread
        self._told: frozenset[str] = frozenset()  # those reported as failing
        self._calm = 0  # samples since one of them has failed
        self._began: float | None = None  # of a sample that has not ended, by the event loop's clock
        self._overdue = False
        self._took: float | None = None
        self._helpers_ns = 0
        self._workers = 0

    async def __aenter__(self) -> Self:
        self._watchdog.start()
        self._pauses.start()
        self._diagnosis.attach()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="pool_monitor resources sampling")
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._watchdog.stop()
            task = self._task
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        finally:
            self._diagnosis.close()
            self._pauses.stop()
            await self._thread.close()
            self._host.close()  # after the thread: a sample under way would wait for answers that nobody gives
            if self._gpu is not None:
                self._gpu.close()

    def view(self) -> SamplingView:
        """How often is sampled, and what it costs. What is measured stands in the Snapshot's own section."""
        wanted, interval = self._wanted(), self._interval()
        return SamplingView(
            interval=interval,
            wanted_interval=wanted,
            cpu_ratio=None if self._cost.seconds is None else self._cost.seconds / interval,
            sample_cpu=self._cost.latest,
            sample_seconds=self._took,
            workers=self._workers,
            overdue=self._overdue_for(),
        )

    def tick(self) -> None:
        """Report a sample that does not end. Raises when the task that samples has ended, or the watchdog hangs."""
        if self._task is not None:
            raise_if_ended(self._task)
        self._watchdog.check()
        overdue = self._overdue_for()
        if overdue is not None and not self._overdue:
            self._overdue = True
            self._context.degraded("resources", f"a sample has not ended for {overdue:.0f} s")

    def _overdue_for(self) -> float | None:
        """For how long the present sample has been running, if that is too long; else None."""
        lasts = 0.0 if self._began is None else asyncio.get_running_loop().time() - self._began
        return lasts if lasts > _OVERDUE else None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began, cpu = loop.time(), time.thread_time()
            moment = self._moment()
            cpu_of_loop = time.thread_time() - cpu
            self._began = began
            found, cpu_of_thread = await self._thread.run(partial(self._sample, moment))
            self._began = None
            cpu = time.thread_time()
            until_next = {"interval": moment.interval_ns}
            for spec, measurements, metadata in found:
                timed = until_next | dict(measurements) if "interval" in spec.measurements else measurements
                spec.event.emit(timed, {**metadata, "monitor": self._context.monitor})
            spent = cpu_of_loop + cpu_of_thread + time.thread_time() - cpu + self._cpu_of_helpers()
            self._cost.add(spent)
            self._context.spent(spent)
            self._took = loop.time() - began
            if self._overdue:
                self._overdue = False
                self._context.recovered("resources", f"the sample ended after {self._took:.0f} s")
                self._told = frozenset()
            self._tell_failing()
            await asyncio.sleep(max(0.0, self._interval() - self._took))

    def _tell_failing(self) -> None:
        """Report samplers that began to fail, and once that none fails any more."""
        failing = frozenset(self._failing)
        self._calm = 0 if failing else self._calm + 1
        if failing - self._told:
            self._told |= failing
            self._context.degraded("resources", "; ".join(self._failing.values()))
        elif self._told and self._calm >= _CALM:
            self._told = frozenset()
            self._context.recovered("resources", "all samplers work again")

    def _cpu_of_helpers(self) -> float:
        """Processor time since the sample before of the threads that ask disks and the driver."""
        now_ns = self._host.cpu_ns + (0 if self._gpu is None else self._gpu.cpu_ns)
        before_ns, self._helpers_ns = self._helpers_ns, now_ns
        return max(0, now_ns - before_ns) / 1e9

    def _wanted(self) -> float:
        if self._config.interval is not None:
            return self._config.interval
        return _INTERVAL if self._workers < _MANY else _INTERVAL_OF_MANY

    def _interval(self) -> float:
        return self._cost.interval(self._wanted())

    def _moment(self) -> Moment:
        instances = self._context.pool_instances
        slots = [
            Slot(PoolIdentity(pool, instances.get(pool, "")), worker)
            for pool, workers in self._context.workers().items()
            for worker in workers
        ]
        self._workers = len(slots)
        now_ns = self._context.clock.monotonic_ns()
        return Moment(now_ns, slots, *self._tasks.count(now_ns), round(self._interval() * 1e9))

    def _sample(self, moment: Moment) -> tuple[Sequence[Execution], float]:
        """Run the samplers, in a thread. Returns what they found, and the processor time."""
        cpu = time.thread_time()
        moment = moment._replace(now_ns=self._context.clock.monotonic_ns())
        found: list[Execution] = []
        self._failing = {}
        for sampler in self._samplers:
            try:
                found += sampler.sample(moment)
            except Exception as error:  # noqa: BLE001 - a defect of one sampler does not cost the figures of the others
                self._note(type(sampler).__name__, error)
        try:
            found = self._diagnosis.complete(moment, self._processes.complete(found))
        except Exception as error:  # noqa: BLE001 - the same
            self._note(Diagnosis.__name__, error)
        return found, time.thread_time() - cpu

    def _note(self, kind: str, error: Exception) -> None:
        """Note the failure of a sampler, and log its first one."""
        self._failing[kind] = f"{kind} fails: {describe(error)}"
        if kind not in self._failed:
            self._failed.add(kind)
            trace = "".join(traceback.format_exception(error))
            logger("resources").error("a sampler failed", sampler=kind, stacktrace=trace)
