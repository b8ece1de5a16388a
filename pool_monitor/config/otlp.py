"""The section ``[otlp]``: where metrics are pushed to."""

from __future__ import annotations

from typing import Literal

from pool_monitor.config.fields import Seconds, Url, Validated


class OtlpConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Push of metrics by OTLP over HTTP. Needs ``pip install 'pool-monitor[otlp]'``."""

    endpoint: Url | None = None
    """The receiver, such as ``http://127.0.0.1:4318``; None: metrics are not pushed."""
    interval: Seconds = 10.0
    """Seconds between pushes."""
    timeout: Seconds = 10.0
    """Seconds for one push, from connecting to the last byte of the answer."""
    headers: dict[str, str] = {}
    """HTTP headers of each push, such as an authorization."""
    compression: Literal["gzip", "none"] = "gzip"
    """``none`` is for receivers that cannot unpack gzip and answer 400."""
