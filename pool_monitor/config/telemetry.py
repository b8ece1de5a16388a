"""The section ``[telemetry]``: which events are emitted."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pool_monitor.config.fields import Pattern, Validated


class TelemetryConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events are emitted while the monitor is entered. Applies to all handlers of the process: the fields are
    passed to `telemetry.configure`.

    A pattern is a dotted name such as ``pool.worker.checkout``, or one with wildcards, such as ``pool.worker.*``.
    """

    allow: tuple[Pattern, ...] = ("*",)
    deny: tuple[Pattern, ...] = ()
    """An event is emitted if a pattern of *allow* matches its name and no pattern of *deny* does."""
    sample: dict[Pattern, Annotated[int, Meta(ge=1, le=1_000_000)]] = {}
    """Maps a pattern to n: one execution in n of the events that match is emitted, chosen at random. The counts of the
    monitor are corrected for it."""
