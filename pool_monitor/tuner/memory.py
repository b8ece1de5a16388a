"""`TunerMemory`: what the parts of the tuner's core share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from math import inf, isfinite

from pool_monitor.config.tuner import TunerConfig
from pool_monitor.log import logger, plain
from pool_monitor.snapshot.tuning import TunerMode
from pool_monitor.tunable import Tunable
from pool_monitor.tuner.audit import (
    SETTINGS,
    TUNING,
    LoggedChange,
    TunerSettings,
    encoded,
    encoded_changes,
    restored,
    restored_changes,
)
from pool_monitor.tuner.contested import ContestedSettings
from pool_monitor.tuner.freeze import FreezeBook
from pool_monitor.tuner.intents import Apply, Emit, Intent, StoreRows, TunerInputs
from pool_monitor.tuner.pace import Pace
from pool_monitor.tuner.rules import KnobRange, range_of
from pool_monitor.tuner.trials import TrialBook
from pool_monitor.tuner.tunable_reading import read

CHANGES_MAX = 50
"""Changes without a trial that are kept in the row of a pool."""
TEXT_MAX = 300
"""Characters of the reason why a change could not be made, at most."""
AGAIN_S = 5.0
"""Time until a value that could not be set is tried again."""
GONE_S = 60.0
"""A setting that was not seen for so long is gone. Before, its pool could not be asked, and may answer again."""
ALONE = "set"
"""The state that an event of a decision without a trial has."""


class TunerMemory:
    """The trials, the freezes, the time, and what is to be done. No I/O.

    Bound: that of `TrialBook`; one value for each setting of each pool that is there, and `CHANGES_MAX` changes of
    each.
    """

    def __init__(
        self,
        config: TunerConfig,
        pace: Pace,
        about: Mapping[str, str],
        new_id: Callable[[], str],
        rows: Mapping[str, Mapping[str, bytes]],
    ) -> None:
        self.config, self.pace = config, pace
        self._about = dict(about)
        self.out: list[Intent] = []
        found = restored(rows)
        self.refused = found.refused
        self.settings = found.settings or TunerSettings(mode=config.mode, configured=config.mode)
        if self.settings.configured != config.mode:  # the operator has written another mode since
            self.settings.mode = self.settings.configured = config.mode
            self.settings.demoted = ""
        self.book = TrialBook(self.out, self._about, new_id)
        self.book.restore(found.trials)
        self.freezes = FreezeBook(self.settings, pace)
        self.now = self.wall = 0.0
        self.began: float | None = None
        """Monotonic time of the first step; None: there was none."""
        self.inputs = TunerInputs(tunables={})
        self.pinned: dict[tuple[str, str], float] = {}
        """By pool and setting: the value with which the pool began, which is what the operator wrote."""
        self._seen_at: dict[tuple[str, str], float] = {}
        """When each setting of `pinned` was seen last, monotonic."""
        self.killed = False
        self.contested = ContestedSettings()
        self._refused: dict[tuple[str, str], float] = {}
        self._asked: dict[tuple[str, str], LoggedChange] = {}
        """By pool and setting: the change without a trial that is under way."""
        self.gap: str | None = None
        """Why what runs now cannot be judged any more, such as a long time without figures; None: it can."""
        self._changes: dict[str, deque[LoggedChange]] = {
            pool: deque(kept, CHANGES_MAX) for pool, kept in restored_changes(rows.get(TUNING, {})).items()
        }

    @property
    def mode(self) -> TunerMode:
        """The mode that counts now."""
        return "off" if self.killed else self.settings.mode

    def save(self) -> None:
        """Store the settings."""
        self.out.append(StoreRows({TUNING: {SETTINGS: encoded(self.settings)}}))

    def tunable(self, pool: str, knob: str) -> Tunable | None:
        """The setting *knob* of *pool* as it is now, to read; None: it is not there, cannot be read, its value is no
        number, or its name cannot be shown.
        """
        for one in self.inputs.tunables.get(pool, ()):
            found = read(one)
            if found is not None and found.name == knob:
                return found if isfinite(found.value) and knob.isprintable() else None
        return None

    def settings_of(self, pool: str) -> list[str]:
        """The names of the settings of *pool* that can be read."""
        return [found.name for one in self.inputs.tunables.get(pool, ()) if (found := read(one)) is not None]

    def allowed(self, tunable: Tunable) -> KnobRange:
        """The values that *tunable* may have by its pool and the configuration."""
        return range_of(tunable, self.config.knobs)

    def changes(self) -> list[tuple[str, LoggedChange]]:
        """The latest changes without a trial, each with its pool."""
        return [(pool, one) for pool, kept in self._changes.items() for one in kept]

    def pin(self) -> None:
        """Note the values of settings that are new, and forget those that are gone."""
        for pool, knobs in self.inputs.tunables.items():
            for one in knobs:
                found = read(one)
                if found is not None and isfinite(found.value):
                    self._seen_at[pool, found.name] = self.now
                    self.pinned.setdefault((pool, found.name), found.value)
                    self.contested.look(self.now, pool, found.name, found.value)
        self.contested.keep(set(self._seen_at))
        self._seen_at = {key: at for key, at in self._seen_at.items() if self.now - at <= GONE_S}
        self.pinned = {key: value for key, value in self.pinned.items() if key in self._seen_at}
        self._refused = {key: until for key, until in self._refused.items() if key in self.pinned}
        self._asked = {key: change for key, change in self._asked.items() if key in self.pinned}
        pools = self.pools()
        self._changes = {pool: kept for pool, kept in self._changes.items() if pool in pools}

    def pools(self) -> set[str]:
        """The pools that are there, also those that could not be asked for a moment."""
        return {pool for pool, _ in self._seen_at} | set(self.inputs.tunables)

    def gone(self, pool: str, knob: str) -> bool:
        """Whether a setting is not there any more. False also while its pool could not be asked for a moment."""
        return (pool, knob) not in self._seen_at

    def set(
        self,
        pool: str,
        tunable: Tunable,
        value: float,
        origin: str,
        reason: str,
        actor: str = "",
        *,
        grows: bool = False,
        restores: bool = False,
    ) -> None:
        """Set a value without a trial, and tell it. Nothing for `AGAIN_S` after it could not be set."""
        if self.now < self._refused.get((pool, tunable.name), -inf):
            return
        before = tunable.value
        change = LoggedChange(
            at=self.wall, knob=tunable.name, before=before, after=value, origin=origin, why=reason, actor=actor
        )
        self._changes.setdefault(pool, deque(maxlen=CHANGES_MAX)).append(change)
        self._asked[pool, tunable.name] = change
        self._store_changes(pool)
        self.out.append(Apply(pool, tunable.name, value, None, grows, restores))

    def not_set(self, pool: str, knob: str, reason: str) -> None:
        """A value could not be set. It is logged once, until one can be set again."""
        if (change := self._asked.pop((pool, knob), None)) is not None:
            change.failed = plain(reason)[:TEXT_MAX]
            self._store_changes(pool)
        if (pool, knob) not in self._refused:
            logger("tuner").warning("a setting could not be changed", pool=pool, knob=knob, reason=reason)
        if (pool, knob) in self.pinned:
            self._refused[pool, knob] = self.now + AGAIN_S

    def was_set(self, pool: str, knob: str, value: float | None) -> None:
        """A value was set. *value*: what it is now, after a change without a trial, which is told; None: by a trial."""
        self._refused.pop((pool, knob), None)
        if value is None or (change := self._asked.pop((pool, knob), None)) is None:
            return
        measurements = {"system_time": int(self.wall * 1e9), "value_before": change.before, "value_after": value}
        about = {"id": f"{pool}/{knob}", "pool": pool, "knob": knob, "from": "", "to": ALONE}
        told = {"origin": change.origin, "actor": change.actor, "reason": change.why}
        self.out.append(Emit(measurements, {**self._about, **about, **told}))
        logger("tuner").info(
            "a setting was changed", pool=pool, knob=knob, before=change.before, after=value, why=change.why
        )

    def _store_changes(self, pool: str) -> None:
        if kept := self._changes.get(pool):
            self.out.append(StoreRows({TUNING: {f"changes:{pool}": encoded_changes(kept)}}))
