"""What is wrong with a resource: the table of conditions, and the faults that follow from the samples.

Each row of `CONDITIONS` takes the figures of one subject and returns the figure that is judged, in words too. The
figures are the measurements of its event; those of a worker also have what the pool knows of its slot.
`pool_monitor.resources.fault_states` decides from the bounds when a fault begins and ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pool_monitor.events import RESOURCE_HOST, RESOURCE_LIMIT, RESOURCE_PROCESS, RESOURCE_WORKER
from pool_monitor.resources.fault_states import Bounds, FaultBook, FaultChange, Judged, Subject
from pool_monitor.resources.orphans import Orphan
from pool_monitor.resources.proc import STOPPED
from pool_monitor.resources.sample import Execution, Moment, Slot
from pool_monitor.resources.wording import share, size, span

Figures = Mapping[str, Any]
Value = tuple[float, str] | tuple[float, str, str] | None
"""The figure that is judged, its words, and the cause in them if there is one; None: unknown."""
About = Literal["host", "process", "loop", "worker", "slot", "orphan"]

LAG_S, LAG_SAMPLES, _LAG_MOST = 30.0, 50, 3_100
"""The lag is judged over this many seconds, from this many measurements on. Kept: those of one window at most."""
BUSY_RATIO = 0.9
"""From this share of the processors on, the reason of a lag names them: the loop may be late because it gets none."""
OOM_S = 60.0
"""For how long a fault is open after the kernel has killed a process for want of memory."""
ZOMBIE_S = 10.0
"""How long a process that has ended may wait to be reaped."""


class Condition(NamedTuple):
    """One thing that can be wrong."""

    kind: str
    about: About
    judge: Callable[[Figures], Value]
    bounds: Bounds


def used_share(part: str, whole: str, what: str, words: Callable[[float], str] = "{:.0f}".format) -> Any:
    """Judge the share of *whole* that *part* is."""

    def judge(figures: Figures) -> Value:
        used, most = figures.get(part), figures.get(whole)
        if used is None or not most:
            return None
        return used / most, f"{what}: {words(used)} of {words(most)} in use ({share(used / most)})"

    return judge


def free_share(free: str, whole: str, what: str) -> Any:
    """Judge the share of *whole* that is free."""

    def judge(figures: Figures) -> Value:
        left, most = figures.get(free), figures.get(whole)
        if left is None or not most:
            return None
        return left / most, f"{what}: {size(left)} of {size(most)} free ({share(left / most)})"

    return judge


def _disk(figures: Figures) -> Value:
    """The share of the disk that is free, with the folder in the words: a machine has several disks."""
    path = figures.get("disk_path")
    value: Value = free_share("disk_free", "disk_total", f"disk of {path}" if path else "disk")(figures)
    return value


def ratio(name: str, words: str) -> Any:
    """Judge the figure *name*, a share."""

    def judge(figures: Figures) -> Value:
        value = figures.get(name)
        return None if value is None else (value, f"{share(value)} {words}")

    return judge


def _stopped(figures: Figures) -> Value:
    letter = figures.get("state_letter")
    if letter is None:
        return None
    return (1.0, f"the process is stopped (state {letter})") if letter in STOPPED else (0.0, "the process goes on")


def _hot_idle(figures: Figures) -> Value:
    """The processor time of a worker that had no call since the sample before."""
    cpu, idle_s, interval_s = figures.get("cpu_ratio"), figures.get("idle_s"), figures.get("interval_s")
    if cpu is None or idle_s is None or interval_s is None or idle_s < interval_s:
        return None
    return cpu, f"uses {share(cpu)} of a processor without a call"


def _zombie(figures: Figures) -> Value:
    zombies, waits_ns = figures.get("zombies"), figures.get("zombie_duration", 0)
    if zombies is None:
        return None
    if not zombies:
        return 0.0, "every process that it has started is reaped"
    many = f"{zombies} processes that have ended are" if zombies > 1 else "a process that has ended is"
    return waits_ns / 1e9, f"{many} not reaped, for {span(waits_ns / 1e9)}"


def _leak(figures: Figures) -> Value:
    """Seconds until the limit. A worker that does not leak has for ever."""
    if figures.get("rss") is None:
        return None
    rate, left_ns = figures.get("leak_rate"), figures.get("time_to_limit_duration")
    if rate is None or left_ns is None:
        return float("inf"), "its memory does not grow steadily any more"
    return left_ns / 1e9, str(figures.get("leak_reason", "its memory grows"))


def _fd_leak(figures: Figures) -> Value:
    if figures.get("fds") is None:
        return None
    left_ns = figures.get("fds_to_limit_duration")
    if left_ns is None:
        return float("inf"), "the number of its descriptors does not grow steadily any more"
    return left_ns / 1e9, str(figures.get("fd_leak_reason", "its descriptors grow in number"))


def _crash_loop(figures: Figures) -> Value:
    if not figures["crash_loop"]:
        return 0.0, "its process has run for long enough again"
    return 1.0, f"its processes end faster than the restart limit allows; {figures['restarts']} restarts"


def _orphan(figures: Figures) -> Value:
    return 1.0, str(figures["reason"])


def _oom(figures: Figures) -> Value:
    killed = figures.get("oom_killed")
    if killed is None:
        return None
    many = "a process" if killed == 1 else f"{killed:.0f} processes"
    return killed, f"the kernel has killed {many} for want of memory within {span(OOM_S)}"


def _lag(figures: Figures) -> Value:
    lag_s = figures.get("lag_p99")
    if lag_s is None:
        return None
    where = str(figures.get("blocked_in") or "")
    causes = [f"blocked in {where}"] if where else []
    if (cpu := figures.get("host_cpu_ratio")) is not None and cpu >= BUSY_RATIO:
        causes.append(f"{share(cpu)} of the processors are in use")
    late = f"1 % of callbacks over {span_of_lag(lag_s)} late"
    return lag_s, ", ".join([late, *causes]), where


def span_of_lag(seconds: float) -> str:
    """Return a lag in words."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


MEMORY_BOUNDS, COUNT_BOUNDS, _LEAK = Bounds(0.70, 0.85), Bounds(0.80, 0.90), Bounds(6 * 3600.0, 3600.0, low=True)
CONDITIONS = (
    Condition("memory", "host", used_share("memory_used", "memory_total", "memory", size), MEMORY_BOUNDS),
    Condition("cpu", "host", ratio("cpu_ratio", "of the processors in use"), Bounds(0.75, 0.90, 300.0)),
    Condition(
        "throttled", "host", ratio("throttled_ratio", "of the time throttled by the cgroup"), Bounds(0.10, 0.50, 60.0)
    ),
    Condition("disk", "host", _disk, Bounds(0.10, 0.05, low=True)),
    Condition("shm", "host", free_share("shm_free", "shm_total", "shared memory"), Bounds(0.20, 0.10, low=True)),
    Condition("fds", "host", used_share("fds", "fds_limit", "open files"), COUNT_BOUNDS),
    Condition("processes", "host", used_share("processes", "processes_limit", "processes and threads"), COUNT_BOUNDS),
    Condition("oom", "host", _oom, Bounds(None, 1.0)),
    Condition("fds", "process", used_share("fds", "fds_limit", "descriptors"), COUNT_BOUNDS),
    Condition("threads", "process", used_share("user_threads", "threads_limit", "threads of the user"), COUNT_BOUNDS),
    Condition("zombie", "process", _zombie, Bounds(ZOMBIE_S, None)),
    Condition("lag", "loop", _lag, Bounds(0.1, 1.0)),
    Condition("memory", "worker", used_share("rss", "rss_limit", "memory", size), MEMORY_BOUNDS),
    Condition("leak", "worker", _leak, _LEAK),
    Condition("fds", "worker", used_share("fds", "fds_limit", "descriptors"), COUNT_BOUNDS),
    Condition("fd_leak", "worker", _fd_leak, _LEAK),
    Condition("hot_idle", "worker", _hot_idle, Bounds(0.1, None, 10.0)),
    Condition("zombie", "worker", _zombie, Bounds(ZOMBIE_S, None)),
    Condition("stopped", "worker", _stopped, Bounds(None, 1.0, 3.0, calm_s=0.0)),
    Condition("crash_loop", "slot", _crash_loop, Bounds(None, 1.0, calm_s=0.0)),
    Condition("orphan", "orphan", _orphan, Bounds(1.0, None, calm_s=0.0)),
)
"""Every condition. ``blocked`` is not among them: `pool_monitor.resources.block_fault` emits it from the watchdog's
thread, while the event loop cannot."""


class FaultWatch:
    """Judges samples by a table of conditions. Keeps what `FaultBook` keeps, the lags of 30 s (at most 3,100), and
    when the kernel has killed within 60 s (the latest 100 samples).
    """

    def __init__(self, conditions: Sequence[Condition] = CONDITIONS) -> None:
        self._by_about: dict[str, list[Condition]] = {}
        for condition in conditions:
            self._by_about.setdefault(condition.about, []).append(condition)
        self.book = FaultBook()
        self._lags: deque[tuple[int, int]] = deque(maxlen=_LAG_MOST)
        self._block: tuple[int, str] | None = None  # the latest one
        self._kills: deque[tuple[float, int]] = deque(maxlen=100)
        self._oom_kills: int | None = None
        self._before_s: float | None = None

    def add_lag(self, now_ns: int, lag_ns: int) -> None:
        """Take one measurement of the event loop's lag. May be called in another thread than `judge`."""
        self._lags.append((now_ns, lag_ns))

    def add_block(self, now_ns: int, where: str) -> None:
        """Take the line that blocked the event loop. May be called in another thread than `judge`."""
        self._block = (now_ns, where)

    def judge(
        self, moment: Moment, executions: Iterable[Execution], orphans: Iterable[Orphan] = ()
    ) -> list[FaultChange]:
        """Return which faults have begun, changed or ended with this sample."""
        now_s = moment.now_ns / 1e9
        judged = [
            Judged(condition.kind, subject, condition.bounds, *_valued(condition.judge(figures)))
            for about, subject, figures in self._subjects(moment, executions, orphans)
            for condition in self._by_about.get(about, ())
        ]
        self._before_s = now_s
        return self.book.step(now_s, judged)

    def _subjects(
        self, moment: Moment, executions: Iterable[Execution], orphans: Iterable[Orphan]
    ) -> Iterator[tuple[About, Subject, Figures]]:
        slots = {(slot.pool.name, slot.worker.id): slot for slot in moment.slots}
        host: dict[str, Any] = {}
        process: dict[str, Any] = {}
        for execution in executions:
            if execution.spec is RESOURCE_HOST:
                host = {**execution.measurements, "disk_path": execution.metadata.get("disk_path")}
            elif execution.spec is RESOURCE_PROCESS:
                process = {**execution.measurements}
            elif execution.spec is RESOURCE_WORKER:
                slot = slots[execution.metadata["pool"], execution.metadata["worker"]]
                yield "worker", _process_of(slot), self._of_worker(moment, slot, execution)
        host["oom_killed"] = self._killed(moment.now_ns / 1e9, host.get("oom_kills"))
        yield "host", Subject("host"), host
        yield "process", Subject("process"), process
        yield (
            "loop",
            Subject("loop"),
            {
                "lag_p99": self._lag_p99(moment.now_ns),
                "blocked_in": self._blocked_in(moment.now_ns),
                "host_cpu_ratio": host.get("cpu_ratio"),
            },
        )
        for slot in moment.slots:
            figures = {"crash_loop": slot.worker.crash_loop, "restarts": slot.worker.restarts}
            yield "slot", Subject(f"worker {slot.worker.id}", slot.pool.name, slot.worker.id), figures
        for orphan in orphans:
            identity = orphan.identity
            yield "orphan", Subject(f"process {identity.pid}", process=identity), {"reason": _orphan_words(orphan)}

    def _of_worker(self, moment: Moment, slot: Slot, execution: Execution) -> Figures:
        worker = slot.worker
        interval_s = None if self._before_s is None else moment.now_ns / 1e9 - self._before_s
        return {
            **execution.measurements,
            **{key: execution.metadata.get(key) for key in ("state_letter", "leak_reason", "fd_leak_reason")},
            "rss_limit": worker.rss_limit,
            "idle_s": worker.state_age if worker.state == "ready" else None,
            "interval_s": interval_s,
        }

    def _killed(self, now_s: float, kills: int | None) -> int | None:
        """How many processes the kernel has killed within `OOM_S`; None: unknown."""
        before, self._oom_kills = self._oom_kills, kills
        if kills is None:
            return None
        if before is not None and kills > before:
            self._kills.append((now_s, kills - before))
        while self._kills and now_s - self._kills[0][0] >= OOM_S:
            self._kills.popleft()
        return sum(number for _, number in self._kills)

    def _blocked_in(self, now_ns: int) -> str | None:
        """The line that blocked the event loop within `LAG_S`; None: none did."""
        block = self._block  # read once: another thread may set it
        return block[1] if block is not None and now_ns - block[0] < LAG_S * 1e9 else None

    def _lag_p99(self, now_ns: int) -> float | None:
        """The 99th percentile of the lags of the last 30 s, in seconds; None: there are too few."""
        since = now_ns - round(LAG_S * 1e9)
        while self._lags and self._lags[0][0] < since:
            self._lags.popleft()
        lags = sorted(lag for _, lag in list(self._lags))  # a copy: another thread may append
        if len(lags) < LAG_SAMPLES:
            return None
        return lags[min(int(len(lags) * 0.99), len(lags) - 1)] / 1e9


def execution_of(change: FaultChange, wall_ns: int) -> Execution:
    """Return the event ``resource.limit`` of a change."""
    measurements: dict[str, Any] = {"system_time": wall_ns}
    figures = {"value": change.value, "limit": change.limit}
    measurements |= {name: value for name, value in figures.items() if value is not None and value != float("inf")}
    subject = change.subject
    metadata: dict[str, Any] = {
        "kind": change.kind,
        "state": change.state,
        "level": change.level,
        "subject": subject.name,
        "reason": change.reason,
    }
    if subject.pool is not None:
        metadata["pool"] = subject.pool
    if subject.worker is not None:
        metadata["worker"] = subject.worker
    return Execution(RESOURCE_LIMIT, measurements, metadata)


def _valued(value: Value) -> tuple[float | None, str] | tuple[float, str, str]:
    return (None, "") if value is None else value


def _process_of(slot: Slot) -> Subject:
    worker = slot.worker
    return Subject(f"worker {worker.id}", slot.pool.name, worker.id, (slot.pool.instance, worker.pid))


def _orphan_words(orphan: Orphan) -> str:
    """The orphan in words that do not change while it lives."""
    return f"was left behind by the service with pid {orphan.run.pid}, which has ended: {orphan.command}"
