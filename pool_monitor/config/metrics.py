"""The section ``[metrics]``: what the collector keeps."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pool_monitor.config.fields import Validated


class MetricsConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the collector keeps."""

    series_limit: Annotated[int, Meta(ge=3, le=100_000)] = 2_000
    """Most histograms. An operation on a worker takes three (latency, queue, execution). When none is left, calls are
    counted under ``other``."""
    error_groups: Annotated[int, Meta(ge=1, le=10_000)] = 256
    """Most error groups of a pool. Failures of further kinds are counted in the group ``other``."""
    memory_limit: Annotated[int, Meta(ge=1024 * 1024)] | None = None
    """Most bytes that the monitor holds; None: 64 MiB, or more if *series_limit*, *error_groups* or the number of pools
    needs more. Before the windows would need more, less is kept of each call: see ``mode`` of the monitor's part of a
    Snapshot."""
