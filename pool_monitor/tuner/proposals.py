"""`Proposer`: makes proposals of what the advisor recommends, and lets them lapse with their reason."""

from __future__ import annotations

from pool_monitor.snapshot.advice import Effect, Recommendation
from pool_monitor.tunable import Tunable
from pool_monitor.tuner.memory import TunerMemory
from pool_monitor.tuner.rules import rule_of, same, stepped
from pool_monitor.tuner.trial import Trial, TrialStage

PROTECTING = ("overloaded",)
"""The patterns whose change answers an overload."""
PATIENCE_S = 600.0
"""For how long a proposal of the policy stays as it is, when the policy wants a little more or less meanwhile."""
FORGET_S = 7 * 86_400.0
"""Age at which a rollback no longer speaks against a new trial."""


class Proposer:
    """Keeps at most one proposal for each setting of each pool."""

    def __init__(self, memory: TunerMemory) -> None:
        self._memory = memory

    def step(self) -> None:
        """Propose what is new, and let lapse what is not true any more."""
        memory = self._memory
        self._lapse()
        if memory.mode == "off":
            return
        for found in memory.inputs.recommendations:
            if found.change is None or found.pool is None or found.state not in ("new", "open"):
                continue
            knob = found.change.knob
            if knob == "size" and memory.mode == "auto":
                continue  # the policy chooses the size
            if (tunable := memory.tunable(found.pool, knob)) is not None:
                self._recommended(found, found.pool, tunable, found.change.proposed)

    def propose(
        self,
        pool: str,
        tunable: Tunable,
        wanted: float,
        *,
        origin: str,
        reason: str,
        cause: str,
        effect: Effect | None = None,
        protective: bool = False,
    ) -> Trial | None:
        """Propose *wanted*, or the first step towards it. None: there is nothing to propose, or it may not be again.

        A proposal for the same setting that waits is replaced, unless it is the same, or was approved.
        """
        memory = self._memory
        after = stepped(tunable, wanted, memory.allowed(tunable))
        if same(after, tunable.value, tunable.step):
            return None
        for one in memory.book.waiting():
            if (one.pool, one.knob) == (pool, tunable.name):
                if one.approved or same(one.after, after, tunable.step) or one.origin == "manual":
                    return None
                if one.cause == cause and origin == "policy" and memory.wall - one.started_at < PATIENCE_S:
                    return None
                if one.cause != cause and one.origin == "advice":
                    return None  # the advisor knows more than a policy
                memory.book.move(one, "lapse", memory.wall, f"{after:g} is proposed instead")
        if self._refused(pool, tunable, after, cause):
            return None
        if not same(after, wanted, tunable.step):
            reason = f"{reason} (a first step towards {wanted:g})"
        return memory.book.add(
            memory.wall,
            pool,
            tunable.name,
            tunable.unit,
            tunable.value,
            after,
            origin=origin,
            reason=reason,
            cause=cause,
            pinned=memory.pinned.get((pool, tunable.name)),
            effect=effect,
            protective=protective,
        )

    def _recommended(self, found: Recommendation, pool: str, tunable: Tunable, wanted: float) -> None:
        protective = found.pattern in PROTECTING and wanted > tunable.value
        effect = found.effect
        self.propose(
            pool,
            tunable,
            wanted,
            origin="advice",
            reason=found.summary,
            cause=found.id,
            effect=effect,
            protective=protective,
        )

    def _lapse(self) -> None:
        memory = self._memory
        open_now = {one.id for one in memory.inputs.recommendations if one.state in ("new", "open")}
        for trial in memory.book.waiting():
            tunable = memory.tunable(trial.pool, trial.knob)
            if memory.wall - trial.started_at > memory.pace.expire:
                self._end(trial, "nobody has approved it")
            elif trial.origin == "advice" and trial.cause not in open_now and not trial.approved:
                self._end(trial, "its reason is gone")
            elif tunable is None:
                # The pool may be entered later, or could not be asked for a moment.
                if memory.now - (memory.began or 0.0) > memory.pace.settle and memory.gone(trial.pool, trial.knob):
                    self._end(trial, f"pool {trial.pool} has no setting {trial.knob} any more")
            elif not same(tunable.value, trial.before, tunable.step):
                self._end(trial, f"the value is {tunable.value:g} by now")

    def _end(self, trial: Trial, reason: str) -> None:
        self._memory.book.move(trial, "lapse", self._memory.wall, reason)

    def _refused(self, pool: str, tunable: Tunable, after: float, cause: str) -> bool:
        """Whether a trial of this setting was lately ended, so that it is too early for another one."""
        memory = self._memory
        up, failures = after > tunable.value, 0
        for trial in memory.book.of(pool, tunable.name):
            age = max(0.0, memory.wall - trial.changed_at)
            same_way = (trial.after > trial.before) is up
            if trial.stage is TrialStage.KEPT and age < rule_of(tunable.name).cool_down:
                return True
            if not same_way:
                continue
            if (
                trial.stage is TrialStage.REJECTED
                and age < memory.pace.expire
                and (trial.cause == cause or not trial.actor)
            ):
                return True
            if trial.stage is TrialStage.KEPT:
                break
            if trial.stage is TrialStage.ROLLED_BACK and not (trial.verdict or _undone_by_hand(trial)):
                if age < rule_of(tunable.name).cool_down:  # it was ended for another reason, such as a release
                    return True
                continue
            if trial.stage is TrialStage.ROLLED_BACK and age < FORGET_S:
                if failures == 0:
                    latest = age
                failures += 1
        if failures == 0:
            return False
        return failures >= memory.pace.retries or latest < memory.pace.retry * 2 ** (failures - 1)


def _undone_by_hand(trial: Trial) -> bool:
    """Whether a person has rolled *trial* back."""
    return any(step.stage is TrialStage.ROLLING_BACK and step.actor for step in trial.steps)
