"""`Starter`: lets trials begin when nothing is in their way, and restores after a restart what was kept."""

from __future__ import annotations

from pool_monitor.tuner.freeze import firing
from pool_monitor.tuner.memory import TunerMemory
from pool_monitor.tuner.precheck import Objection, objection
from pool_monitor.tuner.rules import rule_of, same
from pool_monitor.tuner.running import TrialRunner
from pool_monitor.tuner.trial import Trial, TrialStage

LOOK_S = 30.0
"""Time between two looks at what speaks against a trial."""


class Starter:
    """Begins at most one trial for each pool. Bound: a time for each trial that waits, a mark for each setting."""

    def __init__(self, memory: TunerMemory, runner: TrialRunner) -> None:
        self._memory, self._runner = memory, runner
        self._looked: dict[str, float] = {}
        self._restored: set[tuple[str, str]] = set()

    def restore_kept(self) -> None:
        """Set what was kept before a restart, if the operator has not written another value since.

        A service begins with the values of its configuration. Nothing is restored in the mode ``off``, and in ``auto``
        no size: the policy chooses it.
        """
        memory = self._memory
        self._restored = {key for key in self._restored if key in memory.pinned}
        for pool, knob in memory.pinned:
            if (pool, knob) in self._restored or memory.book.running(pool):
                continue  # what was under way is undone first
            self._restored.add((pool, knob))
            if memory.mode == "off" or (knob == "size" and memory.mode == "auto"):
                continue
            tunable = memory.tunable(pool, knob)
            kept = next((one for one in memory.book.of(pool, knob) if one.stage is TrialStage.KEPT), None)
            if tunable is None or kept is None or kept.pinned is None:
                continue
            allowed = memory.allowed(tunable)
            if (
                same(tunable.value, kept.pinned, tunable.step)
                and not same(kept.after, tunable.value, tunable.step)
                and allowed.low <= kept.after <= allowed.high
            ):
                memory.set(pool, tunable, kept.after, kept.origin, f"kept by trial {kept.id} before the restart")

    def step(self) -> None:
        """Ask for approval, or begin."""
        memory = self._memory
        waiting = memory.book.waiting()
        self._looked = {trial.id: self._looked[trial.id] for trial in waiting if trial.id in self._looked}
        if memory.mode == "off":
            return
        for trial in sorted(waiting, key=lambda one: not one.approved):
            unasked = memory.mode == "auto" and not rule_of(trial.knob).ask and trial.origin != "manual"
            if not trial.approved and not unasked:
                if trial.stage is TrialStage.PROPOSED:
                    memory.book.move(trial, "ask", memory.wall, trial.why)
                    trial.due = memory.now + memory.pace.expire
                continue
            self._consider(trial)

    def _consider(self, trial: Trial) -> None:
        memory = self._memory
        tunable = memory.tunable(trial.pool, trial.knob)
        if tunable is None:
            return  # the pool may come back; else the proposal lapses
        allowed = memory.allowed(tunable)
        if not allowed.low <= trial.after <= allowed.high:
            words = f"{trial.after:g} is outside the range, which is {allowed.low:g} to {allowed.high:g} now"
            memory.book.move(trial, "refuse", memory.wall, words)
            return
        if reason := self._in_the_way(trial):
            reason = f"approved; {reason}" if trial.approved else reason
            if trial.reason != reason:
                memory.book.note(trial, memory.wall, reason)
            return
        if not trial.approved:
            if memory.now - self._looked.get(trial.id, -LOOK_S) < LOOK_S:
                return
            self._looked[trial.id] = memory.now
            if found := self._objection(trial):
                if found.final:
                    memory.book.move(trial, "refuse", memory.wall, found.reason)
                elif trial.reason != found.reason:
                    memory.book.note(trial, memory.wall, found.reason)
                return
        self._runner.begin(trial, "approved" if trial.approved else "nothing speaks against it")

    def _in_the_way(self, trial: Trial) -> str | None:
        """What keeps *trial* from beginning now, also if it was approved; None: nothing."""
        memory = self._memory
        if frozen := memory.freezes.frozen(memory.now, memory.wall):
            return f"it waits: frozen ({frozen.reason})"
        if held := memory.freezes.held(memory.now):
            return f"it waits: {held}"
        if other := memory.book.running(trial.pool):
            return f"it waits for the trial {other.id}"
        if found := memory.contested.why(memory.now, trial.pool, trial.knob):
            return f"it waits: {found}"
        if not trial.protective and (name := firing(memory.inputs.alerts, trial.pool)):
            return f"it waits: the alert {name} fires"
        return None

    def _objection(self, trial: Trial) -> Objection | None:
        """What speaks against a trial that nobody has approved."""
        memory, pace = self._memory, self._memory.pace
        if memory.now - (memory.began or 0.0) < pace.settle:
            return Objection("it waits: the tuner has just begun", final=False)
        deployed = memory.inputs.deployed_at
        if deployed is not None and 0 <= memory.wall - deployed < pace.settle:
            return Objection("it waits: there was a deployment", final=False)
        if memory.now - self._runner.ended(trial.pool) < pace.pool_pause:
            return Objection("it waits: a trial of the pool has just ended", final=False)
        return objection(memory.inputs.history(trial.pool), trial, pace)
