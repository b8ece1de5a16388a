"""One alert as the engine keeps it and the state file stores it, and the counting of its time."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from pool_monitor.alerts.inputs import Labels
from pool_monitor.alerts.lifecycle import FIRING_PHASES, LIFE, Phase

SLACK = 1e-6
"""Seconds. Sums of times may be short of an exact bound by rounding; an alert must not wait an evaluation for that."""
_OFFSET, _PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, 0xFFFFFFFFFFFFFFFF


class Alert(Struct, kw_only=True, gc=False):
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
    """The latest known value. Of a resolved alert, the one that it was resolved at."""
    note: str = ""
    limit: float | None = None
    since: float = 0.0
    """Wall-clock time at which the state began."""
    active_since: float = 0.0
    """Wall-clock time at which it became bad."""
    fired_at: float | None = None
    resolved_at: float | None = None
    bad_for: list[float] = []
    """For each level, how long it has been reached without a break; -1: it is not reached. While the alert recovers,
    the time of the levels that it has counts on."""
    good_for: float = -1.0
    """How long it has been good, while recovering; -1: it is not."""
    unknown_for: float = -1.0
    """How long the value has been unknown, where something follows from it; -1: it is known, or is kept."""
    reason: str = ""
    severity: str = "warning"
    unknown: bool = False
    peak: float | None = None
    """The worst value since it became bad."""
    measure: str = ""
    """What its rule measured when it was made (`ruling.measure_of`)."""

    def reached_for(self, seconds: float) -> int:
        """Return the highest level that has been reached for *seconds*."""
        return len([held for held in self.bad_for if held >= seconds - SLACK])

    def advance(self, level: int, elapsed: float, for_: float, keep_firing_for: float) -> Phase:
        """Count *elapsed* seconds that ended with *level* reached (0: good). Return the phase that follows; the alert
        has its old one until the caller sets it.
        """
        firing = self.state in FIRING_PHASES
        counted = level or (self.level if firing else 0)
        bad_for = self.bad_for
        for number, held in enumerate(bad_for):
            bad_for[number] = -1.0 if number >= counted else 0.0 if held < 0 else held + elapsed
        if level:
            self.good_for = -1.0
        else:
            self.good_for = self.good_for + elapsed if self.good_for >= 0 else 0.0
            if not firing or self.good_for >= keep_firing_for - SLACK:
                return LIFE.step(self.state, "over")
        held = bad_for[0] >= for_ - SLACK
        return LIFE.step(self.state, "early" if not held else "held" if level else "good")


def fingerprint_of(alert: str, labels: Mapping[str, str]) -> str:
    """Return the fingerprint of an alert, as Alertmanager computes it: the signature of its labels with ``alertname``.

    *labels* are those without ``severity``. 16 hexadecimal digits.
    """
    return f"{signature_of({**labels, 'alertname': alert}):016x}"


def signature_of(labels: Mapping[str, str]) -> int:
    """Return FNV-1a with 64 bits over the names and values, ordered by name, each with a byte 255 after it."""
    digest = _OFFSET
    for name, value in sorted(labels.items()):
        for byte in b"%b\xff%b\xff" % (name.encode(errors="replace"), value.encode(errors="replace")):
            digest = (digest ^ byte) * _PRIME & _MASK
    return digest
