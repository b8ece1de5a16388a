"""What is usual for one instance: the median of its own values over a long time, without those that were bad."""

from __future__ import annotations

import math
from array import array
from statistics import median
from typing import Annotated

from msgspec import Meta, Struct

SLOTS = 288
"""Stretches of the window for which one value is kept each: 5 minutes of a day."""
ENOUGH = 12
"""Stretches, and values, that a baseline needs before it says anything: an hour of a day."""
OPEN_VALUES = 64
"""Values kept of the stretch that has not ended."""
ACCEPT_S = 6 * 3600.0
"""The least time that a level must be bad until it is the normal state, in seconds."""

_Value = Annotated[float, Meta(ge=-1e300, le=1e300)]
_Seconds = Annotated[float, Meta(ge=0, le=1e12)]


class SlotValues(Struct, forbid_unknown_fields=True):
    """Values by time: the median of each ended slot, and the values of the open one."""

    medians: Annotated[list[_Value], Meta(max_length=SLOTS)] = []
    values: Annotated[list[_Value], Meta(max_length=OPEN_VALUES)] = []
    open_s: _Seconds = 0.0
    """Seconds of the open slot."""
    every: Annotated[int, Meta(ge=1, le=2**40)] = 1
    """Each which value is kept: doubled whenever there are too many."""
    offered: Annotated[int, Meta(ge=0, le=2**53)] = 0
    """Values of the open slot, with those that were not kept."""
    count: Annotated[int, Meta(ge=0, le=2**53)] = 0
    """Values in all."""


class BaselineState(Struct, forbid_unknown_fields=True):
    """A `Baseline` outside of it."""

    good: SlotValues
    bad: SlotValues
    bad_s: _Seconds


class _Slots:
    """The last *width* x `SLOTS` seconds of values. Bounded: `SLOTS` and `OPEN_VALUES` numbers."""

    def __init__(self, width: float, saved: SlotValues) -> None:
        self._width = width
        self.medians = array("d", saved.medians)
        self._values = list(saved.values)
        self._open_s = saved.open_s
        self._every, self._offered = saved.every, saved.offered
        self.count = saved.count

    def add(self, value: float, seconds: float) -> bool:
        """Add *value*, which held for *seconds*. Return whether a slot has ended."""
        if self._offered % self._every == 0:
            if len(self._values) == OPEN_VALUES:
                self._values = self._values[::2]
                self._every *= 2
            self._values.append(value)
        self._offered += 1
        self.count += 1
        self._open_s += seconds
        if self._open_s < self._width:
            return False
        ended = math.floor(self._open_s / self._width)
        self.medians.extend([median(self._values)] * min(ended, SLOTS))
        del self.medians[:-SLOTS]
        self._open_s = max(0.0, self._open_s - ended * self._width)
        self._values, self._every, self._offered = [], 1, 0
        return True

    def saved(self) -> SlotValues:
        return SlotValues(
            medians=list(self.medians),
            values=list(self._values),
            open_s=self._open_s,
            every=self._every,
            offered=self._offered,
            count=self.count,
        )


class Baseline:
    """The median of the last *seconds* of one instance, without what was bad.

    Its time is that in which the value was known and not bad: neither an outage nor a night without traffic makes it
    forget. It is unknown until it has seen 1/24 of its time (an hour of a day) and `ENOUGH` values. It is the median of
    the medians of `SLOTS` stretches; the latest counts when it has ended.

    Bad values are kept apart. They become the baseline, in place of what was there, when the value has been bad for
    longer than `ACCEPT_S` and half of *seconds*; good values count against that time. So a lasting level is accepted,
    and an anomaly that ends changes nothing.

    Bounded: two times `SLOTS` and `OPEN_VALUES` numbers, below 7 KB.
    """

    def __init__(self, seconds: float, saved: BaselineState | None = None) -> None:
        saved = saved or BaselineState(good=SlotValues(), bad=SlotValues(), bad_s=0.0)
        self.seconds = seconds
        self._width = seconds / SLOTS
        self._accept_s = max(ACCEPT_S, seconds / 2)
        self._good, self._bad = _Slots(self._width, saved.good), _Slots(self._width, saved.bad)
        self._bad_s = saved.bad_s
        """For how long the value has been bad, less how long it has been good since."""
        self.median: float | None = None
        """What is usual now; None: not known yet."""
        self._compute()

    def learn(self, value: float, seconds: float, *, bad: bool) -> bool:
        """Take in a known *value*, which held for *seconds*. Return whether the baseline may have changed by it."""
        if bad:
            self._bad_s += seconds
            self._bad.add(value, seconds)
            if self._bad_s <= self._accept_s:
                return False
            self._good = self._bad
            self._forget_bad()
        else:
            if self._bad_s:
                self._bad_s -= seconds
                if self._bad_s <= 0:
                    self._forget_bad()
            if not self._good.add(value, seconds) and self._good.count != ENOUGH:  # with these, it becomes known
                return False
        self._compute()
        return True

    def saved(self) -> BaselineState:
        return BaselineState(good=self._good.saved(), bad=self._bad.saved(), bad_s=self._bad_s)

    def _forget_bad(self) -> None:
        self._bad, self._bad_s = _Slots(self._width, SlotValues()), 0.0

    def _compute(self) -> None:
        good = self._good
        self.median = median(good.medians) if len(good.medians) >= ENOUGH and good.count >= ENOUGH else None
