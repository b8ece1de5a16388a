"""The section ``[telemetry]``: which events are emitted."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pool_monitor.config.fields import Pattern, Validated


class TelemetryConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events are told while the monitor is entered, to all handlers of the process: `telemetry.configure`.

    Patterns are dotted names such as ``pool.worker.checkout``, or with wildcards, ``pool.worker.*``.
    """

    allow: tuple[Pattern, ...] = ("*",)
    deny: tuple[Pattern, ...] = ()
    """An event is told when one of *allow* matches and none of *deny*."""
    sample: dict[Pattern, Annotated[int, Meta(ge=1, le=1_000_000)]] = {}
    """Of events that match, one in so many is told, chosen at random; counts are corrected for it."""
