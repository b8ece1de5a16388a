"""The presets ``conservative``, ``balanced`` and ``aggressive``: the numbers of `SizePolicy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Preset(NamedTuple):
    """How a `SizePolicy` weighs waiting against workers. Times are seconds."""

    miss: float = 0.02
    """The share of the calls that may wait longer than the target, by the model."""
    hold: float = 60.0
    """A size is left only if nothing in so long a time has needed it."""
    hold_cold_starts: float = 30.0
    """The same in cold starts; the longer of the two counts."""
    down_pause: float = 10.0
    """Between two steps down."""
    down_share: float = 0.2
    """The largest step down, as a share of the size; one worker is always possible."""
    drain: float = 5.0
    """A backlog is to be gone in so long a time after the workers that are added are ready."""


PRESETS: Mapping[str, Preset] = {
    "conservative": Preset(miss=0.01, hold=300.0, down_pause=30.0, down_share=0.1),
    "balanced": Preset(),
    "aggressive": Preset(miss=0.04, hold=30.0, hold_cold_starts=10.0, down_pause=5.0, down_share=0.34),
}
"""All three add workers at once. They differ in how soon they give them back, and in how many waits they allow."""
