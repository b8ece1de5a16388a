"""Advice and tuning in words: a change, an effect, a trial, the tuner. Pages, commands and reports share them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isfinite

from pool_monitor.alerts.catalogue import METRICS, Unit
from pool_monitor.alerts.quantity import text_of
from pool_monitor.snapshot import (
    TRIAL_RUNNING,
    TRIAL_WAITING,
    Change,
    ChangeState,
    Effect,
    Pattern,
    Recommendation,
    SizingView,
    Snapshot,
    TrialView,
    TuningView,
)
from pool_monitor.view import format as fmt
from pool_monitor.view.text import clean, one_line

PATTERN_WORDS: dict[Pattern, str] = {
    "underused": "more workers than needed",
    "overloaded": "too few workers",
    "imbalance": "some workers do most",
    "leak": "memory grows",
    "slow_operation": "slower than it was",
    "error_hotspot": "failures gather here",
    "bad_timeout": "the time-out does not fit",
    "cold_start": "workers are started too often",
    "oversubscription": "more workers than processors",
    "throttled": "the processor limit holds",
    "loop_lag": "the event loop is late",
    "noisy_neighbour": "others use the machine",
}
"""What each pattern means, in a few words."""
STATE_WORDS: dict[ChangeState, str] = {
    "proposed": "proposed",
    "awaiting_approval": "waits",
    "applying": "applying",
    "validating": "on trial",
    "rolling_back": "undoing",
    "verifying": "verifying",
    "kept": "kept",
    "rolled_back": "rolled back",
    "rejected": "rejected",
    "expired": "expired",
    "set": "set",
}
"""Each state of a change, in at most 11 cells."""
LATELY_S = 900.0
"""For so many seconds, a trial that was rolled back is a notice."""
_METRIC_WORDS = {
    "pool.queue.p95": "p95 wait",
    "pool.queue.mean": "mean wait",
    "pool.latency.p95": "p95 latency",
    "pool.error_ratio": "failed calls",
    "pool.utilisation": "utilisation",
    "pool.execution.mean": "mean execution time",
    "operation.execution.mean": "mean execution time",
    "worker.rss": "memory of a worker",
}
_OWN_METRICS: dict[str, tuple[str, Unit]] = {
    "pool.start_ratio": ("worker time spent on starts", "ratio"),
    "operation.hung_time_ratio": ("worker time of calls that hang", "ratio"),
    "operation.timeouts_ratio": ("calls that the time-out cuts off", "ratio"),
}
"""Metrics of effects that only the advisor computes, so that no rule can name them: their words and units."""
_EVIDENCE_UNITS: dict[str, Unit] = {
    **dict.fromkeys(("wait", "p95_wait", "wait_mean", "mean", "execution_mean", "execution_p50", "p999"), "s"),
    **dict.fromkeys(("timeout", "limit", "lag_p99", "slow_above", "life", "seconds", "seconds_left"), "s"),
    **dict.fromkeys(("worker_seconds_lost", "worker_seconds_wasted"), "s"),
    **dict.fromkeys(
        ("utilisation", "highest_utilisation", "share_of_calls", "pressure_cpu", "idle_ratio_p10"), "ratio"
    ),
    **dict.fromkeys(("rss", "bytes_per_hour"), "bytes"),
}
"""The units of figures whose names do not say them."""
_BOUND = re.compile(r"_(low|high|before|elsewhere|replayed)$")
"""What the name of a figure has behind that of the figure it belongs to."""
_UNITS: dict[str, Unit] = {"s": "s", "ratio": "ratio", "bytes": "bytes", "count": "count"}


# -- figures ----------------------------------------------------------------------------------------------------------


def value_words(value: float | None, unit: str) -> str:
    """Return a value of a tunable, in its unit."""
    return text_of(value, _UNITS.get(unit, ""))


def change_words(knob: str, before: float, after: float, unit: str = "") -> str:
    """Return a change of a setting: ``size 4 > 6``."""
    return f"{one_line(knob)} {value_words(before, unit)} > {value_words(after, unit)}"


def metric_words(metric: str) -> str:
    """Return the name of a metric as a person says it."""
    own = _OWN_METRICS.get(metric)
    return own[0] if own is not None else _METRIC_WORDS.get(metric) or clean(metric)


def effect_words(effect: Effect | None, change: Change | None = None) -> str:
    """Return what is expected: ``p95 wait 480ms -> about 60ms (40ms to 90ms) at 6 workers, +2 x 48MiB``. Empty: no
    effect is known.
    """
    if effect is None:
        return ""
    unit = _unit_of(effect.metric)
    text = f"{metric_words(effect.metric)} {text_of(effect.now, unit)} -> about {text_of(effect.expected, unit)}"
    if isfinite(effect.low) and isfinite(effect.high) and effect.low < effect.high:
        text += f" ({text_of(effect.low, unit)} to {text_of(effect.high, unit)})"
    if change is not None and change.knob == "size":
        text += f" at {fmt.plural(round(change.proposed), 'worker')}"
    return f"{text}{_cost(effect, change)}"


def _cost(effect: Effect, change: Change | None) -> str:
    if effect.cost is None or not isfinite(effect.cost) or not effect.cost:
        return ""
    sign = "+" if effect.cost > 0 else "-"
    more = abs(round(change.proposed - change.current)) if change is not None and change.knob == "size" else 0
    if more > 1:
        return f", {sign}{more} x {text_of(abs(effect.cost) / more, 'bytes')}"
    return f", {sign}{text_of(abs(effect.cost), 'bytes')}"


def measured_words(trial: TrialView) -> str:
    """Return what the metric of a trial came to. Empty: it was not measured."""
    if trial.measured is None or trial.effect is None:
        return ""
    unit = _unit_of(trial.effect.metric)
    return f"{metric_words(trial.effect.metric)} came to {text_of(trial.measured, unit)}"


def _unit_of(metric: str) -> Unit:
    if (own := _OWN_METRICS.get(metric)) is not None:
        return own[1]
    found = METRICS.get(metric)
    return found.unit if found is not None else "s" if metric.endswith(("p95", "p99", "wait", "latency")) else ""


def evidence_words(evidence: dict[str, float]) -> str:
    """Return the figures that something stands on, in their units as far as these are known."""
    return ", ".join(f"{clean(name)} {text_of(value, _evidence_unit(name))}" for name, value in evidence.items())


def _evidence_unit(name: str) -> Unit:
    bare = _BOUND.sub("", name)
    if bare in _EVIDENCE_UNITS:
        return _EVIDENCE_UNITS[bare]
    if bare.endswith(("_ratio", "_share")):
        return "ratio"
    if bare.endswith("_bytes"):
        return "bytes"
    return "s" if bare.endswith(("_s", "_seconds")) else ""


# -- recommendations --------------------------------------------------------------------------------------------------


def is_open(found: Recommendation) -> bool:
    """Whether somebody may still do something about *found*."""
    return found.state in ("new", "open")


def recommendation_name(found: Recommendation) -> str:
    """Return what is recommended, in a few words: ``overloaded of pool text``."""
    return f"{clean(found.pattern)} of {one_line(found.subject)}"


def recommendation_line(found: Recommendation) -> str:
    """Return one recommendation in one line."""
    effect = effect_words(found.effect, found.change)
    expected = f"; expected: {effect}" if effect else ""
    return (
        f"{recommendation_name(found)} (score {found.score:.0f}): {one_line(found.summary)}; "
        f"do: {one_line(found.action)}{expected}"
    )


def recommendation_lines(found: Recommendation, now: float) -> Iterator[str]:
    """Yield everything about one recommendation."""
    yield (
        f"{recommendation_name(found)}: {PATTERN_WORDS.get(found.pattern, '')}; score "
        f"{found.score:.0f} of 100, confidence {fmt.percent(found.confidence)}, {fmt.plural(found.samples, 'sample')}"
    )
    yield one_line(found.summary)
    if found.effect is not None:
        yield f"expected: {effect_words(found.effect, found.change)}"
    yield f"do: {one_line(found.action)}"
    if found.check_first:
        yield f"check first: {one_line(found.check_first)}"
    if found.change is not None:
        yield f"change: {change_words(found.change.knob, found.change.current, found.change.proposed)}; {_risk(found)}"
    if found.evidence:
        yield f"evidence: {evidence_words(found.evidence)}"
    seen = f"since {age(now, found.opened_at)}, last found {age(now, found.updated_at)} ago"
    yield f"{found.state} {seen}; id {clean(found.id)}"
    if found.playbook:
        yield f"playbook: {one_line(found.playbook)}"


def _risk(found: Recommendation) -> str:
    words = ("it cannot do harm", "low risk", "some risk", "high risk", "very high risk")
    return words[min(max(found.risk, 0), len(words) - 1)]


# -- trials -----------------------------------------------------------------------------------------------------------


def trial_name(trial: TrialView) -> str:
    """Return what a trial changes: ``text: size 4 > 6``."""
    return f"{one_line(trial.pool)}: {change_words(trial.knob, trial.before, trial.after, trial.unit)}"


def is_decision(made: TrialView) -> bool:
    """Whether *made* is a change without a trial: its id is ``POOL/SETTING``, and others may have the same."""
    return "/" in made.id


def decision_line(made: TrialView) -> str:
    """Return a change without a trial, and why it was made: ``2026-11-30 08:55:00 text: size 4 > 6, policy: ...``."""
    by = f" by {one_line(made.actor)}" if made.actor else ""
    at = fmt.short_time(made.started_at, 365 * 86_400.0, 1)
    return f"{at} {trial_name(made)}, {one_line(made.origin)}{by}: {one_line(made.reason)}"


def trial_lines(trial: TrialView, now: float) -> Iterator[str]:
    """Yield everything about one trial."""
    ends = "" if trial.due_at is None else f", ends in {fmt.whole_age(max(trial.due_at - now, 0.0))}"
    yield f"{trial_name(trial)}: {STATE_WORDS[trial.state]} for {age(now, trial.changed_at)}{ends}"
    if trial.why:
        yield f"why: {one_line(trial.why)}"
    if trial.reason != trial.why:
        yield f"now: {one_line(trial.reason)}"
    if trial.effect is not None:
        change = Change(knob=trial.knob, current=trial.before, proposed=trial.after)
        yield f"expected: {effect_words(trial.effect, change)}"
    if measured := measured_words(trial):
        yield measured
    by = f", by {one_line(trial.actor)}" if trial.actor else ""
    yield f"origin {one_line(trial.origin)}, proposed {age(now, trial.started_at)} ago{by}; id {clean(trial.id)}"


def trial_reason(trial: TrialView) -> str:
    """Return why a trial is in its state; while it waits, why it was proposed, after what keeps it from beginning."""
    if trial.state not in TRIAL_WAITING or not trial.why or trial.why == trial.reason:
        return one_line(trial.reason)
    return one_line(f"{trial.reason}; {trial.why}")


# -- the tuner --------------------------------------------------------------------------------------------------------


def tuner_words(tuning: TuningView | None, now: float) -> str:
    """Return the mode, the policy, and why nothing is changed if that is so."""
    if tuning is None:
        return "the tuner is off"
    text = f"tuner {tuning.mode}, policy {one_line(tuning.policy)}"
    if tuning.frozen is not None:
        until = "" if tuning.frozen_until is None else f", for another {fmt.whole_age(tuning.frozen_until - now)}"
        text += f"; frozen: {one_line(tuning.frozen)}{until}"
    counts = []
    if tuning.pending:
        counts.append(f"{fmt.plural(len(tuning.pending), 'change')} {waits(len(tuning.pending))} for approval")
    running = [trial for trial in tuning.trials if trial.state in TRIAL_RUNNING]
    if running:
        counts.append(f"{fmt.count(len(running))} on trial")
    return "; ".join([text, *counts])


def waits(number: int) -> str:
    """Return the verb for so many things that wait."""
    return "waits" if number == 1 else "wait"


def sizing_words(sizing: SizingView) -> str:
    """Return what is wanted for the size of one pool, and why."""
    wanted = "" if sizing.wanted is None else f", wants {sizing.wanted}"
    bounds = [f"{sizing.low} to {sizing.high}"]
    if sizing.floor is not None:
        bounds.append(f"floor {sizing.floor}")
    if sizing.ceiling is not None and sizing.ceiling < sizing.high:
        bounds.append(f"ceiling {sizing.ceiling}")
    why = f": {one_line(sizing.why)}" if sizing.why else ""
    return f"{one_line(sizing.pool)}: {fmt.plural(sizing.size, 'worker')}{wanted} ({', '.join(bounds)}){why}"


def tuning_hint(snapshot: Snapshot) -> str:
    """Return what waits for a person, in words. Empty: nothing does."""
    tuning = snapshot.tuning
    if tuning is None or not tuning.pending:
        return ""
    return f"{fmt.plural(len(tuning.pending), 'change')} {waits(len(tuning.pending))} for approval: t"


def rolled_back(snapshot: Snapshot) -> list[TrialView]:
    """Return the trials that were rolled back lately."""
    trials: Sequence[TrialView] = () if snapshot.tuning is None else snapshot.tuning.trials
    return [one for one in trials if one.state == "rolled_back" and snapshot.taken_at - one.changed_at < LATELY_S]


def age(now: float, at: float) -> str:
    """Return how long ago *at* was."""
    return fmt.whole_age(max(now - at, 0.0))
