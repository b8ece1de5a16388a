"""The value that a check returns: what was found, how bad it is, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Level = Literal["bad", "warn"]
"""``warn``: look soon. ``bad``: look now."""
Kind = str
"""A key of `CONDITIONS`, such as ``breaker_open``."""

_NOTHING: Mapping[str, int] = MappingProxyType({})


class Finding(NamedTuple):
    """One thing that deserves attention. It holds numbers and names from the Snapshot as they are, and no sentence."""

    kind: Kind
    level: Level
    pool: str | None = None
    """None: the finding is about the monitor itself, about a resource of the whole service, or about a Summary whose
    pool was not named.
    """
    names: tuple[str, ...] = ()
    """The workers, events or resources that the finding is about, the worst first. Empty: the whole pool or monitor."""
    value: float | None = None
    """The share, seconds or count that was compared with the limit. None: the finding is a state, without a value."""
    limit: float | None = None
    """The bound of this level. None: there is none."""
    counts: Mapping[str, int] = _NOTHING
    """The counts that *value* was computed from, by their names in the Snapshot."""
    reason: str | None = None
    """The cause or the state, in the words of the Snapshot. None: unknown."""
    causes: Mapping[str, int] = _NOTHING
    """How often each cause occurred, if causes are counted."""
    window: str | None = None
    """The window that *value* covers. None: *value* is of one moment, or of the time of a Summary."""
