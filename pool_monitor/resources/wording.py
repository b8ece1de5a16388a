"""Figures in words, for the reasons of faults."""

from __future__ import annotations


def size(number: float) -> str:
    """Return bytes in words: ``512 MiB``, ``1.5 GiB``."""
    scaled = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(scaled) < 1023.5:
            return f"{scaled:.0f} {unit}" if scaled >= 10 or unit == "B" else f"{scaled:.1f} {unit}"
        scaled /= 1024
    return f"{scaled:.1f} TiB"


def span(seconds: float) -> str:
    """Return a stretch of time in words, to about two digits: ``12 s``, ``4 min``, ``1.5 h``, ``3 days``."""
    for limit, length, unit in ((100, 1, "s"), (100 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            number = seconds / length
            return f"{number:.0f} {unit}" if number >= 10 or length == 1 else f"{number:.1f} {unit}"
    return f"{seconds / 86400:.0f} days"


def share(part: float) -> str:
    """Return a share in percent: ``91 %``."""
    return f"{part * 100:.0f} %" if part >= 0.1 else f"{part * 100:.1f} %"
