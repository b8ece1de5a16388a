"""The section ``[otlp]``: where metrics are pushed to."""

from __future__ import annotations

from typing import Literal

from pool_monitor.config.fields import Seconds, Url, Validated


class OtlpConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where metrics are sent to by OTLP over HTTP; needs ``pip install 'pool-monitor[otlp]'``."""

    endpoint: Url | None = None
    """Such as ``http://127.0.0.1:4318``; None: nowhere."""
    interval: Seconds = 10.0
    """Pause between pushes."""
    timeout: Seconds = 10.0
    """For one push, from connecting to the last byte of the answer."""
    headers: dict[str, str] = {}
    """Sent along, such as an authorization."""
    compression: Literal["gzip", "none"] = "gzip"
    """``none`` for receivers that cannot unpack gzip: they answer 400."""
