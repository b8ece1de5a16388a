"""What a monitor knows beyond a Snapshot, end to end: questions, filters, history, export."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from pool_monitor import ConfigError, Monitor, Pool, UnknownName, telemetry
from pool_monitor.clock import ManualClock
from pool_monitor.config import HistoryConfig, MonitorConfig, OtlpConfig, ServiceConfig, TelemetryConfig
from pool_monitor.events import CATALOGUE
from pool_monitor.metrics.recording import Recording
from pool_monitor.metrics.series import Names
from pool_monitor.service.client import connected
from pool_monitor.snapshot import Range, Summary
from pool_monitor.storage import HistoryMetrics, Reader
from tests.helpers.programs import runtime_dir
from tests.helpers.support import eventually, ops_pool
from tests.test_monitor import Gauges, at

__all__ = ["runtime_dir"]
pytestmark = pytest.mark.usefixtures("runtime_dir", "no_leaks")
ROOT = Path(__file__).parent.parent
QUIET = ServiceConfig(socket=False)


def with_history(path: Path, **fields) -> MonitorConfig:
    return MonitorConfig(service=QUIET, history=HistoryConfig(path=str(path), **fields))


# -- questions ----------------------------------------------------------------------------------------------------


async def test_a_real_pool_is_asked_about():
    began = time.time()
    async with ops_pool(name="texts", size=2) as pool, Monitor(pool) as monitor:
        for number in range(20):
            await pool.run("echo", number)
        async with pool.session("user") as session:
            await session.run("echo", 1)
        with pytest.raises(Exception, match="why"):
            await pool.run("fail", "why")
        await eventually(lambda: monitor.metrics.summary("1m").pools["texts"].size is not None)  # sampled at a tick

        found = monitor.metrics.range(began, step="1s", pool="texts", operation="echo")
        assert sum(point.calls for point in found.points) == 21
        assert monitor.metrics.error_rates()["fail"].error_ratio == 1.0
        assert list(monitor.metrics.error_rates(by="category")) == ["operation"]
        assert set(monitor.metrics.error_rates(by="session_kind")) == {"none", "hint"}
        assert sum(rate.calls for rate in monitor.metrics.error_rates(by="worker").values()) == 22
        before = monitor.snapshot("1m").pools["texts"]
        summary = monitor.metrics.summary("1m").pools["texts"]
        after = monitor.snapshot("1m").pools["texts"]
        assert (summary.total.calls, summary.size) == (22, 2)
        assert after.busy_ratio <= summary.utilisation <= before.busy_ratio  # of a busy time that stays as it is
        [failure] = monitor.snapshot("1m").pools["texts"].failures
        assert (failure.message, failure.operation, failure.count) == ("why", "fail", 1)
        assert failure.worker in ("texts-0", "texts-1")
        worker = monitor.metrics.worker("texts-1", window="1m")
        assert (worker.id, worker.state) == ("texts-1", "ready")
        with pytest.raises(UnknownName, match=r"worker 'texts-7' was not measured; measured: texts-0, texts-1"):
            monitor.metrics.worker("texts-7")


async def test_questions_are_answered_over_the_socket():
    gauges = Gauges()
    async with Monitor(gauges) as monitor, connected(at(monitor)) as http:
        gauges.call()
        start = time.time() - 10
        body = (await http.get("/v1/range", params={"start": start, "step": "1s", "operation": "op"})).content
        assert sum(point.calls for point in msgspec.json.decode(body, type=Range).points) == 1
        body = (await http.get("/v1/summary", params={"window": "1h"})).content
        assert msgspec.json.decode(body, type=Summary).pools["other"].total.calls == 1
        for path, status, words in (
            ("/v1/range", 400, "start is missing"),
            ("/v1/range?start=x", 400, "start='x': needs seconds since the epoch"),
            (f"/v1/range?start={start - 10**4}", 400, "memory keeps steps of"),
            (f"/v1/range?start={start}&step=7x", 400, "step='7x'"),
            (f"/v1/range?start={start}&operation=nope", 404, "operation 'nope' was not measured; measured: op, other"),
            ("/v1/summary?window=2h", 400, "choose one of 1m"),
        ):
            answer = await http.get(path)
            assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


async def test_metrics_for_prometheus_are_served_in_the_form_it_asks_for():
    gauges = Gauges()
    async with Monitor(gauges) as monitor, connected(at(monitor)) as http:
        for _ in range(3):
            gauges.call()
        answer = await http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = {
            (sample.name, sample.labels.get("operation"), sample.labels.get("outcome")): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }
        assert samples["pool_monitor_calls_total", "op", "ok"] == 3
        assert samples["pool_monitor_call_latency_seconds_count", "op", None] == 3
        answer = await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.content.endswith(b"# EOF\n")


# -- filters ------------------------------------------------------------------------------------------------------


async def test_filters_of_a_configuration_hold_while_its_monitor_is_entered():
    gauges = Gauges()
    config = MonitorConfig(service=QUIET, telemetry=TelemetryConfig(deny=("pool.operation.*",)))
    telemetry.configure(deny=["my.*"])
    try:
        async with Monitor(gauges, config=config) as monitor:
            gauges.call()
            snap = monitor.snapshot("1m")
            assert snap.pools["other"].total.calls == 0
            assert snap.monitor.weights == {"pool.operation.stop": 0, "pool.operation.exception": 0}
        assert telemetry.filters().deny == ("my.*",)
    finally:
        telemetry.configure()


async def test_filters_that_the_service_chose_meanwhile_outlive_the_monitor():
    config = MonitorConfig(service=QUIET, telemetry=TelemetryConfig(sample={"pool.operation.stop": 10}))
    try:
        async with Monitor(Gauges(), config=config):
            telemetry.configure(deny=["my.*"])
        assert telemetry.filters() == telemetry.Filters(deny=("my.*",))
    finally:
        telemetry.configure()


# -- history ------------------------------------------------------------------------------------------------------


async def test_what_was_counted_is_in_the_file_when_the_monitor_is_left(tmp_path: Path):
    path = tmp_path / "there" / "other.db"
    gauges = Gauges()
    async with Monitor(gauges, config=with_history(path)) as monitor:
        for ms in range(1, 101):
            gauges.call(ms)
        await eventually(lambda: monitor.snapshot().monitor.history.flush_seconds is not None)
        assert monitor.snapshot().monitor.history.degraded is None
    assert monitor.history is None
    with Reader(path) as reader:
        first, last = reader.extent()
        recording = reader.read(first, last, 1)
        assert reader.pools() == ("other",)
    counts = sum(int(timed.block.tallies[:, 0].sum()) for timed in recording.blocks)
    assert (counts, recording.names.rows) == (100, (("other", "op", "other-0"),))


async def test_a_later_monitor_goes_on_with_the_file_and_answers_about_both(tmp_path: Path):
    path = tmp_path / "other.db"
    began = time.time()
    for ms in (1, 1000):
        gauges = Gauges()
        async with Monitor(gauges, config=with_history(path, flush_interval=0.05)) as monitor:
            for _ in range(50):
                gauges.call(ms)
            second = monitor.snapshot().taken_at
            await eventually(lambda: monitor.snapshot().taken_at >= second + 1.2)  # noqa: B023 - waited for here
            if ms == 1000:
                summary = (await monitor.history.summary(began)).pools["other"]
                assert (summary.total.calls, summary.total.latency.max) == (100, 1.0)
                assert summary.total.latency.p50 == pytest.approx(0.001, rel=0.011)
                found = await monitor.history.range(began, step="1s", operation="op")
                assert sum(point.calls for point in found.points) == 100
                rates = await monitor.history.error_rates(by="session_kind")
                assert rates["none"].calls == 100
                with pytest.raises(UnknownName):
                    await monitor.history.range(began, operation="nope")
                with pytest.raises(ConfigError, match="needs an end after the start"):
                    await monitor.history.summary(time.time() + 100)
                extent = await monitor.history.extent()
                assert extent[0] <= began + 1
                assert monitor.history.stats().dropped == 0


async def test_a_question_memory_cannot_answer_is_answered_over_the_socket_from_the_history(tmp_path: Path):
    gauges = Gauges()
    config = MonitorConfig(history=HistoryConfig(path=str(tmp_path / "other.db")))
    async with Monitor(gauges, config=config) as monitor, connected(at(monitor)) as http:
        gauges.call()
        await eventually(lambda: monitor.snapshot().uptime > 1.2)
        asked = {"start": time.time() - 86_400, "step": "1h", "pool": "other"}
        found = msgspec.json.decode((await http.get("/v1/range", params=asked)).content, type=Range)
        assert sum(point.calls for point in found.points) == 1


@pytest.mark.slow
@pytest.mark.gate
async def test_a_question_about_before_a_restart_is_answered_over_the_socket_from_the_history(tmp_path: Path):
    began = time.time()
    config = MonitorConfig(history=HistoryConfig(path=str(tmp_path / "other.db")))
    for operation in ("before", "after"):
        gauges = Gauges()
        async with Monitor(gauges, config=config) as monitor:
            gauges.call(operation=operation)
            await eventually(lambda: monitor.snapshot().uptime > 1.2)
            if operation == "after":
                async with connected(at(monitor)) as http:
                    asked = {"start": began - 60, "step": "1m"}
                    found = msgspec.json.decode((await http.get("/v1/range", params=asked)).content, type=Range)
                    assert sum(point.calls for point in found.points) == 2
                    asked |= {"operation": "before"}
                    found = msgspec.json.decode((await http.get("/v1/range", params=asked)).content, type=Range)
                    assert sum(point.calls for point in found.points) == 1


async def test_a_summary_of_a_time_of_which_only_coarser_slots_are_left_is_made_of_those():
    class Kept:
        """A history that keeps nothing finer than minutes."""

        config = HistoryConfig()
        asked: ClassVar[list[int]] = []

        async def extent(self) -> tuple[int, int]:
            return 0, 10**6

        async def read(self, start: int, end: int, step: int) -> Recording:
            self.asked.append(step)
            if step < 60:
                raise ConfigError("only minutes are kept")
            return Recording(Names((), ()), [])

    found = await HistoryMetrics(Kept(), ManualClock()).summary(60_010, 60_290)
    assert (found.start, found.end, Kept.asked) == (60_000, 60_300, [1, 10, 60])


async def test_a_child_that_outlives_a_killed_service_holds_neither_its_lock_nor_its_socket(tmp_path: Path):
    """A ProcessPoolExecutor's worker, forked off the service, goes on when the service is killed."""
    path = tmp_path / "other.db"
    code = f"""
import asyncio, os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from tests.test_monitor import Gauges
from pool_monitor import Monitor
from pool_monitor.config import HistoryConfig, MonitorConfig

async def main():
    async with Monitor(Gauges(), config=MonitorConfig(history=HistoryConfig(path={str(path)!r}))) as monitor:
        child = os.fork()
        if not child:
            os.close(1)  # whoever waits for the service's end waits for the end of its output
            time.sleep(30)
            os._exit(0)
        print(child, monitor.address, flush=True)
        await asyncio.sleep(30)

asyncio.run(main())
"""
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", code, stdout=asyncio.subprocess.PIPE
    )
    child, address = (await service.stdout.readline()).decode().split()
    try:
        service.kill()
        await service.wait()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_unix_connection(address)
        async with Monitor(Gauges(), config=with_history(path)) as monitor:
            assert monitor.snapshot().monitor.history.degraded is None
    finally:
        os.kill(int(child), signal.SIGKILL)
        service._transport.close()


async def test_a_history_that_cannot_be_written_is_told_of_and_the_pool_does_not_notice(tmp_path: Path):
    blocker = tmp_path / "file"
    blocker.write_text("not a directory")
    with telemetry.capture(("monitor", "degrade")) as events:
        async with ops_pool(name="texts", size=1) as pool:
            async with Monitor(pool, config=with_history(blocker / "texts.db")) as monitor:
                assert await pool.run("echo", 1) == 1
                snap = monitor.snapshot()
                assert snap.pools["texts"].total.calls == 1
                assert "texts.db" in snap.monitor.history.degraded
            assert await pool.run("echo", 2) == 2
    [event] = events
    assert (event.metadata["part"], event.metadata["state"], event.metadata["service"]) == (
        "history", "degraded", "texts",
    )  # fmt: skip
    assert CATALOGUE[event.name].problems(event.measurements, event.metadata) == []


# -- otlp ---------------------------------------------------------------------------------------------------------


async def test_totals_are_pushed_to_a_receiver_and_a_last_time_when_the_monitor_is_left():
    received: list[ExportMetricsServiceRequest] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        body = await reader.readexactly(length)
        if "content-encoding: gzip" in head:
            import gzip

            body = gzip.decompress(body)
        received.append(ExportMetricsServiceRequest.FromString(body))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def calls(request: ExportMetricsServiceRequest) -> int:
        return sum(
            int(point.as_int or point.as_double)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "pool_monitor.calls"
            for point in metric.sum.data_points
            if any(pair.value.string_value == "ok" for pair in point.attributes)
        )

    async with await asyncio.start_server(receive, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = MonitorConfig(service=QUIET, otlp=OtlpConfig(endpoint=f"http://127.0.0.1:{port}", interval=3600))
        gauges = Gauges()
        async with Monitor(gauges, config=config) as monitor:
            await eventually(lambda: received)
            gauges.call()
            await eventually(lambda: monitor.snapshot().monitor.otlp.exported == 1)
            assert monitor.snapshot().monitor.otlp.last_error is None
        assert [calls(request) for request in received] == [0, 1]


async def test_an_otlp_endpoint_that_is_none_is_refused_before_anything_starts():
    with pytest.raises(ConfigError, match="endpoint='nowhere'"):
        OtlpConfig(endpoint="nowhere")
    pool = Pool("tests.targets.ops:Ops")
    config = MonitorConfig(service=QUIET, otlp=OtlpConfig(endpoint="http://"))
    with pytest.raises(ConfigError, match="http://"):
        async with Monitor(pool, config=config):
            pass
    assert not [handler for handler in telemetry.list_handlers() if "collector" in handler.id]
