"""When the tuner changes nothing, and why.

- A *freeze* concerns everything: a person asked for it, trials were rolled back again and again, or a policy fails. It
  is stored.
- A *hold* concerns everything for a short time: figures are missing, or a clock has jumped. Nobody needs to end it.
- A *block* concerns one pool as long as its reason lasts: an alert fires.

Under each of them, a pool may still grow by its policy and its schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from pool_monitor.snapshot.alerts import AlertView
from pool_monitor.tuner.audit import Freeze, TunerSettings
from pool_monitor.tuner.pace import Pace

ROLLBACKS, WITHIN_S = 3, 3600.0
"""So many rollbacks in so long a time freeze the tuner."""
FREEZES, FREEZES_WITHIN_S = 2, 86_400.0
"""So many such freezes in so long a time take the mode back to ``recommend``."""
FREEZES_MAX = 20
"""Freezes at the same time. Of more, the oldest is dropped."""
JUMP_S = 5.0
"""By how much the wall clock may differ from the monotonic one until it has jumped."""
_FIRING = ("firing", "recovering")


class FreezeBook:
    """All freezes and holds. The time of a freeze runs on the monotonic clock, so that a wrong clock does not end it.
    Bound: `FREEZES_MAX`.
    """

    def __init__(self, settings: TunerSettings, pace: Pace) -> None:
        self._settings, self._pace = settings, pace
        self._due: dict[int, float] = {}  # monotonic, by identity of the freeze
        self._hold, self._hold_due = "", -math.inf

    def frozen(self, now: float, wall: float) -> Freeze | None:
        """The freeze that lasts longest; None: there is none. Those that are over are removed."""
        lasting = []
        for freeze in self._settings.freezes:
            if freeze.until is None:
                lasting.append((math.inf, freeze))
                continue
            if id(freeze) not in self._due:  # of the run before
                self._due[id(freeze)] = now + min(freeze.until - wall, max(0.0, freeze.until - freeze.since))
            if (due := self._due[id(freeze)]) > now:
                lasting.append((due, freeze))
        if len(lasting) < len(self._settings.freezes):
            self._settings.freezes = [freeze for _, freeze in lasting]
            self._due = {id(freeze): due for due, freeze in lasting if due < math.inf}
        return max(lasting, key=lambda one: one[0])[1] if lasting else None

    def until(self, freeze: Freeze, now: float, wall: float) -> float | None:
        """The wall-clock time at which *freeze* ends; None: a person has to end it."""
        due = self._due.get(id(freeze))
        return None if due is None else wall + (due - now)

    def add(self, kind: str, reason: str, now: float, wall: float, seconds: float | None, author: str = "") -> None:
        """Freeze for *seconds*; None: until `thaw`. One of the same kind is replaced."""
        freeze = Freeze(kind=kind, reason=reason, author=author, since=wall)
        if seconds is not None:
            freeze.until = wall + seconds
            self._due[id(freeze)] = now + seconds
        others = [one for one in self._settings.freezes if one.kind != kind]
        self._settings.freezes = [*others, freeze][-FREEZES_MAX:]
        kept = {id(one) for one in self._settings.freezes}
        self._due = {key: due for key, due in self._due.items() if key in kept}

    def has(self, kind: str) -> bool:
        """Whether there is a freeze of that kind."""
        return any(freeze.kind == kind for freeze in self._settings.freezes)

    def thaw(self) -> None:
        """End all freezes, and forget the rollbacks that led to them."""
        settings = self._settings
        settings.freezes, settings.rollbacks, settings.frozen_at = [], [], []
        self._due.clear()
        self._hold_due = -math.inf

    def rolled_back(self, now: float, wall: float) -> str | None:
        """Note a rollback for harm. Returns why the mode has to be taken back; None: it has not."""
        settings = self._settings
        earlier = [at for at in settings.rollbacks if 0 <= wall - at < WITHIN_S]
        settings.rollbacks = [*earlier[-ROLLBACKS:], wall]
        if len(settings.rollbacks) < ROLLBACKS:
            return None
        settings.rollbacks = []
        hours = f"{self._pace.freeze / 3600:g} h"
        self.add("rollbacks", f"{ROLLBACKS} changes were rolled back within an hour", now, wall, self._pace.freeze)
        before = [at for at in settings.frozen_at if 0 <= wall - at < FREEZES_WITHIN_S]
        settings.frozen_at = [*before[-FREEZES:], wall]
        if len(settings.frozen_at) < FREEZES:
            return None
        settings.frozen_at = []
        return f"{ROLLBACKS} rollbacks have frozen it {FREEZES} times within a day, for {hours} each"

    def hold(self, reason: str, now: float, seconds: float) -> None:
        """Hold everything for *seconds*. A hold that lasts longer stays."""
        if now + seconds > self._hold_due:
            self._hold, self._hold_due = reason, now + seconds

    def held(self, now: float) -> str | None:
        """Why everything is held; None: it is not."""
        return self._hold if now < self._hold_due else None


def firing(alerts: Iterable[AlertView], pool: str, since: float = -math.inf) -> str | None:
    """The name of an alert of *pool* that fires, and has begun at *since* (wall clock) or later; None: none does."""
    for alert in alerts:
        if alert.state in _FIRING and alert.labels.get("pool") == pool and alert.since >= since:
            return alert.alertname
    return None
