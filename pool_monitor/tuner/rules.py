"""What the tuner may do to each setting: `RULES`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pool_monitor.tunable import Tunable

KnobKind = Literal["size", "timeout", "queue", "other"]


class KnobRule(NamedTuple):
    """How one setting is treated."""

    kind: KnobKind = "other"
    up: float = 1.5
    """The largest step up: the value times this."""
    down: float = 1 / 1.5
    cool_down: float = 1800.0
    """Seconds from the end of a trial that was kept to the next one of the setting."""
    ask: bool = True
    """Whether a person must approve in the mode ``auto`` too."""
    risky: bool = True
    """Whether the old value is restored when the trial has shown nothing."""


_TIMEOUT = KnobRule("timeout", up=1.25, down=0.9, cool_down=3600.0)
_QUEUE = KnobRule("queue", up=1.25, down=0.8, cool_down=900.0, ask=False)
_RECYCLE = KnobRule("other", up=1.05, down=0.95, cool_down=21_600.0, ask=False, risky=False)
RULES: Mapping[str, KnobRule] = {
    "size": KnobRule("size", up=2.0, down=0.8, cool_down=60.0, ask=False),
    "queue_limit": _QUEUE,
    "max_wait": _QUEUE,
    "timeout": _TIMEOUT,
    "first_item_timeout": _TIMEOUT,
    "item_timeout": _TIMEOUT,
    "health_interval": KnobRule("other", cool_down=21_600.0, ask=False, risky=False),
    "recycle_calls": _RECYCLE,
    "recycle_age": _RECYCLE,
    "recycle_rss": _RECYCLE,
}
"""By setting. One that is not here has `KnobRule`'s own values: a person must approve."""


def rule_of(knob: str) -> KnobRule:
    """Return the rule of *knob*."""
    return RULES.get(knob, KnobRule())


class KnobRange(NamedTuple):
    """The values that a setting may have now."""

    low: float
    high: float

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)


def range_of(tunable: Tunable, knobs: Mapping[str, Sequence[float]]) -> KnobRange:
    """Return the range of *tunable* within that of the configuration.

    Where the two do not meet, it is the one value of the pool that is nearest to the configured range. A range that is
    no number is that of the present value alone.
    """
    low, high = tunable.low, tunable.high
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        return KnobRange(tunable.value, tunable.value)
    first, last = knobs.get(tunable.name, (low, high))
    return KnobRange(min(max(first, low), high), max(min(last, high), low))


def stepped(tunable: Tunable, wanted: float, allowed: KnobRange, *, limited: bool = True) -> float:
    """Return the value nearest to *wanted* that one change may set: within *allowed*, on the grid of the tunable's
    step, and, if *limited*, at most one step of its rule away.
    """
    value, rule = tunable.value, rule_of(tunable.name)
    if limited and value > 0:
        highest, lowest = value * rule.up, value * rule.down
        if rule.kind == "size":
            highest = max(highest, value + 4)
        if tunable.unit == "count":
            highest, lowest = max(highest, value + 1), min(lowest, value - 1)
        wanted = min(max(wanted, lowest), highest)
    wanted = allowed.clip(wanted)
    if tunable.step <= 0 or not math.isfinite(tunable.step):
        return wanted
    steps = (wanted - value) / tunable.step
    on_grid = value + math.trunc(steps + math.copysign(1e-9, steps)) * tunable.step
    return on_grid if allowed.low <= on_grid <= allowed.high else value


def same(first: float, second: float, step: float = 0.0) -> bool:
    """Whether two values of a setting are one."""
    return abs(first - second) <= max(step * 1e-3, 1e-9 * max(abs(first), abs(second)), 1e-12)
