"""Whether what is kept reaches as far back as rules look."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from pool_monitor.alerts.catalogue import METRICS
from pool_monitor.alerts.evaluation import inputs_of
from pool_monitor.alerts.past import COURSES, MEMORY_S, is_past, stretch_of

if TYPE_CHECKING:
    from pool_monitor.alerts.inputs import Input
    from pool_monitor.alerts.rule import CheckedRule
    from pool_monitor.config import HistoryConfig

_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))


class ReachProblem(NamedTuple):
    """A rule that looks further back than what is kept, or at what is not kept at all."""

    rule: CheckedRule
    text: str
    """In words, with the remedy, without the place of the rule."""

    def __str__(self) -> str:
        origin = self.rule.origin
        place = "" if origin is None else f"{origin.file}:{origin.line}:{origin.column}: "
        return f"{place}rule {self.rule.alert!r}: {self.text}"


def check_reach(rules: Iterable[CheckedRule], history: HistoryConfig) -> list[ReachProblem]:
    """Return a problem for each of *rules* that needs more of the past than memory and *history* keep.

    Memory keeps an hour. The history keeps what its tiers say, from the moment on that it was first written; until it
    reaches back far enough, the values are unknown.
    """
    return [ReachProblem(rule, text) for rule in rules if (text := _problem(rule, history)) is not None]


def _problem(rule: CheckedRule, history: HistoryConfig) -> str | None:
    past = sorted(filter(is_past, inputs_of(rule)), key=lambda one: -stretch_of(one).reach)
    return next(filter(None, (_problem_of(one, history) for one in past)), None)


def _problem_of(one: Input, history: HistoryConfig) -> str | None:
    metric = METRICS.get(one.metric)
    if metric is None:
        return None  # it has an error of its own
    if not metric.kept or (one.kind == "fit" and metric.kept == "calls" and metric.name not in COURSES):
        return f"it needs earlier values of {one.metric}, and these are not kept"
    back, length = stretch_of(one)
    reach = back + length
    if reach <= MEMORY_S:
        return None
    needed = f"it looks back {_words(reach)}, and memory keeps {_words(MEMORY_S)}"
    if history.path is None:
        return f"{needed}; add [history] with a path, which keeps {_words(history.tiers[-1].retention)}"
    fine = [tier for tier in history.tiers if tier.step <= length]
    if any(tier.retention >= reach for tier in fine):
        return None
    if not fine:
        return f"{needed}; add a tier with a step of at most {length:.0f} s to `tiers` of [history]"
    most = max(fine, key=lambda tier: tier.retention)
    return (
        f"{needed}, and [history] keeps steps of at most {length:.0f} s for {_words(most.retention)}; "
        f"keep the tier with the step {most.step} for {reach:.0f} s or more (`tiers` of [history])"
    )


def _words(seconds: float) -> str:
    """Return *seconds* in the largest units that express it without a rest: ``3d``, ``1h 5m``."""
    left, parts = round(seconds), []
    for size, unit in _UNITS:
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"
