"""The rule files of a service together."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import NamedTuple

from msgspec import Struct

from pool_monitor.alerts.routing import LOG, Receiver, Route
from pool_monitor.alerts.rule import CheckedRule, Inhibition
from pool_monitor.alerts.rule_file.across import Hints, conflicts, not_replaced
from pool_monitor.alerts.rule_file.fields import name_of
from pool_monitor.alerts.rule_file.file import FileReading, RuleFile, in_words, node_at
from pool_monitor.alerts.rule_file.nodes import ListNode, MapNode, Node, Problem, ScalarNode
from pool_monitor.alerts.rule_file.routes import labels_named, misdirected, named_receivers
from pool_monitor.alerts.rule_file.shape import INSTANCE_LABELS
from pool_monitor.alerts.rule_file.yaml_text import BYTES_MAX
from pool_monitor.errors import ConfigError

STDIN = "<stdin>"
"""What a file from stdin is called."""
SHOWN_MAX = 100
"""Most problems in the text of one error."""


class RuleSet(Struct, frozen=True, kw_only=True):
    """What all files of a service say together."""

    rules: tuple[CheckedRule, ...] = ()
    route: Route | None = None
    receivers: tuple[Receiver, ...] = ()
    inhibit: tuple[Inhibition, ...] = ()
    warnings: tuple[Problem, ...] = ()


class CheckedFiles(NamedTuple):
    """The files of a service, and everything that is wrong with them, in the order of the files."""

    files: tuple[RuleFile | None, ...]
    """None: it has an error."""
    problems: tuple[Problem, ...]
    unread: Mapping[str, str]
    """Why a file could not be read, by its name."""

    @property
    def good(self) -> bool:
        """Whether there is no error. There may be warnings."""
        return not self.unread and all(one.level == "warning" for one in self.problems)


def check(text: str | bytes, name: str, known: Sequence[CheckedRule] = ()) -> tuple[RuleFile | None, list[Problem]]:
    """Check the text of one file, which is all that a service has besides the rules *known*.

    Returns what it says, None if it has an error, and its problems in the order of the file. Never raises.
    """
    reading = FileReading(name)
    reading.read(text)
    _check_together([reading], known)
    problems = reading.problems
    return (None if problems.errors else reading.file), problems.in_order()


def check_files(
    paths: Iterable[str | FilePath],
    known: Sequence[CheckedRule] = (),
    *,
    stdin: Callable[[int], bytes] | None = None,
) -> CheckedFiles:
    """Check all rule files of a service, which also has the rules *known* (see `load`). Blocks on the disk.

    *stdin* reads so many bytes, at most, of the file that is called ``-``.
    """
    readings: list[FileReading] = []
    unread: dict[str, str] = {}
    for path in paths:
        name = os.fspath(path)
        piped = stdin is not None and name == "-"
        reading = FileReading(STDIN if piped else name)
        try:
            data = stdin(BYTES_MAX + 1) if stdin is not None and piped else contents(name)
        except (OSError, ValueError) as error:
            unread[name] = getattr(error, "strerror", None) or str(error)
            reading.problems.broken = True  # what others name may be in it
        else:
            reading.read(data)
        readings.append(reading)
    _check_together(readings, known)
    files = tuple(None if one.problems.errors or one.problems.file in unread else one.file for one in readings)
    return CheckedFiles(files, tuple(found for one in readings for found in one.problems.in_order()), unread)


def load(paths: Iterable[str | FilePath], known: Sequence[CheckedRule] = ()) -> RuleSet:
    """Return what the rule files of a service say together. Blocks on the disk.

    *known* has the rules that the service has besides: the files may name them, and may not use their names, except
    those of default rules, which they replace. Raises one ConfigError whose text has a line for each error of each
    file.
    """
    checked = check_files(paths, known)
    files = [one for one in checked.files if one is not None]
    if not checked.good:
        lines = [f"{name}: cannot be read: {why}" for name, why in checked.unread.items()]
        raise error_of([*lines, *(str(one) for one in checked.problems if one.level == "error")])
    return RuleSet(
        rules=tuple(rule for one in files for rule in one.rules),
        route=next((one.route for one in files if one.route is not None), None),
        receivers=tuple(receiver for one in files for receiver in one.receivers),
        inhibit=tuple(inhibition for one in files for inhibition in one.inhibit),
        warnings=checked.problems,
    )


def error_of(lines: Sequence[str]) -> ConfigError:
    """Return one error for several problems, at most `SHOWN_MAX` of them in full."""
    more = [f"... and {len(lines) - SHOWN_MAX} more"] if len(lines) > SHOWN_MAX else []
    return ConfigError("\n".join([*lines[:SHOWN_MAX], *more]))


def contents(path: str) -> bytes:
    """Return the bytes of a file, or enough of them to see that it is too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO without a writer would block
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(BYTES_MAX + 1)
    finally:
        os.close(descriptor)


def _check_together(readings: Sequence[FileReading], known: Sequence[CheckedRule]) -> None:
    broken = any(one.problems.broken for one in readings)
    placed = [(reading, one) for reading in readings for one in reading.rules]
    known = not_replaced(known, [one.rule for _, one in placed])
    unread = {name for reading in readings for name in reading.unread}
    rules = [*known, *(one.rule for _, one in placed)]
    for conflict in conflicts(rules, None if broken else unread, in_force=len(known)):
        reading, one = placed[conflict.rule - len(known)]
        _, node = node_at(one.node, conflict.path, at_key=conflict.at_key)
        reading.problems.add(node or one.node, f"{one.place}{in_words(conflict.path)}", conflict.message)
    if not broken:
        _check_receivers(readings)
        _check_labels(readings, known)


def _check_receivers(readings: Sequence[FileReading]) -> None:
    """Note doubled receivers and routes, receivers that do not exist, and those that nobody names."""
    names = frozenset({LOG.name, *_unique_receivers(readings)})
    has_route = _unique_route(readings)
    used: set[str] = set()
    for reading in readings:
        if reading.file is None or reading.problems.errors:
            used |= names  # what it uses is not known
        if reading.file is None:
            continue
        used |= named_receivers(reading.file.route, reading.file.receivers)
        for path, message in misdirected(reading.file.route, reading.file.receivers, names):
            _, nearest = node_at(reading.root, path)
            reading.problems.add(nearest or Node(1, 1), in_words(path).removeprefix("."), message)
    for reading in readings if has_route else ():
        for index, receiver in enumerate(reading.file.receivers if reading.file else ()):
            if receiver is not None and receiver.name and receiver.name not in used:
                _, nearest = node_at(reading.root, ("receivers", index, "name"))
                place = f'receivers[{index}] "{receiver.name}"'
                reading.problems.add(nearest or Node(1, 1), place, "no route names it", warning=True)


def _check_labels(readings: Sequence[FileReading], known: Sequence[CheckedRule]) -> None:
    """Warn of labels of routes and inhibitions that no alert has: a misspelt one in ``equal`` always agrees."""
    names = {"alertname", "severity", *INSTANCE_LABELS}
    names |= {label for rule in known for label, _ in rule.labels}
    names |= {label for reading in readings for label in _labels_written(reading.root)}
    hints = Hints(sorted(names))
    for reading in readings:
        for path, label in labels_named(reading.file.route, reading.file.inhibit) if reading.file else ():
            if label not in names:
                _, nearest = node_at(reading.root, path, at_key=True)
                near = hints.near(label)
                hint = f"did you mean {near}?" if near else "add it to a rule, or correct the name"
                text = f'no rule has the label "{label}"; {hint}'
                reading.problems.add(nearest or Node(1, 1), in_words(path).removeprefix("."), text, warning=True)


def _labels_written(root: Node | None) -> Iterator[str]:
    """Yield the labels of the rules of a file, also of those that are not valid."""
    rules, _ = node_at(root, ("rules",))
    for rule in rules.items if isinstance(rules, ListNode) else ():
        labels, _ = node_at(rule, ("labels",))
        yield from (key.text for key, _ in labels.pairs) if isinstance(labels, MapNode) else ()


def _unique_receivers(readings: Sequence[FileReading]) -> dict[str, str]:
    """Return the place of each receiver by its name, and note those of a name that is used already."""
    first: dict[str, str] = {}
    for reading in readings:
        node, _ = node_at(reading.root, ("receivers",))
        for index, item in enumerate(node.items if isinstance(node, ListNode) else ()):
            name, _ = node_at(item, ("name",))
            if not isinstance(name, ScalarNode) or not name_of(item):
                continue  # one that is not valid may be a secret
            where = f"{reading.problems.file}:{name.line}:{name.column}"
            before = first.setdefault(name.text, where)
            if before != where:
                place = f"receivers[{index}]{name_of(item)}.name"
                reading.problems.add(name, place, f"there is another receiver of this name; the first is in {before}")
    return first


def _unique_route(readings: Sequence[FileReading]) -> bool:
    """Note each route beyond the first. Returns whether there is one."""
    first: str | None = None
    for reading in readings:
        node, _ = node_at(reading.root, ("route",))
        if node is None:
            continue
        if first is not None:
            text = f"there is another route in {first}; all files of a service have one together"
            reading.problems.add(node, "route", text)
        first = first or f"{reading.problems.file}:{node.line}:{node.column}"
    return first is not None
