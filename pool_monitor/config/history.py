"""The section ``[history]``: the history on disk."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from pool_monitor.config.fields import MIB, Seconds
from pool_monitor.config.paths import NamesFile
from pool_monitor.config.validation import FOREVER
from pool_monitor.errors import ConfigError


class Tier(NamedTuple):
    """Blocks of *step* seconds, kept for *retention* seconds."""

    step: int
    retention: int


DEFAULT_TIERS = (Tier(1, 15 * 60), Tier(10, 6 * 3600), Tier(60, 7 * 86_400), Tier(3600, 365 * 86_400))


class HistoryConfig(NamesFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The history on disk. Times are seconds, sizes bytes."""

    path: Annotated[str, Meta(min_length=1)] | None = None
    """The SQLite file, such as ``var/text.db`` or ``~/text.db``. A relative path starts at the working directory. None:
    no history is kept."""
    tiers: tuple[Tier, ...] = DEFAULT_TIERS
    """Pairs of step and retention in seconds, the finest step first. Each step is a multiple of the step before it, and
    has at least its retention. A block is deleted when it is older than the retention and newer blocks cover all of
    that time. The retentions of an existing file can be changed, its steps cannot."""
    flush_interval: Seconds = 1.0
    """Time between writes to the file. A killed process loses at most this much."""
    size_limit: Annotated[int, Meta(ge=8 * MIB)] = 256 * MIB
    """Largest size of the file and its log. Above it, the oldest blocks of the largest tier are deleted."""
    memory_limit: Annotated[int, Meta(ge=MIB)] = 32 * MIB
    """Most memory for blocks while the file cannot be written. Above it, the oldest blocks are dropped."""
    synchronous: Literal["normal", "full"] = "normal"
    """``normal``: flushed data survives a killed process; a power failure may lose the last seconds. ``full``: flushed
    data survives both, but every flush waits for the disk. With either value, neither event can damage the file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for tier in self.tiers:
            if len(tier) != 2 or not 1 <= tier[0] <= tier[1] <= FOREVER:
                raise ConfigError(
                    f"HistoryConfig: tiers: {list(tier)} needs to be a step and a retention in whole seconds, the "
                    f"retention not below the step and at most {FOREVER:.0f}, such as [10, 21600]"
                )
        for finer, coarser in itertools.pairwise(self.tiers):
            if coarser[0] <= finer[0] or coarser[0] % finer[0]:
                raise ConfigError(
                    f"HistoryConfig: tiers: step {coarser[0]} needs to be a multiple of {finer[0]}, the step before it"
                )
            if coarser[1] < max(finer[1], coarser[0]):
                raise ConfigError(
                    f"HistoryConfig: tiers: steps of {coarser[0]} s are kept for {coarser[1]} s, but steps of "
                    f"{finer[0]} s for {finer[1]} s; keep coarser steps at least as long"
                )
        if not self.tiers:
            raise ConfigError("HistoryConfig: tiers: needs at least one tier, such as [[1, 900]]")
        msgspec.structs.force_setattr(self, "tiers", tuple(Tier(*tier) for tier in self.tiers))
