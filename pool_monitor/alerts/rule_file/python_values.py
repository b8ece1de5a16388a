"""Rules that are given in code: values of Python become the nodes that a file has, so that one checker reads both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from pool_monitor.alerts.rule_file.nodes import ListNode, MapNode, Node, ScalarNode
from pool_monitor.alerts.rule_file.writing import fields_of_part
from pool_monitor.alerts.rule_file.yaml_text import ALIASED_MAX, DEPTH_MAX

KEYWORDS = {"for": "for_", "not": "not_", "from": "from_", "continue": "continue_"}
"""Keys that are words of Python, and what they are called as arguments."""
_KEYS = {argument: key for key, argument in KEYWORDS.items()}


def node_of(value: Any) -> Node:
    """Return the node for a value from code. Raises ValueError for a value that no file could have."""
    return _Values().node(value, 0)


class _Values:
    def __init__(self) -> None:
        self._count = 0

    def node(self, value: Any, depth: int) -> Node:
        self._count += 1
        if self._count > ALIASED_MAX or depth > DEPTH_MAX:
            raise ValueError(f"has more than {ALIASED_MAX} values, or is nested deeper than {DEPTH_MAX} levels")
        if isinstance(value, Struct):
            value = fields_of_part(value)
        if isinstance(value, Mapping):
            return MapNode([(self._key(key), self.node(one, depth + 1)) for key, one in value.items()])
        if isinstance(value, list | tuple | set | frozenset):
            return ListNode([self.node(one, depth + 1) for one in value])
        if isinstance(value, str):
            return ScalarNode(value, plain=False, given=value)
        if isinstance(value, bool):
            return ScalarNode("true" if value else "false", given=value)
        if isinstance(value, int | float):
            return ScalarNode(repr(value) if abs(value) < 1e30 else "a huge number", given=value)
        if value is None:
            return ScalarNode("")
        raise ValueError(f"a {type(value).__name__} is no part of a rule; needs texts, numbers, lists and mappings")

    def _key(self, key: object) -> ScalarNode:
        if not isinstance(key, str):
            raise ValueError(f"{key!r:.60} cannot be a key; needs a text")
        return ScalarNode(_KEYS.get(key, key), plain=False, given=key)
