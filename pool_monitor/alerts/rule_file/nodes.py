"""What a rule file consists of before anybody knows what it means: nodes with their places, and problems with theirs.

A scalar keeps its text. What the text means depends on the field that it is for: YAML would turn ``no`` into false and
``1:30`` into 90.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

PROBLEMS_MAX = 500
"""Most problems that are kept of one file. The rest is counted."""
_SHOWN = 60


class Problem(Struct, frozen=True):
    """Something that is wrong with a file, or with values given in code."""

    file: str
    line: int
    """1 is the first; 0: it has no line, because it was given in code."""
    column: int
    place: str
    """Where it is in words, such as ``rules[2] "HighLatency".for``; empty: in the file as a whole."""
    message: str
    """What is wrong, and the remedy."""
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else ""
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{where}{'warning: ' if self.level == 'warning' else ''}{text}"


class Node:
    """A part of a file. *line* and *column* count from 1; 0: it was given in code."""

    __slots__ = ("column", "line")
    what = "nothing"
    """What it is, in words."""

    def __init__(self, line: int, column: int) -> None:
        self.line, self.column = line, column


class ScalarNode(Node):
    """A text. *given* is the value if it was given in code, else None; *plain* means that it was not in quotes."""

    __slots__ = ("given", "plain", "text")
    what = "a text"

    def __init__(self, text: str, line: int = 0, column: int = 0, *, plain: bool = True, given: Any = None) -> None:
        super().__init__(line, column)
        self.text, self.plain, self.given = text, plain, given

    @property
    def empty(self) -> bool:
        """Whether nothing at all is written there."""
        return self.plain and not self.text

    @property
    def number(self) -> float | None:
        """The number that was given in code, which is in base units; None for everything else."""
        return self.given if isinstance(self.given, int | float) and not isinstance(self.given, bool) else None

    @property
    def shown(self) -> str:
        """The text for a message."""
        return self.text if self.given is not None and not isinstance(self.given, str) else shown(self.text)


class BrokenNode(Node):
    """A part with an error of syntax, which was reported."""

    __slots__ = ()


class ListNode(Node):
    """A list. *complete* is False where an error of syntax cut it off."""

    __slots__ = ("complete", "items")
    what = "a list"

    def __init__(self, items: Sequence[Node] = (), line: int = 0, column: int = 0) -> None:
        super().__init__(line, column)
        self.items, self.complete = list(items), True


class MapNode(Node):
    """Keys with values, as they are written: a key may be there twice."""

    __slots__ = ("complete", "pairs")
    what = "a mapping"

    def __init__(self, pairs: Sequence[tuple[ScalarNode, Node]] = (), line: int = 0, column: int = 0) -> None:
        super().__init__(line, column)
        self.pairs, self.complete = list(pairs), True


def shown(text: str) -> str:
    """Return *text* in quotes for a message: in one line, and not longer than anybody reads."""
    clipped = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return f'"{_printable(clipped)}"'


def _printable(text: str) -> str:
    """Return *text* with escapes for what controls a terminal or breaks the line of a message."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


class Problems:
    """The problems of one file, at most `PROBLEMS_MAX` of them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Problem] = []
        self.left_out = 0
        self.errors = 0
        self.broken = False
        """Whether an error of syntax hides a part of the file. What seems to be missing may be in that part."""

    def add(self, node: Node, place: str, message: str, *, warning: bool = False) -> None:
        """Note a problem at *node*. What a message repeats of the file cannot control a terminal."""
        level: Literal["error", "warning"] = "warning" if warning else "error"
        problem = Problem(self.file, node.line, node.column, _printable(place), _printable(message), level)
        self.errors += not warning
        if self.found and self.found[-1] == problem:
            return  # The parser met it again behind it.
        if self.full:
            self.left_out += 1
        else:
            self.found.append(problem)

    @property
    def full(self) -> bool:
        """Whether a further problem would only be counted: nobody reads what its message says."""
        return len(self.found) >= PROBLEMS_MAX

    def in_order(self) -> list[Problem]:
        """Return them in the order of the file."""
        found = sorted(self.found, key=lambda one: (one.line, one.column))
        if self.left_out:
            text = f"{self.left_out} more problems are not shown"
            found.append(Problem(self.file, found[-1].line, found[-1].column, "", text))
        return found
