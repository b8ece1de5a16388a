"""`SizePolicy`: our policy for the size of a pool."""

from __future__ import annotations

from pool_monitor.tuner.observation import Observation
from pool_monitor.tuner.sizing.presets import Preset


class SizePolicy:
    """Chooses the smallest size with which few calls wait longer than the target, and gets there safely.

    One object serves one pool. Time comes from the observations alone.
    """

    def __init__(self, preset: Preset | None = None) -> None:
        self._preset = preset or Preset()
        self.why = ""
        """What decided last, in words; empty: nothing yet."""
        self.ceiling: int | None = None
        """The highest size by a limit that was measured; None: there is none now."""
        self.needed: int | None = None
        """The size that the demand needs now, without bounds and steps; None: it knows too little."""

    def decide(self, observation: Observation) -> int | None:
        """Return the size that the pool should have; None: leave it. Always in the range of the observation."""
        return None
