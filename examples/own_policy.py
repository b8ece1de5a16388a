"""A policy of one's own for the size of a pool. Score it in the laboratory before it has your pool:

    python -m benchmarks lab --controllers tuner,examples.own_policy:Steps

and use it with ``[tuner] policy = "examples.own_policy:Steps"``. See docs/TUNING.md.
"""

from __future__ import annotations

from pool_monitor.tuner.observation import Observation


class Steps:
    """One worker more for each call that waits, one less after a minute in which a worker was free all the time."""

    def __init__(self) -> None:
        self.free_since: float | None = None

    def decide(self, observation: Observation) -> int | None:
        if observation.waiting:
            self.free_since = None
            return observation.size + observation.waiting
        if not observation.idle:
            self.free_since = None
            return None
        if self.free_since is None:
            self.free_since = observation.now
        if observation.now - self.free_since < 60:
            return None
        self.free_since = observation.now
        return observation.size - 1


if __name__ == "__main__":
    print(f"a policy for [tuner] policy = 'examples.own_policy:{Steps.__name__}'")
