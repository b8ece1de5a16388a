"""Reads the rules of a service from all of its files, and sees when they change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pool_monitor.alerts.channels import import_senders
from pool_monitor.alerts.channels.precautions import warnings_of
from pool_monitor.alerts.defaults import default_rules
from pool_monitor.alerts.delivery.targets import routing_of
from pool_monitor.alerts.file_watch import FileWatch
from pool_monitor.alerts.reach import check_reach
from pool_monitor.alerts.rule_book import Loaded, nearest
from pool_monitor.alerts.rule_file import RuleSet, load, not_replaced
from pool_monitor.errors import ConfigError

if TYPE_CHECKING:
    from pool_monitor.alerts.rule import CheckedRule
    from pool_monitor.config import AlertsConfig, HistoryConfig


class RuleSource(Protocol):
    """Where a manager has its rules from. Methods block on the disk."""

    @property
    def any(self) -> bool:
        """Whether there is a file that can change."""

    def changed(self) -> bool:
        """Whether a file has changed since it was read, and not since the look before."""

    def read(self, added: Sequence[CheckedRule]) -> Loaded:
        """Return what the files have. *added*: the rules that there are besides. Raises ConfigError."""


class RuleFiles:
    """The files of *config* and the rules that come with the package. Methods block on the disk."""

    def __init__(self, config: AlertsConfig, history: HistoryConfig) -> None:
        self._config, self._history = config, history
        self._watch = FileWatch(config.rules)

    @property
    def any(self) -> bool:
        """Whether there is a file that can change."""
        return bool(self._config.rules)

    def changed(self) -> bool:
        """Whether a file has changed since it was read, as `FileWatch.changed`."""
        return self._watch.changed(self._watch.look())

    def read(self, added: Sequence[CheckedRule]) -> Loaded:
        """Return what the files have. *added*: the rules that there are besides. Raises ConfigError with the problems
        of all files, one a line.
        """
        found = self._watch.look()  # what changes while they are read has changed afterwards
        try:
            return self._read(added)
        finally:
            self._watch.read(found)

    def _read(self, added: Sequence[CheckedRule]) -> Loaded:
        problems: list[str] = []
        defaults = self._defaults(problems)
        loaded = RuleSet()
        try:
            loaded = load(self._config.rules, [*defaults, *added])
        except ConfigError as error:
            problems.append(str(error))
        problems += map(str, check_reach(loaded.rules, self._history))
        if problems:
            raise ConfigError("\n".join(problems))
        import_senders(loaded.receivers)
        return Loaded(
            (*not_replaced(defaults, loaded.rules), *loaded.rules),
            loaded.inhibit,
            (*map(str, loaded.warnings), *warnings_of(loaded.receivers)),
            routing_of(loaded.route, loaded.receivers),
        )

    def _defaults(self, problems: list[str]) -> list[CheckedRule]:
        """Return the default rules in force. One that looks further back than what is kept is not among them."""
        if not self._config.default_rules:
            return []
        rules = {rule.alert: rule for rule in default_rules()}
        problems += [
            f"[alerts] disable: there is no default rule {name!r}; {nearest(name, rules)}"
            for name in self._config.disable
            if name not in rules
        ]
        wanted = [rule for name, rule in rules.items() if name not in self._config.disable]
        too_far = {problem.rule.alert for problem in check_reach(wanted, self._history)}
        return [rule for rule in wanted if rule.alert not in too_far]
