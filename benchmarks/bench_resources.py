"""What measuring 64 workers costs, and what the rule of leaks finds in memory that is made up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import psutil

from benchmarks import tables
from benchmarks.leaks import SCALES, SHAPES, shares
from benchmarks.runner import ROOT
from benchmarks.tables import Table
from pool_monitor import Pool
from pool_monitor.clock import ManualClock
from pool_monitor.config import ResourcesConfig
from pool_monitor.emit import PoolIdentity
from pool_monitor.resources import orphans, proc
from pool_monitor.resources.diagnosis import Diagnosis
from pool_monitor.resources.garbage import GarbagePauses
from pool_monitor.resources.host import HostSampler
from pool_monitor.resources.process import ProcessSampler
from pool_monitor.resources.sample import Execution, Moment, Sampler, Slot
from pool_monitor.resources.workers import WorkerSampler
from pool_monitor.snapshot import WorkerView

WORKERS, SAMPLES, SEEDS = 64, 120, 40


async def started(workers: int) -> tuple[Pool, list[WorkerView]]:
    pool = Pool(f"{ROOT / 'benchmarks' / 'targets.py'}:Work", size=workers, max_size=workers, name="bench")
    await pool.__aenter__()
    return pool, pool.workers()


def cost_table(workers: int = WORKERS, samples: int = SAMPLES) -> Table:
    async def measure() -> list[list[str]]:
        pool, slots = await started(workers)
        try:
            return await asyncio.to_thread(_rows, slots, samples)
        finally:
            await pool.__aexit__(None, None, None)

    about = (
        f"Processor time of a sample of {workers} workers, the mean of {samples} samples that are 1 s apart by their "
        "clock; as a share of one processor at one sample a second."
    )
    return Table(f"resources of {workers} workers", about, ["", "ms a sample", "share at 1 Hz"], asyncio.run(measure()))


def _rows(views: list[WorkerView], samples: int) -> list[list[str]]:
    clock = ManualClock()
    slots = [Slot(PoolIdentity("bench", "i"), view) for view in views]
    sampler, host, own = WorkerSampler(clock.monotonic_ns), HostSampler(str(ROOT)), ProcessSampler(GarbagePauses())
    diagnosis = Diagnosis(ResourcesConfig(orphans="off"), clock, 1.0)
    spent = dict.fromkeys(("host and container", "the service", "the workers", "leaks and faults"), 0.0)
    samplers: list[tuple[str, Sampler]] = [("host and container", host), ("the service", own), ("the workers", sampler)]
    try:
        for _ in range(samples):
            clock.advance(1.0)
            moment = Moment(clock.monotonic_ns(), slots)
            found: list[Execution] = []
            for name, each in samplers:
                began = time.thread_time()
                found += each.sample(moment)
                spent[name] += time.thread_time() - began
            began = time.thread_time()
            diagnosis.complete(moment, sampler.complete(found))
            spent["leaks and faults"] += time.thread_time() - began
    finally:
        host.close()
    rows = {f"sample: {name}": seconds / samples for name, seconds in spent.items()}
    rows = {"sample: all together": sum(rows.values()), **rows}
    rows |= {
        "alone: all processes of the machine": _mean(proc.table, 20),
        "alone: memory that is not shared, of all workers": _mean(lambda: [proc.uss_of(v.pid or 0) for v in views], 5),
        "alone: the workers by psutil (oneshot)": _mean(lambda: _by_psutil(views), 5),
        "alone: a search for orphans (once a minute)": _mean(orphans.scan, 5),
    }
    return [[name, f"{seconds * 1e3:.2f}", f"{seconds:.2%}"] for name, seconds in rows.items()]


def _mean(act: Callable[[], object], times: int) -> float:
    """Return the processor time of *act*, in seconds."""
    began = time.thread_time()
    for _ in range(times):
        act()
    return (time.thread_time() - began) / times


def _by_psutil(views: list[WorkerView]) -> None:
    for view in views:
        process = psutil.Process(view.pid)
        with process.oneshot():
            process.status()
            process.cpu_times()
            process.memory_info()
            process.num_threads()
            process.num_fds()
            process.io_counters()


def leak_table(seeds: int = SEEDS) -> Table:
    found = {scale: shares(scale, seeds) for scale in SCALES}
    rows = [
        [shape, *(f"{without:.0%} / {leaks:.0%}" for without, leaks in (found[scale][shape] for scale in SCALES))]
        for shape in SHAPES
    ]
    about = (
        f"How often a leak is found in {seeds} made-up series of memory: without a leak / with one. The stretch that "
        "is seen is in the head. The leak fills the 400 MB up to the limit in 10 min, 83 min, 4.5 h and 15 h; near its "
        "limit it fills 40 MB, which some of the shapes exceed by themselves."
    )
    return Table("leaks in made-up memory", about, ["", *(scale.name for scale in SCALES)], rows)


def _tables() -> Iterator[Table]:
    yield cost_table()
    yield leak_table()


def main(*, as_markdown: bool) -> None:
    tables.show(_tables(), as_markdown=as_markdown)
