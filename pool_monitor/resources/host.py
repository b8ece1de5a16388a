"""The machine, and the container that limits what this process may use of it.

All figures come from ``/proc``, from cgroups (`pool_monitor.cgroup`) and from ``statvfs``. A figure that a container
limits is that of the container: the lower one of its limit and the machine's, and the use that goes with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from pool_monitor.cgroup import Cgroup, Quota, Used, parse_pressure, read_text, read_unless_absent
from pool_monitor.events import RESOURCE_HOST
from pool_monitor.resources.bounded import BoundedCalls
from pool_monitor.resources.rates import Counters
from pool_monitor.resources.sample import UNREADABLE, Execution, Moment, Reading, Unknown, reason_of

_FIND_AGAIN_NS = 60 * 10**9  # a process may be moved to another cgroup; its limits are read at every sample
_DISK_TIMEOUT = 0.5
_MOST_FILES = 1 << 53  # the kernel writes "no limit" as the largest number it can hold
_PRESSURES = ("cpu", "memory", "io")


class HostSampler:
    """Measures the machine, as far as *root* shows it. *disk_path* is the folder whose disk is measured.

    A disk that does not answer, as of a network file system whose server is gone, is asked in threads of its own: its
    figures are missing until it answers, and the others go on.
    """

    def __init__(self, disk_path: str, *, root: str = "/", affinity: Callable[[], set[int]] | None = None) -> None:
        self._disk_path, self._root = disk_path, root.rstrip("/")
        self._affinity = affinity or _affinity
        self._disk, self._shm = BoundedCalls("disk", _DISK_TIMEOUT), BoundedCalls("shm", _DISK_TIMEOUT)
        self._counters = Counters()
        self._cgroup: Cgroup | None = None
        self._cgroup_missing = ""
        self._find_ns: int | None = None

    @property
    def cpu_ns(self) -> int:
        """Processor time of the threads that ask the disks."""
        return self._disk.cpu_ns + self._shm.cpu_ns

    def close(self) -> None:
        """End the threads that ask the disks."""
        self._disk.close()
        self._shm.close()

    def sample(self, moment: Moment) -> Sequence[Execution]:
        self._find_cgroup(moment.now_ns)
        found = Reading()
        self._processors(moment, found)
        found.take("load1", lambda: float(self._text("proc/loadavg").split()[0]))
        self._memory(found)
        found.take_all(("disk_total", "disk_free"), lambda: self._disk.run(lambda: _space(self._disk_path)))
        found.take_all(("shm_total", "shm_free"), lambda: self._shm.run(lambda: _space(f"{self._root}/dev/shm")))  # noqa: S108
        found.take_all(("fds", "fds_limit"), lambda: _files(self._text("proc/sys/fs/file-nr"), found))
        found.take_all(("processes_limit", "processes"), self._tasks)
        found.take("oom_kills", self._oom_kills)
        for resource in _PRESSURES:
            found.take(f"pressure_{resource}", lambda resource=resource: self._pressure(resource))  # type: ignore[misc]
        version = None if self._cgroup is None else self._cgroup.version
        about: dict[str, Any] = {"missing": found.missing, "disk_path": self._disk_path}
        return [Execution(RESOURCE_HOST, found.values, about if version is None else {**about, "cgroup": version})]

    def _text(self, path: str) -> str:
        return read_text(f"{self._root}/{path}")

    def _find_cgroup(self, now_ns: int) -> None:
        if self._find_ns is not None and 0 <= now_ns - self._find_ns < _FIND_AGAIN_NS:
            return
        self._find_ns = now_ns
        try:
            self._cgroup, self._cgroup_missing = Cgroup(self._root or "/"), ""
        except UNREADABLE as error:
            self._cgroup, self._cgroup_missing = None, reason_of(error)

    def _limits(self) -> Cgroup:
        """The cgroup. Raises Unknown where it cannot be found: the machine's figures might then be too high."""
        if self._cgroup is None:
            raise Unknown(f"the cgroup is not known: {self._cgroup_missing}")
        return self._cgroup

    # -- processors -----------------------------------------------------------------------------------------------

    def _processors(self, moment: Moment, found: Reading) -> None:
        counters: dict[str, int] = {}
        reasons = Reading()  # of what the figures below are made from
        reasons.take("quota", lambda: self._limits().quota())
        reasons.take("processors", self._affinity)
        quota: Quota | None = reasons.values.get("quota")
        processors: set[int] = reasons.values.get("processors", set())
        limited = quota is not None and quota.cpus < (len(processors) or float("inf"))
        if quota is not None:
            counters.update(periods=quota.periods, throttled=quota.throttled)
        if quota is not None and limited:
            if quota.usage_ns is not None:
                counters["quota_ns"] = quota.usage_ns
        else:
            reasons.take_all(("busy", "total"), lambda: _processor_time(self._text("proc/stat"), processors))
            counters.update({name: reasons.values[name] for name in ("busy", "total") if name in reasons.values})
        self._counters.step(moment.now_ns, moment.interval_ns, counters)

        def cpus() -> float:
            _raise_for(reasons, "quota", "processors")
            return quota.cpus if quota is not None and limited else float(len(processors))

        def cpu_ratio() -> float:
            usable = cpus()
            if quota is not None and limited:
                return self._counters.growth("quota_ns") / 1e9 / self._counters.seconds() / usable
            _raise_for(reasons, "busy")
            total = self._counters.growth("total")
            if not total:
                raise Unknown("the kernel has counted no time since the sample before")
            return self._counters.growth("busy") / total

        def throttled_ratio() -> float:
            _raise_for(reasons, "quota")
            if quota is None:
                raise Unknown("no cgroup limits the processor time")
            periods = self._counters.growth("periods")
            if not periods:
                raise Unknown("the cgroup ran in no scheduling period")
            return min(1.0, self._counters.growth("throttled") / periods)

        found.take("cpus", cpus)
        found.take("cpu_ratio", cpu_ratio)
        found.take("throttled_ratio", throttled_ratio)

    # -- memory, tasks, events ------------------------------------------------------------------------------------

    def _memory(self, found: Reading) -> None:
        found.take_all(("memory_total", "memory_used"), lambda: self._in_use(Cgroup.memory, "MemTotal", "MemAvailable"))
        total, used = found.values.get("memory_total"), found.values.get("memory_used")
        if total and used is not None:
            found.values["memory_ratio"] = used / total
        else:
            found.missing["memory_ratio"] = found.missing.get("memory_total", "the limit of memory is 0 bytes")
        found.take_all(("swap_total", "swap_used"), lambda: self._in_use(Cgroup.swap, "SwapTotal", "SwapFree"))

    def _in_use(self, limited: Callable[[Cgroup], Used | None], total: str, free: str) -> Used:
        """What the cgroup has, by *limited*, or the machine, by the names *total* and *free* of its memory."""
        of_cgroup = limited(self._limits())
        all_bytes, free_bytes = self._meminfo(total, free)
        return _lower(of_cgroup, Used(all_bytes, all_bytes - free_bytes))

    def _meminfo(self, *names: str) -> list[int]:
        """Bytes of ``/proc/meminfo``. Raises Unknown where a name is not in it."""
        counts = {}
        for line in self._text("proc/meminfo").splitlines():
            name, _, rest = line.partition(":")
            words = rest.split()
            if len(words) == 2 and words[1] == "kB":
                counts[name] = int(words[0]) * 1024
        missing = [name for name in names if name not in counts]
        if missing:
            raise Unknown(f"/proc/meminfo has no {missing[0]}")
        return [counts[name] for name in names]

    def _tasks(self) -> Used:
        """The kernel counts threads as tasks too, and so do all of these limits."""
        limited = self._limits().tasks()
        most = min(int(self._text(f"proc/sys/kernel/{name}")) for name in ("threads-max", "pid_max"))
        alive = int(self._text("proc/loadavg").split()[3].partition("/")[2])
        return _lower(limited, Used(most, alive))

    def _oom_kills(self) -> int:
        kills = self._limits().oom_kills()
        if kills is None:
            raise Unknown("the kernel counts none for this cgroup")
        return kills

    def _pressure(self, resource: str) -> float:
        own = None if self._cgroup is None else self._cgroup.pressure(resource)
        if own is not None:
            return own
        text = read_unless_absent(f"{self._root}/proc/pressure/{resource}")
        if text is None:
            raise Unknown("the kernel does not measure pressure")
        return parse_pressure(text)


def _affinity() -> set[int]:
    if not hasattr(os, "sched_getaffinity"):
        raise Unknown("this system does not say which processors a process may use")
    return os.sched_getaffinity(0)


def _raise_for(reading: Reading, *names: str) -> None:
    """Raise Unknown if one of *names* could not be read."""
    for name in names:
        if name in reading.missing:
            raise Unknown(reading.missing[name])


def _lower(limited: Used | None, machine: Used) -> Used:
    """The limit and the use of the cgroup if it limits more than the machine does, else those of the machine."""
    return limited if limited is not None and limited.limit < machine.limit else machine


def _processor_time(text: str, processors: set[int]) -> tuple[int, int]:
    """Clock ticks of *processors* by ``/proc/stat``: in use, and all. In use is what is neither idle nor waits for a
    disk; time that a hypervisor gave to others is in use. Time of virtual machines is part of user time.
    """
    busy = total = 0
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        fields = rest.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in processors:
            ticks = [int(field) for field in fields[:8]]
            if len(ticks) < 5:
                raise Unknown(f"/proc/stat has only {len(ticks)} figures of a processor")
            total += sum(ticks)
            busy += sum(ticks) - ticks[3] - ticks[4]
    if not total:
        raise Unknown("/proc/stat does not have these processors")
    return busy, total


def _space(path: str) -> tuple[int, int]:
    """Total bytes of the disk that holds *path*, and those that this user may still write."""
    found = os.statvfs(path)
    if not found.f_blocks:
        raise Unknown(f"{path}: this file system has no size")
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _files(text: str, found: Reading) -> tuple[int, int | None]:
    """Open files of the machine and their limit, of ``file-nr``."""
    allocated, free, most = (int(word) for word in text.split())
    if most >= _MOST_FILES:
        found.missing["fds_limit"] = "the machine has no limit"
    return allocated - free, most if most < _MOST_FILES else None


def folder_to_measure(history: str | None) -> str:
    """The folder of the file *history*, or the working directory. It need not exist; the sampler says so then."""
    path = "." if history is None else os.path.dirname(os.path.expanduser(history))  # noqa: PTH111, PTH120
    try:
        return os.path.abspath(path)  # noqa: PTH100 - text is all we have, and a relative path of a removed folder
    except OSError:  # the working directory was removed
        return os.path.join("/proc/self/cwd", path)  # noqa: PTH118
