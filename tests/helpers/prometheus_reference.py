"""Prometheus' rule for one alerting rule, written from its description and with its clocks: moments, not durations.

It shares nothing with the engine of alerts, so that tests can compare the two.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

RETENTION = 15 * 60.0
"""Seconds for which a resolved alert is kept."""


@dataclass
class Instance:
    state: str
    active_at: float
    fired_at: float | None = None
    resolved_at: float | None = None
    keep_since: float | None = None


class PrometheusRule:
    """One alerting rule; its instances are named by strings."""

    def __init__(self, hold: float, keep: float) -> None:
        self.hold, self.keep = hold, keep
        self.instances: dict[str, Instance] = {}

    def evaluate(self, now: float, true: AbstractSet[str]) -> None:
        """Evaluate at *now*, where the expression has a result for the instances *true*."""
        for name in true:
            known = self.instances.get(name)
            if known is None or known.state == "inactive":
                self.instances[name] = Instance("pending", now)
        for name, one in list(self.instances.items()):
            if name in true:
                one.keep_since = None
            elif not self._absent(name, one, now):
                continue
            if one.state == "pending" and now - one.active_at >= self.hold:
                one.state, one.fired_at = "firing", now
            if one.state == "firing" and now - one.active_at < self.hold:  # `for` was raised
                one.state, one.fired_at, one.keep_since = "pending", None, None

    def _absent(self, name: str, one: Instance, now: float) -> bool:
        """Do what follows for an instance without a result. Return whether it stays active."""
        kept = False
        if one.state == "firing" and self.keep > 0:
            if one.keep_since is None:
                one.keep_since = now
            kept = now - one.keep_since < self.keep
        if one.state == "pending":
            del self.instances[name]
            return False
        if one.resolved_at is not None and now - one.resolved_at > RETENTION:
            del self.instances[name]
            return False
        if one.state != "inactive" and not kept:
            one.state, one.resolved_at = "inactive", now
        return kept
