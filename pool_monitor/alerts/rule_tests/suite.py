"""What a file of tests says, after it was read."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pool_monitor.alerts.delivery.notification import Status
from pool_monitor.alerts.rehearsal import Upshot
from pool_monitor.alerts.rule_tests.written import WrittenSeries

ExpectedState = Literal["pending", "firing", "recovering"]
EVALUATIONS_MAX = 1_000_000
"""Most evaluations of one test."""


class ExpectedAlert(Struct, frozen=True, kw_only=True):
    """One alert that a test expects."""

    labels: dict[str, str]
    """All of its labels, without ``alertname``. Where ``severity`` is not given, any will do."""
    annotations: dict[str, str] | None = None
    """All of its annotations; None: any."""
    state: ExpectedState | None = None
    """None: it fires, or recovers."""
    flags: dict[str, bool] = {}
    """The overlays that are said to be there or not, by the names of the fields of `AlertView`."""


class Check(Struct, frozen=True, kw_only=True):
    """What the alerts of one rule are at one moment."""

    alertname: str
    time: float
    """Seconds after the beginning."""
    expected: tuple[ExpectedAlert, ...]
    line: int
    column: int


class ExpectedToldAlert(Struct, frozen=True, kw_only=True):
    """One alert that a notification is expected to tell."""

    alertname: str
    labels: dict[str, str] | None = None
    """All of its labels; None: any. Where ``severity`` is not given, any will do."""
    annotations: dict[str, str] | None = None
    """All of its annotations; None: any."""
    status: Status | None = None
    """None: either."""
    flags: dict[str, bool] = {}
    """Whether it is flapping or delayed, by the names of the fields of `ToldAlert`."""
    line: int
    column: int


class ExpectedNotification(Struct, frozen=True, kw_only=True):
    """One notification that is expected to arrive. None: it may have any."""

    receiver: str
    time: float
    """Seconds after the beginning."""
    status: Status | None = None
    reason: str | None = None
    firing: int | None = None
    resolved: int | None = None
    """How many alerts it counts."""
    alerts: tuple[ExpectedToldAlert, ...] | None = None
    """All that it lists."""
    line: int
    column: int


class ExpectedQuiet(Struct, frozen=True, kw_only=True):
    """A time, from *starts_at* up to *ends_at*, in which nothing is expected to arrive at a receiver."""

    receiver: str
    starts_at: float = 0.0
    ends_at: float | None = None
    """None: the end of the test."""
    line: int
    column: int


class Fault(Struct, frozen=True, kw_only=True):
    """What a receiver answers, other than that the notification has arrived."""

    receiver: str
    starts_at: float
    ends_at: float | None
    """None: it is the answer to one attempt."""
    upshot: Upshot
    line: int
    column: int


class WrittenSilence(Struct, frozen=True, kw_only=True):
    """A silence. Times are seconds after the beginning."""

    matchers: dict[str, object]
    starts_at: float = 0.0
    ends_at: float | None = None


class WrittenAcknowledgement(Struct, frozen=True, kw_only=True):
    """Somebody acknowledges the alerts of a rule that have some labels."""

    alertname: str
    at: float
    labels: dict[str, str] = {}
    line: int
    column: int


class Case(Struct, frozen=True, kw_only=True):
    """One test."""

    name: str
    line: int
    start: float
    """The time of its beginning, in seconds since the epoch."""
    interval: float
    """Between two points of a series."""
    series: tuple[WrittenSeries, ...]
    checks: tuple[Check, ...]
    silences: tuple[WrittenSilence, ...] = ()
    acknowledgements: tuple[WrittenAcknowledgement, ...] = ()
    notifications: tuple[ExpectedNotification, ...] = ()
    quiet: tuple[ExpectedQuiet, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def end(self) -> float:
        """When the last thing is checked, in seconds after the beginning."""
        times = [check.time for check in self.checks] + [one.time for one in self.notifications]
        times += [one.starts_at if one.ends_at is None else one.ends_at for one in self.quiet]
        return max(times, default=0.0)


class Suite(Struct, frozen=True, kw_only=True):
    """One file of tests."""

    file: str
    rule_files: tuple[str, ...]
    interval: float
    """Between two evaluations."""
    cases: tuple[Case, ...]
