"""The section ``[advisor]``: whether advice is given."""

from __future__ import annotations

from pool_monitor.config.fields import Validated


class AdvisorConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Advice on pools, operations, workers and the host."""

    enabled: bool = True
    """Look for patterns and recommend what to change. What the tuner does by itself does not depend on it."""
