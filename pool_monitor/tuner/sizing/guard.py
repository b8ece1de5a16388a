"""`Guard`: finds out whether more workers have made calls slower, and takes the growth back if they have.

Workers may share something whose size nobody knows: a database, a lock, a processor that nothing measures. Then a
larger pool makes each call slower and ends no more calls, and a policy that sees a longer queue would grow for ever.
So each growth opens an *episode*: the calls that started before its workers were ready are compared with the calls that
started after, both once they have had the time to end.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

from pool_monitor.state_machine import StateMachine
from pool_monitor.tuner.sizing.service import StartCohort, StartCohorts

GROWTH = 0.1
"""A growth by this share opens an episode."""
SLOWER = 1.15
"""Calls whose mean time is above so many times that of before are slower."""
HARMLESS = 1.35
"""And below so many times it, with 95 % confidence, the growth is harmless."""
STOP_Z, BACK_Z = 2.0, 4.0
"""Standard errors with which growth is stopped, and taken back."""
PROBE = 0.2
"""After a ceiling, growth beyond it is tried with this share of it."""
WORTH, DOUBTFUL = 0.3, 0.6
"""A growth that brings less than this share of what it would bring without contention is not worth it, or doubtful."""
CALLS_MIN = 20
"""The fewest calls of each side."""
CEILING_S, CEILING_MOST_S = 120.0, 900.0
"""How long a ceiling stands: twice as long with each one that follows another."""
IMMUNE_S = 120.0
RECENT_S = 4.0
"""Calls of so many seconds, or of eight mean times, are those after the growth."""
JUDGED_S = 120.0
"""An episode that is not judged for so long is closed: what came before it is too old to compare with."""


class GuardState(StrEnum):
    """What the guard is at."""

    WATCHING = "watching"
    CHECKING = "checking"
    STOPPED = "stopped"
    ROLLED_BACK = "rolled_back"
    IMMUNE = "immune"


GUARD = StateMachine(
    "guard",
    GuardState.WATCHING,
    {
        GuardState.WATCHING: {"grew": GuardState.CHECKING},
        GuardState.CHECKING: {
            "slower": GuardState.STOPPED,
            "harmful": GuardState.ROLLED_BACK,
            "harmless": GuardState.WATCHING,
            "expired": GuardState.WATCHING,
        },
        GuardState.STOPPED: {
            "not slower": GuardState.CHECKING,
            "harmful": GuardState.ROLLED_BACK,
            "harmless": GuardState.WATCHING,
            "expired": GuardState.WATCHING,
        },
        GuardState.ROLLED_BACK: {"not the cause": GuardState.IMMUNE, "expired": GuardState.WATCHING},
        GuardState.IMMUNE: {"expired": GuardState.WATCHING},
    },
)
"""An episode begins with ``grew``. A rollback whose calls are as slow as before was wrong: the guard is then silent for
a while.
"""


class _Episode(NamedTuple):
    before: int
    """The size before the growth."""
    service: float
    """The mean time of a call then."""
    at: float
    ready: float
    """When the new workers are ready."""


class Guard:
    """The guard of one pool. To be shown every observation, in order."""

    def __init__(self) -> None:
        self.state = GUARD.first
        self.rollbacks = self.false_rollbacks = 0
        """Since the beginning."""
        self._episode: _Episode | None = None
        self._all_ready = -math.inf
        """When the workers of the latest growth are ready: the episode may hold several."""
        self._slow_mean = math.nan
        self._ceiling = 0
        self._until = math.inf
        self._back_at = math.nan
        self._fails = 0
        self._size: int | None = None
        self._seen_at = math.nan

    @property
    def ceiling(self) -> int | None:
        """The highest size that has not done harm; None: no growth was taken back lately."""
        return self._ceiling if self.state is GuardState.ROLLED_BACK else None

    def gap(self) -> None:
        """Give up the episode: there are no observations of a part of it. A ceiling stands."""
        if self.state in (GuardState.CHECKING, GuardState.STOPPED):
            self._step("expired")
        self._size = None

    def look(self, now: float, size: int, service: float | None, cold_start: float, cohorts: StartCohorts) -> None:
        """Take one observation, and go on to the next state if the time or the evidence says so."""
        grown_from = self._size
        grew = grown_from is not None and size >= grown_from + max(1.0, GROWTH * grown_from)
        if self.state is GuardState.WATCHING and grown_from is not None and grew and service:
            self._open(_Episode(grown_from, service, self._seen_at, self._seen_at + cold_start))
        if grown_from is not None and size > grown_from:
            self._all_ready = self._seen_at + cold_start
        self._size, self._seen_at = size, now
        if self.state in (GuardState.CHECKING, GuardState.STOPPED):
            self._judge(now, size, service or 0.0, cohorts)
        elif self.state is GuardState.ROLLED_BACK:
            self._verify(now, cohorts)
        elif self.state is GuardState.IMMUNE and now >= self._until:
            self._step("expired")

    def limit(self, now: float, size: int, cold_start: float) -> int | None:
        """Return the highest size that is allowed now; None: any."""
        episode = self._episode
        if self.state is GuardState.ROLLED_BACK:
            return self._ceiling
        if self.state is GuardState.STOPPED:
            return size
        if self._fails:  # a growth beyond the last ceiling is tried in small steps
            return max(size if self.state is GuardState.CHECKING else 0, self._ceiling + self._probe())
        if self.state is GuardState.CHECKING and episode is not None:
            known = now >= episode.ready + 4 * episode.service
            if not known or 4 * episode.service > cold_start:
                # What is not decided for long may be harmless: a load that grows must not wait for it for ever.
                turns = max(0.0, now - episode.ready - 4 * episode.service) // (10 + 8 * episode.service)
                most = 2.0 ** min(1 + turns, 16)
                return max(int(most * episode.before), episode.before + 4, size)
        return None

    def _probe(self) -> int:
        return max(1, math.ceil(PROBE * self._ceiling))

    def why(self) -> str:
        """Return the reason of the limit in words; empty: there is none worth a word."""
        if self.state is GuardState.ROLLED_BACK:
            return f"above {self._ceiling} workers calls became slower"
        if self.state is GuardState.STOPPED:
            return "calls have become slower since the pool grew"
        if self.state is GuardState.CHECKING:
            return "it grew a moment ago, and whether that helps is not known yet"
        return ""

    def _open(self, episode: _Episode) -> None:
        self._step("grew")
        self._episode = episode
        self._until = episode.ready + 4 * episode.service + max(JUDGED_S, 20 * episode.service)

    def _judge(self, now: float, size: int, service: float, cohorts: StartCohorts) -> None:
        episode = self._episode
        if episode is None:
            return
        if now >= self._until or size <= episode.before:
            self._step("expired")
            return
        usual = max(episode.service, min(service, 5 * episode.service))
        if now < episode.ready + 4 * usual:
            return
        # Counted anew each time: a call that takes very long is missing at first.
        low = cohorts.between(episode.at - max(1.0, 2 * episode.service), episode.ready)
        last = now - 4 * usual
        first = max(last - max(RECENT_S, 8 * usual), episode.ready)
        if low.calls < CALLS_MIN:  # there is nothing to compare with, and there never will be
            self._step("expired")
            return
        if last - first < 1.0:
            return
        high = cohorts.between(first, last)
        if high.calls < CALLS_MIN:
            return
        self._compare(now, size, episode.before, low, high, complete=first >= self._all_ready)

    def _compare(
        self, now: float, size: int, before: int, low: StartCohort, high: StartCohort, *, complete: bool
    ) -> None:
        z = (high.mean - low.mean) / math.sqrt(max(high.variance + low.variance, 1e-18))
        slower = high.mean > SLOWER * low.mean
        gain, full = (size / high.mean) / (before / low.mean), size / before - 1
        if slower and z > BACK_Z and gain < 1 + WORTH * full:
            self._step("harmful")
            self.rollbacks += 1
            self._ceiling, self._back_at, self._slow_mean = before, now, high.mean
            self._until = now + min(CEILING_S * 2**self._fails, CEILING_MOST_S)
            self._fails = min(self._fails + 1, 10)
        elif slower and z > STOP_Z and gain < 1 + DOUBTFUL * full:
            if self.state is GuardState.CHECKING:
                self._step("slower")
        elif high.mean + 1.64 * math.sqrt(high.variance) < HARMLESS * low.mean:
            if complete:  # otherwise only the beginning of the growth is known to be harmless
                self._step("harmless")
                self._fails = 0
        elif self.state is GuardState.STOPPED:
            self._step("not slower")

    def _verify(self, now: float, cohorts: StartCohorts) -> None:
        if now >= self._until:
            self._step("expired")
            return
        mean = self._slow_mean
        if math.isnan(mean) or now < self._back_at + 3 + 8 * mean:
            return
        after = cohorts.between(self._back_at + 3, now - 4 * mean)
        if after.calls < CALLS_MIN:
            return
        self._slow_mean = math.nan  # it is judged once
        if after.mean > 0.9 * mean:
            self._step("not the cause")
            self.false_rollbacks += 1
            self._until = now + IMMUNE_S

    def _step(self, trigger: str) -> None:
        self.state = GUARD.step(self.state, trigger)
        if self.state in (GuardState.WATCHING, GuardState.IMMUNE):
            self._episode = None
