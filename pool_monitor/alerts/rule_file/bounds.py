"""Bounds and levels: what a value of a metric is compared with."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, NamedTuple

from pool_monitor.alerts.catalogue import Metric
from pool_monitor.alerts.quantity import FAMILIES
from pool_monitor.alerts.rule import Absolute, Bound, Level, OfLimit, OwnBaseline
from pool_monitor.alerts.rule_file.fields import Definitions, Entry, Fields, Invalid, MapOf, Section
from pool_monitor.alerts.rule_file.nodes import ListNode, MapNode, Node, Problems, ScalarNode
from pool_monitor.alerts.rule_file.scalars import (
    FACTOR,
    LABEL_NAME,
    PATTERNS,
    SHARE,
    quantity,
    string,
    text,
)

SEVERITIES = ("info", "warning", "error", "critical", "emergency")
"""The names of levels whose order is known, the mildest first."""
LEVELS_MAX = 8
BASELINE_MAX = 30 * 86_400.0
_OWN = re.compile(r"own ([0-9a-z.]+) median")


class OwnReference(NamedTuple):
    """What ``of: own 24h median`` stands for."""

    seconds: float


def _reference(value: str) -> None:
    if value != "limit" and _OWN.fullmatch(value) is None:
        raise ValueError(f'"{value}" is not known; needs limit, or own and a duration and median: own 24h median')


def _relative(fields: Fields) -> Bound | None:
    of = fields.get("of")
    if of is None:
        return None
    if of == "limit":
        if "times" in fields:
            fields.wrong("times", "needs ratio with of: limit, such as {ratio: 90%, of: limit}", at_key=True)
        return OfLimit(fields.get("ratio", 1.0))
    if "ratio" in fields:
        text = f"needs times with of: {of}, such as {{times: 2, of: {of}}}"
        fields.wrong("ratio", text, at_key=True)
    match = _OWN.fullmatch(of)
    try:
        seconds = quantity(ScalarNode(match[1] if match else ""), "s")
    except ValueError as error:
        fields.wrong("of", str(error))
        return None
    if not 60 <= seconds <= BASELINE_MAX:
        fields.wrong("of", f'"{of}" reaches back too short or too far; needs from 1m to 30d')
    return OwnBaseline(fields.get("times", 1.0), seconds)


RELATIVE = Section(
    "relative_bound",
    "a relative bound",
    (
        Entry("times", FACTOR, "How many times the median of the instance's own values."),
        Entry("ratio", SHARE, "The share of the limit."),
        Entry(
            "of",
            text("limit, or such as own 24h median", check=_reference),
            "`limit`: the limit of the metric, where it has one. `own 24h median`: the median of the values of the same"
            " instance in the last 24 hours, without those that were bad.",
            required=True,
        ),
    ),
    _relative,
    one_of=("times", "ratio"),
    kinds="relative bound",
)


class Written(NamedTuple):
    """A bound as it is written. It can be read when the metric is known."""

    node: Node
    place: str


class BoundType:
    """A quantity in the unit of the metric, or a relative bound."""

    words = "a quantity with its unit, such as 5%, or a relative bound, such as {times: 2, of: own 24h median}"

    def read(self, node: Node, place: str, problems: Problems) -> Any:
        if isinstance(node, MapNode):
            return RELATIVE.read(node, place, problems)
        if isinstance(node, ListNode) or (isinstance(node, ScalarNode) and not node.text):
            raise Invalid(f"is {node.what if isinstance(node, ListNode) else 'empty'}; needs {self.words}")
        return Written(node, place)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        text = {"type": "string", "pattern": "|".join(dict.fromkeys(PATTERNS.values()))}
        definitions["quantity"] = {"anyOf": [{"type": "number", "minimum": 0}, text]}
        return {"anyOf": [{"$ref": "#/$defs/quantity"}, RELATIVE.schema(definitions)]}


BOUND = BoundType()


class OneSided(NamedTuple):
    """A level that says itself on which side of its bound values are bad."""

    above: bool | None
    bound: Any
    clear: Any = None


def _level(fields: Fields) -> OneSided:
    above = "above" in fields
    return OneSided(above, fields.get("above" if above else "below"), _clear(fields, above))


def _clear(fields: Fields, above: bool) -> Any:
    """Return what ``clear_below`` or ``clear_above`` says, and note where it is the wrong one."""
    right, wrong = ("clear_below", "clear_above") if above else ("clear_above", "clear_below")
    if wrong in fields:
        side = "above" if above else "below"
        fields.wrong(wrong, f"needs {right} where values {side} the bound are bad", at_key=True)
    return fields.get(right)


_SIDES = (
    Entry("above", BOUND, "Values above it are bad. Strict."),
    Entry("below", BOUND, "Values below it are bad. Strict."),
)
_CLEARS = (
    Entry(
        "clear_below", BOUND, "With `above`: a value that was bad is good again only below this. Default: the bound."
    ),
    Entry(
        "clear_above", BOUND, "With `below`: a value that was bad is good again only above this. Default: the bound."
    ),
)
LEVEL = Section("level", "a level", (*_SIDES, *_CLEARS), _level, one_of=("above", "below"), kinds="level")


class LevelType(BoundType):
    """One level: a bound, or a bound with its side."""

    words = "a quantity with its unit, such as 5%, or a level, such as {above: 5%, clear_below: 2%}"

    def read(self, node: Node, place: str, problems: Problems) -> Any:
        if isinstance(node, MapNode) and {key.text for key, _ in node.pairs} & LEVEL.keys.keys():
            return LEVEL.read(node, place, problems)
        return super().read(node, place, problems)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"anyOf": [*super().schema(definitions)["anyOf"], LEVEL.schema(definitions)]}


LEVELS = MapOf(LABEL_NAME, LevelType(), "levels, such as {warning: 5%, critical: 20%}", at_least=1, at_most=LEVELS_MAX)
SIDES = (
    *_SIDES,
    Entry(
        "levels", LEVELS, "Several bounds in place of one, by severity, the mildest first. Rising bounds mean above."
    ),
    *_CLEARS,
)


def one_bound(fields: Fields, name: str, metric: Metric | None) -> Bound | None:
    """Return the bound of the key *name*; None if it is absent or bad, which is noted."""
    value = fields.get(name)
    return (
        None
        if value is None
        else _resolved(value, metric, fields.nodes[name], f"{fields.place}.{name}", fields.problems)
    )


def levels_of(fields: Fields, metric: Metric | None) -> tuple[bool, tuple[Level, ...]] | None:
    """Return whether values above are bad, and the levels, of a threshold; None if that cannot be said."""
    if "levels" in fields:
        return _several(fields, metric)
    above = "above" in fields
    bound = one_bound(fields, "above" if above else "below", metric)
    _clear(fields, above)
    clear = one_bound(fields, "clear_below" if above else "clear_above", metric)
    if bound is None:
        return None
    _check_clear(fields, "clear_below" if above else "clear_above", above, bound, clear)
    return above, (Level("warning", bound, clear),)


def _several(fields: Fields, metric: Metric | None) -> tuple[bool, tuple[Level, ...]] | None:
    levels, sides = _written_levels(fields, metric)
    clears = {name: one_bound(fields, name, metric) for name in ("clear_below", "clear_above")}
    above = _side(fields, levels, sides)
    if above is None:
        return None
    _clear(fields, above)
    name = "clear_below" if above else "clear_above"
    clear = clears[name]
    if clear is not None and levels[0].clear is not None:
        fields.wrong(name, f"stands beside that of the level {levels[0].severity}; write one of them", at_key=True)
    elif clear is not None:  # it ends the alert; the level above is left at its own bound
        levels[0] = Level(levels[0].severity, levels[0].bound, clear)
        _check_clear(fields, name, above, levels[0].bound, clear)
    for level in levels:
        if level.clear is not clear:
            _check_clear(fields, "levels", above, level.bound, level.clear, f"{level.severity}: ")
    return above, tuple(levels)


def _written_levels(fields: Fields, metric: Metric | None) -> tuple[list[Level], set[bool]]:
    """Return the levels whose bounds are valid, and the sides that they name."""
    nodes = {key.text: value for key, value in getattr(fields.nodes["levels"], "pairs", ())}
    levels, sides = [], set()
    for name, value in fields.get("levels", ()):
        one = value if isinstance(value, OneSided) else OneSided(None, value, None)
        where = nodes[name], f"{fields.place}.levels.{name}", fields.problems
        bound, clear = _resolved(one.bound, metric, *where), _resolved(one.clear, metric, *where)
        if one.above is not None:
            sides.add(one.above)
        if bound is not None:
            levels.append(Level(name, bound, clear))
    return levels, sides


def _side(fields: Fields, levels: list[Level], sides: set[bool]) -> bool | None:
    """Return whether values above are bad; None if there are no levels, or they do not agree, which is noted."""
    if not levels:
        return None
    ranks = [SEVERITIES.index(level.severity) for level in levels if level.severity in SEVERITIES]
    steps = [_compared(one.bound, other.bound) for one, other in pairwise(levels)]
    above = next(iter(sides)) if sides else (steps[0] or 0) > 0 if steps else "clear_above" not in fields
    wrong = None
    if ranks != sorted(ranks):
        wrong = f"are not in order; write the mildest first: {', '.join(_mildest_first(levels))}"
    elif len(sides) > 1:
        wrong = "some are above and some are below; needs one side for all"
    elif not sides and None in steps:
        wrong = "it cannot be seen on which side of the bounds values are bad; write each level as {above: ...}"
    elif any(step is not None and (step == 0 or (step > 0) is not above) for step in steps):
        wrong = "are not in order; each level needs a bound beyond that of the level before it"
    if wrong is not None:
        fields.wrong("levels", wrong)
        return None
    return above


def _mildest_first(levels: list[Level]) -> list[str]:
    return sorted((level.severity for level in levels), key=lambda name: (*SEVERITIES, name).index(name))


def _check_clear(fields: Fields, name: str, above: bool, bound: Bound, clear: Bound | None, who: str = "") -> None:
    step = None if clear is None else _compared(bound, clear)
    if step is not None and step != 0 and (step > 0) is above:
        side, bad = ("below", "above") if above else ("above", "below")
        fields.wrong(
            name, f"{who}is on the wrong side of the bound; a value that is bad {bad} it is good again {side} it"
        )


def _compared(one: Bound, other: Bound) -> float | None:
    """Return how much larger *other* is; None if that depends on what is measured."""
    match one, other:
        case Absolute(), Absolute():
            return other.value - one.value
        case OfLimit(), OfLimit():
            return other.ratio - one.ratio
        case OwnBaseline(), OwnBaseline() if one.seconds == other.seconds:
            return other.times - one.times
    return None


def _resolved(value: Any, metric: Metric | None, node: Node, place: str, problems: Problems) -> Bound | None:
    if isinstance(value, Absolute | OwnBaseline | OfLimit):
        if isinstance(value, OfLimit) and metric is not None and metric.limit is None:
            text = f"{metric.name} has no limit; needs a quantity. pool-monitor rules metrics says which have one"
            problems.add(node, place, text)
            return None
        return value
    if not isinstance(value, Written):
        return None
    written = value.node
    assert isinstance(written, ScalarNode)
    try:
        if metric is None:  # it is unknown, which was noted; but what no metric can be compared with is noted too
            _of_any_unit(written)
            return None
        return Absolute(quantity(written, metric.unit, metric.name))
    except ValueError as error:
        problems.add(written, value.place, str(error))
        return None


def _of_any_unit(node: ScalarNode) -> None:
    if node.number is not None:
        return
    string(node)
    for unit in FAMILIES:
        try:
            quantity(node, unit)
        except ValueError:
            continue
        return
    raise ValueError(f"{node.shown} is not a quantity; needs one with its unit, such as 5%, 250ms or 1GiB")
