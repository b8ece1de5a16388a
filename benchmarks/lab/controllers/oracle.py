"""The oracle: it knows the rate and the service time of every moment, and looks ahead by the time that a start takes.

It has the smallest size at which, by Erlang C with the factor of Allen and Cunneen, 5 % of the calls wait longer than
the target. It is no bound: it aims at 5 % of violations and not at none.
"""

from __future__ import annotations

from collections.abc import Callable

from pool_monitor.tuner.observation import Observation


class Oracle:
    """*wanted* returns the smallest size for the load in a second of the scenario."""

    def __init__(self, wanted: Callable[[int], int]) -> None:
        self._wanted = wanted
        self._begin: float | None = None

    def decide(self, observation: Observation) -> int:
        if self._begin is None:
            self._begin = observation.now - observation.interval
        now = int(observation.now - self._begin)
        return max(self._wanted(now + ahead) for ahead in range(int(observation.cold_start) + 2))
