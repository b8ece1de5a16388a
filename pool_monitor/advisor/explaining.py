"""Why a recommendation is made, as text: the test, the figures, and what would disprove it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pool_monitor.advisor.evidence import figure_words
from pool_monitor.advisor.multiplicity import SignificantDetection
from pool_monitor.advisor.persistence import PASSES
from pool_monitor.advisor.priority import confidence, label
from pool_monitor.snapshot.advice import Pattern, Recommendation

DISPROOFS: Mapping[Pattern, str] = {
    "underused": "a busy day comes in which the smaller size would not keep the target",
    "overloaded": "the waits stay as long with more workers, or end by themselves because a burst is over",
    "imbalance": "its calls take as long on another worker, or the others become as slow",
    "leak": "its memory stays level for hours under the same calls",
    "slow_operation": "the times return to what they were with the same payloads, or it was a deploy that is meant so",
    "error_hotspot": "the errors go on elsewhere after the worker was replaced, or the input was the cause",
    "bad_timeout": "calls that get more time fail all the same, or calls that get less were about to succeed",
    "cold_start": "the starts were a deploy, or planned",
    "oversubscription": "the service times stay as long with fewer calls at once",
    "throttled": "the service times stay as long once the throttling has ended",
    "loop_lag": "the waits stay as long once the loop is not late any more",
    "noisy_neighbour": "the service times stay as long once the other processes are gone",
}
"""What would show that a recommendation was wrong."""


class Grounds(NamedTuple):
    """What a recommendation stands on."""

    judged: SignificantDetection
    share: float
    """The share of the latest passes that have found it."""

    @property
    def confidence(self) -> float:
        found = self.judged.detection
        return confidence(self.judged.q, found.samples, found.samples_min, self.share, found.fidelity)


def explanation(told: Recommendation, grounds: Grounds | None) -> str:
    """The text, of several lines. *grounds* None: it was taken over from before a restart."""
    lines = [f"{told.pattern}: {told.subject}", told.summary, f"What to do: {told.action}"]
    if told.check_first:
        lines.append(f"Check first: {told.check_first}")
    if told.change is not None:
        lines.append(f"Change: {told.change.knob} from {told.change.current:g} to {told.change.proposed:g}")
    if told.effect is not None:
        effect = told.effect
        cost = "" if effect.cost is None else f", memory {effect.cost / 1e6:+.0f} MB"
        interval = f"from {effect.low:g} to {effect.high:g} with 95 % confidence"
        lines.append(f"Expected: {effect.metric} {effect.now:g} becomes {effect.expected:g}, {interval}{cost}")
    lines += _grounds(told, grounds) if grounds is not None else ["It was found before the service was restarted."]
    lines.append(f"It is wrong if {DISPROOFS[told.pattern]}.")
    return "\n".join(lines)


def _grounds(told: Recommendation, grounds: Grounds) -> list[str]:
    found, judged = grounds.judged.detection, grounds.judged
    test = "Test: a bound on the figures themselves, without a probability"
    if found.p > 0:
        test = f"Test: p = {found.p:.2g}, adjusted for {judged.tests} tests of the pass: q = {judged.q:.2g}"
    weight = found.samples / max(found.samples + found.samples_min, 1)
    return [
        f"Found in {round(grounds.share * PASSES)} of the last {PASSES} passes",
        test,
        "Figures: " + ", ".join(figure_words(name, value) for name, value in told.evidence.items()),
        (
            f"Confidence {told.confidence:.2f} ({label(told.confidence)}) = (1 - q) {1 - judged.q:.3g} x samples "
            f"{weight:.2g} ({found.samples}, at least {found.samples_min}) x passes {grounds.share:.1f} x model "
            f"{found.fidelity:.2g}"
        ),
        (
            f"Priority {told.score:.0f} of 100 = impact {found.impact:.2g} x confidence {told.confidence:.2f} "
            f"x urgency {found.urgency:.2g} / (1 + risk {told.risk} / 4)"
        ),
    ]
