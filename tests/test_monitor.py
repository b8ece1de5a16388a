"""The monitor: what a Snapshot says of real pools, and that nothing the monitor does or suffers reaches them."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_monitor import Monitor, Pool, PoolError, telemetry
from pool_monitor.clock import ManualClock
from pool_monitor.config import HistoryConfig, MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.errors import ConfigError, ConnectError, OperationError, OperationTimeout, WorkerDied
from pool_monitor.service.client import Address, connected, fetch, follow
from pool_monitor.snapshot import PoolView, Snapshot, WorkerView
from pool_monitor.view import overview, plain
from tests.helpers.gates import thinned
from tests.helpers.programs import runtime_dir
from tests.helpers.support import Leftovers, eventually, ops_pool, running

__all__ = ["runtime_dir"]
pytestmark = pytest.mark.usefixtures("runtime_dir", "no_leaks")
NO_SOCKET = MonitorConfig(service=ServiceConfig(socket=False))
ERROR = 0.011  # of a percentile, as Distribution promises


class Gauges:
    """A pool of somebody else's making, as far as a monitor needs one."""

    def __init__(self, name: str = "other", *, failing: bool = False) -> None:
        self.name, self.failing = name, failing
        self.of_pool: dict[str, Any] = {}
        self.of_worker: dict[str, Any] = {}
        """Gauges that are other than usual."""

    def status(self) -> PoolView:
        if self.failing:
            raise RuntimeError("no idea")
        counts = dict.fromkeys(("starting", "draining", "dead", "waiting", "sessions", "restarts", "completed"), 0)
        view = PoolView(name=self.name, state="running", size=1, busy=0, idle=1, queue_limit=1, **counts)
        return msgspec.structs.replace(view, **self.of_pool)

    def workers(self) -> list[WorkerView]:
        view = WorkerView(id=f"{self.name}-0", state="ready", state_age=1, pid=1, age=1, restarts=0, operation=None)
        return [msgspec.structs.replace(view, **self.of_worker)]

    def call(self, milliseconds: float = 1.0, operation: str = "op") -> None:
        """Say that a call has ended."""
        ns = round(milliseconds * 1e6)
        telemetry.execute(
            ("pool", "operation", "stop"),
            {"duration": ns, "queue_duration": 0, "execution_duration": ns},
            {"pool": self.name, "operation": operation, "worker": f"{self.name}-0"},
        )


def at(monitor: Monitor) -> Address:
    assert monitor.address is not None
    return Address("it", monitor.address, "http://localhost")


async def test_snapshot_has_what_it_promises():
    async with ops_pool(name="texts", size=2) as pool, Monitor(pool) as monitor:
        for number in range(8):
            await pool.run("echo", number)
        with suppress(OperationError):
            await pool.run("fail", "why")
        with suppress(OperationTimeout):
            await pool.options(timeout=0.05).run("later", 1, seconds=30)
        await eventually(lambda: pool.status().busy == 0)
        cancelled = await running(pool, "later", 1, 30)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        snap = monitor.snapshot(window="1m")

        echo = snap.pools["texts"].operations["echo"]
        assert (echo.calls, echo.ok, echo.errors, echo.error_ratio) == (8, 8, 0, 0.0)
        assert echo.rate == pytest.approx(8 / snap.covered_seconds, rel=0.5)  # read a moment before or after
        assert 0 < echo.latency.p50 <= echo.latency.p90 <= echo.latency.p95 <= echo.latency.p99 <= echo.latency.p999
        assert echo.latency.p999 <= echo.latency.max
        assert echo.latency.count == echo.queue.count == echo.execution.count == 8
        assert echo.execution.mean < echo.latency.mean
        failed = snap.pools["texts"].operations["fail"]
        assert (failed.calls, failed.errors, failed.error_ratio, failed.latency.p99) == (1, 1, 1.0, None)
        later = snap.pools["texts"].operations["later"]
        assert (later.calls, later.errors, later.timeouts, later.cancelled) == (2, 1, 1, 1)
        total = snap.pools["texts"].total
        assert (total.calls, total.ok, total.errors, total.cancelled, total.rejected) == (11, 8, 2, 1, 0)

        workers = snap.pools["texts"].workers
        assert list(workers) == ["texts-0", "texts-1"]
        assert sum(worker.calls for worker in workers.values()) == 11
        assert all(worker.id == slot for slot, worker in workers.items())
        assert (snap.pools["texts"].size, snap.pools["texts"].state, snap.service.pid) == (2, "running", os.getpid())
        assert (snap.window, snap.window_seconds, snap.service.name) == ("1m", 60.0, "texts")
        assert monitor.snapshot().seq > snap.seq


LICENCE = """
import os, sys
if os.path.exists({flag!r}):
    {fault}

class Target:
    def die(self):
        os._exit(3)
"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("sys.exit('no licence')", "SystemExit: no licence"),
        ("sys.stderr.write('no licence\\n'); sys.stderr.flush(); os._exit(9)", "exit code 9: no licence"),
    ],
)
async def test_a_worker_that_can_start_no_more_says_why(tmp_path, fault, reason):
    flag, target = tmp_path / "flag", tmp_path / "target.py"
    target.write_text(LICENCE.format(flag=str(flag), fault=fault))
    async with Pool(f"{target}:Target", name="lic", size=1) as pool, Monitor(pool, config=NO_SOCKET) as monitor:
        flag.touch()
        with suppress(WorkerDied):
            await pool.run("die")

        def told() -> str | None:
            return monitor.snapshot().pools["lic"].workers["lic-0"].last_error

        await eventually(lambda: (told() or "").startswith("start: "))
        assert told() == f"start: {reason}"
        snap = monitor.snapshot()
        assert snap.pools["lic"].deaths == 1  # what has never been ready has not died
        await eventually(lambda: monitor.snapshot().pools["lic"].dead)
        attention = plain(overview(monitor.snapshot(), (80, 24))).splitlines()[3]
        assert attention.startswith(f" ✖ lic-0 cannot start: {reason} ")


async def test_what_is_unknown_is_none_and_never_zero():
    async with ops_pool() as pool, Monitor(pool) as monitor:
        total = monitor.snapshot().pools["ops"].total
        assert (total.calls, total.error_ratio, total.latency.p99, total.latency.mean) == (0, None, None, None)
        assert monitor.snapshot().pools["ops"].operations == {}


async def test_percentiles_agree_with_the_durations_of_the_same_run():
    async with ops_pool(size=2) as pool, Monitor(pool) as monitor:
        with telemetry.capture(("pool", "operation", "stop")) as events:
            async for _ in pool.map("later", range(300), seconds=0.0):
                pass
            async for _ in pool.map("later", range(20), seconds=0.02):
                pass
        seen = monitor.snapshot().pools["ops"].operations["later"]
    for part, key in (("latency", "duration"), ("queue", "queue_duration"), ("execution", "execution_duration")):
        exact = sorted(event.measurements[key] / 1e9 for event in events)
        found = getattr(seen, part)
        assert found.count == len(exact) == 320
        assert found.max == pytest.approx(exact[-1])
        assert found.mean == pytest.approx(sum(exact) / len(exact))
        for share, name in ((0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99"), (0.999, "p999")):
            nearest = exact[math.ceil(share * len(exact)) - 1]
            # An operation may take less than the smallest duration told apart, which is a microsecond.
            assert getattr(found, name) == pytest.approx(nearest, rel=ERROR, abs=1e-6 * (1 + ERROR)), (part, name)


@pytest.mark.parametrize("window", ["2m", "", "5", "5M", "2h", None, 5])
def test_another_window_is_a_config_error_that_names_those_there_are(window):
    with pytest.raises(ConfigError, match=r"1m.*5m.*15m"):
        Monitor(Gauges()).snapshot(window)


async def test_snapshot_survives_json():
    async with ops_pool() as pool, Monitor(pool) as monitor:
        await pool.run("echo", 1)
        taken = monitor.snapshot("15m")
        assert msgspec.json.decode(msgspec.json.encode(taken), type=Snapshot) == taken


async def test_snapshot_cannot_be_changed():
    taken = Monitor(Gauges()).snapshot()
    with pytest.raises(AttributeError):
        taken.pools["other"].size = 3


async def test_two_monitors_see_the_same_and_count_for_themselves():
    async with ops_pool() as pool, Monitor(pool) as first:
        await pool.run("echo", 1)
        async with Monitor(pool) as second:
            await pool.run("echo", 2)
            assert first.address != second.address
            assert second.snapshot().pools["ops"].total.calls == 1
            assert (await fetch(at(second), "5m")).pools["ops"].total.calls == 1
        await pool.run("echo", 3)
        assert first.snapshot().pools["ops"].total.calls == 3
        assert second.snapshot().pools["ops"].total.calls == 1, "it has left"
        assert second.snapshot().monitor.collecting is False


async def test_a_monitor_says_what_it_watches_and_where_it_is_reached() -> None:
    monitor = Monitor([Gauges("a"), Gauges("b")])
    assert repr(monitor) == "<Monitor of 'a', 'b' [not entered]>"
    async with monitor:
        assert repr(monitor) == f"<Monitor of 'a', 'b' [entered at {monitor.address}]>"
    assert repr(monitor) == "<Monitor of 'a', 'b' [not entered]>"


async def test_one_monitor_watches_several_pools():
    async with ops_pool(name="a") as a, ops_pool(name="b") as b, Monitor([a, b]) as monitor:
        await a.run("echo", 1)
        await b.run("add", 1)
        pools = monitor.snapshot().pools
        assert list(pools) == ["a", "b"]
        assert (list(pools["a"].operations), list(pools["b"].operations)) == (["echo"], ["add"])
        assert list(pools["b"].workers) == ["b-0"]


@pytest.mark.parametrize("pools", [[], [Gauges("x"), Gauges("x")]])
def test_no_pool_or_two_of_one_name_are_refused(pools):
    with pytest.raises(ConfigError, match="a different name for each"):
        Monitor(pools)


async def test_pools_may_be_entered_after_the_monitor_and_leave_before_it():
    pool = ops_pool()
    async with Monitor(pool) as monitor:
        assert monitor.snapshot().pools["ops"].state == "new"
        assert monitor.not_ready() == "pool ops is new"
        async with pool:
            await pool.run("echo", 1)
            assert monitor.not_ready() is None
        assert monitor.snapshot().pools["ops"].state == "closed"
        assert monitor.snapshot().pools["ops"].total.calls == 1


async def test_when_it_was_entered_moves_with_the_clock_and_how_long_ago_does_not():
    clock = ManualClock(0.0)  # a machine that boots without knowing the time
    async with Monitor(Gauges(), config=NO_SOCKET, clock=clock) as monitor:
        clock.advance(20)
        clock.step_wall(1_700_000_000)
        snap = monitor.snapshot()
        assert (snap.service.started_at, snap.taken_at, snap.uptime) == (1_700_000_000, 1_700_000_020, 20)


async def test_entered_again_it_starts_over():
    gauges = Gauges()
    monitor = Monitor(gauges)
    async with monitor:
        gauges.call()
        assert monitor.snapshot().pools["other"].total.calls == 1
    async with monitor:
        assert monitor.snapshot().pools["other"].total.calls == 0
        gauges.call()
        assert monitor.snapshot().pools["other"].total.calls == 1
        assert (await fetch(at(monitor), "5m")).uptime < 60
    assert monitor.address is None


async def test_entered_within_itself_it_refuses_and_goes_on():
    gauges = Gauges()
    async with Monitor(gauges) as monitor:
        with pytest.raises(PoolError, match="entered already"):
            await monitor.__aenter__()
        gauges.call()
        assert monitor.snapshot().pools["other"].total.calls == 1
        assert (await fetch(at(monitor), "5m")).pools["other"].total.calls == 1


async def test_what_is_raised_inside_passes_and_leaves_nothing(runtime_dir):
    with pytest.raises(ZeroDivisionError):
        async with Monitor(Gauges()):
            raise ZeroDivisionError
    assert list(runtime_dir.iterdir()) == []


async def test_cancelled_while_it_closes_it_leaves_nothing(runtime_dir):
    entered = asyncio.Event()

    async def use() -> None:
        async with Monitor(Gauges()) as monitor:
            _, writer = await asyncio.open_unix_connection(monitor.address)
            writer.write(b"GET /v1/snapshot HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n")  # and no more
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                writer.close()

    task = asyncio.create_task(use())
    await eventually(lambda: entered.is_set() or task.done())
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(runtime_dir.iterdir()) == []


async def test_a_pool_whose_gauges_fail_is_left_out_and_complained_of_once(caplog):
    bad, good = Gauges("bad", failing=True), Gauges("good")
    async with Monitor([bad, good]) as monitor:
        good.call()
        for _ in range(3):
            assert list(monitor.snapshot().pools) == ["good"]
        assert monitor.not_ready() == "pool bad: its state is unknown"
        assert [record.name for record in caplog.records] == ["pool_monitor.monitor"]
        bad.failing = False
        assert list(monitor.snapshot().pools) == ["bad", "good"]
        bad.failing = True
        monitor.snapshot()
        assert len(caplog.records) == 2


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
async def test_a_pool_whose_gauges_raise_no_exception_is_left_out_too(error):
    class Odd(Gauges):
        def workers(self) -> list[WorkerView]:
            raise error

    async with Monitor([Odd("odd"), Gauges("good")], config=NO_SOCKET) as monitor:
        assert list(monitor.snapshot().pools) == ["good"]


async def test_text_in_gauges_reaches_every_viewer_in_a_form_it_can_read():
    odd, spelt = "caf\udce9", "caf\\udce9"
    gauges = Gauges()
    async with Monitor(gauges) as monitor, aclosing(follow(at(monitor), "5m")) as snapshots:
        await anext(snapshots)
        gauges.of_pool = {"name": odd, "refusals": {odd: 1}}
        gauges.of_worker = {"id": odd, "operation": odd + "x" * 20_000}
        for taken in (monitor.snapshot(), await fetch(at(monitor), "5m"), await anext(snapshots)):
            pool = taken.pools["other"]
            assert (pool.name, pool.refusals, list(pool.workers)) == (spelt, {spelt: 1}, [spelt])
            operation = pool.workers[spelt].operation
            assert operation.startswith(spelt + "x")
            assert len(operation) < 1100
        async with connected(at(monitor)) as http:
            for path in ("/v1/snapshot", "/v1/summary", "/metrics", "/readyz"):
                assert (await http.get(path)).status_code == 200, path


async def test_a_number_without_a_json_form_is_unknown():
    gauges = Gauges()
    gauges.of_pool, gauges.of_worker = {"relative_time": math.inf}, {"age": math.nan, "rss": 1 << 63}
    config = MonitorConfig(resources=ResourcesConfig(enabled=False))  # else rss is what the service reads
    async with Monitor(gauges, config=config) as monitor:
        pool = (await fetch(at(monitor), "5m")).pools["other"]
        assert (pool.relative_time, pool.workers["other-0"].age, pool.workers["other-0"].rss) == (None, None, None)


@pytest.mark.parametrize(
    ("of_pool", "of_worker", "place"),
    thinned(
        [
            ({"state": "bored"}, {}, "state"),
            ({"busy": "3"}, {}, "busy"),
            ({"size": None}, {}, "size"),
            ({"refusals": {1: 2}}, {}, "refusals"),
            ({}, {"state_age": math.nan}, "state_age"),
            ({}, {"operation": b"x"}, "operation"),
            ({}, {"pid": 1.5}, "pid"),
            ({}, {"id": ["a"]}, "id"),
        ],
        4,
    ),
)
async def test_a_gauge_of_another_type_costs_its_pool_and_the_log_names_it(of_pool, of_worker, place, caplog):
    bad, good = Gauges("bad"), Gauges("good")
    async with Monitor([bad, good]) as monitor:
        bad.of_pool, bad.of_worker = of_pool, of_worker
        for _ in range(2):
            assert list((await fetch(at(monitor), "5m")).pools) == ["good"]
        [record] = caplog.records
        assert "gauges cannot be read" in record.message
        assert f"$.{place}" in caplog.text
    async with Monitor([bad, good]) as monitor:
        assert await monitor.ticked()


@pytest.mark.parametrize("name", ["", "caf\udce9", "a\nb", 7, None])
def test_a_pools_name_has_to_be_printable(name):
    with pytest.raises(ConfigError, match=r"the name of a pool is .*needs a non-empty printable string"):
        Monitor(Gauges(name))


async def test_a_history_with_an_odd_path_can_be_looked_at(tmp_path):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    try:
        Path(place).mkdir()
    except OSError:
        pytest.skip("file names are UTF-8 here")
    config = MonitorConfig(history=HistoryConfig(path=f"{place}/h.db"))
    async with Monitor(Gauges(), config=config) as monitor:
        taken = await fetch(at(monitor), "5m")
        assert taken.monitor.history.path.endswith("caf\\udce9/h.db")


async def test_a_failing_tick_is_logged_and_the_ticking_goes_on(monkeypatch, caplog):
    async with ops_pool() as pool, Monitor(pool, config=NO_SOCKET) as monitor:
        whole = monitor._collector.ticking
        monkeypatch.setattr(monitor._collector, "until_tick", lambda: 0.001)
        monkeypatch.setattr(monitor._collector, "ticking", lambda: 1 / 0)
        assert await monitor.ticked()
        await eventually(lambda: "tick failed" in caplog.text)
        assert await pool.run("echo", 1) == 1
        monkeypatch.setattr(monitor._collector, "ticking", whole)
        assert await monitor.ticked()
        assert monitor.snapshot().pools["ops"].total.calls == 1


async def test_a_directory_that_is_open_to_others_is_not_used(runtime_dir, caplog):
    runtime_dir.chmod(0o755)
    async with ops_pool() as pool, Monitor(pool) as monitor:
        assert monitor.address is None
        assert "must be a directory of user" in caplog.text
        assert await pool.run("echo", 1) == 1
        assert monitor.snapshot().pools["ops"].total.calls == 1
    assert list(runtime_dir.iterdir()) == []


async def test_a_path_too_long_for_a_socket_is_not_used(runtime_dir, monkeypatch, caplog):
    monkeypatch.setenv("POOL_MONITOR_RUNTIME_DIR", str(runtime_dir / ("x" * 100)))
    async with Monitor(Gauges()) as monitor:
        assert monitor.address is None
    assert "longer than the 103 bytes" in caplog.text


@pytest.mark.parametrize("obstacle", ["file", "link"])
async def test_what_is_no_directory_is_not_used(obstacle, runtime_dir, monkeypatch, caplog):
    place = runtime_dir / "place"
    place.touch() if obstacle == "file" else place.symlink_to(runtime_dir)
    monkeypatch.setenv("POOL_MONITOR_RUNTIME_DIR", str(place))
    async with Monitor(Gauges()) as monitor:
        assert monitor.address is None
    assert "dashboards cannot attach" in caplog.text


async def test_a_server_that_cannot_be_started_does_not_hinder(monkeypatch, caplog):
    monkeypatch.setattr("pool_monitor.service.server.serve", lambda *_: 1 / 0)
    async with Monitor(Gauges()) as monitor:
        assert monitor.address is None
        assert await monitor.ticked()
    assert "ZeroDivisionError" in caplog.text


async def test_without_a_socket_nothing_is_opened(runtime_dir):
    async with Monitor(Gauges(), config=NO_SOCKET) as monitor:
        assert monitor.address is None
        assert list(runtime_dir.iterdir()) == []


async def test_the_configuration_may_be_a_file(tmp_path):
    file = tmp_path / "pool-monitor.toml"
    file.write_text('[service]\nname = "billing"\nsocket = true\n[metrics]\nseries_limit = 30\n')
    async with Monitor(Gauges(), config=file) as monitor:
        assert monitor.address is not None
        assert monitor.address.name == f"billing-{os.getpid()}.sock"
        assert monitor.snapshot().service.name == "billing"
        assert monitor.snapshot().monitor.series_limit == 30


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[service]\nsocket = 3\n", r"service\.socket"),
        ("[service]\nsokcet = true\n", "sokcet"),
        ("[metrics]\nseries_limit = 0\n", "series_limit"),
        ('[service]\nname = "a/b"\n', r"service\.name"),
        ("[servce]\n", "servce"),
        ("[service\n", "not valid TOML"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_configuration_names_file_and_place(text, complaint, tmp_path):
    file = tmp_path / "pool-monitor.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=rf"pool-monitor\.toml.*{complaint}"):
        Monitor(Gauges(), config=str(file))


FORKS = """
import asyncio, os, sys
from pool_monitor import Monitor
from pool_monitor.adapters import MonitoredCalls
from pool_monitor.service.client import Address, fetch

async def main(monitor):
    async with monitor:
        child = os.fork()
        if child == 0:
            sys.exit(7)
        _, status = os.waitpid(child, 0)
        print("child ended with", os.waitstatus_to_exitcode(status))
        at = Address("it", monitor.address, "http://localhost")
        print("answered by its parent:", (await fetch(at, "5m")).service.pid == os.getpid())
    print("left:", not at.socket.exists())

made_before = Monitor(MonitoredCalls(name="x"))
if os.fork() == 0:
    asyncio.run(main(made_before))
else:
    os.wait()
"""


def test_a_forked_process_that_leaves_the_monitor_leaves_it_to_its_parent(program):
    done = program("-c", FORKS).ended()
    assert done.out.splitlines() == ["child ended with 7", "answered by its parent: True", "left: True"], done.err


async def test_the_service_began_when_the_monitor_was_entered():
    clock = ManualClock(1_700_000_000.0)
    monitor = Monitor(Gauges(), config=NO_SOCKET, clock=clock)
    clock.advance(100)
    async with monitor:
        assert monitor.snapshot().service.started_at == 1_700_000_100.0


# -- viewers ----------------------------------------------------------------------------------------------------------


async def test_closing_ends_the_streams():
    async with AsyncExitStack() as open_:
        monitor = await open_.enter_async_context(Monitor(Gauges()))
        snapshots = await open_.enter_async_context(aclosing(follow(at(monitor), "1m")))
        assert (await anext(snapshots)).window == "1m"
        await monitor.__aexit__(None, None, None)
        with pytest.raises(ConnectError, match="has closed"):
            _ = [snapshot async for snapshot in snapshots]
    assert await monitor.ticked() is False


async def test_many_viewers_come_and_go_and_leave_nothing():
    async with ops_pool(start_method="exec") as pool, Monitor(pool) as monitor:
        await pool.run("echo", 1)
        leftovers = Leftovers()
        counts = []
        refused = 0

        async def look(number: int) -> None:
            nonlocal refused
            async with aclosing(follow(at(monitor), "5m")) as snapshots:
                try:
                    taken = await anext(snapshots)
                except ConnectError:
                    refused += 1
                    return
                counts.append(taken.monitor.viewers)
                if number % 2:
                    await anext(snapshots)

        await asyncio.gather(*(look(number) for number in range(20)))
        assert (len(counts), refused) == (16, 4)
        await eventually(lambda: monitor.viewers == 0)
        with suppress(AssertionError):
            await eventually(lambda: not leftovers.found())
        assert leftovers.found() == {}


async def test_a_viewer_that_does_not_read_slows_nobody(monkeypatch):
    async with ops_pool() as pool, Monitor(pool) as monitor:
        monkeypatch.setattr(monitor._collector, "until_tick", lambda: 0.001)
        _, stalled = await asyncio.open_unix_connection(monitor.address, limit=1024)
        stalled.transport.pause_reading()
        stalled.write(b"GET /v1/stream HTTP/1.1\r\nhost: x\r\n\r\n")
        await eventually(lambda: monitor.viewers == 1)
        async with aclosing(follow(at(monitor), "5m")) as snapshots:
            taken = []
            while len(taken) < 150:
                taken.append((await anext(snapshots)).seq)
                assert await pool.run("echo", 1) == 1
        assert taken == sorted(taken)
        assert monitor.viewers == 2 or await eventually(lambda: monitor.viewers == 1)
        server_side = [task for task in asyncio.all_tasks() if "run_asgi" in repr(task)]
        assert len(server_side) <= 2
        stalled.transport.abort()
        await eventually(lambda: monitor.viewers == 0)


async def test_it_closes_while_a_viewer_does_not_read(monkeypatch):
    async with Monitor(Gauges()) as monitor:
        monkeypatch.setattr(monitor._collector, "until_tick", lambda: 0.0005)
        monkeypatch.setattr("pool_monitor.service.server._CLOSE_MAX", 0.05)
        _, stalled = await asyncio.open_unix_connection(monitor.address, limit=1024)
        stalled.transport.pause_reading()
        stalled.write(b"GET /v1/stream HTTP/1.1\r\nhost: x\r\n\r\n")
        before = -1
        while monitor.snapshot().seq > before + 1:  # until the stream takes no more
            before = monitor.snapshot().seq
            for _ in range(20):
                await monitor.ticked()
    assert monitor.viewers == 0
    stalled.transport.abort()


async def test_nonsense_on_the_socket_disturbs_nobody(caplog):
    async with Monitor(Gauges()) as monitor:
        reader, writer = await asyncio.open_unix_connection(monitor.address)
        writer.write(b"\x00\xff nonsense\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()
        reader, writer = await asyncio.open_unix_connection(monitor.address)
        writer.write(b"GET /v1/snapshot HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
        assert (await reader.read(12)) == b"HTTP/1.1 200"
        writer.close()
        assert (await fetch(at(monitor), "5m")).pools.keys() == {"other"}
    # The application decides where the lines of loggers below ours go; one of uvicorn's may be the service's own.
    assert {record.name for record in caplog.records} == {"pool_monitor.service"}


async def test_the_loggers_of_uvicorn_are_left_as_they_are():
    access = logging.getLogger("uvicorn.access")
    handler = logging.NullHandler()
    access.addHandler(handler)
    try:
        async with Monitor(Gauges()):
            assert access.handlers == [handler]
            assert access.propagate
    finally:
        access.removeHandler(handler)


async def test_signal_handlers_are_left_as_they_are():
    import signal

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    async with Monitor(Gauges()):
        assert {number: signal.getsignal(number) for number in before} == before


async def test_a_pool_in_use_is_not_disturbed_by_monitors_coming_and_going():
    async with ops_pool(size=2) as pool:

        async def work() -> list[int]:
            return [value async for value in pool.map("later", range(60), seconds=0.005)]

        task = asyncio.create_task(work())
        while not task.done():
            with suppress(ZeroDivisionError):
                async with Monitor(pool):
                    await asyncio.sleep(0)
                    raise ZeroDivisionError
        assert await task == list(range(60))
        assert pool.status().restarts == 0


def test_a_pool_is_what_a_monitor_needs():
    assert Monitor(Pool("module:attribute", name="x")).snapshot().pools["x"].state == "new"


def test_paths_are_accepted_too(tmp_path: Path):
    (tmp_path / "c.toml").write_text("")
    assert Monitor(Gauges(), config=tmp_path / "c.toml").config == MonitorConfig()
