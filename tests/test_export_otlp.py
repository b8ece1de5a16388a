"""OTLP: what a receiver decodes is what was counted, and no receiver, however it behaves, does the service harm."""

from __future__ import annotations

import asyncio
import gzip
import logging
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from pool_monitor import Monitor
from pool_monitor.adapters import MonitoredCalls
from pool_monitor.answers import seconds_wanted
from pool_monitor.config import MonitorConfig, OtlpConfig, ServiceConfig
from pool_monitor.errors import ConfigError
from pool_monitor.export import otlp, otlp_request
from pool_monitor.export.families import families
from pool_monitor.export.otlp import OtlpExporter, pause_after
from pool_monitor.export.otlp_request import ZERO_THRESHOLD, encode, encoded_in_steps
from pool_monitor.metrics.columns import BY_CATEGORY, CATEGORIES, DEATHS, OUTCOMES
from pool_monitor.metrics.histogram import BUCKETS, FIRST_INDEX, HIGHEST_NS, RELATIVE_ERROR, SCALE, bucket_of
from pool_monitor.metrics.loop_lag import LagTotals
from pool_monitor.metrics.totals import Totals
from pool_monitor.metrics.worker_readings import ProcessTotals
from pool_monitor.snapshot import Snapshot
from tests.helpers import samples
from tests.helpers.recordings import SHARES, SUMMARY, nearest_rank, rank_of, streams, tiny, totals
from tests.helpers.support import eventually

service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")

CHAT = ("text", "chat", "text-1")
SECOND = 10**9


def counted() -> tuple[Snapshot, Totals]:
    """What a monitor of one pool has to tell."""
    calls = [1_000_000, 2_000_000, 40_000_000]
    snapshot = samples.measured()
    pool = msgspec.structs.replace(snapshot.pools["text"], retries_refused=3, target="articles:Text")
    snapshot = msgspec.structs.replace(snapshot, pools={"text": pool})
    made = totals({SUMMARY: (calls, [5_000] * 3, calls[:2]), CHAT: (calls[:1], [5_000], [])})
    lag = LagTotals(np.bincount(bucket_of(np.array([10**5, 10**8])), minlength=BUCKETS), 10**5 + 10**8)
    return snapshot, replace(made, lag=lag, processes=(ProcessTotals("text", "text-1", (2.5, 4096, 8192)),))


def metrics_of(body: bytes) -> dict[str, Any]:
    """Metrics by name."""
    request = service.ExportMetricsServiceRequest.FromString(body)
    found = [metric for of in request.resource_metrics for scope in of.scope_metrics for metric in scope.metrics]
    assert len({metric.name for metric in found}) == len(found)
    return {metric.name: metric for metric in found}


def plain(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


def numbers(metric: Any) -> dict[tuple[str, ...], float]:
    """The points of a sum or a gauge by the values of their attributes, in the order of these."""
    points = getattr(metric, metric.WhichOneof("data")).data_points
    return {
        tuple(value for _name, value in sorted(plain(point.attributes).items())): getattr(
            point, point.WhichOneof("value")
        )
        for point in points
    }


# -- histograms -----------------------------------------------------------------------------------------------------


def bounds(point: Any, share: float) -> tuple[float, float]:
    """Between which edges, in seconds, the value of that rank lies, as the data model has it."""
    rank, seen, base = rank_of(share, point.count), point.zero_count, 2 ** (2**-point.scale)
    if seen >= rank:
        return 0.0, point.zero_threshold
    for place, count in enumerate(point.positive.bucket_counts):
        seen += count
        if seen >= rank:
            index = point.positive.offset + place
            return base**index, base ** (index + 1)
    raise AssertionError("there are fewer values than it says")


def latencies(values: list[int]) -> Any:
    body = encode(samples.snapshot(), totals({SUMMARY: (values, [], [])}))
    [point] = metrics_of(body)["pool_monitor.call_latency"].exponential_histogram.data_points
    return point


@given(streams)
@settings(max_examples=60)
def test_percentiles_of_what_is_received_are_within_the_stated_error(values: list[int]) -> None:
    point = latencies(values)
    assert point.count == len(values) == point.zero_count + sum(point.positive.bucket_counts)
    assert point.sum == pytest.approx(sum(values) / 1e9)
    for share in SHARES:
        exact = nearest_rank(values, share) / 1e9
        low, high = bounds(point, share)
        assert low * (1 - 1e-9) < exact <= high * (1 + 1e-9)
        if low:
            assert abs(2 * low * high / (low + high) - exact) <= exact * RELATIVE_ERROR * (1 + 1e-9)


@given(tiny)
@settings(max_examples=40)
def test_the_zero_bucket_has_all_up_to_the_end_of_our_first_one(values: list[int]) -> None:
    point = latencies(values)
    assert point.zero_threshold == ZERO_THRESHOLD == pytest.approx(1.018e-6, rel=1e-3)
    assert point.zero_count == sum(value / 1e9 <= ZERO_THRESHOLD for value in values)
    assert sum(point.positive.bucket_counts) == len(values) - point.zero_count
    assert all(index > FIRST_INDEX for index in used_indices(point))


def used_indices(point: Any) -> list[int]:
    return [point.positive.offset + place for place, count in enumerate(point.positive.bucket_counts) if count]


def test_the_last_bucket_has_what_is_longer_too() -> None:
    assert used_indices(latencies([HIGHEST_NS, HIGHEST_NS * 2])) == [FIRST_INDEX + BUCKETS - 1]


def test_a_slice_of_the_buckets_is_told_as_the_whole() -> None:
    durations = {SUMMARY: ([1_000_000, 9_000_000], [1_000_000], [])}
    start = int(bucket_of(np.array([1_000_000]))[0])
    whole, sliced = (
        metrics_of(encode(samples.snapshot(), totals(durations, first=first, last=last)))
        for first, last in ((0, BUCKETS), (start, 640))
    )
    assert whole["pool_monitor.call_latency"] == sliced["pool_monitor.call_latency"]
    assert whole["pool_monitor.call_queue"] == sliced["pool_monitor.call_queue"]


def test_workers_of_an_operation_are_one_histogram_without_a_smallest_or_largest() -> None:
    calls = {SUMMARY: ([1_000_000], [], []), ("text", "summary", "text-1"): ([5_000_000], [], [])}
    metric = metrics_of(encode(samples.snapshot(), totals(calls)))["pool_monitor.call_latency"]
    [point] = metric.exponential_histogram.data_points
    assert plain(point.attributes) == {"pool.name": "text", "pool.operation": "summary"}
    assert (point.count, point.scale, metric.unit) == (2, SCALE, "s")
    assert (point.HasField("min"), point.HasField("max")) == (False, False)
    assert metric.exponential_histogram.aggregation_temporality == 2  # cumulative


def test_boundaries_are_those_of_the_opentelemetry_sdk() -> None:
    mapping = pytest.importorskip(
        "opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.logarithm_mapping"
    ).LogarithmMapping(SCALE)
    rng = np.random.default_rng(11)
    durations_ns = np.exp(rng.uniform(np.log(1_100), np.log(HIGHEST_NS), 20_000)).astype(np.int64)
    durations_ns[:32] = 1_000_000_000 * 2 ** (np.arange(32) % 12)
    ours = bucket_of(durations_ns) + FIRST_INDEX
    assert [mapping.map_to_index(value / 1e9) for value in durations_ns.tolist()] == ours.tolist()
    lower = [mapping.get_lower_boundary(FIRST_INDEX + bucket) for bucket in range(1, BUCKETS)]
    np.testing.assert_allclose(lower, 2.0 ** ((FIRST_INDEX + np.arange(1, BUCKETS)) / 32), rtol=1e-12)
    assert lower[0] == pytest.approx(ZERO_THRESHOLD, rel=1e-12)


def test_buckets_are_those_that_the_sdk_makes_of_the_same_durations() -> None:
    metrics = pytest.importorskip("opentelemetry.sdk.metrics")
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    view = pytest.importorskip("opentelemetry.sdk.metrics.view")
    reader = export.InMemoryMetricReader()
    kind = view.ExponentialBucketHistogramAggregation(max_size=2_000, max_scale=SCALE)
    provider = metrics.MeterProvider([reader], views=[view.View(instrument_name="latency", aggregation=kind)])
    values = (np.random.default_rng(3).lognormal(-5, 2, 2_000) * 1e9).clip(1_100, HIGHEST_NS).astype(int).tolist()
    histogram = provider.get_meter("test").create_histogram("latency", "s")
    for value in values:
        histogram.record(value / 1e9)
    [theirs] = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    provider.shutdown()
    ours = latencies(values)
    assert (ours.scale, ours.positive.offset) == (theirs.scale, theirs.positive.offset)
    assert list(ours.positive.bucket_counts) == list(theirs.positive.bucket_counts)[: len(ours.positive.bucket_counts)]
    assert (ours.count, ours.sum) == (theirs.count, pytest.approx(theirs.sum))


# -- everything else ------------------------------------------------------------------------------------------------


def test_calls_are_sums_that_only_grow_by_pool_operation_worker_and_outcome() -> None:
    snapshot, since_start = counted()
    metric = metrics_of(encode(snapshot, since_start))["pool_monitor.calls"]
    assert (metric.unit, metric.sum.is_monotonic, metric.sum.aggregation_temporality) == ("{call}", True, 2)
    expected = {
        (name, operation, outcome, worker): number
        for (name, operation, worker), outcomes in zip(
            since_start.names.rows, since_start.outcomes.tolist(), strict=True
        )
        for outcome, number in zip(OUTCOMES, outcomes, strict=True)
    }
    assert numbers(metric) == expected
    point = metric.sum.data_points[0]
    assert plain(point.attributes).keys() == {"pool.name", "pool.operation", "pool.worker", "pool.outcome"}
    assert point.start_time_unix_nano == int(since_start.since) * SECOND
    assert point.time_unix_nano == int(since_start.at) * SECOND


def test_calls_that_reached_no_worker_have_none() -> None:
    body = encode(samples.snapshot(), totals({("text", "chat", None): ([], [], [])}))
    for point in metrics_of(body)["pool_monitor.calls"].sum.data_points:
        assert plain(point.attributes).keys() == {"pool.name", "pool.operation", "pool.outcome"}


def test_errors_and_deaths_are_told_per_pool_from_the_start() -> None:
    snapshot, since_start = counted()
    found = metrics_of(encode(snapshot, since_start))
    [sums] = since_start.pool_sums.tolist()
    expected = {(category, "text"): count for category, count in zip(CATEGORIES, sums[BY_CATEGORY], strict=True)}
    assert numbers(found["pool_monitor.errors"]) == expected
    assert plain(found["pool_monitor.errors"].sum.data_points[0].attributes).keys() == {"pool.name", "error.type"}
    assert numbers(found["pool_monitor.worker_deaths"]) == {("text",): sums[DEATHS]}


def test_gauges_are_those_of_the_snapshot_and_what_is_unknown_is_left_out() -> None:
    snapshot, since_start = counted()
    pool = snapshot.pools["text"]
    first, *others = pool.workers.values()
    workers = {first.id: msgspec.structs.replace(first, rss=50_000_000)}
    workers |= {each.id: msgspec.structs.replace(each, rss=None) for each in others}
    pool = msgspec.structs.replace(pool, waiting=7, sessions=9, workers=workers)
    snapshot = msgspec.structs.replace(snapshot, pools={"text": pool})
    found = metrics_of(encode(snapshot, since_start))
    by_state = {(name, state): number for (name, state), number in numbers(found["pool_monitor.workers"]).items()}
    assert by_state["text", "busy"] == pool.busy
    assert sum(by_state.values()) == pool.size
    assert numbers(found["pool_monitor.waiting_calls"]) == {("text",): 7}
    assert numbers(found["pool_monitor.sessions"]) == {("text",): 9}
    assert numbers(found["pool_monitor.worker_memory"]) == {("text", first.id): 50_000_000}
    assert found["pool_monitor.worker_memory"].unit == "By"
    assert found["pool_monitor.workers"].gauge.data_points[0].start_time_unix_nano == 0


def test_counters_that_may_be_older_than_the_monitor_have_no_start() -> None:
    found = metrics_of(encode(*counted()))
    for name in ("restarts", "completed_calls", "refusals", "retries_refused", "worker_restarts"):
        points = found[f"pool_monitor.{name}"].sum.data_points
        assert points
        assert {point.start_time_unix_nano for point in points} == {0}


def test_every_metric_says_what_it_is_and_what_it_counts() -> None:
    found = metrics_of(encode(*counted()))
    assert not [name for name in found if name.endswith(("_total", "_seconds", "_bytes"))]
    assert all(name.startswith("pool_monitor.") and metric.description for name, metric in found.items())
    without_unit = {name for name, metric in found.items() if not metric.unit}
    assert without_unit == {
        f"pool_monitor.{name}"
        for name in (
            "pool_state",
            "pool_info",
            "collecting",
            "handler_failures",
            "host_load1",
            "resource_fault",
            "mode",
        )
    }
    attributes = {
        pair.key
        for metric in found.values()
        for point in getattr(metric, metric.WhichOneof("data")).data_points
        for pair in point.attributes
    }
    assert all("." in name for name in attributes)


def test_prometheus_names_that_a_backend_makes_are_those_we_use_ourselves() -> None:
    suffixes = {"s": "_seconds", "By": "_bytes", "1": "_ratio"}
    made = {
        metric.name.replace(".", "_")
        + suffixes.get(metric.unit, "")
        + ("_total" if metric.WhichOneof("data") == "sum" else "")
        for metric in metrics_of(encode(*counted())).values()
    }
    assert made <= {family.name for family in families(*counted())}
    assert {"pool_monitor_calls_total", "pool_monitor_call_latency_seconds", "pool_monitor_workers"} <= made


def test_what_nothing_is_known_of_is_no_metric() -> None:
    snapshot = msgspec.structs.replace(samples.snapshot(), pools={})
    found = metrics_of(encode(snapshot, totals({}, ())))
    assert not [name for name in found if "worker" in name or "call" in name]
    assert "pool_monitor.events" in found


def test_percentiles_of_the_window_are_left_to_the_backend() -> None:
    assert not [name for name in metrics_of(encode(*counted())) if "window_" in name and "covered" not in name]


def test_the_resource_is_the_service_and_what_the_operator_adds() -> None:
    more = {"deployment.environment.name": "test", "service.name": "mine", "replicas": 3, "share": 0.5, "canary": True}
    request = service.ExportMetricsServiceRequest.FromString(encode(*counted(), more))
    [of_resource] = request.resource_metrics
    assert plain(of_resource.resource.attributes) == {
        "service.instance.id": "host-1-4101",
        "host.name": "host-1",
        "process.pid": 4101,
        "process.runtime.version": "3.11.7",
        **more,
    }
    [of_scope] = of_resource.scope_metrics
    assert of_scope.scope.name == "pool_monitor"


def test_a_clock_that_was_set_back_makes_no_point_that_ends_before_it_starts() -> None:
    snapshot, since_start = counted()
    early = Totals(**{**fields(since_start), "at": since_start.since - 100})
    for point in metrics_of(encode(snapshot, early))["pool_monitor.calls"].sum.data_points:
        assert point.time_unix_nano == point.start_time_unix_nano


def fields(since_start: Totals) -> dict[str, Any]:
    return {name: getattr(since_start, name) for name in Totals.__dataclass_fields__}


def test_a_large_request_is_made_in_many_steps() -> None:
    calls = {("text", f"operation-{number}", "text-0"): ([10**6] * 9, [10**4], []) for number in range(400)}
    snapshot, since_start = samples.snapshot(), totals(calls)
    assert sum(1 for _step in encoded_in_steps(snapshot, since_start)) > 10
    assert sum(1 for _step in encoded_in_steps(*counted())) < 4


# -- pushes: a receiver that behaves as told -----------------------------------------------------------------------


class Pushed(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


def answer(status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Receiver:
    """Answers pushes with *answers*, the last of them for ever. One that is None hangs."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers or [answer()])
        self.pushed: list[Pushed] = []
        self.under_way = self.most_under_way = 0
        self.url = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.pushed.append(Pushed(head.split()[1], headers, body))
            said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if said is None:
                await reader.read()  # until the other side has gone
            else:
                writer.write(said)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.under_way -= 1
            writer.close()


@asynccontextmanager
async def receiving(*answers: bytes | None) -> AsyncIterator[Receiver]:
    receiver = Receiver(*answers)
    async with await asyncio.start_server(receiver.talk, "127.0.0.1") as server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield receiver
        await eventually(lambda: not receiver.under_way)


@asynccontextmanager
async def pushing(
    exporter: OtlpExporter, source: Callable[[], tuple[Snapshot, Totals]] = counted
) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(exporter.run(source))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.DEBUG)
    return lambda: [record.getMessage() for record in caplog.records if record.name == "pool_monitor.export"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_BACKOFF_FIRST", 0.01)


pytestmark = pytest.mark.usefixtures("no_leaks")


async def test_a_push_is_a_compressed_request_that_can_be_decoded(said) -> None:
    async with receiving() as receiver:
        exporter = OtlpExporter(receiver.url, headers={"Authorization": "Bearer abcdef"}, interval=600)
        async with pushing(exporter):
            await eventually(lambda: exporter.exported)
        first, _last = receiver.pushed
    assert first.path == "/v1/metrics"
    assert first.headers["content-type"] == "application/x-protobuf"
    assert first.headers["content-encoding"] == "gzip"
    assert first.headers["authorization"] == "Bearer abcdef"
    assert metrics_of(gzip.decompress(first.body)) == metrics_of(encode(*counted()))
    assert (exporter.exported, exporter.failed, exporter.last_error) == (2, 0, None)
    assert said() == []


async def test_a_receiver_that_cannot_unpack_gets_pushes_as_they_are() -> None:
    async with receiving() as receiver:
        exporter = OtlpExporter(receiver.url, interval=600, compression="none")
        async with pushing(exporter):
            await eventually(lambda: exporter.exported)
        first, _last = receiver.pushed
    assert "content-encoding" not in first.headers
    assert metrics_of(first.body) == metrics_of(encode(*counted()))
    assert OtlpConfig().compression == "gzip"
    with pytest.raises(ConfigError, match=r"compression='brotli'\): needs to be 'gzip' or 'none'"):
        OtlpExporter(receiver.url, compression="brotli")


async def test_a_monitor_compresses_its_pushes_as_it_is_configured_to() -> None:
    async with receiving() as receiver:
        config = MonitorConfig(
            service=ServiceConfig(socket=False), otlp=OtlpConfig(endpoint=receiver.url, compression="none")
        )
        async with Monitor(MonitoredCalls(name="client"), config=config):
            await eventually(lambda: receiver.pushed)
    assert "content-encoding" not in receiver.pushed[0].headers


def test_a_series_that_begins_later_has_a_later_start() -> None:
    snapshot, since_start = counted()
    born = np.array([since_start.since + 1, since_start.since + 2])
    found = metrics_of(encode(snapshot, replace(since_start, born=born)))
    for name, values in (("calls", {1, 2}), ("call_latency", {1, 2}), ("errors", {0})):
        metric = found[f"pool_monitor.{name}"]
        points = getattr(metric, metric.WhichOneof("data")).data_points
        assert {round(point.start_time_unix_nano / 1e9 - since_start.since) for point in points} == values


async def test_pushes_follow_one_another_and_never_overlap() -> None:
    async with receiving() as receiver:
        exporter = OtlpExporter(receiver.url, interval=0.001)
        async with pushing(exporter):
            await eventually(lambda: exporter.exported > 5)
    assert receiver.most_under_way == 1


async def test_no_connection_is_kept_between_pushes() -> None:
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await reader.read()
        ended.set()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with pushing(OtlpExporter(url, interval=600)):
            await eventually(ended.is_set)


async def test_what_a_failed_push_had_is_in_the_next_one(impatient, said) -> None:
    told = iter(range(1, 100))

    def source() -> tuple[Snapshot, Totals]:
        return samples.snapshot(), totals({SUMMARY: ([1_000_000] * next(told), [], [])})

    async with receiving(answer("503 Service Unavailable"), answer()) as receiver:
        exporter = OtlpExporter(receiver.url, interval=600)
        async with pushing(exporter, source):
            await eventually(lambda: exporter.exported)
    first, second, _last = [
        metrics_of(gzip.decompress(push.body))["pool_monitor.call_latency"].exponential_histogram.data_points[0].count
        for push in receiver.pushed
    ]
    assert (first, second) == (1, 2)
    assert [line.partition(" endpoint=")[0] for line in said()] == ["OTLP push failed", "OTLP pushes succeed again"]


@pytest.mark.parametrize("status", ["429 Too Many Requests", "502 Bad Gateway", "503 Unavailable", "504 Timeout"])
async def test_what_may_pass_is_tried_again_soon(status, impatient) -> None:
    async with receiving(answer(status), answer(status), answer()) as receiver:
        exporter = OtlpExporter(receiver.url, interval=600)
        async with pushing(exporter):
            await eventually(lambda: exporter.exported)
    assert (exporter.exported, exporter.failed, exporter.last_error) == (2, 2, None)  # the last one is the goodbye


@pytest.mark.parametrize(
    ("said_back", "words"),
    [
        (answer("400 Bad Request", b"out of order\x00sample"), "answered 400: out of order?sample"),
        (answer("404 Not Found"), "answered 404"),
        (answer("500 Oops"), "answered 500"),
        (answer("307 Temporary Redirect", location="http://127.0.0.1:1/"), "answered 307"),
        (answer("200 OK", b"<html>Welcome</html>"), "the answer is not from an OTLP receiver: '<html>"),
        (answer("200 OK", b"\n" * 100_000), "more than 65536 bytes"),
    ],
)
async def test_what_will_not_pass_waits_for_the_next_interval(said_back, words, said) -> None:
    async with receiving(said_back) as receiver:
        exporter = OtlpExporter(receiver.url, interval=600)
        async with pushing(exporter):
            await eventually(lambda: exporter.failed)
            assert len(receiver.pushed) == 1
    assert words in exporter.last_error
    [line] = said()
    assert words in line.replace('"', "'").replace("\\'", "'")


@pytest.mark.parametrize("endless", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 503 Unavailable\r\n\r\n"])
async def test_an_endless_answer_is_not_read_to_its_end(endless) -> None:
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(endless)
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1") as server:
        exporter = OtlpExporter(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", interval=600)
        async with pushing(exporter):
            await eventually(lambda: exporter.failed)
    assert sent < 50_000_000


@pytest.mark.parametrize("broken", [b"", b"HTTP/1.1 200", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: y"])
async def test_an_answer_that_breaks_off_or_is_no_http_is_a_failure_to_try_again(broken, impatient) -> None:
    async with receiving(broken, answer()) as receiver:
        exporter = OtlpExporter(receiver.url, interval=600)
        async with pushing(exporter):
            await eventually(lambda: exporter.exported)
    assert exporter.failed == 1


async def test_nobody_there_is_logged_once_per_outage_and_counted_every_time(impatient, monkeypatch, said) -> None:
    monkeypatch.setattr(otlp, "_BACKOFF_LAST", 0.02)
    async with receiving() as receiver:
        exporter = OtlpExporter(receiver.url, interval=600)
    async with pushing(exporter):
        await eventually(lambda: exporter.failed > 3)
    [line] = said()
    assert "ConnectError" in line
    assert receiver.url in line


async def test_a_receiver_that_hangs_is_left_after_the_time_limit(said) -> None:
    async with receiving(None) as receiver:
        exporter = OtlpExporter(receiver.url, interval=600, timeout=0.05)
        async with pushing(exporter):
            await eventually(lambda: exporter.failed)
            assert exporter.last_error == "not done within 0.05 s"


async def test_an_answer_that_trickles_in_does_not_prolong_the_time_limit() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.005)

    async with await asyncio.start_server(talk, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        exporter = OtlpExporter(url, interval=600, timeout=0.1)
        async with pushing(exporter):
            await eventually(lambda: exporter.failed)
            assert exporter.last_error == "not done within 0.1 s"


async def test_partial_success_is_counted_and_logged_once(said) -> None:
    response = service.ExportMetricsServiceResponse()
    response.partial_success.rejected_data_points = 3
    response.partial_success.error_message = "too old"
    async with receiving(answer(body=response.SerializeToString())) as receiver:
        exporter = OtlpExporter(receiver.url, interval=0.001)
        async with pushing(exporter):
            await eventually(lambda: exporter.exported > 2)
    assert exporter.rejected == 3 * exporter.exported
    assert (exporter.failed, exporter.last_error) == (0, None)
    [line] = said()
    assert "too old" in line


async def test_why_points_are_rejected_is_logged_cleaned_and_without_secrets(said) -> None:
    response = service.ExportMetricsServiceResponse()
    response.partial_success.rejected_data_points = 1
    response.partial_success.error_message = "not for t0ken-canary\x1b[31m\u202e\nat all"
    async with receiving(answer(body=response.SerializeToString())) as receiver:
        exporter = OtlpExporter(receiver.url, interval=600, headers={"authorization": "Bearer t0ken-canary"})
        async with pushing(exporter):
            await eventually(lambda: exporter.exported)
    [line] = said()
    assert "not for ***?[31m? at all" in line


@pytest.mark.parametrize(
    "accepted", [answer("202 Accepted"), answer("204 No Content"), answer(body=b'{"partialSuccess":{}}')]
)
async def test_receivers_that_answer_otherwise_but_well_are_believed(accepted) -> None:
    async with receiving(accepted) as receiver:
        exporter = OtlpExporter(receiver.url, interval=600)
        async with pushing(exporter):
            await eventually(lambda: exporter.exported or exporter.failed)
        assert exporter.failed == 0


async def test_a_defect_in_the_source_is_a_failed_push_and_no_more(said) -> None:
    broken = [True]

    def source() -> tuple[Snapshot, Totals]:
        if broken.pop() if broken else False:
            raise RuntimeError("half made")
        return counted()

    async with receiving() as receiver:
        exporter = OtlpExporter(receiver.url, interval=0.01)
        async with pushing(exporter, source):
            await eventually(lambda: exporter.exported)
    assert exporter.failed == 1
    assert "RuntimeError: half made" in said()[0]


# -- pushes: when, and the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_is_honoured_to_the_end(as_date, impatient) -> None:
    asked = format_datetime(datetime.now(UTC) + timedelta(seconds=125), usegmt=True) if as_date else "120"
    async with receiving(answer("503 Unavailable", retry_after=asked)) as receiver:
        exporter = OtlpExporter(receiver.url, interval=0.001)
        async with pushing(exporter):
            await eventually(lambda: exporter.failed)
            before = asyncio.get_running_loop().time()
            await eventually(lambda: exporter._not_before)
            assert before + 60 < exporter._not_before < before + 130
    assert len(receiver.pushed) == 1  # not even the last one


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0), (" 7 ", 7), ("Thu, 01 Jan 1970 00:16:50 GMT", 10), ("Thu, 01 Jan 1970 00:00:00 -0000", 0),
     ("99999999999999999999", 3600), ("soon", None), ("-5", None), ("1.5", 1.5), ("", None),
     ("²", None), ("Thu, 99", None)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_bounded(header, seconds) -> None:
    assert seconds_wanted(header, now=1000.0) == seconds


def test_no_other_answer_is_tried_again_before_the_interval_is_over() -> None:
    exporter = OtlpExporter("http://127.0.0.1:1", interval=600)
    verdicts = {status: exporter._judge(status, httpx.Headers(), b"", 0.0) for status in range(100, 600)}
    assert {status for status, verdict in verdicts.items() if verdict.retryable} == {429, 502, 503, 504}
    assert {status for status, verdict in verdicts.items() if verdict.error is None} == set(range(200, 300))
    assert {exporter._pause(verdict) for verdict in verdicts.values() if not verdict.retryable} == {600}


def test_retry_after_means_nothing_where_a_try_will_not_help() -> None:
    exporter = OtlpExporter("http://127.0.0.1:1")
    headers = httpx.Headers({"Retry-After": "30"})
    assert exporter._judge(429, headers, b"", 0.0)[1:3] == (True, 30.0)
    assert exporter._judge(404, headers, b"", 0.0)[1:3] == (False, None)


def test_retry_after_never_makes_the_pause_shorter_than_the_backoff() -> None:
    exporter = OtlpExporter("http://127.0.0.1:1")
    exporter._failures = 20
    assert exporter._pause(otlp.PushResult("x", retryable=True, retry_after=1.0)) >= 30


def test_pauses_double_to_a_minute_and_differ_by_chance() -> None:
    assert [pause_after(failures, 1.0) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert pause_after(3, 0.0) == 2.0
    assert pause_after(10**9, 1.0) == 60


async def test_cancelled_it_pushes_once_more_and_ends() -> None:
    async with receiving() as receiver:
        exporter = OtlpExporter(receiver.url, interval=600)
        async with pushing(exporter):
            await eventually(lambda: exporter.exported)
        assert len(receiver.pushed) == 2


async def test_cancelled_in_the_middle_of_a_push_it_gives_that_up_and_tries_once_more() -> None:
    async with receiving(None, answer()) as receiver:
        exporter = OtlpExporter(receiver.url, interval=600, timeout=600)
        async with pushing(exporter):
            await eventually(lambda: receiver.pushed)
    assert (len(receiver.pushed), exporter.exported, exporter.failed) == (2, 1, 0)


async def test_the_last_push_has_a_time_limit_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr(otlp, "_LAST_PUSH_MAX", 0.05)
    async with receiving(None) as receiver:
        exporter = OtlpExporter(receiver.url, interval=600, timeout=600)
        async with pushing(exporter):
            await eventually(lambda: receiver.pushed)
    assert exporter.last_error == "not done within 0.05 s"


async def test_a_forked_process_does_not_push_its_parents_numbers(monkeypatch) -> None:
    async with receiving() as receiver:
        exporter = OtlpExporter(receiver.url, interval=600)
        async with pushing(exporter):
            await eventually(lambda: exporter.exported)
            monkeypatch.setattr("os.getpid", lambda: -1)  # what is cancelled now is the child's copy of the task
    assert (exporter.exported, len(receiver.pushed)) == (1, 1)


async def test_cancelled_twice_it_ends_without_another_word() -> None:
    async with receiving(None) as receiver:
        exporter = OtlpExporter(receiver.url, interval=600, timeout=600)
        async with pushing(exporter) as task:
            await eventually(lambda: receiver.pushed)
            task.cancel()
            await eventually(lambda: len(receiver.pushed) == 2)
    assert exporter.failed == 0


async def test_cancelled_by_a_task_group_it_has_its_last_push_too() -> None:
    import anyio

    async with receiving() as receiver:
        exporter = OtlpExporter(receiver.url, interval=600)
        async with anyio.create_task_group() as group:
            group.start_soon(exporter.run, counted)
            await eventually(lambda: exporter.exported)
            group.cancel_scope.cancel()
        assert exporter.exported == 2


async def test_certificates_are_checked_and_ones_own_can_be_trusted(tmp_path, impatient) -> None:
    openssl = shutil.which("openssl") or pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", key, "-out", certificate, "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    mine = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    mine.load_cert_chain(certificate, key)
    receiver = Receiver()
    async with await asyncio.start_server(receiver.talk, "127.0.0.1", ssl=mine) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        suspicious = OtlpExporter(url, interval=600)
        async with pushing(suspicious):
            await eventually(lambda: suspicious.failed)
        assert "certificate" in suspicious.last_error.lower()
        assert receiver.pushed == []
        trusting = OtlpExporter(url, interval=600, ssl_context=ssl.create_default_context(cafile=str(certificate)))
        async with pushing(trusting):
            await eventually(lambda: trusting.exported)


# -- settings, and secrets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/metrics"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/metrics"),
        ("http://127.0.0.1:4318/v1/metrics", "http://127.0.0.1:4318/v1/metrics"),
        ("http://127.0.0.1:4318/v1/metrics/", "http://127.0.0.1:4318/v1/metrics"),
        ("https://prometheus/api/v1/otlp", "https://prometheus/api/v1/otlp/v1/metrics"),
        ("https://vendor/otlp?key=s3cr3t#x", "https://vendor/otlp/v1/metrics"),
    ],
)
def test_an_endpoint_is_a_base_or_the_whole_url(given, used) -> None:
    assert OtlpExporter(given).endpoint == used


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"endpoint": "127.0.0.1:4318"}, "needs a URL such as"),
        ({"endpoint": "ftp://host"}, "needs a URL such as"),
        ({"endpoint": "http://"}, "needs a URL such as"),
        ({"endpoint": "http://127.0.0.1:99999"}, "needs a URL such as"),
        ({"endpoint": None}, "needs a URL such as"),
        ({"endpoint": "http://me:s3cr3t@host"}, "credentials do not belong in the URL of host"),
        ({"interval": 0}, "interval=0"),
        ({"timeout": float("inf")}, "timeout=inf"),
        ({"headers": {"Authorization": "Bearer s3cr3t\n"}}, "'Authorization' needs a value"),
        ({"headers": {"X": "s3cr3tä"}}, "'X' needs a value"),
        ({"headers": {"X": 5}}, "'X' needs a value"),
        ({"headers": {"a b": "x"}}, "'a b' needs"),
        ({"resource_attributes": {"team": ["a"]}}, "resource_attributes"),
    ],
)
def test_a_bad_setting_is_refused_with_words_and_without_secrets(settings, words) -> None:
    with pytest.raises(ConfigError) as raised:
        OtlpExporter(**{"endpoint": "http://127.0.0.1:4318", **settings})
    assert words in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


async def test_secrets_are_told_nobody(caplog, impatient) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {"Authorization": "Bearer s3cr3t"}
    async with receiving(answer("400 Bad Request", b"who is s3cr3t with k3y42?")) as receiver:
        exporter = OtlpExporter(f"{receiver.url}/?key=k3y42", headers=headers, interval=600)
        async with pushing(exporter):
            await eventually(lambda: exporter.failed)
        assert receiver.pushed[0].path == "/v1/metrics?key=k3y42"
    assert exporter.last_error == "the receiver answered 400: who is *** with ***?"
    lines = [record.getMessage() for record in caplog.records]
    assert any("answered 400" in line for line in lines)
    assert not [line for line in lines if "s3cr3t" in line or "k3y42" in line]


def test_without_the_extra_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.common.v1.common_pb2", None)
    with pytest.raises(ConfigError, match=r"pip install 'pool-monitor\[otlp\]'"):
        OtlpExporter("http://127.0.0.1:4318")
    with pytest.raises(ConfigError, match=r"pool-monitor\[otlp\]"):
        encode(*counted())


def test_counters_without_a_start_are_metrics_there_are() -> None:
    found = metrics_of(encode(*counted()))
    assert {otlp_request._named(name)["name"] for name in otlp_request._SINCE_UNKNOWN} <= found.keys()
