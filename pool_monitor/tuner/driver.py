"""Carries out what the core of the tuner wants: stores, applies and emits, in this order."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pool_monitor.errors import ConfigError, PoolClosed, PoolError
from pool_monitor.events import TUNING_TRANSITION
from pool_monitor.log import plain
from pool_monitor.tunable import Tunable
from pool_monitor.tuner.core import TunerCore
from pool_monitor.tuner.intents import Apply, Emit, Intent, StoreRows, TunerInputs
from pool_monitor.tuner.rules import same

Rows = Mapping[str, Mapping[str, bytes | None]]
Commit = Callable[[Rows], Awaitable[bool]]
"""Keeps rows, by table and key. Returns whether they are on the disk, or whether there is none."""
Pools = Callable[[], Mapping[str, Sequence[Tunable]]]


TEXT_MAX = 300


class TunerDriver:
    """Drives a core in an event loop.

    *commit* keeps rows; *tunables* are those of now, by pool. Rows that could not be kept stop the intents after them:
    what is not stored is not applied.
    """

    def __init__(self, core: TunerCore, commit: Commit, tunables: Pools) -> None:
        self.core, self._commit, self._tunables = core, commit, tunables

    async def step(self, now: float, wall: float, inputs: TunerInputs) -> None:
        """One step of the core, and what it wants."""
        await self.carry_out(self.core.step(now, wall, inputs))

    async def settle(self) -> None:
        """Carry out what a person has asked for since the step before."""
        await self.carry_out(self.core.take())

    async def carry_out(self, intents: Iterable[Intent]) -> None:
        """Carry out *intents*, and what the core wants after them. Never raises for a pool or the disk.

        A change of which the rows could not be kept is not made, unless it adds workers or restores a value.
        """
        todo = list(intents)
        while todo:
            kept = True
            for rows, rest in _batches(todo):
                if rows:
                    kept = await self._commit(rows) and kept
                for intent in rest:
                    if isinstance(intent, Apply) and not (kept or intent.grows or intent.restores):
                        self.core.failed(intent.pool, intent.knob, intent.trial, "it could not be stored")
                    else:
                        act(self.core, intent, self._tunables())
            todo = self.core.take()


def _batches(intents: Iterable[Intent]) -> Iterator[tuple[Rows, list[Intent]]]:
    """Group *intents*: the rows up to the next change are one transaction. A change is the last of its group."""
    rows: dict[str, dict[str, bytes | None]] = {}
    rest: list[Intent] = []
    for intent in intents:
        if isinstance(intent, StoreRows):
            for table, found in intent.rows.items():
                rows.setdefault(table, {}).update(found)
            continue
        rest.append(intent)
        if isinstance(intent, Apply):
            yield rows, rest
            rows, rest = {}, []
    if rows or rest:
        yield rows, rest


def carry_out(core: TunerCore, intents: Iterable[Intent], tunables: Mapping[str, Sequence[Tunable]]) -> None:
    """Carry out *intents* where nothing is stored, such as in the laboratory."""
    todo = list(intents)
    while todo:
        for intent in todo:
            act(core, intent, tunables)
        todo = core.take()


def act(core: TunerCore, intent: Intent, tunables: Mapping[str, Sequence[Tunable]]) -> None:
    """Apply or emit *intent*, and tell the core. Never raises for a pool."""
    if isinstance(intent, Emit):
        emit(intent.measurements, intent.metadata)
    elif isinstance(intent, Apply):
        _apply(core, intent, tunables)


def emit(measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Execute ``tuning.transition``."""
    TUNING_TRANSITION.event.emit(measurements, metadata)


def _apply(core: TunerCore, intent: Apply, tunables: Mapping[str, Sequence[Tunable]]) -> None:
    pool, knob = intent.pool, intent.knob
    if core.mode == "off" and not intent.restores:
        core.failed(pool, knob, intent.trial, "the tuner was switched off")
        return
    if core.outdated(intent):
        return  # it was ended while the row was written: what restores the value follows
    found = next((one for one in tunables.get(pool, ()) if one.name == knob), None)
    if found is None:
        # A value is restored as soon as the pool can be asked again; nothing else has to be done then.
        reason = f"pool {pool} has no setting {knob} any more"
        core.failed(pool, knob, intent.trial, reason, gone=not intent.restores)
        return
    try:
        value = _set(found, intent.value)
    except PoolClosed:
        core.failed(pool, knob, intent.trial, f"pool {pool} is closing", gone=True)
    except PoolError as error:
        core.failed(pool, knob, intent.trial, str(error))
    except Exception as error:  # noqa: BLE001 (a tunable may be of another package)
        core.failed(pool, knob, intent.trial, plain(f"{type(error).__name__}: {error}")[:TEXT_MAX])
    else:
        core.applied(pool, knob, value, intent.trial)


def _set(tunable: Tunable, wanted: float) -> float:
    """Set *tunable*, and return the value that it has then. Raises ConfigError for one outside the range of now, and
    where the tunable keeps its value: it may be of another package.
    """
    if not tunable.low <= wanted <= tunable.high:
        raise ConfigError(f"{wanted:g} is outside the range, which is {tunable.low:g} to {tunable.high:g} now")
    before = float(tunable.value)
    tunable.set(wanted)
    try:
        value = float(tunable.value)
    except Exception:  # noqa: BLE001 (it was set; the next look says whether it can be read)
        return wanted
    if same(value, before) and not same(wanted, before, tunable.step):
        raise ConfigError(f"the pool has kept {before:g}")
    return value if math.isfinite(value) else wanted
