"""The straight line that fits points best: ordinary least squares."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, sqrt
from typing import NamedTuple

LEAST = 3
"""Fewer points say nothing about how well a line fits."""


class Line(NamedTuple):
    """A line through points (x, y)."""

    value: float
    """Its y at x = 0."""
    slope: float
    slope_error: float
    """Standard error of the slope."""
    explained: float
    """Share of the variance of y that the line explains (R²); 1 when y is constant."""
    points: int


def fit(points: Sequence[tuple[float, float]]) -> Line | None:
    """Return the line through *points*; None: there are fewer than `LEAST`, or all have the same x.

    Choose x so that the values near 0 matter most, such as seconds before now: far from 0, digits are lost.
    """
    number = len(points)
    if number < LEAST:
        return None
    x_mean, y_mean = fsum(x for x, _ in points) / number, fsum(y for _, y in points) / number
    sxx = fsum((x - x_mean) ** 2 for x, _ in points)
    if not sxx:
        return None
    syy = fsum((y - y_mean) ** 2 for _, y in points)
    slope = fsum((x - x_mean) * (y - y_mean) for x, y in points) / sxx
    value = y_mean - slope * x_mean
    left = fsum((y - value - slope * x) ** 2 for x, y in points)
    error = sqrt(left / (number - 2) / sxx)
    return Line(value, slope, error, 1 - min(left / syy, 1.0) if syy else 1.0, number)
