"""The rules that come with the package, and which findings they are about."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pool_monitor.alerts.rule import FindingIs

if TYPE_CHECKING:
    from pool_monitor.alerts.rule import CheckedRule
    from pool_monitor.findings import Kind

DEFAULT_RULES = Path(__file__).with_name("default_rules.yaml")
MEASURED: dict[str, tuple[Kind, ...]] = {
    "Refusals": ("rejected",),
    "HostMemory": ("memory",),
    "HostCpu": ("cpu",),
    "WorkerMemory": ("memory",),
    "LoopBlocked": ("blocked",),
    "TelemetryDropped": ("events_dropped",),
    "HandlerDetached": ("handlers_detached",),
    "SeriesOverflow": ("series_overflowed",),
}
"""The findings that say the same as a default rule which measures by itself: it has more levels, or it can end."""
UNALERTED: dict[Kind, str] = {
    "failed": "FailingCalls measures it for each operation",
    "not_running": "somebody closes the pool, or it has just been started",
    "breaker_half_open": "BreakerOpen goes on for that long",
    "events_filtered_out": "somebody has configured it",
    "rules_late": "a rule that is not evaluated cannot say so",
}
"""The findings that no default rule is about, and why."""


@cache
def default_rules() -> tuple[CheckedRule, ...]:
    """Return the rules that come with the package. Blocks on the disk the first time."""
    from pool_monitor.alerts.rule_file import load

    return tuple(msgspec.structs.replace(rule, default=True) for rule in load([DEFAULT_RULES]).rules)


def findings_of(rule: CheckedRule) -> tuple[Kind, ...]:
    """Return the kinds of findings that say the same as the alerts of *rule*."""
    if isinstance(rule.kind, FindingIs):
        return rule.kind.kinds
    return MEASURED.get(rule.alert, ()) if rule.default else ()
