"""`ContestedSettings`: notices that something else undoes what the tuner sets, such as a second tuner."""

from __future__ import annotations

from collections import deque

from pool_monitor.log import logger

TIMES, WITHIN_S = 5, 600.0
"""A setting is contested when so many values of the tuner were replaced in so long a time, until that has passed."""


class ContestedSettings:
    """What the tuner has set last, by pool and setting, and when it was replaced. Bound: `TIMES` times for each."""

    def __init__(self) -> None:
        self._own: dict[tuple[str, str], float] = {}
        self._replaced: dict[tuple[str, str], deque[float]] = {}

    def was_set(self, pool: str, knob: str, value: float) -> None:
        """The tuner has set *value*."""
        self._own[pool, knob] = value

    def look(self, now: float, pool: str, knob: str, value: float) -> None:
        """The setting has *value* now."""
        key = (pool, knob)
        if self._own.get(key, value) == value:
            return
        del self._own[key]
        times = self._replaced.setdefault(key, deque(maxlen=TIMES))
        was = self.why(now, pool, knob)
        times.append(now)
        if was is None and (found := self.why(now, pool, knob)) is not None:
            logger("tuner").warning(found, pool=pool, knob=knob)

    def keep(self, keys: set[tuple[str, str]]) -> None:
        """Forget all settings but *keys*."""
        self._own = {key: value for key, value in self._own.items() if key in keys}
        self._replaced = {key: times for key, times in self._replaced.items() if key in keys}

    def why(self, now: float, pool: str, knob: str) -> str | None:
        """Return in words why the setting is contested; None: it is not."""
        times = self._replaced.get((pool, knob))
        if times is None or len(times) < TIMES or now - times[0] > WITHIN_S:
            return None
        return f"something else has changed the {knob} of pool {pool} {TIMES} times in {WITHIN_S / 60:.0f} minutes"
