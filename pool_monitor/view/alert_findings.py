"""Alerts and findings that are the same fact: each fact is told once.

A rule may read findings (`AlertView.findings`). While such a finding is there, the finding is told, in its place and
with the numbers of now, and the alert is not. A finding whose alerts are all quiet (acknowledged, silenced, inhibited
or muted) is not told either: somebody knows.
"""

from __future__ import annotations

from collections.abc import Iterable

from pool_monitor import findings
from pool_monitor.findings import Finding, Levels
from pool_monitor.snapshot import AlertView, Snapshot
from pool_monitor.view.alert_words import fires, is_quiet, loud


def same_fact(alert: AlertView, finding: Finding) -> bool:
    """Whether *alert* is of a rule that reads *finding*, and of the same pool and worker."""
    labels = alert.labels
    return (
        finding.kind in alert.findings
        and labels.get("finding", finding.kind) == finding.kind
        and labels.get("pool") == finding.pool
        and ("worker" not in labels or labels["worker"] in finding.names)
    )


def still_told(snapshot: Snapshot, found: Iterable[Finding]) -> list[Finding]:
    """Return those of *found* that are told: all but those whose alerts are all quiet."""
    firing = [alert for alert in snapshot.alerts if alert.findings and fires(alert)]
    quiet = [alert for alert in firing if is_quiet(alert)]
    if not quiet:
        return list(found)
    others = [alert for alert in firing if not is_quiet(alert)]
    return [finding for finding in found if not _is_quieted(quiet, others, finding)]


def _is_quieted(quiet: Iterable[AlertView], others: Iterable[AlertView], finding: Finding) -> bool:
    """Whether the *quiet* alerts are about everything that *finding* names, and none of the *others* is about it."""
    mine = [alert for alert in quiet if same_fact(alert, finding)]
    if not mine or any(same_fact(alert, finding) for alert in others):
        return False
    workers = {alert.labels.get("worker") for alert in mine}
    return None in workers or workers >= set(finding.names)


def told_alerts(snapshot: Snapshot, levels: Levels) -> list[AlertView]:
    """Return the alerts that are told: those that fire, are not quiet, and have no finding that says the same."""
    firing = loud(snapshot.alerts)
    found = _every_finding(snapshot, levels) if any(alert.findings for alert in firing) else []
    return [alert for alert in firing if not any(same_fact(alert, finding) for finding in found)]


def _every_finding(snapshot: Snapshot, levels: Levels) -> list[Finding]:
    of_pools = [found for pool in snapshot.pools.values() for found in findings.of_pool(snapshot, pool, levels)]
    return [*findings.doubts(snapshot), *findings.of_resources(snapshot), *of_pools]
