"""What a heartbeat says, and when it is due. No I/O; times are passed in, in seconds of a monotonic clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from pool_monitor.findings.monitor import DEBT_S
from pool_monitor.snapshot import AlertingView

Status = Literal["ok", "failing", "stopping"]
"""``stopping``: the monitor is left in order, and the next beat comes from its successor."""

CHANGE_S = 5.0
"""A change between ok and failing is told at once, but not sooner than this after the beat before."""
RETRY_MIN_S = 1.0
"""The shortest pause before a beat that has not arrived is sent again. Usually it is a quarter of the interval."""
REASONS_MAX, REASON_MAX = 10, 200
"""Most reasons in a beat, and most characters of each."""


class Pulse(NamedTuple):
    """A sign of life of the event loop."""

    at: float
    failing: tuple[str, ...] = ()
    """Why the monitor fails, in words; empty: it is well."""


class Beat(NamedTuple):
    """What is to be sent."""

    status: Status
    reasons: tuple[str, ...] = ()


def troubles(alerting: AlertingView | None, degraded: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the name of each thing that keeps a monitor from being relied on, and what it is, in words.

    *alerting*: None where no rules are evaluated. *degraded*: why each degraded part of the monitor is degraded.
    """
    for part, why in degraded.items():
        yield part, f"{part} is degraded: {why}"[:REASON_MAX]
    if alerting is None:
        return
    age, interval = alerting.evaluated_age, alerting.interval
    if alerting.paused is None and age is not None and age > max(3 * interval, interval + 10):
        yield "evaluation", f"the rules have not been evaluated for {age:.0f} s"
    if alerting.parked:
        yield "parked", f"messages that their receivers refuse: {alerting.parked}"
    elif alerting.oldest_debt is not None and alerting.oldest_debt > DEBT_S:
        yield "debt", f"a message has not arrived for {alerting.oldest_debt:.0f} s"


class Standing:
    """Which troubles stand. A part that fails and is started again at once is no reason to wake somebody: a trouble
    stands once it was there for *grace* seconds.

    Bound: one time for each trouble of the last `note`.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._since: dict[str, float] = {}

    def note(self, found: Mapping[str, str], now: float) -> tuple[str, ...]:
        """Return the words of those of *found* that stand, at most `REASONS_MAX`."""
        self._since = {name: self._since.get(name, now) for name in found}
        return tuple(text for name, text in found.items() if now - self._since[name] >= self._grace)[:REASONS_MAX]


class Beats:
    """Decides when a beat is due: every *every* seconds, and at once when what it says has changed.

    Without a fresh pulse there is no beat: the silence is the message. So after a process that was stopped goes on,
    the first beat comes when its event loop has run again.
    """

    def __init__(self, every: float) -> None:
        self.every = every
        self.fresh_for = max(3.0, every / 2)
        """For how long a pulse counts, in seconds."""
        self._next_at: float | None = None
        self._sent_at = 0.0
        self._said: Status | None = None

    def due(self, pulse: Pulse | None, now: float) -> Beat | None:
        """Return the beat that has to be sent now; None: there is none."""
        if pulse is None or now - pulse.at > self.fresh_for:
            return None
        status: Status = "failing" if pulse.failing else "ok"
        changed = status != self._said and now >= self._sent_at + min(self.every, CHANGE_S)
        if self._next_at is None or now >= self._next_at or changed:
            return Beat(status, pulse.failing)
        return None

    def sent(self, beat: Beat, began: float, *, arrived: bool) -> None:
        """*beat* was sent at *began*. One that has not *arrived* is sent again sooner, so that a hiccup of the network
        does not look like the end of the service.
        """
        self._sent_at = began
        self._next_at = began + (self.every if arrived else max(RETRY_MIN_S, self.every / 4))
        self._said = beat.status if arrived else None
