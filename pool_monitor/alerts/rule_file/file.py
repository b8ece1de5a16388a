"""A rule file as a whole, as far as it can be checked alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

from pool_monitor.alerts.routing import Receiver, Route
from pool_monitor.alerts.rule import CheckedRule, Inhibition
from pool_monitor.alerts.rule_file.fields import Entry, Fields, Invalid, Section, note
from pool_monitor.alerts.rule_file.nodes import ListNode, MapNode, Node, Problems, ScalarNode
from pool_monitor.alerts.rule_file.routes import INHIBIT, RECEIVERS, ROUTE
from pool_monitor.alerts.rule_file.rules import RULE, RULES
from pool_monitor.alerts.rule_file.scalars import whole
from pool_monitor.alerts.rule_file.shape import Path
from pool_monitor.alerts.rule_file.yaml_text import decoded, nodes_of


class RuleFile(Struct, frozen=True, kw_only=True):
    """What one file says."""

    rules: tuple[CheckedRule, ...] = ()
    route: Route | None = None
    receivers: tuple[Receiver, ...] = ()
    inhibit: tuple[Inhibition, ...] = ()


_NOTHING = "says nothing; needs rules, and where there are none: rules: []"


class PlacedRule(NamedTuple):
    """A rule, or what could be read of one that is not valid, and where it stands."""

    rule: CheckedRule
    node: MapNode
    place: str


class FileReading:
    """One file: its problems, what of it is valid, and the names of what is not."""

    def __init__(self, name: str) -> None:
        self.problems = Problems(name)
        self.root: Node | None = None
        self.file: RuleFile | None = None
        """What it says. If there was an error, what could be read: None stands for what could not."""
        self.rules: list[PlacedRule] = []
        self.unread: set[str] = set()

    def read(self, data: bytes | str) -> None:
        text = decoded(data, self.problems) if isinstance(data, bytes) else data
        self.root = None if text is None else nodes_of(text, self.problems)
        if self.root is None:
            if not self.problems.errors:
                self.problems.add(Node(1, 1), "", f"the file {_NOTHING}")
            return
        try:
            self.file = file_section(self).read(self.root, "", self.problems)
        except Invalid as error:
            note(error, self.root, "", self.problems)
            self.file = error.partial


class _Rules:
    """The rules of a file. What could be read of a bad one takes part in the checks across rules."""

    words = RULES.words

    def __init__(self, reading: FileReading | None) -> None:
        self._reading = reading

    def read(self, node: Node, place: str, problems: Problems) -> tuple[CheckedRule, ...]:
        if isinstance(node, ScalarNode) and node.empty:
            return ()
        reading = self._reading
        assert reading is not None

        def one(item: Node, where: str) -> CheckedRule:
            name = node_at(item, ("alert",))[0]
            if isinstance(name, ScalarNode):
                reading.unread.add(name.text)
            try:
                rule: CheckedRule = RULE.read(item, where, problems)
            except Invalid as error:
                if isinstance(error.partial, CheckedRule) and isinstance(item, MapNode):
                    reading.rules.append(PlacedRule(error.partial, item, where))
                raise
            assert isinstance(item, MapNode)
            reading.rules.append(PlacedRule(rule, item, where))
            return rule

        return RULES.read(node, place, problems, one)

    def schema(self, definitions: dict[str, Any]) -> dict[str, Any]:
        return {"anyOf": [RULES.schema(definitions), {"type": "null"}]}


def _file(fields: Fields) -> RuleFile:
    whole = fields.node.complete and len(fields.node.pairs) == len(fields.nodes)
    if whole and not fields.nodes.keys() - {"version"}:
        fields.wrong("", _NOTHING)
    return RuleFile(
        rules=fields.get("rules", ()),
        route=fields.get("route"),
        receivers=fields.get("receivers", ()),
        inhibit=fields.get("inhibit", ()),
    )


def file_section(reading: FileReading | None = None) -> Section:
    """Return the grammar of a file. *reading* gets the rules that are valid."""
    return Section(
        "file",
        "a rule file",
        (
            Entry("version", whole("1, the only version there is", 1, 1), "The version of the format. Default: `1`."),
            Entry("rules", _Rules(reading), "What is measured, and when it is bad."),
            Entry("route", ROUTE, "Which receiver is told of which alerts."),
            Entry("inhibit", INHIBIT, "Alerts that are not told while another one fires."),
            Entry("receivers", RECEIVERS, "Who is told, and how."),
        ),
        _file,
    )


def node_at(node: Node | None, path: Path, *, at_key: bool = False) -> tuple[Node | None, Node | None]:
    """Return the node that *path* leads to, and the nearest one on the way that exists. *at_key*: that of its key."""
    nearest = node
    for step in path:
        found: Node | None = None
        if isinstance(node, MapNode):
            for key, value in node.pairs:
                if key.text == step:
                    found, nearest = value, key if at_key else value
                    break
        elif isinstance(node, ListNode) and isinstance(step, int) and step < len(node.items):
            found = nearest = node.items[step]
        node = found
    return node, nearest


def in_words(path: Path) -> str:
    """Return a path as it is written in a place: ``.all[1].alert``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
