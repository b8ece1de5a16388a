"""When a fault begins and ends: a state machine for each condition and subject, stepped with time passed in.

A condition is looked at with each sample. Its figure has to be past a bound for as long as the rule demands before the
fault is reached; it is left when the figure is well within the bound again. So a fault is reported within two sampling
periods and that time.

A figure that swings around its bound would begin and end a fault at every other sample. So a fault that gets worse soon
after it has got better is *unsteady*: it next gets better, or ends, when its figure has been better for some time.

A figure that is missing neither begins nor ends a fault, but the third time in a row it ends a fault as unknown: what
is not measured must not be shown as the present state.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal, NamedTuple

from pool_monitor.snapshot import FaultLevel
from pool_monitor.state_machine import StateMachine

MOST = 1_000
"""Faults that are open at once. Further ones are not reported; they are counted."""
UNKNOWN_AFTER = 3
"""Samples without a figure after which a fault ends."""
MOVED = 0.25
"""A figure that has changed by more than this share is reported again, so that what is shown is never far off."""
AGAIN_S = 30.0
"""Shortest time between two such reports of one fault."""
CALM_S = 30.0
"""A fault that gets worse within this time after it has got better is unsteady. It next gets better, or ends, when its
figure has been better for this long; see `Bounds.calm_s`."""
KEPT = 0.9
"""A fault is left when the figure is below this share of its bound; above its inverse, where low figures are bad."""


class FaultState(StrEnum):
    """The state of one condition for one subject."""

    FINE = "fine"
    SUSPECTED = "suspected"
    OPEN = "open"


MACHINE = StateMachine(
    "fault",
    FaultState.FINE,
    {
        FaultState.FINE: {"past": FaultState.SUSPECTED},
        FaultState.SUSPECTED: {
            "past": FaultState.SUSPECTED,
            "held": FaultState.OPEN,
            "within": FaultState.FINE,
            "unknown": FaultState.FINE,
            "gone": FaultState.FINE,
        },
        FaultState.OPEN: {
            "past": FaultState.OPEN,
            "within": FaultState.FINE,
            "unknown": FaultState.FINE,
            "gone": FaultState.FINE,
        },
    },
)


class Bounds(NamedTuple):
    """From which figure on a condition is a fault, and for how long."""

    warn: float | None
    bad: float | None
    """None: the condition never has this level."""
    hold_s: float = 0.0
    low: bool = False
    """Low figures are bad, not high ones."""
    calm_s: float = CALM_S
    """How long an unsteady fault has to be better. 0: the condition holds or not, and no figure swings."""

    def level(self, value: float, before: FaultLevel | None = None) -> FaultLevel | None:
        """Return the level of *value*. *before* is the present level, which is kept close to its bound."""
        if self._past(value, self.bad, kept=before == "bad"):
            return "bad"
        return "warn" if self._past(value, self.warn, kept=before is not None) else None

    def limit(self, level: FaultLevel) -> float | None:
        """Return the bound of *level*."""
        return self.bad if level == "bad" else self.warn

    def _past(self, value: float, bound: float | None, *, kept: bool) -> bool:
        if bound is None:
            return False
        return value <= bound / (KEPT if kept else 1) if self.low else value >= bound * (KEPT if kept else 1)


class Subject(NamedTuple):
    """What a fault is about."""

    name: str
    """``host``, ``process``, ``loop``, ``worker SLOT`` or ``process PID``."""
    pool: str | None = None
    worker: str | None = None
    process: tuple[int | str | None, ...] = ()
    """What tells the process from an earlier one in the same slot."""


class Judged(NamedTuple):
    """One condition of one subject, at one moment."""

    kind: str
    subject: Subject
    bounds: Bounds
    value: float | None
    """None: unknown."""
    reason: str = ""
    """The figure in words."""
    cause: str = ""
    """The part of the reason that is worth telling when it becomes known, or becomes another one."""


class FaultChange(NamedTuple):
    """A fault began or ended, or has another level or another figure."""

    state: Literal["reached", "changed", "left"]
    kind: str
    subject: Subject
    level: FaultLevel
    value: float | None
    limit: float | None
    reason: str


class _Open:
    """One suspected or open fault."""

    __slots__ = (
        "better_since_s", "last", "level", "missing", "reported_cause", "reported_s", "reported_value", "since_s",
        "state", "unsteady",
    )  # fmt: skip

    def __init__(self, since_s: float, judged: Judged) -> None:
        self.state = MACHINE.step(FaultState.FINE, "past")
        self.since_s, self.last = since_s, judged
        self.level: FaultLevel = "warn"
        self.missing = 0
        self.unsteady = False
        self.better_since_s: float | None = None  # since when the figure is not as bad as the level
        self.reported_s, self.reported_value, self.reported_cause = since_s, 0.0, ""

    def stays(self, now_s: float, level: FaultLevel | None) -> bool:
        """Whether an open fault keeps its level, although its figure is now at *level*, because it is unsteady."""
        if level == self.level or level == "bad":
            self.better_since_s = None
            return False
        if self.better_since_s is None:
            self.better_since_s = now_s
        return self.unsteady and 0 <= now_s - self.better_since_s < self.last.bounds.calm_s

    def moved(self, now_s: float) -> bool:
        """Whether the figure is far from the one that was reported, or its cause another one, and that some time ago.
        A cause is told at once if none was reported.
        """
        value, cause = self.last.value, self.last.cause
        if value is None:
            return False
        if now_s - self.reported_s < AGAIN_S:
            return bool(cause) and not self.reported_cause
        return cause != self.reported_cause or abs(value - self.reported_value) > MOVED * abs(self.reported_value)


class FaultBook:
    """The suspected and the open faults: at most `MOST` of each. Of each fault that got better lately, when it did."""

    def __init__(self) -> None:
        self._faults: dict[tuple[str, Subject], _Open] = {}
        self._better: dict[tuple[str, Subject], float] = {}  # when, of those that got better within `CALM_S`
        self.open = 0
        """The number of faults that are reached and not left."""
        self.unreported = 0
        """Faults that were not opened because too many were open."""

    def step(self, now_s: float, conditions: Iterable[Judged]) -> list[FaultChange]:
        """Look at every condition. A subject that is not among them has gone, and with it its faults."""
        changes: list[FaultChange] = []
        self._better = {key: at_s for key, at_s in self._better.items() if 0 <= now_s - at_s < CALM_S}
        seen = set()
        for judged in conditions:
            key = judged.kind, judged.subject
            seen.add(key)
            change = self._look(now_s, key, judged)
            if change is not None:
                changes.append(change)
        for key in [key for key in self._faults if key not in seen]:
            change = self._end(key, "gone", f"{_named(key[1])} is gone")
            if change is not None:
                changes.append(change)
        return changes

    def close(self, reason: str) -> list[FaultChange]:
        """Leave every fault, because of *reason*."""
        ended = [self._end(key, "gone", reason) for key in list(self._faults)]
        return [change for change in ended if change is not None]

    def _look(self, now_s: float, key: tuple[str, Subject], judged: Judged) -> FaultChange | None:
        fault = self._faults.get(key)
        if judged.value is None:
            return None if fault is None else self._missing(key, fault)
        level = judged.bounds.level(judged.value, None if fault is None else fault.level)
        if fault is not None and fault.state is FaultState.OPEN:
            if fault.stays(now_s, level):
                level = fault.level
            elif level != "bad" and level != fault.level:
                self._got_better(now_s, key)
        if level is None:
            return self._end(key, "within", judged.reason, judged)
        if fault is None:
            if len(self._faults) >= 2 * MOST:
                self.unreported += 1
                return None
            fault = self._faults[key] = _Open(now_s, judged)
            fault.level = level
        fault.missing, fault.last = 0, judged
        fault.state = MACHINE.step(fault.state, "past")
        if fault.state is FaultState.OPEN:
            before, fault.level = fault.level, level
            fault.unsteady = fault.unsteady or (level == "bad" != before and key in self._better)
            return self._change(now_s, "changed", key, fault) if level != before or fault.moved(now_s) else None
        fault.level = level
        if now_s - fault.since_s < judged.bounds.hold_s:
            return None
        if self.open >= MOST:
            self.unreported += 1
            return None
        fault.state = MACHINE.step(fault.state, "held")
        fault.unsteady = key in self._better
        self.open += 1
        return self._change(now_s, "reached", key, fault)

    def _got_better(self, now_s: float, key: tuple[str, Subject]) -> None:
        if len(self._better) < 2 * MOST:
            self._better[key] = now_s

    def _missing(self, key: tuple[str, Subject], fault: _Open) -> FaultChange | None:
        fault.missing += 1
        if fault.missing < UNKNOWN_AFTER:
            return None
        return self._end(key, "unknown", "the figure is not known any more, or does not apply")

    def _end(
        self, key: tuple[str, Subject], trigger: str, reason: str, judged: Judged | None = None
    ) -> FaultChange | None:
        """Forget a fault. Return its end, if it was open."""
        fault = self._faults.pop(key, None)
        if fault is None:
            return None
        was, fault.state = fault.state, MACHINE.step(fault.state, trigger)
        if was is not FaultState.OPEN:
            return None
        self.open -= 1
        if judged is not None:
            fault.last = judged
        value = None if judged is None else judged.value
        limit = fault.last.bounds.limit(fault.level)
        return FaultChange("left", *key, fault.level, value, limit, reason)

    @staticmethod
    def _change(
        now_s: float, state: Literal["reached", "changed"], key: tuple[str, Subject], fault: _Open
    ) -> FaultChange:
        last = fault.last
        fault.reported_s, fault.reported_value, fault.reported_cause = now_s, last.value or 0.0, last.cause
        return FaultChange(state, *key, fault.level, last.value, last.bounds.limit(fault.level), last.reason)


def _named(subject: Subject) -> str:
    return f"the process of {subject.name}" if subject.worker is not None else f"the {subject.name}"
