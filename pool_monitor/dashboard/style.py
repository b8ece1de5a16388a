"""How meanings look on a terminal: text attributes first, then the 16 colours of the terminal.

No information is in a colour alone: words and symbols carry it too. So nothing is lost under NO_COLOR, where Textual
omits the colours and keeps the attributes.
"""

from __future__ import annotations

from rich.style import Style

from pool_monitor.view import Meaning

STYLES: dict[Meaning, Style] = {
    "plain": Style(),
    "dim": Style(dim=True),
    "strong": Style(bold=True),
    "head": Style(bold=True),
    "frame": Style(dim=True),
    "data": Style(color="cyan"),
    "warn": Style(bold=True, color="yellow"),
    "bad": Style(bold=True, color="red"),
    "key": Style(bold=True, color="cyan"),
    "bar": Style(reverse=True),
    "bar-strong": Style(reverse=True, bold=True),
    "bar-warn": Style(reverse=True, bold=True, color="yellow"),
    "bar-bad": Style(reverse=True, bold=True, color="red"),
    "selected": Style(reverse=True),
}
"""The style of every meaning."""
