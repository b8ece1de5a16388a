"""The types of single values: durations, shares, numbers, names, metrics. Each reads the text as it is written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pool_monitor.alerts.catalogue import METRICS, Unit, find
from pool_monitor.alerts.quantity import FAMILIES, checked, parse
from pool_monitor.alerts.rule_file.fields import Invalid, Text
from pool_monitor.alerts.rule_file.nodes import Node, Problems, ScalarNode, shown
from pool_monitor.errors import UnknownName
from pool_monitor.snapshot import WINDOW_NAMES

TEXT_MAX = 4096
"""Most characters of a text."""
_LISTED = 12
"""Most values of a choice that are always listed where none of them is given."""
PATTERNS: Mapping[Unit, str] = {
    "s": r"^([0-9]+(\.[0-9]+)?(w|d|h|m|s|ms|us|µs))+$",
    "bytes": r"^[0-9]+(\.[0-9]+)? ?(B|[kMGT]B|[KMGT]iB)$",
    "ratio": r"^[0-9]+(\.[0-9]+)? ?%$",
    "/s": r"^[0-9]+(\.[0-9]+)? ?/s$",
    "count": r"^[0-9]+(\.[0-9]+)?$",
    "": r"^[0-9]+(\.[0-9]+)?$",
}
"""How quantities of a unit are written, for the JSON Schema."""


def quantity(node: ScalarNode, unit: Unit, of: str = "") -> float:
    """Return what *node* says in the base *unit*. Raises ValueError."""
    if node.number is not None:
        return checked(node.number, unit)
    if node.given is not None and not isinstance(node.given, str):
        raise ValueError(f"{node.text} is no quantity; needs {FAMILIES[unit].noun}, such as {FAMILIES[unit].example}")
    return parse(node.text, unit, of)


def quantity_schema(unit: Unit) -> dict[str, Any]:
    """Return the JSON Schema of a quantity: YAML reads one without a unit as a number."""
    text = {"type": "string", "pattern": PATTERNS[unit]}
    return text if unit in ("s", "bytes", "ratio") else {"anyOf": [{"type": "number", "minimum": 0}, text]}


def measured(unit: Unit, words: str, *, above_zero: bool = False) -> Text:
    """Return the type of quantities of one *unit*."""

    def read(node: ScalarNode) -> float:
        value = quantity(node, unit)
        if above_zero and not value:
            raise ValueError(f"{node.shown} is zero; needs {words}")
        return value

    return Text(words, read, quantity_schema(unit))


def whole(words: str, least: int, most: int) -> Text:
    """Return the type of whole numbers."""

    def read(node: ScalarNode) -> int:
        value = quantity(node, "count")
        if value != int(value) or not least <= value <= most:
            raise ValueError(f"{node.shown} is not {words}")
        return int(value)

    return Text(words, read, {"type": "integer", "minimum": least, "maximum": most})


def text(
    words: str,
    pattern: str | None = None,
    *,
    most: int = TEXT_MAX,
    empty: bool = False,
    secret: bool = False,
    check: Callable[[str], object] | None = None,
) -> Text:
    """Return the type of texts of at most *most* characters that match *pattern* as a whole. *check* raises ValueError.

    A *secret* text is never repeated in a message.
    """
    compiled = None if pattern is None else re.compile(pattern)

    def read(node: ScalarNode) -> str:
        value = string(node)
        if len(value) > most:
            raise ValueError(f"has {len(value)} characters; {most} are the most")
        if compiled is not None and not compiled.fullmatch(value):
            raise ValueError(f"needs {words}" if secret else f"{shown(value)} is not {words}")
        if check is not None:
            check(value)
        return value

    schema: dict[str, Any] = {"type": "string", "maxLength": most}
    if pattern is not None:
        schema["pattern"] = f"^{pattern}$"
    elif not empty:
        schema["minLength"] = 1
    return Text(words, read, schema, empty=empty)


def string(node: ScalarNode) -> str:
    """Return the text of *node*. Raises ValueError for a value from code that is no text."""
    if node.given is not None and not isinstance(node.given, str):
        raise ValueError(f"{node.text} is not a text; write it in quotes")
    return node.text


def choice(values: Iterable[str], noun: str = "", *, secret: bool = False) -> Text:
    """Return the type of one of *values*."""
    known = tuple(values)
    words = f"one of {', '.join(known)}"

    def read(node: ScalarNode) -> str:
        if node.text in known:
            return node.text
        # A short list says more than a guess: what is nearest to 10m is 1m, and nobody means that.
        near = difflib.get_close_matches(node.text, known, n=1) if len(known) > _LISTED else ()
        hint = f"did you mean {near[0]}?" if near else f"needs {words}"
        raise ValueError(hint if secret else f"{node.shown} is not {noun or 'known'}; {hint}")

    return Text(words, read, {"type": "string", "enum": list(known)})


def _flag(node: ScalarNode) -> bool:
    if node.text not in ("true", "false"):
        raise ValueError(f"{node.shown} is neither true nor false")
    return node.text == "true"


def _printable(value: str) -> None:
    if not value.isprintable():
        raise ValueError(f"{shown(value)} has characters that cannot be printed")


class _Metric(Text):
    """The name of a metric. The nearest ones are searched for only while problems are kept: each search takes long."""

    def read(self, node: Node, place: str, problems: Problems) -> Any:
        if problems.full and isinstance(node, ScalarNode) and node.text not in METRICS:
            raise Invalid("there is no such metric")
        return super().read(node, place, problems)


def _metric(node: ScalarNode) -> str:
    try:
        return find(string(node)).name
    except UnknownName as error:
        raise ValueError(str(error)) from None


DURATION = measured("s", "a duration, such as 10s, 5m or 1h30m")
LENGTH = measured("s", "a duration above zero, such as 10s, 5m or 1h30m", above_zero=True)
SHARE = measured("ratio", "a share above zero, such as 5%", above_zero=True)
FACTOR = measured("count", "a number above zero, such as 2", above_zero=True)
FLAG = Text("true or false", _flag, {"type": "boolean"})
WINDOW = choice(WINDOW_NAMES, "a window")
METRIC = _Metric("a metric, such as operation.error_ratio", _metric, {"type": "string"})
LABEL_NAME = text(
    "a label name: letters, digits and underscores, not beginning with a digit or __",
    r"(?!__)[A-Za-z_][A-Za-z0-9_]*",
    most=64,
)
LABEL_VALUE = text("a text", most=256, empty=True)
ALERT_NAME = text("a name, such as FailingCalls", r"\S(.*\S)?", most=100, check=_printable)
PATTERN = text("a text or a shell pattern, such as text or summar*", most=256, empty=True)
NAME = text("a name: letters, digits, dots, hyphens and underscores", r"[A-Za-z0-9_.-]+", most=100, secret=True)
ENVIRONMENT = text("the name of an environment variable, such as OPS_WEBHOOK", r"[A-Za-z_][A-Za-z0-9_]*", secret=True)
