"""Checks of the resources: one finding for the open faults of a kind, in one pool or in none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pool_monitor.findings.finding import Finding, Kind
from pool_monitor.snapshot import FaultView, Snapshot

KINDS: tuple[Kind, ...] = (
    "blocked",
    "lag",
    "memory",
    "oom",
    "leak",
    "cpu",
    "throttled",
    "disk",
    "shm",
    "fds",
    "fd_leak",
    "processes",
    "threads",
    "stopped",
    "hot_idle",
    "zombie",
    "orphan",
)
"""The kinds of faults that are findings, the most urgent first. A crash loop is one of a pool's workers already."""


def check(kind: Kind) -> Callable[[Snapshot], Iterator[Finding]]:
    """Return the check for faults of *kind*."""

    def found(snapshot: Snapshot) -> Iterator[Finding]:
        """Yield one finding for each pool whose workers have such faults, and one for what belongs to no pool."""
        by_pool: dict[str | None, list[FaultView]] = {}
        for fault in snapshot.resources.faults:
            if fault.kind == kind:
                by_pool.setdefault(fault.pool, []).append(fault)
        for pool, faults in by_pool.items():
            worst = next((fault for fault in faults if fault.level == "bad"), faults[0])
            names = tuple(dict.fromkeys(fault.worker or fault.subject for fault in (worst, *faults)))
            yield Finding(kind, worst.level, pool, names, worst.value, worst.limit, reason=worst.reason or None)

    return found
