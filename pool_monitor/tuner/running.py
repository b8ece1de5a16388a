"""`TrialRunner`: drives the trials that have changed a value to their verdict."""

from __future__ import annotations

import math

from pool_monitor.log import logger
from pool_monitor.tunable import Tunable, effect_delay
from pool_monitor.tuner.comparison import TrialVerdict, TrialWindow, judge, plain_harm
from pool_monitor.tuner.freeze import firing
from pool_monitor.tuner.intents import Apply
from pool_monitor.tuner.memory import TunerMemory
from pool_monitor.tuner.rules import rule_of, same
from pool_monitor.tuner.trial import Trial, TrialStage

RESTORES_MAX = 10
"""How often it is tried to restore a value that cannot be set."""
POOLS_MAX = 256
"""Pools of which it is known when their latest trial ended."""
VERIFY_CALLS = 40
"""Calls that a verification needs. With fewer, it stays open whether restoring has helped."""
INTERRUPTED = "the service ended during the trial"


class _Course:
    """Times of a running trial, on the monotonic clock."""

    __slots__ = ("applied", "asked", "changed", "harm", "look", "own", "resumed", "settled", "tries")

    def __init__(self) -> None:
        self.asked: float | None = None
        """When the value was asked to be set; None: that is not under way."""
        self.changed = math.nan
        """When the new value was set."""
        self.applied = math.nan
        """When the value of now was set: the new one, or the old one again."""
        self.settled = self.look = math.nan
        self.harm = ""
        self.own = False
        """Whether the tuner has found the harm itself."""
        self.resumed = False
        self.tries = 0


class TrialRunner:
    """Looks at each running trial once a step. Bound: one trial for each pool."""

    def __init__(self, memory: TunerMemory) -> None:
        self._memory = memory
        self._courses: dict[str, _Course] = {}
        self._ended: dict[str, float] = {}
        """By pool: the monotonic time at which its latest trial ended."""
        for trial in memory.book.active():
            self._course(trial).resumed = True

    def ended(self, pool: str) -> float:
        """When the latest trial of *pool* ended, monotonic; minus infinity: none has."""
        return self._ended.get(pool, -math.inf)

    def begin(self, trial: Trial, reason: str, actor: str = "") -> None:
        """Apply *trial*: it may begin. Raises IllegalTransition unless it waits."""
        memory = self._memory
        tunable = memory.tunable(trial.pool, trial.knob)
        if tunable is not None:
            trial.before = tunable.value
        self._courses[trial.id] = course = _Course()
        memory.book.move(trial, "begin", memory.wall, reason, actor)
        course.asked = memory.now
        memory.out.append(Apply(trial.pool, trial.knob, trial.after, trial.id))

    def adopt(self, trial: Trial, changed: float, settled: float) -> None:
        """Take over *trial*, a proposal whose value was set at *changed* without it."""
        memory, course = self._memory, self._course(trial)
        course.changed = course.applied = changed
        course.settled = settled
        memory.book.move(trial, "begin", memory.wall, "the policy has set it")
        memory.book.move(trial, "applied", memory.wall, "the policy has set it")

    def undo(self, trial: Trial, reason: str, actor: str = "", *, own: bool = False) -> None:
        """Restore the value before *trial*. *own*: the tuner has found harm. Does nothing if that is under way."""
        if trial.stage in (TrialStage.ROLLING_BACK, TrialStage.VERIFYING):
            return
        if own:
            trial.verdict = "harm"
        memory, course = self._memory, self._course(trial)
        course.harm, course.own, course.tries = reason, own, 0
        memory.book.move(trial, "undo", memory.wall, reason, actor)
        self._restore(trial, course)

    def leave(self, trial: Trial, reason: str) -> None:
        """End *trial* without restoring anything: another value was set."""
        self._end(trial, "leave", reason)

    def forget(self, trial: Trial, reason: str, actor: str) -> None:
        """Record that the value of a kept *trial* was restored otherwise."""
        memory = self._memory
        memory.book.move(trial, "undo", memory.wall, reason, actor)
        memory.book.move(trial, "restored", memory.wall, reason)
        memory.book.move(trial, "verified", memory.wall, reason)

    def step(self) -> None:
        """Do what is due."""
        for trial in self._memory.book.active():
            self._look(trial)

    # -- what the driver tells --------------------------------------------------------------------------------------

    def applied(self, trial: Trial, value: float) -> None:
        """The value of *trial* is set."""
        memory, course = self._memory, self._course(trial)
        course.asked = None
        if trial.stage is TrialStage.APPLYING:
            if not same(value, trial.after):  # the pool may round
                trial.after = value
            self._validate(trial, course)
        elif trial.stage is TrialStage.ROLLING_BACK:
            memory.book.move(trial, "restored", memory.wall, trial.reason)
            course.applied = memory.now
            if course.resumed:
                self._end(trial, "verified", f"{course.harm}; {trial.before:g} is restored")
            else:
                trial.due = memory.now + self._verify_s(trial)

    def failed(self, trial: Trial, reason: str, *, gone: bool) -> None:
        """The value of *trial* could not be set."""
        course = self._course(trial)
        course.asked = None
        if trial.stage is TrialStage.APPLYING:
            self._end(trial, "leave" if gone else "fail", reason)
        elif trial.stage is TrialStage.ROLLING_BACK:
            course.tries += 1
            if gone or course.tries >= RESTORES_MAX:
                self._end(trial, "leave", f"{trial.before:g} could not be restored: {reason}")

    # -- each state -------------------------------------------------------------------------------------------------

    def _look(self, trial: Trial) -> None:
        memory, course = self._memory, self._course(trial)
        tunable = memory.tunable(trial.pool, trial.knob)
        if tunable is None:
            self._missing(trial, course)
        elif course.resumed:
            self._resume(trial, course, tunable)
        elif trial.stage is TrialStage.ROLLING_BACK:
            if course.asked is None:
                self._restore(trial, course)
        elif trial.stage is TrialStage.APPLYING:
            if course.asked is None or memory.now - course.asked > memory.pace.validation:
                self.undo(trial, "it was never set")
        elif trial.stage is TrialStage.VALIDATING:
            self._validating(trial, course, tunable)
        else:
            self._verifying(trial, course, tunable)

    def _missing(self, trial: Trial, course: _Course) -> None:
        """The setting is not there. Its pool may answer again, and after a start, it may be entered later."""
        memory = self._memory
        waits = course.resumed and memory.now - (memory.began or 0.0) <= memory.pace.settle
        if not waits and memory.gone(trial.pool, trial.knob):
            self._end(trial, "leave", f"pool {trial.pool} has no setting {trial.knob} any more")

    def _resume(self, trial: Trial, course: _Course, tunable: Tunable) -> None:
        """End what was under way when the service ended: the old value first."""
        if trial.stage is TrialStage.VERIFYING:
            self._end(trial, "verified", f"{INTERRUPTED}, after {trial.before:g} was restored")
            return
        known = [trial.before, trial.after, *([] if trial.pinned is None else [trial.pinned])]
        if not any(same(tunable.value, value, tunable.step) for value in known):
            self._end(trial, "leave", f"{INTERRUPTED}; the value is now {tunable.value:g}, which was set since")
            return
        if trial.stage is TrialStage.ROLLING_BACK:
            course.harm = course.harm or INTERRUPTED
            if course.asked is None:
                self._restore(trial, course)
        else:
            self.undo(trial, INTERRUPTED)

    def _restore(self, trial: Trial, course: _Course) -> None:
        memory = self._memory
        tunable = memory.tunable(trial.pool, trial.knob)
        if tunable is None:
            self._missing(trial, course)
            return
        value = min(max(trial.before, tunable.low), tunable.high)  # the pool's range may be another one by now
        course.asked = memory.now
        memory.out.append(Apply(trial.pool, trial.knob, value, trial.id, restores=True))

    def _validate(self, trial: Trial, course: _Course) -> None:
        """The value has been set: the validation begins."""
        memory, pace = self._memory, self._memory.pace
        tunable = memory.tunable(trial.pool, trial.knob)
        delay = pace.warm_up + (effect_delay(tunable) if tunable is not None else 0.0)
        course.applied = course.changed = memory.now
        course.settled = memory.now + delay
        course.look = memory.now + pace.look
        memory.book.move(trial, "applied", memory.wall, f"{trial.after:g} is set; its effect is measured")
        trial.due = course.settled + pace.validation

    def _validating(self, trial: Trial, course: _Course, tunable: Tunable) -> None:
        memory, pace = self._memory, self._memory.pace
        if not same(tunable.value, trial.after, tunable.step):
            self._end(trial, "leave", f"somebody has set {tunable.value:g} meanwhile")
            return
        if found := self._stop(trial):
            self.undo(trial, found)
            return
        due = trial.due is not None and memory.now >= trial.due
        if not due and memory.now < course.look:
            return
        course.look = memory.now + pace.look
        try:
            self._compare(trial, course, due=due)
        except Exception as error:  # noqa: BLE001 (a change that cannot be judged must not stay)
            logger("tuner").exception("a trial could not be judged", trial=trial.id)
            self.undo(trial, f"it could not be judged: {type(error).__name__}")

    def _compare(self, trial: Trial, course: _Course, *, due: bool) -> None:
        history = self._memory.inputs.history(trial.pool)
        window = self._window(trial, course.applied, course.settled)
        if history is not None and (harm := plain_harm(history, window)):
            self.undo(trial, harm, own=True)
        elif due:
            self._judge(trial, course, judge(history, window) if history is not None else None)

    def _stop(self, trial: Trial) -> str | None:
        """Why the trial cannot go on, whatever its figures."""
        memory = self._memory
        if memory.mode == "off":
            return "the tuner was switched off"
        if memory.gap:
            return memory.gap
        frozen = memory.freezes.frozen(memory.now, memory.wall)
        if frozen is not None and frozen.kind == "person":
            return f"frozen: {frozen.reason}"
        if memory.inputs.outage:
            return f"the figures cannot be trusted: {memory.inputs.outage}"
        if name := firing(memory.inputs.alerts, trial.pool, trial.changed_at):
            return f"the alert {name} fires"
        return None

    def _judge(self, trial: Trial, course: _Course, verdict: TrialVerdict | None) -> None:
        memory, pace = self._memory, self._memory.pace
        if verdict is None or verdict.verdict == "too_few":
            reason = "nothing was measured" if verdict is None else verdict.reason
            if memory.now - course.settled < pace.validation_max:
                trial.due = memory.now + pace.look
                return
            self._note(trial, verdict)
            trial.verdict = "inconclusive"
            if rule_of(trial.knob).risky:
                self.undo(trial, f"inconclusive: {reason}")
            else:
                self._end(trial, "keep", f"no harm was seen, with low confidence: {reason}")
            return
        self._note(trial, verdict)
        if verdict.verdict == "harm":
            self.undo(trial, verdict.reason, own=True)
        else:
            self._end(trial, "keep", verdict.reason)

    def _note(self, trial: Trial, verdict: TrialVerdict | None) -> None:
        if verdict is not None:
            trial.verdict = verdict.verdict
            trial.figures = {name: value for name, value in verdict.figures.items() if math.isfinite(value)}
            if verdict.measured is not None and math.isfinite(verdict.measured):
                trial.measured = verdict.measured

    def _verifying(self, trial: Trial, course: _Course, tunable: Tunable) -> None:
        memory = self._memory
        if trial.due is not None and memory.now < trial.due:
            return
        if not same(tunable.value, trial.before, tunable.step):
            self._end(trial, "leave", f"{course.harm}; somebody has set {tunable.value:g} meanwhile")
            return
        if not course.own:
            self._end(trial, "verified", f"{course.harm}; {trial.before:g} is restored")
            return
        helped = self._helped(trial, course)
        if not helped and memory.now - course.applied < memory.pace.validation:
            trial.due = memory.now + memory.pace.look  # a backlog takes time to go
            return
        if helped is False:
            trial.false_rollback = True
            words = "that has not helped, so the change was not the cause"
        else:
            words = "that has helped" if helped else "too few calls to see whether that has helped"
        self._end(trial, "verified", f"{course.harm}; {trial.before:g} is restored: {words}")

    def _helped(self, trial: Trial, course: _Course) -> bool | None:
        """Whether the harm is gone with the old value: compared with the time before the change, not with the trial.
        None: that is not known.
        """
        settled = max(course.applied, self._memory.now - self._verify_s(trial))
        window = self._window(trial, course.changed, settled)
        # The size is the old one again: whether waits are explained by the load is asked as for any other setting.
        restored = window._replace(after=trial.before, calls=VERIFY_CALLS, kind="other")
        try:
            history = self._memory.inputs.history(trial.pool)
            found = None if history is None else judge(history, restored)
        except Exception:  # noqa: BLE001 (the old value is set in any case)
            logger("tuner").exception("a rollback could not be judged", trial=trial.id)
            return None
        return None if found is None or found.verdict == "too_few" else found.verdict != "harm"

    # -- inside -----------------------------------------------------------------------------------------------------

    def _verify_s(self, trial: Trial) -> float:
        """How long the figures get to recover."""
        memory, pace = self._memory, self._memory.pace
        if trial.knob != "size":
            return pace.validation
        seen = memory.inputs.observations.get(trial.pool)
        calls = seen.calls if seen is not None else ()
        return pace.verify + 4 * (sum(call.service for call in calls) / len(calls) if calls else 1.0)

    def _window(self, trial: Trial, at: float, settled: float) -> TrialWindow:
        pace = self._memory.pace
        kind = rule_of(trial.knob).kind
        return TrialWindow(kind, trial.before, trial.after, at - pace.baseline, at, settled, pace.calls, trial.effect)

    def _end(self, trial: Trial, trigger: str, reason: str) -> None:
        memory = self._memory
        course = self._courses.pop(trial.id, None)
        memory.book.move(trial, trigger, memory.wall, reason)
        self._ended[trial.pool] = memory.now
        if len(self._ended) > POOLS_MAX:
            del self._ended[next(iter(self._ended))]
        if trigger == "verified" and course is not None and course.own and not trial.false_rollback:
            taken_back = memory.freezes.rolled_back(memory.now, memory.wall)
            if taken_back and memory.settings.mode == "auto":
                memory.settings.mode, memory.settings.demoted = "recommend", taken_back
            memory.save()

    def _course(self, trial: Trial) -> _Course:
        return self._courses.setdefault(trial.id, _Course())
