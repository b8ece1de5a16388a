"""Prometheus: everything counted, the state now and the windows' percentiles, as a page to be scraped.

    content_type = negotiate(request.headers.get("accept"))
    return Response(render(snapshot, totals, content_type), media_type=content_type)

Counters and histograms are those of a `Totals`: they grow from the moment the monitor was entered, whatever window is
asked for, and a worker that is restarted goes on counting under the same slot. What resets them is a new monitor
(``pool_monitor_start_time_seconds`` tells), and for those whose HELP says so a pool that is entered anew; ``rate()``
and ``increase()`` know what to do then. When the monitor runs out of series, an operation nobody called for longer
than the longest window may be given up: its series end, and begin at 0 if it is called again. No ``rate()`` is wrong
for that, because it stood still.

Percentiles over the Snapshot's window are there as gauges, for those who do not want to compute them from histograms.
They cannot be added up or averaged over instances; histograms can.

Protobuf says when each counter and histogram began at 0, so that a Prometheus that asks for it sees the first increase
of a series. OpenMetrics text could say so too, but only by a further sample ``_created`` for every series, which a
Prometheus that does not know what it is for stores as one more series.

A worker is named by its slot, never by its process. There are no timestamps: a page is as old as its scrape. What is
unknown is left out; NaN is never written.
"""

from __future__ import annotations

from pool_monitor.export import prometheus_protobuf, prometheus_text
from pool_monitor.export.families import families
from pool_monitor.metrics.totals import Totals
from pool_monitor.snapshot import Snapshot

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
"""The only one with native histograms; a Prometheus that wants them asks for it."""

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
    """The content type that an Accept header likes best; `TEXT` for one that likes none of them."""
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
