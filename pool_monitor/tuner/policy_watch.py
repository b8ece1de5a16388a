"""`PolicyWatch`: undoes what a user's policy does to a pool in the mode ``auto``, if it is plain harm.

Our own policy looks after itself (see `sizing.guard`). That of a user may be anything, so each of its changes is looked
at for one validation window, as that of a trial is.
"""

from __future__ import annotations

from typing import NamedTuple

from pool_monitor.tunable import effect_delay
from pool_monitor.tuner.comparison import TrialWindow, plain_harm
from pool_monitor.tuner.memory import TunerMemory
from pool_monitor.tuner.running import TrialRunner

HOLD_S = 120.0
"""For how long the policy may not go there again. It doubles with each rollback, up to `HOLD_MAX_S`."""
HOLD_MAX_S = 900.0


class _Episode:
    """A change of the size, or several in the same direction."""

    def __init__(self, before: int, at: float) -> None:
        self.before, self.began, self.at = before, at, at
        self.after = before
        self.look = at


class Bound(NamedTuple):
    """A limit after a rollback, until a monotonic time."""

    low: int
    high: int
    until: float


class PolicyWatch:
    """Looks after one pool."""

    def __init__(self, pool: str, memory: TunerMemory, runner: TrialRunner) -> None:
        self._pool, self._memory, self._runner = pool, memory, runner
        self._episode: _Episode | None = None
        self._bound: Bound | None = None
        self._rollbacks = 0

    def bounded(self, wanted: int) -> int:
        """Return *wanted* within the limit that a rollback has left."""
        bound = self._bound
        if bound is None or self._memory.now >= bound.until:
            return wanted
        return min(max(wanted, bound.low), bound.high)

    def changed(self, before: int, after: int) -> None:
        """The policy has changed the size."""
        now, episode = self._memory.now, self._episode
        if (
            episode is None
            or (after > before) is not (episode.after > episode.before)
            or now - episode.began > self._memory.pace.validation
        ):
            self._episode = episode = _Episode(before, now)
        episode.after, episode.at, episode.look = after, now, now + self._memory.pace.look

    def step(self, low: int, high: int) -> None:
        """Look whether the latest change does harm, and undo it then, within *low* to *high*."""
        memory, episode = self._memory, self._episode
        if episode is None or memory.now < episode.look or memory.book.running(self._pool) is not None:
            return
        if memory.now - episode.at > memory.pace.validation:
            self._episode, self._rollbacks = None, 0
            return
        episode.look = memory.now + memory.pace.look
        history = memory.inputs.history(self._pool)
        if history is None:
            return
        tunable = memory.tunable(self._pool, "size")
        settled = episode.at + (
            effect_delay(tunable) if tunable is not None and episode.after > episode.before else 0.0
        )
        window = TrialWindow(
            "size", episode.before, episode.after, episode.began - memory.pace.baseline, episode.began, settled
        )
        if (harm := plain_harm(history, window)) is None or not low <= episode.before <= high:
            return
        self._undo(episode, harm, low, high)

    def _undo(self, episode: _Episode, harm: str, low: int, high: int) -> None:
        memory = self._memory
        self._episode = None
        seconds = min(HOLD_S * 2**self._rollbacks, HOLD_MAX_S)
        self._rollbacks += 1
        grew = episode.after > episode.before
        limits = (low, episode.before) if grew else (episode.before, high)
        self._bound = Bound(*limits, memory.now + seconds)
        trial = memory.book.add(
            memory.wall,
            self._pool,
            "size",
            "count",
            float(episode.before),
            float(episode.after),
            origin="policy",
            reason=f"the policy has changed the size {memory.now - episode.began:.0f} s ago",
            pinned=memory.pinned.get((self._pool, "size")),
        )
        self._runner.adopt(trial, episode.began, episode.at)
        self._runner.undo(trial, harm, own=True)
