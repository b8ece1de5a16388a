"""Single values of a file of tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pool_monitor.alerts.rule_file.fields import Invalid, MapOf, Text
from pool_monitor.alerts.rule_file.nodes import Node, Problems, ScalarNode
from pool_monitor.alerts.rule_file.scalars import LABEL_NAME, LABEL_VALUE, measured, quantity, text

MANY = 10_000
"""Most things of one kind in a test."""
SECONDS = measured("s", "a duration above zero, such as 15s or 1m", above_zero=True)


def _moment(node: ScalarNode) -> float:
    return 0.0 if node.text == "0" else quantity(node, "s")


def _start(node: ScalarNode) -> float:
    try:
        return float(node.text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(node.text)
    except ValueError:
        raise ValueError(f"{node.shown} is not a time; needs one such as 2026-03-01T08:00:00Z") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


class Anything:
    """What is not read. With *why_not*, it must not be there."""

    words = "anything"

    def __init__(self, why_not: str | None = None) -> None:
        self._why_not = why_not

    def read(self, node: Node, place: str, problems: Problems) -> None:  # noqa: ARG002
        if self._why_not is not None:
            raise Invalid(f"is not read: {self._why_not}")

    def schema(self, definitions: Mapping[str, object]) -> dict[str, Any]:  # noqa: ARG002
        return {}


MOMENT = Text("a time after the beginning, such as 10m", _moment, {"type": "string"})
START = Text("a time", _start, {"type": "string"})
LINE = text("a text")
LABELS = MapOf(LABEL_NAME, LABEL_VALUE, "a mapping of labels")
TEXTS = MapOf(LABEL_NAME, text("a text", empty=True), "a mapping of annotations")
