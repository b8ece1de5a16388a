"""Quantities in words: parses what a person writes in a rule, and prints what a person reads in an alert.

A quantity is read by the unit that is expected. So a latency cannot be compared with a share, and a number whose unit
has been forgotten is an error and not a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite, isnan
from typing import NamedTuple

from pool_monitor.alerts.catalogue import Unit

UNKNOWN = "unknown"
LENGTH_MAX = 40
"""Most characters of a quantity."""

DURATIONS: Mapping[str, float] = {
    "w": 604_800.0,
    "d": 86_400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
}
"""The units of a duration in seconds, the longest first. ``µs`` is read as ``us``."""
BYTES: Mapping[str, float] = {
    "TiB": 2.0**40,
    "GiB": 2.0**30,
    "MiB": 2.0**20,
    "KiB": 2.0**10,
    "TB": 1e12,
    "GB": 1e9,
    "MB": 1e6,
    "kB": 1e3,
    "B": 1.0,
}


class UnitFamily(NamedTuple):
    """What the quantities of one unit are called, and how they are written."""

    noun: str
    example: str
    most: float
    """The largest quantity that is believed to be meant."""


FAMILIES: Mapping[Unit, UnitFamily] = {
    "s": UnitFamily("a duration", "250ms", 1e9),
    "bytes": UnitFamily("a number of bytes", "512MiB", 2.0**60),
    "ratio": UnitFamily("a share", "5%", 1e6),
    "/s": UnitFamily("a rate per second", "20", 1e15),
    "count": UnitFamily("a number", "20", 1e15),
    "": UnitFamily("a number", "2.5", 1e15),
}

_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,18})?"
_PLAIN = re.compile(_NUMBER)
_SHARE = re.compile(rf"({_NUMBER}) ?%")
_RATE = re.compile(rf"({_NUMBER}) ?/s")
_BYTES = re.compile(rf"({_NUMBER}) ?({'|'.join(BYTES)})")
_DURATION = re.compile("".join(rf"(?:({_NUMBER}){unit})?" for unit in DURATIONS))
_ONE_UNIT = re.compile(rf"({_NUMBER}) *([A-Za-zµ]+)")


def parse(text: str, unit: Unit, of: str = "") -> float:
    """Return the quantity *text*, such as ``250ms``, in the base *unit*.

    *of* names what it is compared with, for the message. Raises ValueError, whose text is what is wrong and the remedy;
    the place is left to the caller.
    """
    family = FAMILIES[unit]
    if len(text) > LENGTH_MAX:
        raise ValueError(f"is longer than {LENGTH_MAX} characters; needs {family.noun}, such as {family.example}")
    value = _value(text, unit)
    if value is None:
        raise ValueError(f'"{text}" {_misfit(text, unit, of)}')
    return _bounded(value, unit, f'"{text}"')


def checked(value: float, unit: Unit) -> float:
    """Return the number *value*, which is in the base *unit* already. Raises ValueError as `parse` does."""
    if abs(value) > 1e30 and value != float("inf"):  # a whole number may be too large for a float
        raise ValueError(f"the number is more than {text_of(FAMILIES[unit].most, unit)}, the most that is accepted")
    return _bounded(float(value), unit, repr(value))


def _bounded(value: float, unit: Unit, shown: str) -> float:
    family = FAMILIES[unit]
    if not isfinite(value):
        raise ValueError(f"{shown} is not finite; needs {family.noun}, such as {family.example}")
    if value < 0:
        raise ValueError(f"{shown} is negative; nothing that is measured is below 0")
    if value > family.most:
        raise ValueError(f"{shown} is more than {text_of(family.most, unit)}, the most that is accepted")
    return value


def _value(text: str, unit: Unit) -> float | None:
    """Return the quantity, or None where *text* is none of *unit*."""
    if unit == "s":
        match = _DURATION.fullmatch(text.replace("µs", "us").replace("μs", "us"))
        parts = [part for part in match.groups() if part is not None] if match else []
        if match is None or not parts or any("." in part for part in parts[:-1]):
            return None
        return sum(_seconds(part, name) for part, name in zip(match.groups(), DURATIONS, strict=True) if part)
    if unit == "bytes":
        match = _BYTES.fullmatch(text)
        return float(match[1]) * BYTES[match[2]] if match else None
    if unit == "ratio":
        match = _SHARE.fullmatch(text)
        return float(f"{match[1]}e-2") if match else None  # 99.9 / 100 is not 0.999
    match = _PLAIN.fullmatch(text) or (_RATE.fullmatch(text) if unit == "/s" else None)
    return float(match[match.re.groups]) if match else None


def _seconds(number: str, unit: str) -> float:
    """Return a duration of one unit. Below a second, the power of ten is read with the number, which rounds once."""
    power = {"ms": "e-3", "us": "e-6"}.get(unit)
    return float(number) * DURATIONS[unit] if power is None else float(f"{number}{power}")


def _misfit(text: str, unit: Unit, of: str) -> str:
    """Return why *text* is no quantity of *unit*, and what would be one."""
    family = FAMILIES[unit]
    needs = f"{of} is {family.noun}" if of else f"needs {family.noun}"
    if _PLAIN.fullmatch(text):  # and a number is not enough
        number, meant = {
            "s": (f"{text}s", "seconds are"),
            "bytes": (f"{text}B", "bytes are"),
            "ratio": (f"{text if float(text) >= 1 else f'{float(text) * 100:g}'}%", "a percentage is"),
        }[unit]
        return f"has no unit; {needs}: write {number} if {meant} meant"
    others = (other for other in FAMILIES if other != unit and _value(text, other) is not None)
    other = next(others, None)
    if other is not None:
        return f"is {FAMILIES[other].noun}, but {needs}; such as {family.example}"
    if text.startswith("-"):
        return f"is negative; {needs}, such as {family.example}"
    match = _ONE_UNIT.fullmatch(text)
    if match is not None and (unit == "s" or unit == "bytes"):
        known = DURATIONS if unit == "s" else BYTES
        near = _nearest_unit(match[2], known)
        hint = f"write {match[1]}{near}" if near else f"the units are {' '.join(list(known)[::-1])}"
        return f"cannot be read; {needs}: {hint}"
    return f"cannot be read; {needs}, such as {family.example}"


def _nearest_unit(word: str, known: Mapping[str, float]) -> str | None:
    """Return the unit that *word* most likely means: ``m`` for ``minutes``, ``GB`` for ``gb``."""
    low = word.lower()
    for unit in known:
        if low == unit.lower() or (unit in _WORDS and low.startswith(_WORDS[unit])):
            return unit
    return None


_WORDS: Mapping[str, tuple[str, ...]] = {
    "w": ("week",),
    "d": ("day",),
    "h": ("hour", "hr"),
    "m": ("min",),
    "s": ("sec",),
    "ms": ("milli", "msec"),
    "us": ("micro",),
}


# -- printing ---------------------------------------------------------------------------------------------------------


def text_of(value: float | None, unit: Unit) -> str:
    """Return *value*, in the base *unit*, as a person reads it: ``6 5% 250ms 1.5GiB 3.2/s``.

    It has three significant digits, and counts below a million all of theirs. `parse` reads what this prints. None and
    NaN are ``unknown``.
    """
    if value is None or isnan(value):
        return UNKNOWN
    if value == float("inf"):
        return "unlimited"
    if value < 0:
        return f"-{text_of(-value, unit)}"
    if unit == "s":
        return _duration(value)
    if unit == "bytes":
        return _scaled(value, [(size, name) for name, size in BYTES.items() if "iB" in name or name == "B"])
    if unit == "ratio":
        return f"{_digits(value * 100)}%"
    if unit == "/s":
        return f"{_digits(value)}/s"
    return str(int(value)) if value == int(value) and value < 1e15 else _digits(value)


def _digits(value: float) -> str:
    """Return *value* with three significant digits, and at least all before the point; never with an exponent."""
    if value >= 999.5:
        return f"{value:.0f}"
    text = f"{float(f'{value:.3g}'):.12f}"
    return text.rstrip("0").rstrip(".")


def _scaled(value: float, units: list[tuple[float, str]]) -> str:
    """Return *value* in the largest of *units* that it fills, and what is too little for the smallest as zero."""
    size, name = next(((size, name) for size, name in units if value >= size * 0.9995), units[-1])
    digits = _digits(value / size)
    return f"0{next(name for size, name in units if size == 1.0)}" if digits == "0" else f"{digits}{name}"


def _duration(seconds: float) -> str:
    """Return at most two units, such as ``2d3h``; below a minute one, with up to three digits."""
    if seconds < 59.95:
        return _scaled(seconds, [(1.0, "s"), (1e-3, "ms"), (1e-6, "us")])
    if round(seconds) < 3600:
        grain, (long, short) = 1.0, "ms"
    elif round(seconds / 60) < 24 * 60:
        grain, (long, short) = 60.0, "hm"
    else:
        grain, (long, short) = 3600.0, "dh"
    whole, rest = divmod(round(seconds / grain), round(DURATIONS[long] / grain))
    return f"{whole}{long}{rest}{short}" if rest else f"{whole}{long}"
