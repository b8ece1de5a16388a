"""The exported metrics of resources: the machine, the service's process, its event loop, GPUs, and open faults.

A figure that is unknown has no sample: a gauge that nobody renews disappears from the page, and is never exported with
its last value or as 0.
"""

from __future__ import annotations

from collections.abc import Iterator

from pool_monitor.export.family import (
    PERCENTILES,
    PREFIX,
    Family,
    Histograms,
    family_of,
    labels,
    percentiles,
    read_family,
)
from pool_monitor.metrics.totals import Totals
from pool_monitor.snapshot import PressureView, Snapshot

_HOST = (
    ("cpus", "host_cpus", "Processors that this process may use."),
    ("cpu_ratio", "host_cpu_ratio", "Processor time in use, as a share of these processors."),
    ("throttled_ratio", "host_cpu_throttled_ratio", "Share of scheduling periods in which the cgroup was throttled."),
    ("load1", "host_load1", "Load average of the machine over one minute."),
    ("memory_total", "host_memory_limit_bytes", "Memory that may be used: of the cgroup, or of the machine."),
    ("memory_used", "host_memory_used_bytes", "Memory in use that cannot be freed at once."),
    ("memory_ratio", "host_memory_ratio", "Memory in use as a share of what may be used."),
    ("swap_total", "host_swap_size_bytes", "Size of the swap."),
    ("swap_used", "host_swap_used_bytes", "Swap in use."),
    ("disk_total", "host_disk_size_bytes", "Size of the disk of the history, or of the working directory."),
    ("disk_free", "host_disk_free_bytes", "What this user may still write to it."),
    ("shm_total", "host_shm_size_bytes", "Size of /dev/shm."),
    ("shm_free", "host_shm_free_bytes", "Free space in /dev/shm."),
    ("fds", "host_open_fds", "Open files of the whole machine."),
    ("fds_limit", "host_open_fds_limit", "Most open files of the whole machine."),
    ("processes", "host_processes", "Processes and threads that count against their limit."),
    ("processes_limit", "host_processes_limit", "Most processes and threads."),
    ("oom_kills", "host_oom_kills_total", "Processes of the cgroup that the kernel has killed for want of memory."),
)
_PROCESS = (
    ("cpu_ratio", "process_cpu_ratio", "Processor time used by the service, as a share of one processor."),
    ("rss", "process_resident_memory_bytes", "Resident memory of the service."),
    ("uss", "process_unshared_memory_bytes", "Memory of the service that no other process shares."),
    ("fds", "process_open_fds", "Open descriptors of the service."),
    ("fds_limit", "process_open_fds_limit", "Most open descriptors of the service."),
    ("threads", "process_threads", "Threads of the service."),
    ("threads_limit", "process_threads_limit", "Most processes and threads of this user."),
    ("user_threads", "process_user_threads", "Processes and threads of this user: what the limit counts."),
    ("children", "process_children", "Processes that the service has started beside its workers."),
    ("zombies", "process_zombies", "Of these, those that have ended and wait to be reaped."),
    ("tasks", "process_tasks", "Tasks of the event loop that have not ended."),
    ("oldest_task", "process_oldest_task_seconds", "Time since the monitor first saw the oldest of these tasks."),
    ("gc_ratio", "process_gc_ratio", "Share of the latest interval spent in the garbage collector."),
)
_WORKER = (
    ("worker_cpu_time_seconds_total", "Processor time of the processes of the slot."),
    ("worker_read_bytes_total", "Bytes that the processes of the slot read from disks."),
    ("worker_written_bytes_total", "Bytes that the processes of the slot wrote to disks."),
)
"""In the order of `pool_monitor.metrics.worker_readings.COUNTED`."""
_GPU = (
    ("utilisation", "gpu_utilisation_ratio", "Share of the latest sampling period in which a kernel ran."),
    ("memory_total", "gpu_memory_size_bytes", "Memory of the GPU."),
    ("memory_used", "gpu_memory_used_bytes", "Memory in use."),
    ("memory_ratio", "gpu_memory_ratio", "Memory in use as a share of all."),
    ("temperature", "gpu_temperature_celsius", "Temperature."),
    ("power", "gpu_power_watts", "Power drawn."),
)


def resource_families(snapshot: Snapshot, totals: Totals) -> Iterator[Family | Histograms]:
    """Every metric of resources, also metrics that have no series now."""
    resources, window = snapshot.resources, labels(window=snapshot.window)
    for attribute, name, text in _HOST:
        yield read_family(attribute, name, text, [((), resources.host)])
    pressure = resources.host.pressure or PressureView()
    yield family_of(
        "host_pressure_ratio",
        "Share of 10 s in which some task waited for a resource.",
        [((), [pressure.cpu, pressure.memory, pressure.io])],
        "resource",
        ("cpu", "memory", "io"),
    )
    for attribute, name, text in _PROCESS:
        yield read_family(attribute, name, text, [((), resources.process)])
    yield read_family(
        "gc_pause",
        "process_gc_pause_seconds",
        "The longest pause of the garbage collector in the window.",
        [(window, resources.process)],
    )
    yield from _loop(snapshot, totals)
    for place, (name, text) in enumerate(_WORKER):
        sums = ((labels(pool=of.pool, worker=of.worker), [of.numbers[place]]) for of in totals.processes)
        yield family_of(name, text, sums)
    gpus = [(labels(gpu=str(gpu.index)), gpu) for gpu in resources.gpus]
    for attribute, name, text in _GPU:
        yield read_family(attribute, name, text, gpus)
    yield family_of(
        "gpu_info",
        "Information on a GPU.",
        (((*of, *labels(name=gpu.name, uuid=gpu.uuid)), [1]) for of, gpu in gpus),
    )
    yield family_of(
        "resource_fault",
        "1 for each resource that is at its limit, and each worker that misuses one.",
        {
            labels(kind=fault.kind, subject=fault.subject, level=fault.level, pool=fault.pool): [1]
            for fault in resources.faults
        }.items(),
    )


def _loop(snapshot: Snapshot, totals: Totals) -> Iterator[Family | Histograms]:
    if totals.lag is not None:
        yield Histograms(
            f"{PREFIX}loop_lag_seconds",
            "How late the event loop ran a callback that was due at once.",
            [()],
            totals.lag.counts[None, :],
            0,
            [totals.lag.sum_ns / 1e9],
            [totals.since],
        )
    loop = snapshot.resources.loop
    yield family_of(
        "loop_window_lag_seconds",
        "Percentiles of the lag of the event loop in the window; 100 is the maximum.",
        [(labels(window=snapshot.window), percentiles(loop.lag))],
        "percentile",
        PERCENTILES,
    )
    yield read_family(
        "blocked",
        "loop_blocked_seconds",
        "Time since the event loop ran a callback, while it is blocked.",
        [((), loop)],
    )
    yield read_family("blocks", "loop_blocks_total", "Times that the event loop was blocked.", [((), loop)])
