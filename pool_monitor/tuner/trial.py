"""The life of a trial, as a table; and `Trial`, what is kept of one."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field

from pool_monitor.snapshot.advice import Effect
from pool_monitor.snapshot.tuning import TRIAL_RUNNING, TRIAL_WAITING, TrialView
from pool_monitor.state_machine import StateMachine


class TrialStage(StrEnum):
    """The values of `TrialState`."""

    PROPOSED = "proposed"
    AWAITING_APPROVAL = "awaiting_approval"
    APPLYING = "applying"
    VALIDATING = "validating"
    ROLLING_BACK = "rolling_back"
    VERIFYING = "verifying"
    KEPT = "kept"
    ROLLED_BACK = "rolled_back"
    REJECTED = "rejected"
    EXPIRED = "expired"


TRIAL = StateMachine(
    "trial",
    TrialStage.PROPOSED,
    {
        TrialStage.PROPOSED: {
            "ask": TrialStage.AWAITING_APPROVAL,
            "begin": TrialStage.APPLYING,
            "refuse": TrialStage.REJECTED,
            "lapse": TrialStage.EXPIRED,
        },
        TrialStage.AWAITING_APPROVAL: {
            "begin": TrialStage.APPLYING,
            "refuse": TrialStage.REJECTED,
            "lapse": TrialStage.EXPIRED,
        },
        TrialStage.APPLYING: {
            "applied": TrialStage.VALIDATING,
            "fail": TrialStage.REJECTED,
            "undo": TrialStage.ROLLING_BACK,
            "leave": TrialStage.EXPIRED,
        },
        TrialStage.VALIDATING: {"keep": TrialStage.KEPT, "undo": TrialStage.ROLLING_BACK, "leave": TrialStage.EXPIRED},
        TrialStage.ROLLING_BACK: {"restored": TrialStage.VERIFYING, "leave": TrialStage.EXPIRED},
        TrialStage.VERIFYING: {"verified": TrialStage.ROLLED_BACK, "leave": TrialStage.EXPIRED},
        TrialStage.KEPT: {"undo": TrialStage.ROLLING_BACK},
        TrialStage.ROLLED_BACK: {},
        TrialStage.REJECTED: {},
        TrialStage.EXPIRED: {},
    },
)
"""What happens to a trial:

- ``ask``: a person must approve. ``begin``: it was approved, or may begin without.
- ``refuse``: a person or a check before the change is against it. ``lapse``: its reason is gone.
- ``applied``: the value is set. ``fail``: it could not be set, and nothing has changed.
- ``keep``: no harm was found. ``undo``: harm was found, a person asks for it, or the tuner must not go on.
- ``restored``: the old value is set again. ``verified``: it was measured whether that has helped.
- ``leave``: somebody else has set another value, or the pool is gone: there is nothing to restore.
"""
RUNNING = frozenset(map(TrialStage, TRIAL_RUNNING))
"""The states in which the value is, or may be, another one than before. A pool has at most one such trial."""
WAITING = frozenset(map(TrialStage, TRIAL_WAITING))
"""The states before anything has changed."""
FINAL = frozenset({TrialStage.ROLLED_BACK, TrialStage.REJECTED, TrialStage.EXPIRED})
"""The states that nothing follows. `TrialStage.KEPT` is left only when a person rolls it back."""


STEPS_MAX = 20
"""Steps of a trial that are kept: all states that it was in, which are ten at most, and the latest notes."""
STEP_TEXT_MAX = 300
"""Characters of the reason of a step, at most."""


class TrialStep(Struct, kw_only=True):
    """What has happened to a trial: it has entered a state, or the reason for its state has changed."""

    stage: TrialStage
    at: float
    """Wall-clock seconds."""
    reason: str
    actor: str = ""
    """Who asked for it; empty: the tuner."""
    note: bool = False
    """Whether the state was the same before."""


class Trial(Struct, kw_only=True):
    """One change of one tunable. Stored as a row; times are wall-clock seconds, but for those of `due`."""

    id: str
    pool: str
    knob: str
    unit: str
    before: float
    after: float
    stage: TrialStage = TrialStage.PROPOSED
    origin: str
    reason: str
    why: str = ""
    """Why it was proposed: *reason* says why it is in its state."""
    actor: str = ""
    cause: str = ""
    """What the proposal stands on, such as the id of a recommendation. It lapses with it. Empty: it stands alone."""
    pinned: float | None = None
    """The value with which the pool began: what the operator wrote."""
    effect: Effect | None = None
    measured: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    """What the verdict stands on, by name."""
    verdict: str = ""
    """``better``, ``no_harm``, ``harm`` or ``inconclusive``; empty: there is none yet."""
    false_rollback: bool = False
    """Whether it did not help to restore the old value: the change was not the cause."""
    approved: bool = False
    """Whether a person has approved it."""
    protective: bool = False
    """Whether it answers an overload: it may begin while an alert of the pool fires."""
    started_at: float
    changed_at: float
    due: float | None = None
    """Monotonic time at which the state ends by itself; None: it does not. It means nothing after a restart."""
    steps: list[TrialStep] = field(default_factory=list)
    """What has happened to it, the oldest first: `STEPS_MAX` at most."""

    def stepped(self, at: float, actor: str = "", *, note: bool = False) -> None:
        """Remember that its state, or the reason for it, is what it is now, because of *actor*.

        Of too many steps, notes are forgotten: first those of the tuner, the oldest first.
        """
        step = TrialStep(stage=self.stage, at=at, reason=self.reason[:STEP_TEXT_MAX], actor=actor, note=note)
        self.steps.append(step)
        if len(self.steps) > STEPS_MAX:
            there = self.steps[:-1]
            gone = next((one for one in there if one.note and not one.actor), None)
            gone = gone or next((one for one in there if one.note), self.steps[0])
            self.steps = [one for one in self.steps if one is not gone]

    @property
    def running(self) -> bool:
        return self.stage in RUNNING

    @property
    def waiting(self) -> bool:
        return self.stage in WAITING

    def view(self, now: float, wall: float) -> TrialView:
        """What is shown of it. *now* is monotonic, *wall* the same moment as wall-clock time."""
        return TrialView(
            id=self.id,
            pool=self.pool,
            knob=self.knob,
            unit=self.unit,
            before=self.before,
            after=self.after,
            state=self.stage.value,
            origin=self.origin,
            reason=self.reason,
            why=self.why,
            actor=self.actor,
            effect=self.effect,
            measured=self.measured,
            started_at=self.started_at,
            changed_at=self.changed_at,
            due_at=None if self.due is None else wall + (self.due - now),
        )
