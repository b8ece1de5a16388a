"""The grammar of rule files as data: what may stand where. The checker, the JSON Schema and the reference read it.

A *type* reads a node into a value, and describes what it accepts. `Section` is a mapping with known keys. A type raises
`Invalid` for a node that it does not accept; a section catches it, notes it, and goes on with the next key, so that all
problems of a file are found at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from pool_monitor.alerts.rule_file.misplaced import belongs
from pool_monitor.alerts.rule_file.nodes import BrokenNode, ListNode, MapNode, Node, Problems, ScalarNode, shown

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""A text with one has no UTF-8 form. Python makes them from odd file names, and a YAML parser from escapes."""
Definitions = dict[str, dict[str, Any]]
"""The ``$defs`` of a JSON Schema that is being drawn."""


class Invalid(Exception):
    """A node is not what it should be. *message* None: the problem was noted already.

    *partial* is what could be made of it, for more checks.
    """

    def __init__(self, message: str | None, node: Node | None = None, partial: Any = None) -> None:
        super().__init__(message)
        self.message, self.node, self.partial = message, node, partial


class Type(Protocol):
    """What may stand in a place."""

    @property
    def words(self) -> str:
        """What it is in words, such as ``a duration, such as 10s``."""
        ...

    def read(self, node: Node, place: str, problems: Problems) -> Any:
        """Return the value of *node*. Raises Invalid."""
        ...

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        """Return its JSON Schema, and put the schemas that it refers to into *definitions*."""
        ...


class Text:
    """A scalar. *parse* makes the value; it raises ValueError with what is wrong and the remedy."""

    def __init__(
        self, words: str, parse: Callable[[ScalarNode], Any], schema: Mapping[str, Any], *, empty: bool = False
    ) -> None:
        self.words, self._parse, self._schema, self._empty = words, parse, schema, empty

    def read(self, node: Node, place: str, problems: Problems) -> Any:  # noqa: ARG002
        if not isinstance(node, ScalarNode):
            raise Invalid(_not_what(self.words, node))
        if not node.text and not (self._empty and not node.plain):
            raise Invalid(f"is empty; needs {self.words}")
        if _LONE_SURROGATE.search(node.text):
            raise Invalid("has a surrogate without its other half, such as \\ud800, which is not a character")
        try:
            return self._parse(node)
        except ValueError as error:
            raise Invalid(str(error)) from None

    def schema(self, definitions: Definitions) -> dict[str, Any]:  # noqa: ARG002
        return dict(self._schema)


class ListOf:
    """A list of one type.

    - *single*: one value may stand for a list of one.
    - *named*: its items have names, which belong to the place of a problem. What is partial has None for a bad item.
    """

    def __init__(
        self,
        of: Type,
        words: str,
        *,
        at_least: int = 0,
        at_most: int = 1000,
        single: bool = False,
        named: bool = False,
    ) -> None:
        self.of, self.words = of, words
        self._at_least, self._at_most, self._single, self._named = at_least, at_most, single, named

    def read(
        self, node: Node, place: str, problems: Problems, one: Callable[[Node, str], Any] | None = None
    ) -> tuple[Any, ...]:
        """Return the values. *one* reads an item and its place in place of the type."""
        if not isinstance(node, ListNode):
            if self._single:
                return (self.of.read(node, place, problems),)
            raise Invalid(_not_what(self.words, node))
        if len(node.items) < self._at_least and node.complete:
            raise Invalid(f"has {len(node.items)} entries; needs {self.words}")
        if len(node.items) > self._at_most:
            raise Invalid(f"has {len(node.items)} entries; {self._at_most} are the most", node.items[self._at_most])
        values, good = [], True
        for index, item in enumerate(node.items):
            where = f"{place}[{index}]{name_of(item) if self._named else ''}"
            try:
                values.append(self.of.read(item, where, problems) if one is None else one(item, where))
            except Invalid as error:
                note(error, item, where, problems)
                values.append(error.partial)
                good = False
        if not good:
            raise Invalid(None, partial=tuple(values) if self._named else None)
        return tuple(values)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        one = self.of.schema(definitions)
        many: dict[str, Any] = {"type": "array", "items": one, "maxItems": self._at_most}
        if self._at_least:
            many["minItems"] = self._at_least
        return {"anyOf": [one, many]} if self._single else many


class MapOf:
    """A mapping with keys of the file's own. The value is a tuple of (key, value), in the order of the file.

    *secret*: a value may be a secret, so no message repeats anything of it. Keys may be, where a value is missing.
    """

    def __init__(
        self, key: Text, of: Type, words: str, *, at_least: int = 0, at_most: int = 64, secret: bool = False
    ) -> None:
        self.key, self.of, self.words = key, of, words
        self._at_least, self._at_most, self._secret = at_least, at_most, secret

    def read(self, node: Node, place: str, problems: Problems) -> tuple[tuple[str, Any], ...]:
        if not isinstance(node, MapNode):
            raise Invalid(_not_what(self.words, node))
        if len(node.pairs) < self._at_least and node.complete:
            raise Invalid(f"is empty; needs {self.words}")
        if len(node.pairs) > self._at_most:
            raise Invalid(f"has {len(node.pairs)} keys; {self._at_most} are the most", node.pairs[self._at_most][0])
        found: dict[str, Any] = {}
        good = True
        for key, value, name in unique(node, place, problems, secret=self._secret):
            if name is None:
                good = False
                continue
            where = f"{place}.{name}"
            try:
                self.key.read(key, place, problems)
            except Invalid as error:  # the place does not have the key, which may be a secret
                note(error, key, place, problems)
                good = False
                continue
            try:
                found[name] = self.of.read(value, where, problems)
            except Invalid as error:
                note(error, value, where, problems)
                good = False
        if not good:
            raise Invalid(None, partial=tuple(found.items()))
        return tuple(found.items())

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        drawn: dict[str, Any] = {"type": "object", "additionalProperties": self.of.schema(definitions)}
        key = self.key.schema(definitions)
        if "pattern" in key or "enum" in key:
            drawn["propertyNames"] = key
        return drawn | ({"minProperties": self._at_least} if self._at_least else {})


class Entry(NamedTuple):
    """A known key of a section."""

    name: str
    type: Type
    meaning: str
    """One sentence for the reference."""
    required: bool = False


class Fields:
    """What a section has read: the values of those keys that are valid, and the nodes of all that are there.

    *partial* has what could be made of the values that are not valid.
    """

    def __init__(self, node: MapNode, place: str, problems: Problems) -> None:
        self.node, self.place, self.problems = node, place, problems
        self.values: dict[str, Any] = {}
        self.partial: dict[str, Any] = {}
        self.nodes: dict[str, Node] = {}
        self.keys: dict[str, Node] = {}

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a key, or what could be made of a bad one; *default* where there is nothing."""
        return self.values.get(name, self.partial.get(name, default))

    def __contains__(self, name: str) -> bool:
        """Whether the key is there, valid or not."""
        return name in self.nodes

    def bad(self, *names: str) -> bool:
        """Whether one of the keys is there and not valid: what depends on it cannot be checked."""
        return any(name in self.nodes and name not in self.values for name in names)

    def wrong_in(self, name: str, key: str, message: str, *, warning: bool = False) -> None:
        """Note a problem at *key* of the mapping that is the value of the key *name*."""
        pairs = getattr(self.nodes[name], "pairs", ())
        node = next((one for one, _ in pairs if one.text == key), self.nodes[name])
        self.problems.add(node, f"{self.place}.{name}.{key}", message, warning=warning)

    def wrong(self, name: str, message: str, *, at_key: bool = False, warning: bool = False) -> None:
        """Note a problem at the value of a key, or of the whole section if *name* is empty."""
        node = self.node if not name else self.keys[name] if at_key else self.nodes[name]
        self.problems.add(node, f"{self.place}.{name}" if name else self.place, message, warning=warning)


class Section:
    """A mapping with known keys. *name* is what it is called in the schema and the reference.

    - *build* makes the value from the fields. It is called also where a field is bad, to find the problems of the
      others; its result is used only if there was no problem.
    - *one_of*: exactly one of these keys must be there; *kinds* says in words what they are.
    - *secret*: the name of an unknown key is repeated only where it cannot be a secret.
    """

    def __init__(
        self,
        name: str,
        words: str,
        keys: Iterable[Entry],
        build: Callable[[Fields], Any],
        *,
        one_of: tuple[str, ...] = (),
        kinds: str = "kind",
        secret: bool = False,
    ) -> None:
        self.name, self.words, self.build = name, words, build
        self.keys = {key.name: key for key in keys}
        self._one_of, self._kinds, self._secret = one_of, kinds, secret

    def read(self, node: Node, place: str, problems: Problems) -> Any:
        if not isinstance(node, MapNode):
            raise Invalid(_not_what(f"{self.words}: a mapping with {_listed(self.keys)}", node))
        before = problems.errors
        fields = Fields(node, place, problems)
        for key, value, name in unique(node, place, problems, secret=self._secret):
            if name is None:
                continue
            if name not in self.keys:
                problems.add(key, place, self._unknown(name))
                continue
            fields.nodes[name], fields.keys[name] = value, key
            where = f"{place}.{name}" if place else name
            try:
                fields.values[name] = self.keys[name].type.read(value, where, problems)
            except Invalid as error:
                note(error, value, where, problems)
                if error.partial is not None:
                    fields.partial[name] = error.partial
        self._check_keys(fields)
        built = self.build(fields)
        if problems.errors > before or not node.complete or fields.nodes.keys() - fields.values.keys():
            raise Invalid(None, partial=built)
        return built

    def _check_keys(self, fields: Fields) -> None:
        given = [name for name in fields.nodes if name in self._one_of]
        if len(given) > 1:
            text = f"has {_listed(given, 'and')}; a {self._kinds} has exactly one of {_listed(self._one_of, 'and')}"
            fields.problems.add(fields.keys[given[1]], fields.place, text)
        if not fields.node.complete or len(fields.node.pairs) > len(fields.nodes):
            return  # what seems to be missing may be cut off, or be the key that is misspelt
        if self._one_of and not given:
            fields.wrong("", f"has none of {_listed(self._one_of)}; a {self._kinds} has exactly one")
        for key in self.keys.values():
            if key.required and key.name not in fields:
                fields.wrong("", f"has no {key.name}; add {key.type.words}")

    def _unknown(self, name: str) -> str:
        if name == "<<":
            return "the key << (merge) is not read; write the keys out, or use an alias for a whole value"
        near = difflib.get_close_matches(name, self.keys, n=1, cutoff=0.6)
        named = f"did you mean {near[0]}?" if near else f"its keys are {', '.join(self.keys)}"
        hint = belongs(self.name, name) or named
        shows = not self._secret or re.fullmatch(r"[a-z]+(_[a-z]+){0,3}", name) is not None
        return f"unknown key {shown(name)}; {hint}" if shows else f"unknown key; {hint}"

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        reference = {"$ref": f"#/$defs/{self.name}"}
        if self.name in definitions:
            return reference
        drawn: dict[str, Any] = {"type": "object"}
        definitions[self.name] = drawn
        drawn["properties"] = {
            key.name: {**key.type.schema(definitions), "description": key.meaning} for key in self.keys.values()
        }
        drawn["required"] = [key.name for key in self.keys.values() if key.required]
        drawn["additionalProperties"] = False
        if self._one_of:
            drawn["oneOf"] = [{"required": [name]} for name in self._one_of]
        return reference


class Either:
    """A scalar or a mapping: which of the two is seen from the node."""

    def __init__(self, text: Type, mapping: Type) -> None:
        self._text, self._mapping = text, mapping

    @property
    def words(self) -> str:
        return f"{self._text.words}, or {self._mapping.words}"

    def read(self, node: Node, place: str, problems: Problems) -> Any:
        if not isinstance(node, MapNode | ScalarNode):
            raise Invalid(_not_what(self.words, node))
        return (self._mapping if isinstance(node, MapNode) else self._text).read(node, place, problems)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"anyOf": [self._text.schema(definitions), self._mapping.schema(definitions)]}


class Later:
    """A type that is defined further down: for what may contain itself."""

    def __init__(self, words: str, type_: Callable[[], Type]) -> None:
        self.words, self._type = words, type_

    def read(self, node: Node, place: str, problems: Problems) -> Any:
        return self._type().read(node, place, problems)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return self._type().schema(definitions)


def unique(
    node: MapNode, place: str, problems: Problems, *, secret: bool
) -> Iterator[tuple[ScalarNode, Node, str | None]]:
    """Yield key node, value and key. The key is None where it was there before, which is noted."""
    seen: dict[str, ScalarNode] = {}
    for key, value in node.pairs:
        first = seen.setdefault(key.text, key)
        if first is key:
            yield key, value, key.text
        else:
            what = "the key" if secret else f"the key {shown(key.text)}"
            where = f" is there twice; the first is in line {first.line}, column {first.column}"
            problems.add(key, place, f"{what}{where if first.line else ' is there twice'}")
            yield key, value, None


def note(error: Invalid, node: Node, place: str, problems: Problems) -> None:
    """Note the problem of *error*, unless it was noted already."""
    if error.message is not None and not isinstance(error.node or node, BrokenNode):
        problems.add(error.node or node, place, error.message)


def name_of(node: Node) -> str:
    """Return the name of a rule or receiver for its place, such as `` "HighLatency"``; empty if it has none."""
    for key, value in node.pairs if isinstance(node, MapNode) else ():
        if isinstance(value, ScalarNode) and (
            (key.text == "alert" and value.text) or (key.text == "name" and re.fullmatch(r"[\w.-]+", value.text))
        ):
            return f" {shown(value.text)}"
    return ""


def _not_what(words: str, node: Node) -> str:
    if isinstance(node, ScalarNode) and node.empty:
        return f"is empty; needs {words}"
    return f"is {node.what}; needs {words}"


def _listed(names: Iterable[str], word: str = "or") -> str:
    every = list(names)
    return f"{', '.join(every[:-1])} {word} {every[-1]}" if len(every) > 1 else "".join(every)
