"""Reads the text of a YAML file into nodes with their lines and columns. Nothing is interpreted.

It builds the nodes from the events of the parser, without recursion. So the depth, and what aliases expand to, are
bounded before anything is built.
"""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

from pool_monitor.alerts.rule_file.nodes import BrokenNode, ListNode, MapNode, Node, Problems, ScalarNode

BYTES_MAX = 1024 * 1024
"""Largest file, in bytes."""
DEPTH_MAX = 32
"""Most collections within each other."""
ALIASED_MAX = 50_000
"""Most nodes that the aliases of a file stand for."""

PARSED_MAX = 4 * BYTES_MAX
"""After so many characters, a file with errors of syntax is not read again to find more of them."""

_BREAK = re.compile(r"\r\n|\r|\n")
_REFUSED = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""What YAML refuses, and what it takes for the end of a line though no editor does (NEL, U+2028, U+2029)."""


def decoded(data: bytes, problems: Problems) -> str | None:
    """Return the text of a file, or None after noting a problem."""
    if len(data) > BYTES_MAX:
        problems.add(Node(1, 1), "", f"the file has more than {BYTES_MAX // 1024} KiB, the most that is read")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        remedy = "it looks like UTF-16; save it as UTF-8" if utf16 else "save the file as UTF-8"
        problems.add(_place(before, len(before)), "", f"byte 0x{data[error.start]:02x} is not UTF-8; {remedy}")
        return None


def nodes_of(text: str, problems: Problems) -> Node | None:
    """Return the root of the only document in *text*; None if there is none.

    What is wrong becomes problems. After an error of syntax in an item of a list, the file is read again without the
    item, so that the errors of the others are found too: the item is a `BrokenNode` then. Where that is not possible,
    what stands before the error is returned, and its last collections are not `complete`.
    """
    if refused := _REFUSED.search(text):
        char = refused[0]
        what = f"the character U+{ord(char):04X} cannot stand in a file; remove it, or write it as \\u{ord(char):04X}"
        problems.add(_place(text, refused.start()), "", what)
        return None
    builder = _Builder(text)
    builder.build()
    parsed, broken = len(text), set()
    while builder.failed is not None:
        problems.add(builder.failed.node, "", builder.failed.message)
        problems.broken = True
        item = builder.broken_item()
        if item is None or item.start + 1 in broken or parsed > PARSED_MAX:
            break
        lines = text.splitlines(keepends=True)
        indent = len(lines[item.start]) - len(lines[item.start].lstrip(" "))
        lines[item.start : item.stop] = [f"{' ' * indent}- ~\n", *["\n"] * (len(item) - 1)]
        text = "".join(lines)
        broken.add(item.start + 1)
        builder = _Builder(text)
        builder.build()
        parsed += len(text)
    for node, message in builder.noted:
        problems.add(node, "", message)
    return _marked(builder.root, broken)


def _marked(root: Node | None, broken: set[int]) -> Node | None:
    """Put a `BrokenNode` in the place of each item that was left out."""
    for _, node in root.pairs if isinstance(root, MapNode) and broken else ():
        if isinstance(node, ListNode):
            node.items = [BrokenNode(one.line, one.column) if one.line in broken else one for one in node.items]
    return root


def _place(text: str, position: int) -> Node:
    """Return the place of the character at *position*."""
    lines = _BREAK.split(text[:position])
    return Node(len(lines), len(lines[-1]) + 1)


class _Builder:
    """Builds the nodes of one text: `root`, which has what was read before `failed`."""

    def __init__(self, text: str) -> None:
        self.root: Node | None = None
        self.failed: _Stop | None = None
        self.noted: list[tuple[Node, str]] = []
        """What is wrong without an end to the reading."""
        self._text, self._lines = text, _BREAK.split(text)
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int, int]] = {}  # with the number of its nodes, and its depth
        self._documents = 0
        self._aliased = 0

    def build(self) -> None:
        import yaml

        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            with closing(yaml.parse(self._text, loader)) as events:
                for event in events:
                    self._take(event)
        except yaml.MarkedYAMLError as error:
            self.failed = self._told(error)
        except _Stop as stop:
            self.failed = stop
        if self.failed is not None:
            for one in self._open:
                one.node.complete = False

    def broken_item(self) -> range | None:
        """Return the lines, from 0, of that item of a list at the top which has the error; None if it is not in one."""
        node = self._open[1].node if len(self._open) > 1 else None
        if self.failed is None or not isinstance(node, ListNode) or self._open[1].flow:
            return None
        indent, lines = node.column - 1, self._lines
        item = re.compile(f" {{{indent}}}-(?: |$)")
        begin = min(self.failed.node.line, len(lines)) - 1
        while begin >= node.line - 1 and not item.match(lines[begin]):
            begin -= 1
        if begin < node.line - 1:
            return None
        end = begin + 1
        while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > indent):
            end += 1
        return range(begin, end)

    def _take(self, event: Any) -> None:
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        match type(event).__name__:
            case "DocumentStartEvent":
                self._documents += 1
                if self._documents > 1:
                    raise _Stop(Node(line, column), "a second document begins here; a file has one: remove the ---")
            case "ScalarEvent":
                node = ScalarNode(event.value, line, column, plain=not event.style)
                self._tag(event, node)
                self._add(node)
                self._anchor(event.anchor, node, 1, 0)
                self._count(1, 0)
            case "SequenceStartEvent" | "MappingStartEvent":
                if len(self._open) >= DEPTH_MAX:
                    raise _Stop(Node(line, column), _TOO_DEEP)
                made = (ListNode if type(event).__name__ == "SequenceStartEvent" else MapNode)((), line, column)
                self._tag(event, made)
                self._add(made)
                self._open.append(_Open(made, event.anchor, bool(event.flow_style)))
            case "SequenceEndEvent" | "MappingEndEvent":
                done = self._open.pop()
                self._anchor(done.anchor, done.node, done.size, done.depth)
                self._count(done.size, done.depth)
            case "AliasEvent":
                self._alias(event.anchor, Node(line, column))

    def _tag(self, event: Any, node: Node) -> None:
        if event.tag is not None:
            text = "has a YAML tag, which begins with !; tags are not read: remove it, or put the text in quotes"
            self.noted.append((node, text))

    def _alias(self, name: str, at: Node) -> None:
        if name not in self._anchors:  # not named in the message: it may be a secret that begins with *
            raise _Stop(at, "stands for an anchor (&name) that is not before it; if a text is meant, put it in quotes")
        node, size, depth = self._anchors[name]
        self._aliased += size
        if self._aliased > ALIASED_MAX:
            raise _Stop(at, f"the aliases of this file stand for more than {ALIASED_MAX} values; write fewer of them")
        if len(self._open) + depth > DEPTH_MAX:
            raise _Stop(at, _TOO_DEEP)
        self._add(node, at)
        self._count(size, depth)

    def _anchor(self, name: str | None, node: Node, size: int, depth: int) -> None:
        if name is not None:
            self._anchors[name] = (node, size, depth)

    def _count(self, size: int, depth: int) -> None:
        if self._open:
            top = self._open[-1]
            top.size += size
            top.depth = max(top.depth, depth + 1)

    def _add(self, node: Node, at: Node | None = None) -> None:
        """Put *node* into the collection that is open. *at* is where an alias for it is written."""
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        if isinstance(top.node, ListNode):
            top.node.items.append(node)
        elif top.key is not None:
            top.node.pairs.append((top.key, node))
            top.key = None
        elif isinstance(node, ScalarNode):
            top.key = node
        else:
            raise _Stop(at or node, f"{node.what} cannot be a key; if a text is meant, put it in quotes")

    def _told(self, error: Any) -> _Stop:
        """Return where an error of syntax is, and what it is in words."""
        context, problem = error.context or "", error.problem or "cannot be read"
        mark = error.problem_mark or error.context_mark
        if "nesting depth" in problem and mark is not None:
            return _Stop(Node(mark.line + 1, mark.column + 1), _TOO_DEEP)
        if isinstance(self.root, ScalarNode):
            return _Stop(self.root, "is a text where a key is expected; a key needs a colon and a space after it")
        opened = next((one for one in reversed(self._open) if one.flow), None)
        if error.context_mark is not None and context.startswith(_BEGINNINGS):
            mark = error.context_mark
        elif opened is not None and mark is not None and self._goes_on(mark.line):
            what = "[" if isinstance(opened.node, ListNode) else "{"
            text = f"not valid YAML: this {what} is not closed; if a text is meant, put it in quotes"
            return _Stop(opened.node, text)
        if mark is None:
            return _Stop(Node(1, 1), f"not valid YAML: {problem}")
        before = self._lines[mark.line][: mark.column] if mark.line < len(self._lines) else ""
        column = mark.column + 1
        if "mapping values" in problem and ": " not in before:
            column = len(before) - len(before.lstrip(" ")) + 1  # where the key begins that stands wrong
        remedy = next((remedy for words, remedy in _REMEDIES if words in f"{context} {problem}"), "")
        if "expected key" in problem and before.rstrip().endswith(("}", "]", '"', "'")):
            remedy = "a text that goes on behind a bracket or quote needs quotes around all of it"
        elif opened is not None and not remedy:
            remedy = "a text with any of { } [ ] , or with a colon and a space, needs quotes"
        words = re.sub(r"'[^']{12,}'", "a text", problem)  # may be a secret
        text = f"not valid YAML: {words}{f' ({context})' if context else ''}{f'; {remedy}' if remedy else ''}"
        return _Stop(Node(mark.line + 1, column), text)

    def _goes_on(self, line: int) -> bool:
        """Whether at *line*, from 0, the block goes on in which the outermost bracket was opened."""
        first = next(one.node for one in self._open if one.flow).line - 1
        if line <= first:
            return False
        rest = [text for text in self._lines[line:] if text.strip()]
        return not rest or _indent(rest[0]) <= _indent(self._lines[first])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


class _Open:
    """A collection that has begun."""

    __slots__ = ("anchor", "depth", "flow", "key", "node", "size")

    def __init__(self, node: ListNode | MapNode, anchor: str | None, flow: bool) -> None:
        self.node: Any = node
        self.anchor, self.flow = anchor, flow
        self.key: ScalarNode | None = None
        self.size, self.depth = 1, 1


class _Stop(Exception):
    def __init__(self, node: Node, message: str) -> None:
        super().__init__(message)
        self.node, self.message = node, message


_TOO_DEEP = f"is nested deeper than {DEPTH_MAX} levels, the most that is read"
_BEGINNINGS = ("while scanning a simple key", "while scanning a quoted scalar")
"""Errors that the parser meets later than where they are: what began there is wrong."""
_REMEDIES = (
    ("unknown escape", "write two backslashes for one, or use single quotes"),
    ("cannot start any token", "a text that begins so needs quotes; indent with spaces, not tabs"),
    ("scanning an alias", "a text that begins with * needs quotes"),
    ("scanning an anchor", "a text that begins with & needs quotes"),
    ("tab", "indent with spaces, not tabs"),
    ("could not find expected ':'", "a key needs a colon and a space after it"),
    ("quoted scalar", "the quote that begins here is not closed"),
    ("mapping values are not allowed", "a text that has a colon and a space needs quotes; or the indentation is wrong"),
    ("block mapping", "the indentation does not agree with the lines above"),
    ("block collection", "the indentation does not agree with the lines above"),
    ("block sequence entries", "the indentation does not agree with the lines above"),
)
