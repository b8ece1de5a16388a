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
