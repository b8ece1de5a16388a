"""The texts of annotations: ``{value} of {operation} fail``.

A placeholder is a name in braces and nothing else: no attribute, no index, no format. ``{{`` and ``}}`` stand for
braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

VALUE_MAX = 512
"""Most characters that one value puts into a text. The rest is cut off."""
_PARTS = re.compile(r"(\{\{|\}\}|\{[^{}]*\}|[{}])")
_DOUBLED = re.compile(r"[$.][A-Za-z]|^\s*[A-Za-z_]\w*\s*$")
_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def placeholders(template: str) -> list[str]:
    """Return the names in *template*, in order. Raises ValueError for what is no placeholder, with the remedy."""
    names = []
    for part in _PARTS.findall(template):
        if part in ("{{", "}}"):
            continue
        match = _NAME.fullmatch(part)
        if match is None:
            what = f"{part} is not a placeholder" if len(part) > 1 else f"a {part} stands alone"
            raise ValueError(f"{what}; a placeholder is a name such as {{value}}, and {{{{ and }}}} stand for braces")
        names.append(match[1])
    return names


def doubled(template: str) -> str | None:
    """Return what looks like a placeholder in double braces, as Prometheus and Grafana write it, such as
    ``{{ $value }}``. None: there is none.
    """
    parts = _PARTS.split(template)
    for opened, text, closed in zip(parts, parts[1:], parts[2:], strict=False):
        if (opened, closed) == ("{{", "}}") and _DOUBLED.search(text):
            return f"{{{{{text}}}}}"
    return None


def expand(template: str, values: Mapping[str, str]) -> str:
    """Return *template* with its placeholders replaced. Never raises.

    A name without a value is replaced by nothing. Characters that control a terminal become escapes.
    """
    return "".join(_expanded(part, values) for part in _PARTS.split(template))


def _expanded(part: str, values: Mapping[str, str]) -> str:
    if part in ("{{", "}}"):
        return part[0]
    match = _NAME.fullmatch(part)
    if match is None:
        return part
    value = values.get(match[1], "")
    clipped = value if len(value) <= VALUE_MAX else f"{value[: VALUE_MAX - 1]}…"
    if clipped.isprintable():
        return clipped
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in clipped)
