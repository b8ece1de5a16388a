"""The process of the service, as the kernel and the interpreter see it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from pool_monitor.cgroup import read_text
from pool_monitor.events import RESOURCE_PROCESS
from pool_monitor.resources.garbage import GarbagePauses
from pool_monitor.resources.rates import Counters, Seldom
from pool_monitor.resources.sample import Execution, Moment, Reading, Unknown


class ProcessSampler:
    """Measures this process. *root* is where ``proc`` is; *pauses* measures the garbage collector.

    `uss` and `user_threads` take the kernel long in a large process or on a busy machine. They are read so seldom that
    reading them takes 0.2 % of a processor, but at least every 30 s.
    """

    def __init__(
        self, pauses: GarbagePauses, *, root: str = "/", clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._pauses, self._root = pauses, root.rstrip("/")
        self._counters = Counters()
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._uss, self._user_threads = Seldom(clock_ns), Seldom(clock_ns)

    def sample(self, moment: Moment) -> Sequence[Execution]:
        found = Reading()
        self._counters.step(moment.now_ns, moment.interval_ns, {"cpu": time.process_time_ns()})
        found.take("cpu_ratio", lambda: self._counters.growth("cpu") / 1e9 / self._counters.seconds())
        found.take("rss", lambda: int(self._text("statm").split()[1]) * self._page)
        found.take("uss", lambda: self._uss.read(self._private))
        found.take("fds", self._fds)
        found.take("fds_limit", lambda: _limit("RLIMIT_NOFILE"))
        found.take("threads", lambda: _status(self._text("status"), "Threads"))
        found.take("threads_limit", _threads_limit)
        if "threads_limit" in found.values:
            found.take("user_threads", lambda: self._user_threads.read(self._threads_of_user))
        else:
            found.missing["user_threads"] = found.missing["threads_limit"]
        for name, value in (("tasks", moment.tasks), ("oldest_task_duration", moment.oldest_task_ns)):
            if value is not None:
                found.values[name] = value
        pauses = self._pauses.take()
        if pauses is None:
            found.missing["gc_pause_duration"] = "the garbage collector is not watched"
        else:
            found.values.update(pauses._asdict())
        return [Execution(RESOURCE_PROCESS, found.values, {"missing": found.missing, "pid": os.getpid()})]

    def _text(self, name: str) -> str:
        return read_text(f"{self._root}/proc/self/{name}")

    def _private(self) -> int:
        """Bytes of the private pages of ``smaps_rollup``: those that no other process shares."""
        text = self._text("smaps_rollup")
        return 1024 * sum(_status(text, name) for name in ("Private_Clean", "Private_Dirty", "Private_Hugetlb"))

    def _fds(self) -> int:
        folder = f"{self._root}/proc/self/fd"
        counted = os.stat(folder).st_size  # noqa: PTH116 - the number of descriptors, from Linux 6.2 on; before, 0
        return counted or len(os.listdir(folder)) - 1  # noqa: PTH208 - less the one that lists them

    def _threads_of_user(self) -> int:
        """Threads of all processes of this user, as far as they can be seen: what RLIMIT_NPROC limits. With hidepid,
        or in a container, others may exist.
        """
        user, threads = os.getuid(), 0
        with os.scandir(f"{self._root}/proc") as entries:
            for entry in entries:
                if entry.name.isdigit():
                    try:
                        if entry.stat().st_uid == user:
                            threads += max(0, os.stat(f"{entry.path}/task").st_nlink - 2)  # noqa: PTH116 - one folder a thread
                    except OSError:  # it has ended
                        continue
        return threads


def _status(text: str, name: str) -> int:
    """The number after *name* in lines of the form ``Name: 12 kB``. Raises Unknown if there is none."""
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key == name:
            return int(rest.split()[0])
    raise Unknown(f"the kernel does not say {name}")


def _limit(name: str) -> int:
    """A limit of this process. Raises Unknown if there is none."""
    import resource

    soft, _hard = resource.getrlimit(getattr(resource, name))
    if soft == resource.RLIM_INFINITY:
        raise Unknown("there is no limit")
    return soft


def _threads_limit() -> int:
    if os.getuid() == 0:
        raise Unknown("root has no limit of processes and threads")
    return _limit("RLIMIT_NPROC")
