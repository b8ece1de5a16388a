"""`TunerCore`: the tuner without I/O. It is told the time and what is known, and returns what is to be done."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Mapping
from typing import get_args

from pool_monitor.config.tuner import TunerConfig
from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.log import logger, plain
from pool_monitor.snapshot.tuning import TrialView, TunerMode, TuningView
from pool_monitor.tuner.audit import TUNING
from pool_monitor.tuner.beginning import Starter
from pool_monitor.tuner.explaining import explained
from pool_monitor.tuner.freeze import JUMP_S
from pool_monitor.tuner.intents import Apply, Intent, TunerInputs
from pool_monitor.tuner.kill_switch import is_killed
from pool_monitor.tuner.memory import TunerMemory
from pool_monitor.tuner.pace import Pace
from pool_monitor.tuner.policy import Policy
from pool_monitor.tuner.proposals import Proposer
from pool_monitor.tuner.rules import same, stepped
from pool_monitor.tuner.running import TrialRunner
from pool_monitor.tuner.scaling import Scaler
from pool_monitor.tuner.trial import Trial, TrialStage

GAP_S = 10.0
"""A pause between two steps that is longer ends the trials that run, since what happened meanwhile is not known."""
SHOWN = 100
"""Trials in a `TuningView`, beside those that wait."""
TEXT_MAX = 500
"""Characters of a reason that a person gives, at most."""


class TunerCore:
    """The tuner of one monitor. Synchronous, without I/O; *now* is monotonic, *wall* the time since the epoch, both in
    seconds.

    What a person asks for takes effect with the next `step`; what must be stored at once, `take` returns before.
    """

    def __init__(
        self,
        config: TunerConfig,
        *,
        policies: Callable[[str], Policy] | None = None,
        rows: Mapping[str, Mapping[str, bytes]] | None = None,
        service: str = "",
        monitor: str = "",
        pace: Pace | None = None,
        killed: Callable[[], bool] = is_killed,
        new_id: Callable[[], str] = lambda: secrets.token_hex(4),
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """*policies* makes the policy of a pool, by its name; *rows* is what was stored, by table and key; *timer*
        tells how many seconds a policy takes.
        """
        stored = rows or {}
        about = {"monitor": monitor, "service": service}
        times = pace or Pace(propose=Pace().propose * min(1.0, config.interval))
        self._memory = memory = TunerMemory(config, times, about, new_id, stored)
        self._killed = killed
        memory.killed = killed()
        self._runner = TrialRunner(memory)
        self._proposer = Proposer(memory)
        self._starter = Starter(memory, self._runner)
        self._scaler = Scaler(memory, self._proposer, self._runner, policies, stored.get(TUNING, {}), timer)
        self._skew: float | None = None
        """Wall clock minus monotonic clock, at the step before."""

    # -- what people ask for ------------------------------------------------------------------------------------------

    @property
    def mode(self) -> TunerMode:
        """``off``, ``recommend`` or ``auto``. ``off`` while the environment stops the tuner."""
        self._memory.killed = self._killed()
        return self._memory.mode

    def set_mode(self, mode: str, author: str = "") -> None:
        """Change the mode. With ``off``, the next step undoes the trials that run. Raises ConfigError for another
        word.
        """
        words: dict[str, TunerMode] = {word: word for word in get_args(TunerMode)}
        if mode not in words:
            raise ConfigError(f"tuner mode {mode!r:.80}: use off, recommend or auto")
        settings = self._memory.settings
        settings.mode, settings.demoted = words[mode], ""
        self._memory.save()
        logger("tuner").info("the mode was changed", mode=mode, author=plain(author)[:TEXT_MAX])

    def pending(self) -> list[TrialView]:
        """The trials that wait for approval, the oldest first."""
        return [self._view(trial) for trial in self._memory.book.waiting()]

    def history(self) -> list[TrialView]:
        """The other trials, the newest first."""
        return [self._view(trial) for trial in reversed(list(self._memory.book)) if not trial.waiting]

    def decisions(self) -> list[TrialView]:
        """The latest changes without a trial, such as those of the policy, in no order. Their state is ``set``, or
        ``rejected`` where it could not be made.
        """
        return [
            TrialView(
                id=f"{pool}/{one.knob}",
                pool=pool,
                knob=one.knob,
                unit="count" if one.knob == "size" else "",
                before=one.before,
                after=one.after,
                state="rejected" if one.failed else "set",
                origin=one.origin,
                reason=f"it could not be set: {one.failed}; {one.why}" if one.failed else one.why,
                actor=one.actor,
                started_at=one.at,
                changed_at=one.at,
            )
            for pool, one in self._memory.changes()
        ]

    def propose(self, pool: str, knob: str, value: float, author: str = "", reason: str = "") -> str:
        """Propose a change by hand, and return the id of the trial. It waits for approval like any other.

        Raises UnknownName for a pool or a setting that is not there, and ConfigError for a value outside its range or
        between its steps, and while it would change nothing.
        """
        memory = self._memory
        if pool not in memory.inputs.tunables:
            names = ", ".join(sorted(memory.inputs.tunables)) or "none"
            raise UnknownName(f"no pool {pool!r:.80} with settings; there are {names}")
        tunable = memory.tunable(pool, knob)
        if tunable is None:
            names = ", ".join(sorted(memory.settings_of(pool))) or "none"
            raise UnknownName(f"pool {pool} has no setting {knob!r:.80}; there are {names}")
        allowed = memory.allowed(tunable)
        if not math.isfinite(value) or not allowed.low <= value <= allowed.high:
            raise ConfigError(f"{knob} = {value:g}: needs a value from {allowed.low:g} to {allowed.high:g}")
        after = stepped(tunable, value, allowed, limited=False)
        if same(after, tunable.value, tunable.step):
            raise ConfigError(
                f"{knob} = {value:g}: the value is {tunable.value:g} already; its step is {tunable.step:g}"
            )
        for one in memory.book.waiting():
            if (one.pool, one.knob) == (pool, knob):
                memory.book.move(one, "lapse", memory.wall, f"{after:g} is proposed instead", plain(author)[:TEXT_MAX])
        trial = memory.book.add(
            memory.wall,
            pool,
            knob,
            tunable.unit,
            tunable.value,
            after,
            origin="manual",
            reason=plain(reason)[:TEXT_MAX] or "a person asks for it",
            pinned=memory.pinned.get((pool, knob)),
        )
        memory.book.move(trial, "ask", memory.wall, trial.why, plain(author)[:TEXT_MAX])
        return trial.id

    def approve(self, name: str, author: str = "") -> None:
        """Let the trial *name* (an id, or its beginning) begin as soon as nothing is in its way. Raises UnknownName,
        and ConfigError if it does not wait or the tuner is off.
        """
        trial = self._waiting(name)
        if self.mode == "off":
            raise ConfigError("the tuner is off: switch it on first")
        trial.approved = True
        self._memory.book.note(trial, self._memory.wall, "approved; it begins soon", plain(author)[:TEXT_MAX])

    def reject(self, name: str, author: str = "", reason: str = "") -> None:
        """End the trial *name* that waits. Raises UnknownName, and ConfigError if it does not wait."""
        trial, memory = self._waiting(name), self._memory
        words = plain(reason)[:TEXT_MAX] or "a person is against it"
        memory.book.move(trial, "refuse", memory.wall, words, plain(author)[:TEXT_MAX] or "a person")

    def rollback(self, name: str | None = None, author: str = "", *, everything: bool = False) -> list[str]:
        """Undo the trial *name*; None: those that run, or else the latest that was kept. *everything*: restore every
        setting to the value with which its pool began, which is what the operator wrote; in ``auto`` all but the sizes,
        which the policy would set back at once.

        Returns the ids of the trials. Raises UnknownName, and ConfigError if there is nothing to undo, or another trial
        of the pool runs.
        """
        memory, actor = self._memory, plain(author)[:TEXT_MAX]
        reason = "a person has asked for it"
        if everything:
            return self._revert(actor)
        if name is None:
            found = memory.book.active()
            kept = [trial for trial in memory.book if trial.stage is TrialStage.KEPT]
            found = found or kept[-1:]
            if not found:
                raise UnknownName(f"no change can be rolled back: there is none{self._policy_hint()}")
        else:
            found = [memory.book.find(name)]
        for trial in found:
            if trial.stage not in (TrialStage.APPLYING, TrialStage.VALIDATING, TrialStage.KEPT):
                raise ConfigError(f"the trial {trial.id} is {trial.stage.value}: there is nothing to roll back")
            if trial.stage is TrialStage.KEPT:
                if (other := memory.book.running(trial.pool)) is not None:
                    raise ConfigError(f"the trial {other.id} of pool {trial.pool} runs: roll it back first")
                newest = next(one for one in memory.book.of(trial.pool, trial.knob) if one.stage is TrialStage.KEPT)
                if newest is not trial:
                    raise ConfigError(f"the trial {newest.id} was kept later: roll it back first")
            self._runner.undo(trial, reason, actor)
        return [trial.id for trial in found]

    def freeze(self, reason: str, duration: float | None = None, author: str = "") -> None:
        """Change nothing for *duration* seconds; None: until `thaw`. The next step undoes the trials that run. A pool
        may still grow. Raises ConfigError for a duration that is none.
        """
        if duration is not None and not 0 < duration < math.inf:
            raise ConfigError(f"duration={duration:g}: needs seconds above 0")
        memory = self._memory
        words = plain(reason)[:TEXT_MAX] or "a person has asked for it"
        memory.freezes.add("person", words, memory.now, memory.wall, duration, plain(author)[:TEXT_MAX])
        memory.save()

    def thaw(self, author: str = "") -> None:
        """End every freeze. A mode that was taken back stays: set it."""
        self._memory.freezes.thaw()
        self._memory.save()
        logger("tuner").info("the freezes were ended", author=plain(author)[:TEXT_MAX])

    def leave(self, reason: str) -> None:
        """Undo what is on trial, because nobody watches it from now on."""
        for trial in list(self._memory.book):
            if trial.stage in (TrialStage.APPLYING, TrialStage.VALIDATING):
                self._runner.undo(trial, reason)

    def explain(self, name: str) -> str:
        """Everything that is known of the trial *name*, as lines of text. Raises UnknownName."""
        return explained(self._memory.book.find(name), self._memory.now, self._memory.wall)

    def view(self) -> TuningView:
        """What is shown of the tuner."""
        memory = self._memory
        freeze, until = memory.freezes.frozen(memory.now, memory.wall), None
        frozen = memory.freezes.held(memory.now)
        if freeze is not None:
            frozen, until = freeze.reason, memory.freezes.until(freeze, memory.now, memory.wall)
        elif memory.settings.demoted and memory.mode == "recommend":
            frozen = f"nothing is changed without approval: {memory.settings.demoted}"
        return TuningView(
            mode=self.mode,
            policy=memory.config.policy,
            frozen=frozen,
            frozen_until=until,
            pending=tuple(self.pending()),
            trials=tuple(self.history()[:SHOWN]),
            sizing=self._scaler.views(),
        )

    @property
    def held_bytes(self) -> int:
        """Memory of the trials and of what is known of the pools, as an estimate."""
        return 2_000 * len(self._memory.book) + 10_000 * len(self._memory.inputs.tunables)

    # -- the drive ----------------------------------------------------------------------------------------------------

    def step(self, now: float, wall: float, inputs: TunerInputs) -> list[Intent]:
        """Do what is due, once per interval. Returns what is to be done, in its order."""
        memory = self._memory
        memory.killed = self._killed()
        self._look_at_clocks(now, wall)
        memory.now, memory.wall, memory.inputs = now, wall, inputs
        if memory.began is None:
            memory.began = now
            memory.save()
        memory.pin()
        if inputs.outage:
            memory.freezes.hold(f"the figures cannot be trusted: {inputs.outage}", now, 2 * memory.config.interval)
        self._runner.step()
        self._starter.restore_kept()
        if inputs.measured:
            self._scaler.step()
        self._proposer.step()
        self._starter.step()
        return self.take()

    def take(self) -> list[Intent]:
        """Return what is to be done and was not returned yet."""
        taken = list(self._memory.out)
        self._memory.out.clear()
        return taken

    def applied(self, pool: str, knob: str, value: float, trial: str | None) -> None:
        """The driver has set a setting; its value is *value* now."""
        self._memory.contested.was_set(pool, knob, value)
        self._memory.was_set(pool, knob, value if trial is None else None)
        if trial is not None and (found := self._memory.book.get(trial)) is not None:
            self._runner.applied(found, value)

    def outdated(self, change: Apply) -> bool:
        """Whether *change* must not be made any more: its trial was ended, or is undone, since it was wanted."""
        found = None if change.trial is None else self._memory.book.get(change.trial)
        if found is None:
            return False
        wanted = TrialStage.ROLLING_BACK if change.restores else TrialStage.APPLYING
        return found.stage is not wanted

    def failed(self, pool: str, knob: str, trial: str | None, reason: str, *, gone: bool = False) -> None:
        """The driver could not set it. *gone*: the pool or the knob is no longer there, or the pool drains."""
        if trial is not None and (found := self._memory.book.get(trial)) is not None:
            self._runner.failed(found, reason, gone=gone)
        else:
            self._memory.not_set(pool, knob, reason)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _view(self, trial: Trial) -> TrialView:
        return trial.view(self._memory.now, self._memory.wall)

    def _waiting(self, name: str) -> Trial:
        trial = self._memory.book.find(name)
        if not trial.waiting:
            raise ConfigError(f"the trial {trial.id} does not wait for approval: it is {trial.stage.value}")
        return trial

    def _revert(self, actor: str) -> list[str]:
        """Restore every setting to what the operator wrote; in ``auto``, all but the sizes."""
        memory, undone = self._memory, []
        for trial in memory.book:
            if trial.stage in (TrialStage.APPLYING, TrialStage.VALIDATING):
                self._runner.undo(trial, "everything is restored", actor)
                undone.append(trial.id)
            elif trial.stage is TrialStage.KEPT and (trial.pool, trial.knob) in memory.pinned:
                self._runner.forget(trial, "everything is restored", actor)
                undone.append(trial.id)
        for (pool, knob), value in memory.pinned.items():
            tunable = memory.tunable(pool, knob)
            running = memory.book.running(pool)
            if tunable is None or (running is not None and running.knob == knob):
                continue
            if knob == "size" and memory.mode == "auto":
                continue  # the policy chooses it, and would set it back at once
            if not same(tunable.value, value, tunable.step) and tunable.low <= value <= tunable.high:
                memory.set(pool, tunable, value, "manual", "everything is restored", actor, restores=True)
        return undone

    def _policy_hint(self) -> str:
        """Say in ``auto`` that a size which the policy has set is no trial."""
        if self._memory.mode != "auto":
            return ""
        return " that was on trial; sizes are chosen by the policy: set the mode recommend, then roll back everything"

    def _look_at_clocks(self, now: float, wall: float) -> None:
        """Notice time in which nothing was measured, and a clock that has jumped."""
        memory = self._memory
        before, skew = self._skew, wall - now
        self._skew, memory.gap = skew, None
        if before is None:
            return
        passed, pause = now - memory.now, 2 * memory.config.interval
        if passed > max(pause, GAP_S):
            memory.gap = f"nothing was measured for {passed:.0f} s"
        if passed > max(pause, 2.0):
            memory.freezes.hold(f"nothing was measured for {passed:.0f} s", now, max(60.0, pause))
        if abs(skew - before) > JUMP_S:
            memory.freezes.hold(f"the wall clock has jumped by {skew - before:+.0f} s", now, 60.0)
