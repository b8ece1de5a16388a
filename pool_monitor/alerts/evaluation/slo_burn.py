"""Rules of the kind slo_burn: the error budget of an objective is used up too fast.

The rows are those of The Site Reliability Workbook (2018), chapter 5, "Multiwindow, Multi-Burn-Rate Alerts", with the
row of one day that Sloth adds. A burn rate of 1 uses up the budget of the period exactly. A row is reached when the
burn rates of its long and of its short window are above its factor: the long one so that it matters, the short one so
that it ends soon after the errors do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pool_monitor.alerts.evaluation.memory import Memory
from pool_monitor.alerts.evaluation.plan import Firing, Matching, read
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Labels, Sample
from pool_monitor.alerts.rule import CheckedRule, Matcher, SloBurn

_MONTH = 30 * 86_400.0
SHORTEST_S = 60.0
"""The shortest window, in seconds."""
LEAST_EVENTS = 10
"""The least calls of a long window, for any objective."""
LEAST_BAD = 2
"""The least failed calls of a long window: one failure must wake nobody."""


class BurnRow(NamedTuple):
    """One row of the table. Windows are seconds."""

    level: int
    """1 a ticket (warning), 2 a page (critical)."""
    long: float
    short: float
    factor: float
    """The burn rate above which the row is reached."""


_BUDGETS = ((2, 3600.0, 0.02), (2, 6 * 3600.0, 0.05), (1, 86_400.0, 0.1), (1, 3 * 86_400.0, 0.1))
"""Level, long window for a period of 30 days, and the share of the budget that this window may use."""


def rows_of(period: float) -> tuple[BurnRow, ...]:
    """Return the table for an objective over *period* seconds.

    Windows grow and shrink with the period, so factors stay those of the workbook: 14.4, 6, 3 and 1. Only where the
    shortest possible window forces a long window of its own, the factor follows from the share of the budget.
    """
    rows = []
    for level, window, budget in _BUDGETS:
        long = max(window * period / _MONTH, 12 * SHORTEST_S)
        rows.append(BurnRow(level, long, long / 12, budget * period / long))
    return tuple(rows)


class _Burn(NamedTuple):
    """What one window says of one instance."""

    calls: float
    failed: float
    rate: float


class SloBurnPlan:
    """Level 1 where a row of tickets is reached, 2 where one of pages is.

    - What lies before the first measurement counts as healthy, with as many calls: 52 s of nothing but failures reach
      the first row of an objective of 99.9 % for 30 days, in the first hour of a service as in any other.
    - A window without calls is unknown. So is a long window with fewer calls than ``min_samples``, or, if the rule does
      not say, than a tenth of the calls for which the budget is one failure (10 at least).
    - With fewer than `LEAST_BAD` failures, a row is not reached.
    - Without a row that is reached, an unknown row makes the instance unknown.

    The value of a judgement is the burn rate of the long window, its limit the factor: of the row that is reached, or
    of the first one.
    """

    def __init__(self, rule: CheckedRule, kind: SloBurn) -> None:
        self._budget = 1 - kind.objective
        self._rows = rows_of(kind.period)
        self._least = rule.min_samples or max(LEAST_EVENTS, math.ceil(round(0.1 / self._budget, 6)))
        self._levels = len(rule.severities)
        scope = "pool" if kind.operation is None else "operation"
        names = [Matcher("pool", kind.pool)] + (
            [] if kind.operation is None else [Matcher("operation", kind.operation)]
        )
        self._matching = Matching((*rule.match, *names))
        self._inputs = {
            over: Input(metric=f"{scope}.error_ratio", kind="calls", over=over)
            for row in self._rows
            for over in (row.long, row.short)
        }
        self.reads = frozenset(self._inputs.values())

    def judge(self, inputs: Inputs, memory: Memory, firing: Firing) -> list[Judgement]:  # noqa: ARG002
        windows = {over: read(inputs, one).by_labels for over, one in self._inputs.items()}
        longest = read(inputs, self._inputs[max(self._inputs)])
        return [self._judge_one(sample.labels, windows) for sample in self._matching.choose(longest)]

    def _judge_one(self, labels: Labels, windows: Mapping[float, Mapping[Labels, Sample]]) -> Judgement:
        burns = {over: self._burn(over, samples.get(labels)) for over, samples in windows.items()}
        reached = [self._reached(row, burns) for row in self._rows]
        shown = reached.index(True) if True in reached else 0
        row = self._rows[shown]
        level = min(row.level, self._levels) if True in reached else None if None in reached else 0
        long = burns[row.long]
        return Judgement(labels, level, long.rate if long else None, "", row.factor)

    def _reached(self, row: BurnRow, burns: Mapping[float, _Burn | None]) -> bool | None:
        long, short = burns[row.long], burns[row.short]
        if long is None or long.calls < self._least:
            return None
        if long.failed < LEAST_BAD or long.rate <= row.factor:
            return False
        return None if short is None else short.rate > row.factor

    def _burn(self, over: float, sample: Sample | None) -> _Burn | None:
        if sample is None or len(sample.more) < 2 or sample.more[0] <= 0:
            return None
        calls, failed, *measured = sample.more
        share = min(1.0, measured[0] / over) if measured else 1.0
        return _Burn(calls, failed, failed / calls / self._budget * share)
