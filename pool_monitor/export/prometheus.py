"""Prometheus: all counts, the state now and the percentiles of the window, as a page to be scraped.

    content_type = negotiate(request.headers.get("accept"))
    return Response(render(snapshot, totals, content_type), media_type=content_type)

Counters and histograms come from `Totals`: they grow from the moment the monitor was entered, for any window, and a
restarted worker continues to count under its slot. A new monitor resets them (``pool_monitor_start_time_seconds``
changes). Counters whose HELP ends with "since the pool was entered" are reset when the pool is entered again.
``rate()`` and ``increase()`` handle both. When the monitor runs out of series, it may drop an operation without calls
for longer than the longest window. The series of the operation end, and begin at 0 if it is called again. This makes no
``rate()`` wrong, because the series did not change before they ended.

Percentiles over the Snapshot's window are exported as gauges, so that they need not be computed from histograms. They
cannot be added up or averaged over instances; histograms can.

Protobuf has the time when each counter and histogram began at 0, so that a Prometheus that requests protobuf sees the
first increase of a series. OpenMetrics text can express this only by an additional sample ``_created`` for every
series, which a Prometheus without support for it stores as one more series.

The worker label is the slot, never the process. There are no timestamps: the numbers are as of the scrape. Unknown
values are left out; NaN is never written.
"""

from __future__ import annotations

from pool_monitor.export import prometheus_protobuf, prometheus_text
from pool_monitor.export.families import families
from pool_monitor.metrics.totals import Totals
from pool_monitor.snapshot import Snapshot

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
"""The only content type with native histograms. A Prometheus that is set up for them requests it."""

_TAKEN: tuple[tuple[str, dict[str, str], str], ...] = (
    ("text/plain", {"version": "0.0.4"}, TEXT),
    ("text/*", {}, TEXT),
    ("*/*", {}, TEXT),
    ("application/openmetrics-text", {"version": "1.0.0"}, OPENMETRICS),
    (
        "application/vnd.google.protobuf",
        {"proto": "io.prometheus.client.metricfamily", "encoding": "delimited"},
        PROTOBUF,
    ),
)


def render(snapshot: Snapshot, totals: Totals, content_type: str = TEXT) -> bytes:
    """The page in the form of *content_type*: `TEXT`, `OPENMETRICS` or `PROTOBUF`."""
    found = families(snapshot, totals)
    if content_type == PROTOBUF:
        return prometheus_protobuf.encode(found)
    return prometheus_text.encode(found, openmetrics=content_type == OPENMETRICS)


def negotiate(accept: str | None) -> str:
    """The content type that an Accept header prefers; `TEXT` if it accepts none."""
    best, most = TEXT, 0.0
    for wish in (accept or "").lower().split(","):
        kind, *parameters = (part.strip() for part in wish.split(";"))
        asked = {name: value.strip('"') for name, _, value in (parameter.partition("=") for parameter in parameters)}
        try:
            quality = float(asked.get("q", "1"))
        except ValueError:
            continue
        for name, needed, content_type in _TAKEN:
            fits = kind == name and all(asked.get(key, value) == value for key, value in needed.items())
            if fits and quality > most:
                best, most = content_type, quality
    return best
