"""How meanings look on a terminal: attributes first, then the terminal's own 16 colours.

Everything is told by words and symbols before it is told by colour, so leaving the colours out loses nothing.
"""

from __future__ import annotations

from rich.style import Style

from pool_monitor.view import Meaning

_ATTRIBUTES: dict[Meaning, Style] = {
    "plain": Style(),
    "dim": Style(dim=True),
    "strong": Style(bold=True),
    "head": Style(bold=True),
    "frame": Style(dim=True),
    "data": Style(),
    "warn": Style(bold=True),
    "bad": Style(bold=True),
    "key": Style(bold=True),
    "bar": Style(reverse=True),
    "bar-strong": Style(reverse=True, bold=True),
    "bar-warn": Style(reverse=True, bold=True),
    "bar-bad": Style(reverse=True, bold=True),
    "selected": Style(reverse=True),
}
_COLOURS: dict[Meaning, Style] = {
    "data": Style(color="cyan"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red"),
    "key": Style(color="cyan"),
    "bar-warn": Style(color="yellow"),
    "bar-bad": Style(color="red"),
}


def styles(*, colour: bool) -> dict[Meaning, Style]:
    """The style of every meaning."""
    if not colour:
        return _ATTRIBUTES
    return {meaning: style + _COLOURS.get(meaning, Style()) for meaning, style in _ATTRIBUTES.items()}
