"""Flapping: an alert that fires and resolves again and again.

Each change between firing and not firing adds 1 to the score of its alert, and the score halves in `HALF_LIFE`. An
alert flaps from a score of `START` on until it falls to `STOP`. Between the two nothing changes, so flapping itself
does not flap. With a change every three minutes the score settles at 7.7, every six at 4.1, every ten at 2.7, which
never starts. Routers treat a route that comes and goes in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from msgspec import Struct

from pool_monitor.alerts.lifecycle import FIRING_PHASES
from pool_monitor.alerts.saved_rows import SavedRows
from pool_monitor.snapshot import AlertTransition

HALF_LIFE = 15 * 60.0
"""Seconds of counted time (`inputs.Inputs.elapsed`) in which a score halves."""
START = 4.0
STOP = 1.5
SCORE_MAX = 16.0
"""Highest score, so that flapping is over within an hour after the last change."""
SCORES_MAX = 10_000
"""Most scores. A new one beyond that takes the place of the alert that has not changed for longest."""
_FORGOTTEN_AFTER = 6 * HALF_LIFE  # then even the highest score is 0.25
_QUIET = 0.5  # a score as low as this: its changes are long ago, and those that come are counted from 1


class FlapScore(Struct, kw_only=True):
    """How often an alert has changed lately."""

    score: float
    """At the counted time *at*."""
    at: float
    flapping: bool = False
    """Whether it flapped then."""
    changes: int = 1
    """The changes that it is made of."""

    def flaps(self, at: float) -> bool:
        """Whether it flaps at the counted time *at*, if nothing has changed since."""
        return self.flapping and self.now(at) > STOP

    def now(self, at: float) -> float:
        """Return the score at the counted time *at*."""
        return self.score * math.exp2(-max(at - self.at, 0.0) / HALF_LIFE)


class Flapping:
    """The scores of alerts, by fingerprint. Bound: `SCORES_MAX`. Time is counted time, so a suspended machine does not
    let a score fall.
    """

    def __init__(self) -> None:
        self.saved = SavedRows(FlapScore)
        self._at = 0.0

    def note(self, transitions: Iterable[AlertTransition], elapsed: float) -> None:
        """Let *elapsed* seconds of counted time pass, and then count *transitions*."""
        self._at += elapsed
        while self.saved and self._at - next(iter(self.saved.values())).at > _FORGOTTEN_AFTER:
            del self.saved[next(iter(self.saved))]
        for transition in transitions:
            if (transition.from_state in FIRING_PHASES) != (transition.to_state in FIRING_PHASES):
                self._count(transition.fingerprint)

    def __contains__(self, fingerprint: str) -> bool:
        """Whether the alert flaps."""
        found = self.saved.get(fingerprint)
        return found is not None and found.flaps(self._at)

    def changes(self, fingerprint: str) -> int:
        """Return how often an alert that flaps has lately begun or ceased to fire; 0: it does not flap."""
        found = self.saved.get(fingerprint)
        return found.changes if found is not None and found.flaps(self._at) else 0

    def restore(self, rows: Mapping[str, bytes]) -> list[str]:
        """Take over the rows of a state file. Returns the keys of those that cannot be used, which are left out.

        Counted time goes on from the latest row: time without a service does not let a score fall.
        """
        unusable = self.saved.restore(rows, _check)
        self.saved.sort(lambda one: one.at)
        while len(self.saved) > SCORES_MAX:
            del self.saved[next(iter(self.saved))]
        self._at = max([self._at, *(one.at for one in self.saved.values())])
        return unusable

    def _count(self, fingerprint: str) -> None:
        before = self.saved.pop(fingerprint)  # so that the scores are in the order of their latest changes
        score = min(1.0 + (0.0 if before is None else before.now(self._at)), SCORE_MAX)
        if len(self.saved) >= SCORES_MAX:
            del self.saved[next(iter(self.saved))]
        flapping = score >= START or (before is not None and before.flaps(self._at))
        changes = 1 if before is None or before.now(self._at) <= _QUIET else before.changes + 1
        self.saved[fingerprint] = FlapScore(score=score, at=self._at, flapping=flapping, changes=changes)


def _check(_fingerprint: str, found: FlapScore) -> None:
    if not (0 <= found.score <= SCORE_MAX and found.at >= 0 and found.changes >= 1):
        raise ValueError(found)
