"""`Detection`: what a pattern returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from pool_monitor.advisor.history import PoolHistory
from pool_monitor.snapshot.advice import Change, Effect, Pattern


class Detection(NamedTuple):
    """One thing that a pattern has found in a PoolHistory. It is told once it has lasted (see `persistence`)."""

    pattern: Pattern
    subject: str
    """``pool NAME``, ``worker SLOT``, ``operation NAME``, ``host``, ``process`` or ``loop``."""
    summary: str
    """One sentence with figures."""
    action: str
    evidence: Mapping[str, float]
    samples: int
    p: float
    """The probability of such figures if nothing were wrong. 0: the test has none."""
    fidelity: float
    """From 0 to 1: how well the model that *effect* comes from describes what was seen; 1: there is no model."""
    impact: float
    """From 0 to 1: the share of the pool's calls, or of its worker-seconds, that is concerned."""
    urgency: float
    """From 0 to 1: 1 is now, 0.5 is today, 0.1 is this week."""
    risk: int
    """Of the change, from 0 to 4."""
    samples_min: int
    """The fewest samples with which the pattern speaks at all."""
    change: Change | None = None
    effect: Effect | None = None
    check_first: str = ""


PatternCheck = Callable[[PoolHistory], Iterable[Detection]]
"""Finds a pattern. Yields nothing while there is too little data."""
