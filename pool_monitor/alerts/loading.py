"""Reads the rules of a service from all of its files, and sees when they change."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pool_monitor.alerts.file_watch import FileWatch
from pool_monitor.alerts.rule_book import Loaded, nearest
from pool_monitor.errors import ConfigError

if TYPE_CHECKING:
    from pool_monitor.alerts.rule import CheckedRule
    from pool_monitor.config import AlertsConfig

DEFAULT_RULES = Path(__file__).with_name("default_rules.yaml")


class RuleFiles:
    """The files of *config* and the rules that come with the package. Methods block on the disk."""

    def __init__(self, config: AlertsConfig) -> None:
        self._config = config
        self._watch = FileWatch(config.rules)

    @property
    def any(self) -> bool:
        """Whether there is a file that can change."""
        return bool(self._config.rules)

    def changed(self) -> bool:
        """Whether a file has changed since it was read, as `FileWatch.changed`."""
        return self._watch.changed(self._watch.look())

    def read(self) -> Loaded:
        """Return what the files have. Raises ConfigError with the problems of all of them, one a line."""
        found = self._watch.look()  # what changes while they are read has changed afterwards
        try:
            return self._read()
        finally:
            self._watch.read(found)

    def _read(self) -> Loaded:
        problems: list[str] = []
        defaults = list(self._defaults(problems)) if self._config.default_rules and DEFAULT_RULES.exists() else []
        loaded: Any = None
        try:
            loaded = _load(self._config.rules)
        except ConfigError as error:
            problems.append(str(error))
        ours = {rule.alert for rule in defaults}
        for rule in () if loaded is None else loaded.rules:
            if rule.alert in ours:
                place = "" if rule.origin is None else f"{rule.origin.file}:{rule.origin.line}:{rule.origin.column}: "
                problems.append(
                    f"{place}a rule that comes with the package is called {rule.alert!r}; use another name, or switch it "
                    f'off: [alerts] disable = ["{rule.alert}"]'
                )
        if problems:
            raise ConfigError("\n".join(problems))
        return Loaded((*defaults, *loaded.rules), tuple(loaded.inhibitions))

    def _defaults(self, problems: list[str]) -> Iterator[CheckedRule]:
        rules = {rule.alert: rule for rule in _load((str(DEFAULT_RULES),)).rules}
        for name in self._config.disable:
            if rules.pop(name, None) is None:
                problems.append(f"[alerts] disable: there is no default rule {name!r}; {nearest(name, rules)}")
        for rule in rules.values():
            yield msgspec.structs.replace(rule, default=True)


def _load(paths: tuple[str, ...]) -> Any:
    if not paths:
        return Loaded()
    return importlib.import_module("pool_monitor.alerts.rule_file").load(paths)
