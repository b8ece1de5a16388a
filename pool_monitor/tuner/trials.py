"""`TrialBook`: all trials that are known. Every change of a trial goes through it, and becomes a row and an event."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite

from pool_monitor.errors import UnknownName
from pool_monitor.log import plain
from pool_monitor.snapshot.advice import Effect
from pool_monitor.tuner.audit import TRIALS, encoded
from pool_monitor.tuner.intents import Emit, Intent, StoreRows
from pool_monitor.tuner.trial import TRIAL, Trial

TRIALS_MAX = 1000
"""Trials that are kept, in memory and in the state file. Of more, the oldest that have ended are forgotten."""
TEXT_MAX = 1000
"""Characters of a reason, at most."""
WAITING_MAX = 50
"""Trials that wait for approval at most. Of more, the oldest lapses."""


class TrialBook:
    """The trials, the oldest first. Bound: `TRIALS_MAX`.

    *about* is the metadata that every event has. What a change of a trial needs done is appended to *out*: the row
    first, then the event.
    """

    def __init__(self, out: list[Intent], about: Mapping[str, str], new_id: Callable[[], str]) -> None:
        self._out, self._about, self._new_id = out, about, new_id
        self._trials: dict[str, Trial] = {}
        self._open: dict[str, Trial] = {}
        """Those that wait or run."""

    def __iter__(self) -> Iterator[Trial]:
        return iter(list(self._trials.values()))

    def __len__(self) -> int:
        return len(self._trials)

    def find(self, name: str) -> Trial:
        """Return the trial *name*: an id, or the beginning of one. Raises UnknownName with those that there are."""
        if trial := self._trials.get(name):
            return trial
        found = [trial for key, trial in self._trials.items() if name and key.startswith(name)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(trial.id for trial in (found or [*self._trials.values()][-10:]))
        problem = "is the beginning of several trials" if found else "is no trial"
        raise UnknownName(f"{name!r} {problem}: " + (f"there are {names}" if names else "there are none"))

    def get(self, identity: str) -> Trial | None:
        """The trial of that id; None: it is not known."""
        return self._trials.get(identity)

    def active(self) -> list[Trial]:
        """The trials that have changed a value and have no verdict yet."""
        return [trial for trial in self._open.values() if trial.running]

    def running(self, pool: str) -> Trial | None:
        """The one of *pool*; None: there is none."""
        return next((trial for trial in self._open.values() if trial.pool == pool and trial.running), None)

    def waiting(self) -> list[Trial]:
        """The trials that have changed nothing yet, the oldest first."""
        return [trial for trial in self._open.values() if trial.waiting]

    def of(self, pool: str, knob: str) -> Iterator[Trial]:
        """The trials of one setting, the newest first."""
        found = reversed(self._trials.values())
        return (trial for trial in found if trial.pool == pool and trial.knob == knob)

    def restore(self, trials: Iterable[Trial]) -> None:
        """Begin with *trials*, which are stored already. An approval does not outlive a restart: what a person has seen
        may be another matter by now.
        """
        self._trials = {trial.id: trial for trial in sorted(trials, key=lambda one: one.started_at)}
        self._open = {name: trial for name, trial in self._trials.items() if trial.waiting or trial.running}
        for trial in self.waiting():
            if trial.approved:
                trial.approved = False
                self.note(trial, trial.changed_at, "it was approved before a restart: approve it again")

    def add(
        self,
        wall: float,
        pool: str,
        knob: str,
        unit: str,
        before: float,
        after: float,
        *,
        origin: str,
        reason: str,
        cause: str = "",
        pinned: float | None = None,
        effect: Effect | None = None,
        protective: bool = False,
    ) -> Trial:
        """Add a proposal. An *effect* that is no number is left out."""
        reason = plain(reason)[:TEXT_MAX]
        identity = next(name for name in iter(self._new_id, None) if name not in self._trials)
        trial = Trial(
            id=identity,
            pool=pool,
            knob=knob,
            unit=unit,
            before=before,
            after=after,
            origin=origin,
            reason=reason,
            why=reason,
            cause=cause,
            pinned=pinned,
            effect=effect if effect is None or _sound(effect) else None,
            protective=protective,
            started_at=wall,
            changed_at=wall,
        )
        self._trials[identity] = self._open[identity] = trial
        trial.stepped(wall)
        self._keep(trial, "", wall)
        self._forget()
        waiting = self.waiting()
        for one in waiting[: max(0, len(waiting) - WAITING_MAX)]:
            self.move(one, "lapse", wall, "newer proposals wait")
        return trial

    def move(self, trial: Trial, trigger: str, wall: float, reason: str, actor: str = "") -> None:
        """Bring *trial* into the state after *trigger*. Raises IllegalTransition if there is none."""
        before = trial.stage
        trial.stage = TRIAL.step(before, trigger)
        trial.changed_at, trial.reason, trial.due = wall, plain(reason)[:TEXT_MAX], None
        if actor:
            trial.actor = actor
        trial.stepped(wall, actor)
        if trial.waiting or trial.running:
            self._open[trial.id] = trial
        else:
            self._open.pop(trial.id, None)
        self._keep(trial, before.value, wall)

    def note(self, trial: Trial, wall: float, reason: str, actor: str = "") -> None:
        """Change why *trial* is in its state. It is stored, and no event: the state is the same."""
        trial.reason, trial.actor = plain(reason)[:TEXT_MAX], actor or trial.actor
        trial.stepped(wall, actor, note=True)
        self._out.append(StoreRows({TRIALS: {trial.id: encoded(trial)}}))

    def _keep(self, trial: Trial, before: str, wall: float) -> None:
        self._out.append(StoreRows({TRIALS: {trial.id: encoded(trial)}}))
        measurements = {"system_time": int(wall * 1e9), "value_before": trial.before, "value_after": trial.after}
        metadata = {
            **self._about,
            "id": trial.id,
            "pool": trial.pool,
            "knob": trial.knob,
            "from": before,
            "to": trial.stage.value,
            "origin": trial.origin,
            "actor": trial.actor,
            "reason": trial.reason,
        }
        self._out.append(Emit(measurements, metadata))

    def _forget(self) -> None:
        over = len(self._trials) - TRIALS_MAX
        if over <= 0:
            return
        ended = [name for name, trial in self._trials.items() if not trial.running and not trial.waiting]
        gone: Mapping[str, bytes | None] = dict.fromkeys(itertools.islice(ended, over))
        for name in gone:
            del self._trials[name]
        if gone:
            self._out.append(StoreRows({TRIALS: gone}))


def _sound(effect: Effect) -> bool:
    """Whether a row can hold *effect*: JSON knows no NaN."""
    return all(isfinite(value) for value in (effect.now, effect.expected, effect.low, effect.high, effect.cost or 0.0))
