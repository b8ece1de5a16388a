"""Events of resources: the machine, the service's process and its event loop, and the processes of workers.

The measurements of a sample have the names of the fields of `pool_monitor.snapshot.resources` that they become. A
measurement that could not be made is left out, and ``missing`` says why.
"""

from __future__ import annotations

from pool_monitor.events.spec import MONITOR_KEY, PROCESS_KEYS, declare

_MISSING = {"missing": "dict: why a measurement is missing, by its name"}
_INTERVAL = {"interval": "ns?: until the next sample is due; a reading expires after three of them"}

RESOURCE_HOST = declare(
    "resource.host",
    "The machine was sampled, or the container that limits what this process may use of it.",
    {
        **_INTERVAL,
        "cpus": "ratio?: processors that this process may use",
        "cpu_ratio": "ratio?: share of these processors that is in use",
        "throttled_ratio": "ratio?: share of scheduling periods in which the cgroup was throttled",
        "load1": "ratio?: load average over one minute",
        "memory_total": "bytes?: memory that may be used",
        "memory_used": "bytes?: memory in use that cannot be freed at once",
        "memory_ratio": "ratio?: memory_used / memory_total",
        "swap_total": "bytes?: size of the swap",
        "swap_used": "bytes?: swap in use",
        "disk_total": "bytes?: size of the disk that holds the history, or else the working directory",
        "disk_free": "bytes?: what this user may still write to it",
        "shm_total": "bytes?: size of /dev/shm",
        "shm_free": "bytes?: free space in /dev/shm",
        "fds": "count?: open files of the whole machine",
        "fds_limit": "count?: most open files of the whole machine",
        "processes": "count?: processes and threads that count against the limit",
        "processes_limit": "count?: the lower one of pids.max of the cgroup and the kernel's limit",
        "oom_kills": "count?: processes of the cgroup that the kernel has killed for want of memory",
        "pressure_cpu": "ratio?: share of 10 s in which some task waited for a processor",
        "pressure_memory": "ratio?: the same for memory",
        "pressure_io": "ratio?: the same for disks",
    },
    {
        **MONITOR_KEY,
        **_MISSING,
        "cgroup": "str?: v1 or v2, where the limits come from",
        "disk_path": "str: the folder whose disk it is",
    },
)
RESOURCE_PROCESS = declare(
    "resource.process",
    "The process of the service was sampled.",
    {
        **_INTERVAL,
        "cpu_ratio": "ratio?: processor time used, as a share of one processor",
        "rss": "bytes?: resident memory",
        "uss": "bytes?: memory that no other process shares",
        "fds": "count?: open descriptors",
        "fds_limit": "count?: most open descriptors",
        "threads": "count?: threads",
        "threads_limit": "count?: most processes and threads of this user (RLIMIT_NPROC); absent for root, whom it "
        "does not limit",
        "user_threads": "count?: processes and threads of this user that can be seen: what threads_limit limits",
        "tasks": "count?: tasks of the event loop that have not ended",
        "oldest_task_duration": "ns?: since the oldest of these tasks was first seen",
        "gc_pause_duration": "ns?: the longest pause of the garbage collector since the last sample",
        "gc_duration": "ns?: all its pauses since the last sample together",
        "gc_collections": "count?: its runs since the last sample",
        "children": "count?: processes that it has started, and these, without the workers and theirs",
        "zombies": "count?: of these, those that have ended and wait to be reaped",
        "zombie_duration": "ns?: for how long the oldest of these zombies has been seen",
    },
    {**MONITOR_KEY, **_MISSING, "pid": "int: the process"},
)
RESOURCE_WORKER = declare(
    "resource.worker",
    "The process of a worker was sampled. A process that is stopped, gone or unreadable has no measurements.",
    {
        **_INTERVAL,
        "cpu_ratio": "ratio?: processor time used, as a share of one processor",
        "cpu_duration": "ns?: processor time used since its start",
        "rss": "bytes?: resident memory",
        "uss": "bytes?: memory that no other process shares",
        "fds": "count?: open descriptors",
        "threads": "count?: threads",
        "fds_limit": "count?: most open descriptors",
        "children": "count?: processes that it has started, and that these have started",
        "zombies": "count?: of these, those that have ended and wait to be reaped",
        "zombie_duration": "ns?: for how long the oldest of these zombies has been seen",
        "read_bytes": "bytes?: read from disks since its start",
        "written_bytes": "bytes?: written to disks since its start",
        "leak_rate": "ratio?: bytes per second by which its memory grows, if that is a leak",
        "time_to_limit_duration": "ns?: until a leak reaches the limit, if it goes on",
        "fds_to_limit_duration": "ns?: the same for its descriptors",
    },
    {
        **MONITOR_KEY,
        **PROCESS_KEYS,
        **_MISSING,
        "state_letter": "str?: its state as ps shows it, such as R, S, D, T or Z",
        "leak_reason": "str?: the growth of its memory in words, if that is a leak",
        "fd_leak_reason": "str?: the same for its descriptors",
    },
)
RESOURCE_GPU = declare(
    "resource.gpu",
    "The GPUs of the machine were sampled, or cannot be.",
    {**_INTERVAL, "gpus": "count: GPUs that were found"},
    {
        **MONITOR_KEY,
        "gpus": "tuple: one dict per GPU, with the fields of GpuView",
        "missing": "str: why there are none, in words; empty when there are some",
    },
)
LOOP_LAG = declare(
    "resource.loop_lag",
    "A thread asked the event loop to run a callback at once, and the loop ran it. For a callback that ran late, the "
    "event is also emitted for each of those that would have been sent meanwhile.",
    {"duration": "ns: how late it ran"},
    MONITOR_KEY,
    numbers=("duration",),
)
RESOURCE_LOOP = declare(
    "resource.loop",
    "The event loop is blocked. Emitted from a thread while it still is: once a block. When the loop runs again, "
    "resource.loop_resume follows on the loop.",
    {
        "duration": "ns: for how long it has been blocked",
        "cpu_duration": "ns?: processor time that its thread used meanwhile: near the duration, it computes; near 0, "
        "it waits",
    },
    {
        **MONITOR_KEY,
        "stack": "str: what the loop runs, innermost frame last; empty if none was taken: for all but the first block "
        "in 10 s, and when the loop was found waiting for a processor",
    },
)
LOOP_RESUME = declare(
    "resource.loop_resume",
    "The event loop that was blocked runs again.",
    {"duration": "ns: for how long it was blocked"},
    MONITOR_KEY,
)
RESOURCE_LIMIT = declare(
    "resource.limit",
    "A resource reached its limit or a worker began to misuse one, or that is over.",
    {
        "system_time": "ns: wall clock",
        "value": "ratio?: the figure that is judged, in the unit of the kind",
        "limit": "ratio?: the bound that it passed",
    },
    {
        **MONITOR_KEY,
        "kind": "str: what is wrong; the kinds are in pool_monitor/resources/faults.py",
        "state": "str: reached, changed (its level, or its figure by over a quarter) or left",
        "level": "str: warn or bad",
        "subject": "str: host, process, loop, 'worker SLOT' or 'process PID'",
        "pool": "str?: the worker's pool",
        "worker": "str?: the slot",
        "reason": "str: in words, with figures",
    },
)
