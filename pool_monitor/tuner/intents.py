"""What the core of the tuner is given, and what it wants done: values between `core` and `driver`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pool_monitor.advisor.history import PoolHistory
from pool_monitor.snapshot.advice import Recommendation
from pool_monitor.snapshot.alerts import AlertView
from pool_monitor.tunable import Tunable
from pool_monitor.tuner.observation import Observation


class Pending:
    """The class of `PENDING`."""


PENDING = Pending()
"""Something is being judged: ask again with the next step."""
T = TypeVar("T")
HistoryJudge = Callable[[PoolHistory | None], T]
"""Judges the history of a pool; None: nothing was measured. It may be called in a thread."""


class TunerInputs(NamedTuple):
    """What is known at one step."""

    tunables: Mapping[str, Sequence[Tunable]]
    """By pool. The core reads them and sets none."""
    observations: Mapping[str, Observation] = {}
    """By pool: what has happened since the step before. A pool that is not here was not measured."""
    measured: bool = True
    """False: nothing was measured since the step before, and *observations* are those of that step."""
    history: Callable[[str], PoolHistory | None] = lambda _pool: None
    """Makes the history of a pool; None: there is none. It is called only while something is judged, and at most every
    5 s for a pool.
    """
    later: Callable[[str, str, HistoryJudge[Any]], Any] | None = None
    """``later(key, pool, judge)`` judges the history of *pool* in a thread, and returns `PENDING` until it has. None:
    it is judged at once, from *history*, as in the laboratory."""
    recommendations: Sequence[Recommendation] = ()
    alerts: Sequence[AlertView] = ()
    outage: str | None = None
    """Why the figures of now cannot be trusted, such as a collector that is degraded; None: they can."""
    deployed_at: float | None = None
    """Wall-clock time of the latest mark of a deployment; None: there is none."""


class StoreRows(NamedTuple):
    """Keep rows: by table and key; None: the row is gone. What follows waits until they are on the disk."""

    rows: Mapping[str, Mapping[str, bytes | None]]


class Apply(NamedTuple):
    """Set a tunable. The driver answers with `TunerCore.applied` or `TunerCore.failed`."""

    pool: str
    knob: str
    value: float
    trial: str | None = None
    """The id of the trial; None: a decision of the policy or the schedule."""
    grows: bool = False
    """Whether it adds workers: then it is done although it could not be stored."""
    restores: bool = False
    """Whether it restores an earlier value: it is done then too, and while the tuner is off."""


class Emit(NamedTuple):
    """Execute ``tuning.transition``."""

    measurements: dict[str, float]
    metadata: dict[str, Any]


Intent = StoreRows | Apply | Emit
