"""Whether a process that was ended by signal 9 was ended by the kernel's out-of-memory killer."""

from __future__ import annotations

from collections import deque
from typing import Literal

Verdict = Literal["yes", "probably", "no"]
"""*yes*: the kernel has counted a kill in the cgroup that nothing else accounts for. *probably*: the same, but only the
count of the whole machine is known. *no*: nothing says so."""

FRESH = 30.0
"""Seconds for which a kill that was counted can explain an end. The kernel counts first, and a large process then takes
long to end."""
_WAITING_MAX = 64


class KillLedger:
    """Accounts for the kills that the kernel counts: each explains the end of one process, for `FRESH` seconds.

    So the ends of several workers that the kernel killed together are all explained. A kill of some other process
    explains nothing any more after that time. At most 64 kills wait.
    """

    def __init__(self) -> None:
        self._counts: dict[Verdict, int] = {}
        self._unexplained: deque[tuple[float, Verdict]] = deque(maxlen=_WAITING_MAX)

    def note(self, now: float, cgroup: int | None, machine: int | None) -> None:
        """Take the counts of the cgroup and of the machine; None: unknown. The first of a kind says nothing."""
        counts: dict[Verdict, int | None] = {"yes": cgroup, "probably": machine}
        for verdict, count in counts.items():
            if count is None:
                self._counts.pop(verdict, None)
                continue
            more = count - self._counts.get(verdict, count)
            self._counts[verdict] = count
            self._unexplained.extend([(now, verdict)] * min(max(0, more), _WAITING_MAX))

    def explain(self, now: float) -> Verdict:
        """Say whether a kill explains an end that is noticed now. That kill explains no other one."""
        while self._unexplained:
            at, verdict = self._unexplained.popleft()
            if now - at <= FRESH:
                return verdict
        return "no"
