"""Checks the values of resource events. Any code can emit them, with any value in their mappings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, Literal, NamedTuple, TypeGuard, get_args, get_origin, get_type_hints

from msgspec import Struct

from pool_monitor.events import EventSpec
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

_NOTHING: Mapping[str, Any] = {}


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


class ReadingCheck:
    """Finds the values of one kind of event that fit fields of *view*.

    *spec* is the event; None: the values are in one mapping, as those of a GPU. *renamed* has the keys of durations in
    ns and the fields, in seconds, that they become.
    """

    def __init__(
        self, view: type[Struct], spec: EventSpec | None = None, renamed: Mapping[str, str] = _NOTHING
    ) -> None:
        kinds = {name: _check_of(name, hint) for name, hint in get_type_hints(view).items()}
        checks = {name: check for name, check in kinds.items() if check is not None}
        measured = checks if spec is None else {name: checks[name] for name in spec.measurements if name in checks}
        about = {} if spec is None else {name: checks[name] for name in spec.metadata if name in checks}
        self._measured, self._about, self._renamed = tuple(measured.items()), tuple(about.items()), renamed

    def __call__(self, measurements: Mapping[str, Any], metadata: Mapping[str, Any] = _NOTHING) -> Checked:
        """The usable part of an event.

        Values of a wrong type, and numbers that are negative or not finite, are left out and counted. Text is cut after
        `TEXT_MAX` characters. Raises whatever a mapping raises that is not a plain one.
        """
        wrong = 0
        figures: dict[str, Any] = {}
        for source, checks in ((metadata, self._about), (measurements, self._measured)):
            for name, check in checks:
                value = source.get(name)
                if value is not None:
                    kept = check(value)
                    if kept is None:
                        wrong += 1
                    else:
                        figures[name] = kept
        for key, field in self._renamed.items():
            value = measurements.get(key)
            if value is not None:
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
    return float(value) if type(value) in (int, float) and -1e300 < value < 1e300 else None  # false for NaN


def _check_of(name: str, hint: Any) -> Callable[[Any], Any] | None:
    """The function that returns a value as the field *name* takes it, or None if it does not fit; None: a field that is
    neither a number nor a text nor one of some texts.
    """
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not NoneType]
    choices = get_args(hint) if get_origin(hint) is Literal else get_args(kinds[0])
    if kinds == [int]:
        return _count_or_none
    if kinds == [float]:
        return number_or_none if name in _SIGNED else _amount_or_none
    if kinds == [str]:
        return text_or_none
    if choices and all(type(choice) is str for choice in choices):
        return lambda value: value if type(value) is str and value in choices else None
    return None


def _count_or_none(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 63 else None


def _amount_or_none(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < 1e300 else None  # false for NaN
