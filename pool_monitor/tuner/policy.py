"""`Policy`: the interface of what chooses the size of a pool."""

from __future__ import annotations

from typing import Protocol

from pool_monitor.tuner.observation import Observation


class Policy(Protocol):
    """Chooses the size of one pool. One policy object serves one pool; it may remember what it was shown.

    It is called in the event loop of the service once per ``interval``, and must return within a millisecond. Name it
    in the configuration, ``policy = "my_service.sizing:Steps"``, and score it first: ``python -m benchmarks lab
    --controllers tuner,my_service.sizing:Steps``.
    """

    def decide(self, observation: Observation) -> int | None:
        """Return the size that the pool should have; None: leave it. A size outside the range is clipped.

        An exception is logged and counts as None; after three in a row the tuner is frozen.
        """
