"""What a rule says about each of its instances: pure functions of the rule, its inputs, and the memory of the rule.

Each kind of rule has a *plan*, a row of `_PLANS`. A plan is made once of a rule, and judges often. It looks at no
clock: its time is the sum of `Inputs.elapsed`. So a live monitor, a replay and a test of rules come to the same
judgements.

Unknown stays unknown: a value that is not there, no number, or from too few calls is never judged as good or as 0. What
kinds say about it beyond that stands with their plans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pool_monitor.alerts.evaluation.absence import AbsencePlan
from pool_monitor.alerts.evaluation.anomaly import AnomalyPlan
from pool_monitor.alerts.evaluation.composite import CompositePlan
from pool_monitor.alerts.evaluation.finding import FindingPlan
from pool_monitor.alerts.evaluation.forecast import ForecastPlan
from pool_monitor.alerts.evaluation.memory import Memory
from pool_monitor.alerts.evaluation.plan import Firing, NotRead, Plan
from pool_monitor.alerts.evaluation.rate_of_change import RateOfChangePlan
from pool_monitor.alerts.evaluation.slo_burn import SloBurnPlan
from pool_monitor.alerts.evaluation.threshold import ThresholdPlan
from pool_monitor.alerts.inputs import Input, Inputs, Judgement
from pool_monitor.alerts.rule import (
    Absence,
    AllOf,
    Anomaly,
    AnyOf,
    CheckedRule,
    FindingIs,
    Forecast,
    Not,
    RateOfChange,
    SloBurn,
    Threshold,
)

__all__ = ["Firing", "Memory", "NotRead", "evaluate", "inputs_of"]

_PLANS: Mapping[type, Callable[[CheckedRule, Any], Plan]] = MappingProxyType(
    {
        Threshold: ThresholdPlan,
        RateOfChange: RateOfChangePlan,
        Anomaly: AnomalyPlan,
        Absence: AbsencePlan,
        SloBurn: SloBurnPlan,
        Forecast: ForecastPlan,
        FindingIs: FindingPlan,
        AllOf: CompositePlan,
        AnyOf: CompositePlan,
        Not: CompositePlan,
    }
)


def inputs_of(rule: CheckedRule) -> frozenset[Input]:
    """Return what has to be read to evaluate *rule*."""
    return _plan(rule).reads


def evaluate(rule: CheckedRule, inputs: Inputs, memory: Memory, firing: Firing) -> list[Judgement]:
    """Return a judgement for each instance that *rule* matches in *inputs*, and at most one for each.

    *memory* is that of the rule. It changes with each call, so a call is one evaluation. Raises NotRead when an input
    is missing.
    """
    prepared, plan = memory.prepared
    if prepared is not rule:
        plan = _plan(rule)
        memory.prepared = (rule, plan)
    memory.begin(inputs.elapsed)
    found: list[Judgement] = plan.judge(inputs, memory, firing)
    return found


def _plan(rule: CheckedRule) -> Plan:
    return _PLANS[type(rule.kind)](rule, rule.kind)
