"""The three rules of a watch, and who is told: routes and receivers of a rule file."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pool_monitor.alerts.channels.precautions import warnings_of
from pool_monitor.alerts.defaults import default_rules
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.file_watch import FileWatch
from pool_monitor.alerts.routing import LOG
from pool_monitor.alerts.rule import CheckedRule, FindingIs
from pool_monitor.alerts.rule_book import Loaded
from pool_monitor.alerts.rule_file import load
from pool_monitor.errors import ConfigError
from pool_monitor.watch.watch_list import Kind

_RUNBOOK = "docs/OPERATIONS_PLAYBOOK.md#a-service-is-gone-frozen-or-stale"
GROUP_BY = ("alertname", "service")
"""How alerts are grouped where the file does not say: a service that is gone is no news about another."""


def _rule(alert: str, kind: Kind, severity: str, summary: str) -> CheckedRule:
    return CheckedRule(
        alert=alert,
        kind=FindingIs(kinds=(kind,)),
        severities=(severity,),
        annotations=(("summary", summary), ("runbook", _RUNBOOK)),
        default=True,
    )


RULES = (
    _rule("ServiceGone", "service_gone", "critical", "{service} is gone: {reason}"),
    _rule("ServiceFrozen", "service_frozen", "critical", "{service} does not answer: {reason}"),
    _rule("ServiceStale", "service_stale", "warning", "{service} cannot be relied on: {reason}"),
)


class WatchFiles:
    """Reads routes, receivers and inhibitions of a rule file. Its rules are checked and not evaluated: they are about
    what a service measures, and the service evaluates them. Methods block on the disk.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._watch = FileWatch([path])
        self.any = True

    def changed(self) -> bool:
        """Whether the file has changed since it was read, as `FileWatch.changed`."""
        return self._watch.changed(self._watch.look())

    def read(self, added: Sequence[CheckedRule]) -> Loaded:
        """Return the rules of a watch, and who is told by the file. Raises ConfigError, also for a file by which nobody
        is told.
        """
        found = self._watch.look()
        try:
            loaded = load([self._path], [*default_rules(), *RULES, *added])
        finally:
            self._watch.read(found)
        if loaded.route is None:
            raise ConfigError(f"{self._path}: has no route, so nobody would be told; add route and receivers")
        route = loaded.route
        # At once, unless the file says otherwise: a page has to come within two intervals.
        route = msgspec.structs.replace(
            route,
            group_wait=0.0 if route.group_wait is None else route.group_wait,
            group_by=GROUP_BY if route.group_by is None else route.group_by,
        )
        return Loaded(
            RULES,
            loaded.inhibit,
            (*map(str, loaded.warnings), *warnings_of(loaded.receivers)),
            Routing(route, {one.name: one for one in (LOG, *loaded.receivers)}),
        )
