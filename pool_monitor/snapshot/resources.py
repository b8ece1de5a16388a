"""The resources that the pools run on: machine, container, this process, its event loop, GPUs.

Figures of a worker's process stand in its `WorkerView`. A figure that cannot be read is None; `missing` says why, by
field, where the reason is known.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pool_monitor.snapshot.calls import Distribution

FaultLevel = Literal["warn", "bad"]


class PressureView(Struct, frozen=True, kw_only=True):
    """The share of the last 10 s in which some task waited for a resource (PSI of the kernel), from 0 to 1."""

    cpu: float | None = None
    memory: float | None = None
    io: float | None = None


class HostView(Struct, frozen=True, kw_only=True):
    """What this process may use of its machine: within a container, of the container."""

    cpus: float | None = None
    """Processors that this process may use: of the machine, its affinity, or the quota of its cgroup."""
    cpu_ratio: float | None = None
    """Processor time used by everything that shares these processors, as a share of them."""
    throttled_ratio: float | None = None
    """Share of scheduling periods in which the cgroup was stopped because its quota was used up; None: no quota."""
    load1: float | None = None
    """Load average of the machine over one minute."""
    memory_total: int | None = None
    """Bytes that may be used: the limit of the cgroup, or the memory of the machine."""
    memory_used: int | None = None
    """Bytes in use of `memory_total` that cannot be freed at once."""
    memory_ratio: float | None = None
    swap_total: int | None = None
    swap_used: int | None = None
    disk_path: str | None = None
    """The folder whose disk is measured: that of the history, or the working directory."""
    disk_total: int | None = None
    disk_free: int | None = None
    """Bytes that this user may still write."""
    shm_total: int | None = None
    """Size of ``/dev/shm``, in bytes."""
    shm_free: int | None = None
    fds: int | None = None
    """Open files of the whole machine."""
    fds_limit: int | None = None
    processes: int | None = None
    """Processes and threads that count against `processes_limit`."""
    processes_limit: int | None = None
    """The lower one of the cgroup's ``pids.max`` and the kernel's limit."""
    oom_kills: int | None = None
    """Processes of the cgroup that the kernel has killed for want of memory."""
    pressure: PressureView | None = None
    """None: the kernel does not measure it."""
    cgroup: Literal["v1", "v2"] | None = None
    """Where the limits come from; None: there is no cgroup, or it sets no limit."""
    missing: dict[str, str] = {}
    """Why a field is None, by name."""


class ProcessView(Struct, frozen=True, kw_only=True):
    """The process of the service, in which the monitor runs."""

    pid: int | None = None
    cpu_ratio: float | None = None
    """Processor time used, as a share of one processor: above 1 where several threads run at once."""
    rss: int | None = None
    """Bytes of resident memory."""
    uss: int | None = None
    """Bytes of memory that no other process shares."""
    fds: int | None = None
    """Open descriptors."""
    fds_limit: int | None = None
    threads: int | None = None
    threads_limit: int | None = None
    """Most processes and threads of this user (RLIMIT_NPROC); None: no limit, or it does not apply, as to root."""
    user_threads: int | None = None
    """Processes and threads of this user that can be seen, in all processes: what `threads_limit` limits. At most 30 s
    old. None: there is no such limit.
    """
    children: int | None = None
    """Processes that it has started and that still exist, and what these have started, without the workers and theirs.
    """
    zombies: int | None = None
    """Of these, those that have ended and wait to be reaped."""
    tasks: int | None = None
    """Tasks of the event loop that have not ended."""
    oldest_task: float | None = None
    """Seconds since the monitor first saw the oldest of these tasks."""
    gc_pause: float | None = None
    """The longest pause of the garbage collector in the window, in seconds."""
    gc_ratio: float | None = None
    """Share of the latest interval spent in the garbage collector."""
    missing: dict[str, str] = {}


class LoopView(Struct, frozen=True, kw_only=True):
    """The event loop of the service, watched from a thread."""

    lag: Distribution = Distribution()
    """How late the loop ran a callback that was due at once, in the window; seconds. Measured several times a second,
    also while the loop was blocked."""
    blocked: float | None = None
    """For how many seconds the loop has not run a callback; None: it is not blocked."""
    stack: str | None = None
    """What the loop ran when it was last found blocked, innermost frame last; None: never blocked."""
    stack_age: float | None = None
    """Seconds since that stack was taken."""
    longest_block: float | None = None
    """The longest block that ended in the window, in seconds; 0: none did. Other than `lag`, it leaves out the time
    in which the process was stopped or had no processor. None: the loop is not watched.
    """
    blocks: int | None = None
    """Times that the loop was blocked since the monitor was entered; None: it is not watched."""


class GpuView(Struct, frozen=True, kw_only=True):
    """One GPU of the machine."""

    index: int
    name: str | None = None
    uuid: str | None = None
    utilisation: float | None = None
    """Share of the latest sampling period of the driver in which a kernel ran."""
    memory_total: int | None = None
    memory_used: int | None = None
    memory_ratio: float | None = None
    temperature: float | None = None
    """Degrees Celsius."""
    power: float | None = None
    """Watts."""


class FaultView(Struct, frozen=True, kw_only=True):
    """A resource that is at its limit, or a worker that misuses one, now."""

    kind: str
    """What is wrong, such as ``leak``, ``hot_idle`` or ``memory``: the kinds of ``resource.limit``."""
    level: FaultLevel
    subject: str
    """``host``, ``process``, ``loop``, ``worker SLOT``, or ``process PID`` for an orphan."""
    pool: str | None = None
    worker: str | None = None
    value: float | None = None
    """In the unit of the kind."""
    limit: float | None = None
    since: float
    """Wall-clock time at which it began, seconds since the epoch."""
    reason: str = ""
    """In words, with figures."""


class ResourceView(Struct, frozen=True, kw_only=True):
    """Everything that is known about the resources now."""

    host: HostView = HostView()
    process: ProcessView = ProcessView()
    loop: LoopView = LoopView()
    gpus: tuple[GpuView, ...] = ()
    faults: tuple[FaultView, ...] = ()
    """The worst first."""
    missing: dict[str, str] = {}
    """Why a part is missing as a whole, such as ``gpus``."""
    sampled_age: float | None = None
    """Seconds since the latest sample; None: there was none."""
