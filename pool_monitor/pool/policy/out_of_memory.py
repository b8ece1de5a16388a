"""Whether a process that was ended by signal 9 was ended by the kernel's out-of-memory killer."""

from __future__ import annotations

from collections import deque
from typing import Literal

Verdict = Literal["yes", "probably", "no"]
"""*yes*: the kernel has counted a kill in the cgroup that nothing else accounts for. *probably*: the same, but only the
count of the whole machine is known, or more processes have ended at once than were killed. *no*: nothing says so."""

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
        self._doubtful = 0  # ends that are to come, of which some kill explains one, and nobody knows which
        self._doubtful_at = 0.0

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

    def explain(self, now: float, others: int = 0) -> Verdict:
        """Say whether a kill explains an end that is noticed now. That kill explains no other one.

        *others* is the number of processes that have ended too, and whose ends will be asked about next. If there are
        fewer kills than ends, something else ended the others, and nothing says which: all are then *probably* killed.
        """
        while self._unexplained and now - self._unexplained[0][0] > FRESH:
            self._unexplained.popleft()
        if self._doubtful and now - self._doubtful_at <= FRESH:
            self._doubtful -= 1
            return "probably"
        if 0 < len(self._unexplained) <= others:
            self._unexplained.clear()
            self._doubtful, self._doubtful_at = others, now
            return "probably"
        return self._unexplained.popleft()[1] if self._unexplained else "no"
