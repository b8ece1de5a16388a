"""Which workers leak memory or descriptors, from their readings of every sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pool_monitor.events import RESOURCE_HOST, RESOURCE_WORKER
from pool_monitor.resources.leak import DESCRIPTORS, MEMORY, STEPS, Leak, LeakTrend
from pool_monitor.resources.sample import Execution, Moment, Slot
from pool_monitor.resources.wording import size, span

_LONGEST_S = STEPS[-1]


class _Trends(NamedTuple):
    pid: int
    memory: LeakTrend
    descriptors: LeakTrend


class LeakWatch:
    """Keeps the trends of every worker's process, and adds to its readings what they show.

    The limit of a worker's memory is the one at which its pool recycles it. Without one it is what the worker has, and
    its share of what the host or the container has left; workers that leak share equally. Keeps about 9 KB per worker.
    """

    def __init__(self, interval_s: float) -> None:
        self._steps = steps_for(interval_s)
        self._trends: dict[tuple[str, str], _Trends] = {}  # by the pool's instance and the slot
        self._leaking = 0

    def complete(self, moment: Moment, executions: Sequence[Execution]) -> list[Execution]:
        """Return *executions* with the leaks of the workers added to their measurements."""
        slots = {(slot.pool.name, slot.worker.id): slot for slot in moment.slots}
        left = _memory_left(executions)
        share = None if left is None else left / max(self._leaking, 1)
        found, keys, self._leaking = [], set(), 0
        for execution in executions:
            if execution.spec is not RESOURCE_WORKER:
                found.append(execution)
                continue
            slot = slots[execution.metadata["pool"], execution.metadata["worker"]]
            keys.add(key := (slot.pool.instance or slot.pool.name, slot.worker.id))
            found.append(self._with_leaks(moment.now_ns / 1e9, key, slot, execution, share))
        self._trends = {key: trends for key, trends in self._trends.items() if key in keys}
        return found

    def _with_leaks(
        self, now_s: float, key: tuple[str, str], slot: Slot, execution: Execution, share: float | None
    ) -> Execution:
        worker, measured = slot.worker, execution.measurements
        if worker.state == "initializing" or worker.pid is None:
            self._trends.pop(key, None)  # what it loads is no leak
            return execution
        trends = self._trends.get(key)
        if trends is None or trends.pid != worker.pid:
            trends = _Trends(worker.pid, LeakTrend(MEMORY, self._steps), LeakTrend(DESCRIPTORS, self._steps))
            self._trends[key] = trends
        added: dict[str, Any] = {}
        words: dict[str, str] = {}
        if (rss := measured.get("rss")) is not None:
            limit, goal = _limit(worker.rss_limit, rss, share)
            if (leak := trends.memory.add(now_s, rss, limit)) is not None:
                self._leaking += 1
                added["leak_rate"] = leak.slope.value
                words["leak_reason"] = (
                    f"its memory grows by {memory_rate(leak.slope.value)}{until(leak, f'reaches {goal}')}"
                )
                if leak.left_s is not None:
                    added["time_to_limit_duration"] = round(leak.left_s * 1e9)
        if (fds := measured.get("fds")) is not None and (most := measured.get("fds_limit")) is not None:
            leak = trends.descriptors.add(now_s, fds, most)
            if leak is not None and leak.left_s is not None:
                added["fds_to_limit_duration"] = round(leak.left_s * 1e9)
                does = f"reach the limit of {most}"
                words["fd_leak_reason"] = (
                    f"its descriptors grow by {leak.slope.value * 60:.1f} a minute{until(leak, does)}"
                )
        if not added:
            return execution
        return execution._replace(measurements={**measured, **added}, metadata={**execution.metadata, **words})


def _limit(rss_limit: int | None, rss: float, share: float | None) -> tuple[float | None, str]:
    """Return where the growth of a worker's memory ends, also in words. *share* is what it may have of the rest."""
    if rss_limit is not None:
        return rss_limit, f"its limit of {size(rss_limit)}"
    return (None, "") if share is None else (rss + share, f"the end of the {size(share)} that are left")


def steps_for(interval_s: float) -> tuple[float, ...]:
    """Return the lengths of the steps for samples that are *interval_s* apart, the longest last."""
    return (*sorted({step * interval_s for step in STEPS if step * interval_s < _LONGEST_S}), _LONGEST_S)


def memory_rate(slope: float) -> str:
    """Return bytes per second in words, by the minute or by the hour."""
    return f"{size(slope * 60)} a minute" if slope * 60 >= 1024 * 1024 else f"{size(slope * 3600)} an hour"


def until(leak: Leak, does: str) -> str:
    """Return in words when *leak* *does* what it does: reaches its limit."""
    if leak.left_s is None or leak.soonest_s is None or leak.latest_s is None:
        return ""
    return f" and {does} in {span(leak.left_s)} ({span(leak.soonest_s)} to {span(leak.latest_s)})"


def _memory_left(executions: Sequence[Execution]) -> float | None:
    for execution in executions:
        if execution.spec is RESOURCE_HOST:
            total, used = execution.measurements.get("memory_total"), execution.measurements.get("memory_used")
            return None if total is None or used is None else max(total - used, 0)
    return None
