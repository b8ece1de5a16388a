"""One alert as the engine keeps it and the state file stores it."""

from __future__ import annotations

from msgspec import Struct

from pool_monitor.alerts.inputs import Labels
from pool_monitor.alerts.lifecycle import Phase


class Alert(Struct, kw_only=True):
    """One rule and one instance. Durations are seconds of counted time (`inputs.Inputs.elapsed`), not of a clock; they
    are what a restart continues.
    """

    alert: str
    """The name of the rule."""
    instance: Labels
    """The labels of the instance alone."""
    labels: dict[str, str]
    """With the labels of the rule, without ``severity``."""
    fingerprint: str
    state: Phase = Phase.INACTIVE
    level: int = 0
    """The level that the alert has; while pending, the one that it would have. 0: none yet."""
    value: float | None = None
    """The latest known value."""
    note: str = ""
    limit: float | None = None
    since: float = 0.0
    """Wall-clock time at which the state began."""
    active_since: float = 0.0
    """Wall-clock time at which it became bad."""
    fired_at: float | None = None
    resolved_at: float | None = None
    bad_for: list[float] = []
    """For each level, how long it has been reached without a break; -1: it is not reached."""
    good_for: float = -1.0
    """How long it has been good, while recovering; -1: it is not."""
    unknown_for: float = -1.0
    """How long the value has been unknown; -1: it is known."""
    reason: str = ""
    severity: str = "warning"
    unknown: bool = False
    peak: float | None = None
    """The worst value since it became bad."""
