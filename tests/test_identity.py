"""Pools of the same name, at once or in turn: their events, windows and exports are never mixed up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from pool_monitor import Monitor, Pool, StartError, emit, telemetry
from pool_monitor.adapters import MonitoredExecutor
from pool_monitor.clock import ManualClock
from pool_monitor.config import MonitorConfig, ServiceConfig
from pool_monitor.emit import PoolIdentity
from pool_monitor.export.prometheus import TEXT, render
from pool_monitor.metrics import Collector
from tests.helpers.support import eventually, ops_pool
from tests.test_monitor import Gauges

NO_SOCKET = {"socket": False}
QUIET = MonitorConfig(service=ServiceConfig(socket=False))


def page(monitor: Monitor) -> str:
    return render(monitor.snapshot("1m"), monitor.metrics.totals(), TEXT).decode()


async def test_a_new_pool_of_the_same_name_has_another_instance_in_each_of_its_events() -> None:
    with telemetry.capture(("pool",)) as events:
        for _ in range(2):
            async with ops_pool() as pool:
                async with pool.session("user") as session:
                    await session.run("echo", 1)
                with pytest.raises(Exception, match="why"):
                    await pool.run("fail", "why")
                assert pool.status().instance == pool.instance
    instances = list(dict.fromkeys(event.metadata["pool_instance"] for event in events))
    assert len(instances) == 2
    assert [event.metadata["pool_instance"] for event in events if event.name == ("pool", "init")] == instances


async def test_a_monitor_counts_the_calls_of_its_own_pool_alone() -> None:
    async with ops_pool() as other, ops_pool() as pool, Monitor(pool) as monitor:
        for _ in range(3):
            await other.run("echo", 1)
            with pytest.raises(Exception, match="why"):
                await other.run("fail", "why")
        await pool.run("echo", 1)
        with pytest.raises(Exception, match="SIGKILL"):
            await other.run("kill_self")
        found = monitor.snapshot("1m").pools["ops"]
        assert (found.total.calls, found.total.errors, found.deaths, found.failures) == (1, 0, 0, ())
        assert found.instance == pool.instance
        assert {operation: stats.calls for operation, stats in found.operations.items()} == {"echo": 1}
        assert sum(sum(row) for row in monitor.metrics.totals().outcomes.tolist()) == 1


async def test_exports_label_pools_by_name_alone_unless_two_of_one_name_are_watched() -> None:
    async with ops_pool() as first, ops_pool() as second, Monitor(first) as one:
        await first.run("echo", 1)
        before = page(one)
        assert 'pool="ops"' in before
        assert "pool_instance" not in before
        async with Monitor(second) as other:
            for monitor, pool in ((one, first), (other, second)):
                about_pools = [line for line in page(monitor).splitlines() if 'pool="ops"' in line]
                assert about_pools
                assert all(f'pool_instance="{pool.instance}"' in line for line in about_pools)
        assert [line.rpartition(" ")[0] for line in page(one).splitlines() if "calls_total" in line] == [
            line.rpartition(" ")[0] for line in before.splitlines() if "calls_total" in line
        ]


class Own(Gauges):
    """A pool of one's own that has an id, of which its gauges say nothing."""

    def __init__(self, name: str = "own") -> None:
        super().__init__(name)
        self.identity = PoolIdentity.new(name)

    @property
    def instance(self) -> str:
        return self.identity.instance


async def test_pools_of_ones_own_are_told_apart_by_the_id_they_return() -> None:
    first, second = Own(), Own()
    async with Monitor(first, config=QUIET) as one, Monitor(second, config=QUIET) as other:
        with emit.operation(first.identity, "draw"):
            pass
        series = [{line.rpartition(" ")[0] for line in page(monitor).splitlines() if 'pool="own"' in line}
                  for monitor in (one, other)]  # fmt: skip
        assert all(f'pool_instance="{first.instance}"' in line for line in series[0])
        assert series[0]
        assert not series[0] & series[1]
        assert one.snapshot().pools["own"].total.calls == 1
        assert one.snapshot().pools["own"].instance == first.instance
        assert other.snapshot().pools["own"].total.calls == 0


@pytest.mark.parametrize("instance", [RuntimeError("not open"), 5, b"x", "", "x" * 5000, "\udc80"], ids=type)
async def test_an_id_that_cannot_be_read_costs_nothing(instance: object) -> None:
    class Odd(Gauges):
        @property
        def instance(self) -> object:
            if isinstance(instance, Exception):
                raise instance
            return instance

    pool = Odd("own")
    async with Monitor(pool, config=QUIET) as monitor, Monitor(Odd("own"), config=QUIET):
        pool.call()
        assert monitor.snapshot().pools["own"].total.calls == 1
        assert b"own" in msgspec.json.encode(monitor.snapshot())
        assert 'pool="own"' in page(monitor)


async def test_one_pool_that_two_monitors_watch_shares_its_name_with_none() -> None:
    async with ops_pool() as pool, Monitor(pool) as one, Monitor(pool) as other:
        await pool.run("echo", 1)
        for monitor in (one, other):
            assert monitor.snapshot().pools["ops"].total.calls == 1
            assert not monitor.snapshot().pools["ops"].shares_name


async def test_executors_of_one_name_are_distinguished_too() -> None:
    with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
        first, second = MonitoredExecutor(a, name="thumbs"), MonitoredExecutor(b, name="thumbs")
        assert first.instance != second.instance
        async with Monitor(first) as monitor:
            second.submit(len, "ab").result()
            first.submit(len, "ab").result()
            await eventually(lambda: monitor.snapshot().pools["thumbs"].total.calls == 1)
            assert monitor.snapshot().pools["thumbs"].instance == first.instance


@pytest.mark.parametrize(
    ("known", "named", "counted"),
    [("a", "a", 1), ("a", "b", 0), ("a", None, 1), ("a", "", 1), (None, "b", 1), (None, None, 1)],
)
def test_the_name_decides_where_an_instance_is_unknown(known, named, counted) -> None:
    collector = Collector(["p"], ManualClock(), instances={} if known is None else {"p": known})
    about = {"pool": "p", "operation": "work", "worker": "p-0", "call_id": 1, "session_kind": "none"}
    about |= {} if named is None else {"pool_instance": named}
    collector.attach()
    try:
        telemetry.execute(("pool", "operation", "stop"), {"duration": 5, "queue_duration": 1, "attempts": 1}, about)
        series = telemetry.event(("pool", "operation", "stop")).series
        assert series is not None
        series["p", "work", "p-0", "none", named or ""](5, 1, 3)
        assert collector.totals().outcomes.sum() == 2 * counted
    finally:
        collector.detach()


RAISES = "def work(): pass\nraise RuntimeError('no licence\\nfor this machine')"
EXITS = "import sys\nprint('first', file=sys.stderr)\nprint(' no licence ', file=sys.stderr)\nsys.exit(9)"


@pytest.mark.parametrize(
    ("source", "fields", "cause"),
    [
        (RAISES, {}, "RuntimeError: no licence"),
        (EXITS, {}, "SystemExit: 9"),
        ("import os; os._exit(9)", {}, "exit code 9"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", {}, "signal 9 (SIGKILL)"),
        ("import os; os.write(2, b'first\\n no licence \\n'); os._exit(9)", {}, "exit code 9: no licence"),
        ("import time; time.sleep(60)", {"start_timeout": 0.5}, "had not loaded '{target}' after 0.5 s; raise"),
    ],
)
async def test_an_error_of_a_start_names_its_cause_in_one_line(tmp_path, source: str, fields, cause: str) -> None:
    target = tmp_path / "target.py"
    target.write_text(source)
    with telemetry.capture(("pool", "error")) as events, pytest.raises(StartError) as failure:
        async with Pool(str(target), name="ops", size=1, **fields):
            pass
    expected = cause.format(target=target)
    assert failure.value.cause is not None
    assert failure.value.cause.startswith(expected)
    assert failure.value.cause.splitlines() == [failure.value.cause]
    assert [event.metadata["cause"].startswith(expected) for event in events] == [True] * len(events)
    assert all("\n" not in event.metadata["cause"] for event in events)


async def test_the_line_of_a_failed_start_says_why_before_it_says_where(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StartError):
        async with Pool("no_such_module", name="ops", size=1):
            pass
    (line,) = [message for message in caplog.messages if message.startswith("worker failed")]
    assert line.startswith("worker failed reason=\"cannot load 'no_such_module'")
    assert line.endswith(" pool='ops' worker='ops-0' category='initialization' severity='critical'")


async def test_no_secret_is_in_the_line_of_a_failed_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "target.py").write_text("raise ValueError('no database at db://bob:hunter2@host')")
    with pytest.raises(StartError, match="hunter2"):
        async with Pool(str(tmp_path / "target.py"), name="ops", size=1):
            pass
    [line] = [message for message in caplog.messages if message.startswith("worker failed")]
    assert "no database at db://<secret>@host" in line


async def test_an_error_of_a_running_worker_names_its_cause_without_the_worker() -> None:
    async with ops_pool() as pool, Monitor(pool) as monitor:
        with telemetry.capture(("pool", "error")) as events, pytest.raises(Exception, match="broke the protocol"):
            await pool.run("send_garbage")
        [event] = events
        assert event.metadata["reason"] == f"worker ops-0 {event.metadata['cause']}"
        assert event.metadata["cause"].startswith("broke the protocol: ")
        await eventually(lambda: monitor.snapshot().pools["ops"].workers["ops-0"].last_error is not None)
