"""Checks the values of resource events. Any code can emit them, with any value in their mappings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from types import NoneType
from typing import Any, Literal, NamedTuple, TypeGuard, get_args, get_origin, get_type_hints

from msgspec import Struct

from pool_monitor.snapshot.validation import plain_text

TEXT_MAX = 200
"""Characters kept of a name or a reason."""
REASONS_MAX = 32
"""Most reasons kept of one reading."""
INTERVAL_NS = 1_000_000_000
"""The interval of a reading that does not say when the next one is due."""
_INTERVAL_MAX_NS = 3600 * 1_000_000_000
_SIGNED = frozenset({"temperature", "leak_rate"})
"""Figures that may be below zero."""


class Checked(NamedTuple):
    """The usable part of an event."""

    figures: dict[str, Any]
    """Values that fit the fields of the view, by name."""
    missing: dict[str, str]
    """Why a figure is missing, in words."""
    interval_ns: int
    """Time until the next reading is due."""
    wrong: int
    """Values that were dropped because they do not fit."""


def checked_reading(
    view: type[Struct], measurements: Mapping[str, Any], metadata: Mapping[str, Any], renamed: Mapping[str, str]
) -> Checked:
    """The values of one event that fit fields of *view*.

    *renamed* has the keys of durations in ns and the fields, in seconds, that they become. Values of a wrong type, and
    numbers that are negative or not finite, are left out and counted. Text is cut after `TEXT_MAX` characters. Raises
    whatever a mapping raises that is not a plain one.
    """
    wrong = 0
    figures: dict[str, Any] = {}
    for source in (metadata, measurements):
        for name, kinds in _kinds(view).items():
            if (value := source.get(name)) is not None and name != "missing":
                kept = _fitting(value, kinds, signed=name in _SIGNED)
                if kept is None:
                    wrong += 1
                else:
                    figures[name] = kept
    for key, field in renamed.items():
        if (value := measurements.get(key)) is not None:
            if is_duration(value):
                figures[field] = value / 1e9
            else:
                wrong += 1
    missing, bad = checked_reasons(metadata.get("missing"))
    interval_ns = interval_of(measurements)
    return Checked(figures, missing, interval_ns or INTERVAL_NS, wrong + bad + (interval_ns is None))


def interval_of(measurements: Mapping[str, Any]) -> int | None:
    """The time until the next reading is due, in ns; None when it is not a possible one."""
    interval = measurements.get("interval", INTERVAL_NS)
    return interval if is_duration(interval) and 0 < interval <= _INTERVAL_MAX_NS else None


def checked_reasons(reasons: Any) -> tuple[dict[str, str], int]:
    """The reasons that are text, at most `REASONS_MAX`, and how many others there were."""
    if reasons is None:
        return {}, 0
    if type(reasons) is not dict:
        return {}, 1
    kept = {
        plain_text(name, TEXT_MAX): plain_text(reason, TEXT_MAX)
        for name, reason in list(reasons.items())[:REASONS_MAX]
        if type(name) is str and type(reason) is str
    }
    return kept, len(reasons) - len(kept)


def is_duration(value: Any) -> TypeGuard[int]:
    """Whether *value* is a duration in ns that fits 63 bits."""
    return type(value) is int and 0 <= value < 1 << 62


def text_or_none(value: Any, limit: int = TEXT_MAX) -> str | None:
    """The first *limit* characters of *value*, if it is text that is not empty."""
    return plain_text(value, limit) if type(value) is str and value else None


def number_or_none(value: Any) -> float | None:
    """*value*, if it is a finite number."""
    return value if type(value) in (int, float) and abs(value) < 1e300 else None  # false for NaN


@cache
def _kinds(view: type[Struct]) -> dict[str, tuple[Any, ...]]:
    """The fields of *view* that hold a number, a text or one of some texts, and what they take."""
    found = {}
    for name, hint in get_type_hints(view).items():
        kinds = tuple(kind for kind in (get_args(hint) or (hint,)) if kind is not NoneType)
        if get_origin(hint) is Literal:
            kinds = get_args(hint)
        elif len(kinds) == 1 and get_origin(kinds[0]) is Literal:
            kinds = get_args(kinds[0])
        if kinds in ((int,), (float,), (str,)) or all(type(kind) is str for kind in kinds):
            found[name] = kinds
    return found


def _fitting(value: Any, kinds: tuple[Any, ...], *, signed: bool) -> Any:
    """*value* as a field takes it; None if it does not fit."""
    if kinds == (int,):
        return value if type(value) is int and 0 <= value < 1 << 63 else None
    if kinds == (float,):
        fits = type(value) in (int, float) and abs(value) < 1e300 and (signed or value >= 0)
        return float(value) if fits and math.isfinite(value) else None
    if kinds == (str,):
        return text_or_none(value)
    return value if type(value) is str and value in kinds else None
