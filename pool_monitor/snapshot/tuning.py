"""What the tuner does: its mode, the trials, and the size that it wants for each pool."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pool_monitor.snapshot.advice import Effect

TunerMode = Literal["off", "recommend", "auto"]
TrialState = Literal[
    "proposed",
    "awaiting_approval",
    "applying",
    "validating",
    "rolling_back",
    "verifying",
    "kept",
    "rolled_back",
    "rejected",
    "expired",
]
"""The states of `pool_monitor.tuner.trial`, whose table says which follows which."""
TRIAL_WAITING: tuple[TrialState, ...] = ("proposed", "awaiting_approval")
"""The states of a trial that has changed nothing yet."""
TRIAL_RUNNING: tuple[TrialState, ...] = ("applying", "validating", "rolling_back", "verifying")
"""The states in which the value is being changed or judged."""
TRIAL_OVER: tuple[TrialState, ...] = ("kept", "rolled_back", "rejected", "expired")
"""The states of a trial that is over."""


ChangeState = Literal[TrialState, "set"]
"""The state of a trial; ``set``: a change without one, such as a decision of the policy or the schedule."""


class TrialView(Struct, frozen=True, kw_only=True):
    """One change of one tunable, from the proposal to its end."""

    id: str
    pool: str
    knob: str
    unit: str
    before: float
    """The value before the change, and the one that a rollback restores."""
    after: float
    """The value that is tried."""
    state: ChangeState
    origin: str
    """Why it was proposed: ``advice``, ``policy``, ``schedule``, ``season`` or ``manual``."""
    reason: str
    """Why it is in this state, in words."""
    why: str = ""
    """Why it was proposed, in words."""
    actor: str = ""
    """Who approved, rejected or rolled it back; empty: the tuner."""
    effect: Effect | None = None
    """What was expected."""
    measured: float | None = None
    """What the metric of *effect* came to; None: not measured."""
    started_at: float
    """Wall-clock time of the proposal, seconds since the epoch."""
    changed_at: float
    """When it entered its state."""
    due_at: float | None = None
    """When the state ends by itself; None: it does not."""


class SizingView(Struct, frozen=True, kw_only=True):
    """What the tuner wants for the size of one pool."""

    pool: str
    size: int
    """The size now."""
    wanted: int | None = None
    """The size that the policy wants; None: it knows too little."""
    low: int
    high: int
    """The range that it may use now."""
    floor: int | None = None
    """The lowest size by the schedule or the season; None: there is none now."""
    ceiling: int | None = None
    """The highest size by a limit that was measured; None: there is none now."""
    why: str = ""
    """What decided, in words."""


class TuningView(Struct, frozen=True, kw_only=True):
    """The tuner of a monitor."""

    mode: TunerMode
    policy: str
    frozen: str | None = None
    """Why nothing is changed, in words; None: it is not frozen."""
    frozen_until: float | None = None
    """Wall-clock time at which it ends by itself; None: not frozen, or until a person ends it."""
    pending: tuple[TrialView, ...] = ()
    """The trials that wait for approval, the oldest first."""
    trials: tuple[TrialView, ...] = ()
    """The latest other trials, the newest first."""
    sizing: tuple[SizingView, ...] = ()
    ended: dict[TrialState, int] = {}
    """How many trials have ended in each state since the monitor was made."""


class TuningReport(Struct, frozen=True, kw_only=True):
    """The tuner of a service, and what it has done."""

    tuning: TuningView | None
    """None: the tuner is off and was never on."""
    history: tuple[TrialView, ...] = ()
    """The latest changes, the newest first."""
