"""The figures of workers' processes, and the faults of workers that misuse a resource: real processes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import psutil
import pytest

from pool_monitor import Monitor, Pool, findings, telemetry
from pool_monitor.adapters import MonitoredExecutor
from pool_monitor.config import MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.emit import PoolIdentity
from pool_monitor.events import RESOURCE_LIMIT, RESOURCE_WORKER
from pool_monitor.resources import part, proc, workers
from pool_monitor.resources.diagnosis import Diagnosis
from pool_monitor.resources.faults import CONDITIONS, Condition
from pool_monitor.resources.sample import Execution, Moment, Slot
from pool_monitor.resources.trends import LeakWatch
from pool_monitor.resources.workers import WorkerSampler
from pool_monitor.run_token import ServiceRun, own_run
from pool_monitor.snapshot import WorkerView
from pool_monitor.telemetry import CapturedEvent
from pool_monitor.view.freshness import LIVE
from pool_monitor.view.notices import notices
from tests.helpers.support import TARGETS, eventually, ops_pool, pid_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")

STRAINS = f"{TARGETS / 'strains.py'}:Strains"
INTERVAL = 0.05
MB = 1_000_000
FAST = 20.0  # times as fast as the defaults


def faster(condition: Condition) -> Condition:
    """Return a condition whose times are shorter, as the interval of these tests is."""
    bounds = condition.bounds._replace(hold_s=condition.bounds.hold_s / FAST)
    if condition.kind == "zombie":
        bounds = bounds._replace(warn=(bounds.warn or 0) / FAST)
    if condition.kind == "hot_idle":
        bounds = bounds._replace(warn=0.02)  # on a machine with more to do than it can
    return condition._replace(bounds=bounds)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> list[Condition]:
    conditions = [faster(condition) for condition in CONDITIONS if condition.about in {"worker", "slot", "process"}]
    monkeypatch.setattr(part, "Diagnosis", partial(Diagnosis, conditions=conditions))
    monkeypatch.setattr(workers, "_TABLE_SHARE", 1.0)
    return conditions


@pytest.fixture
def events() -> Iterator[list[CapturedEvent]]:
    with telemetry.capture(("resource",)) as captured:
        yield captured


def monitored(pool: Any) -> Monitor:
    resources = ResourcesConfig(interval=INTERVAL, orphans="off", gpu=False)
    return Monitor(pool, config=MonitorConfig(resources=resources, service=ServiceConfig(socket=False)))


def strained(**fields: Any) -> Pool:
    return Pool(STRAINS, **{"size": 1, "name": "strains", "timeout": 20.0, **fields})


def faults(events: list[CapturedEvent], kind: str, state: str) -> list[CapturedEvent]:
    return [
        event
        for event in events
        if event.name == RESOURCE_LIMIT.name and (event.metadata["kind"], event.metadata["state"]) == (kind, state)
    ]


async def fault(events: list[CapturedEvent], kind: str, state: str = "reached", timeout: float = 40.0) -> CapturedEvent:
    return (await eventually(lambda: faults(events, kind, state), timeout=timeout))[0]


def samples_before(events: list[CapturedEvent], fault: CapturedEvent, first: int) -> int:
    """Return how many samples of workers were taken from event *first* on until *fault*."""
    until = next(nth for nth, event in enumerate(events) if event is fault)
    return sum(event.name == RESOURCE_WORKER.name for event in events[first:until])


# -- the figures ------------------------------------------------------------------------------------------------------

POOL = PoolIdentity("text", "i1")


def slot(pid: int | None, **fields: Any) -> Slot:
    usual: dict[str, Any] = {"id": "text-0", "state": "ready", "state_age": 9.0, "age": None, "restarts": 0}
    return Slot(POOL, WorkerView(**{**usual, "pid": pid, "operation": None, **fields}))


def only(sampler: WorkerSampler, *slots: Slot) -> Execution:
    (found,) = sampler.sample(Moment(0, slots))
    assert RESOURCE_WORKER.problems(found.measurements, {**found.metadata, "monitor": "m"}) == []
    return found


def missing(execution: Execution) -> str:
    assert not execution.measurements
    return str(execution.metadata["missing"]["figures"])


def test_the_figures_agree_with_those_of_psutil() -> None:
    sampler, us = WorkerSampler(), psutil.Process()
    only(sampler, slot(us.pid))
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    found = only(sampler, slot(us.pid))
    measured, full = found.measurements, us.memory_full_info()
    assert measured["rss"] == pytest.approx(full.rss, rel=0.05)
    assert measured["uss"] == pytest.approx(full.uss, rel=0.05)
    assert measured["fds"] == pytest.approx(us.num_fds(), abs=2)
    assert measured["threads"] == us.num_threads()
    assert measured["children"] == len(us.children(recursive=True))
    io = us.io_counters()
    assert (measured["read_bytes"], measured["written_bytes"]) == (io.read_bytes, io.write_bytes)
    assert 0 < measured["cpu_ratio"] < 2 * (os.cpu_count() or 1)
    assert measured["fds_limit"] == us.rlimit(psutil.RLIMIT_NOFILE)[0]
    assert found.metadata["state_letter"] in {"R", "S", "D"}


def test_the_processor_time_needs_two_readings_without_a_gap() -> None:
    now = [10**9]
    sampler = WorkerSampler(clock=lambda: now[0])
    found = [only(sampler, slot(os.getpid()))]
    for passed in (1, 1, 60, 1):
        now[0] += passed * 10**9
        found.append(only(sampler, slot(os.getpid())))
    assert ["cpu_ratio" in each.measurements for each in found] == [False, True, True, False, True]
    assert "too long ago" in found[3].metadata["missing"]["cpu_ratio"]


def test_a_clock_that_stands_still_gives_no_ratio() -> None:
    sampler = WorkerSampler(clock=lambda: 5)
    only(sampler, slot(os.getpid()))
    assert "cpu_ratio" not in only(sampler, slot(os.getpid())).measurements


def test_a_slot_without_a_process_is_skipped() -> None:
    assert WorkerSampler().sample(Moment(0, [slot(None)])) == []


def test_a_process_that_has_vanished_has_no_figures() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert missing(only(WorkerSampler(), slot(process.pid))) == "the process has ended"


def test_a_process_that_waits_to_be_reaped_has_no_figures_but_its_letter() -> None:
    process = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        found = only(WorkerSampler(), slot(process.pid))
        assert "waits to be reaped" in missing(found)
        assert found.metadata["state_letter"] == "Z"
    finally:
        process.wait()


def test_a_pid_that_another_process_has_by_now_is_not_read_as_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = WorkerSampler()
    assert only(sampler, slot(os.getpid())).measurements
    real = proc.stat_of
    monkeypatch.setattr(proc, "table", dict)
    monkeypatch.setattr(proc, "stat_of", lambda pid: real(pid)._replace(start=real(pid).start + 1))
    for _ in range(3):
        assert "another process" in missing(only(sampler, slot(os.getpid())))
    own_age = proc.age_ns(real(os.getpid()).start) / 1e9
    assert "another process" in missing(only(sampler, slot(os.getpid(), age=own_age)))
    assert "rss" in only(sampler, slot(os.getpid(), age=0.0)).measurements  # a new worker, which has the old pid


def test_a_process_whose_memory_is_gone_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    real = proc.stat_of
    monkeypatch.setattr(proc, "table", dict)
    monkeypatch.setattr(proc, "stat_of", lambda pid: real(pid)._replace(rss=0))
    found = only(WorkerSampler(), slot(os.getpid()))
    assert not found.measurements
    assert "starting or ending" in missing(found)


@pytest.mark.parametrize(
    ("token", "age", "why"),
    [
        (None, 3600.0, "another process"),
        (None, 5.0, None),
        ("1.2.3.other", 5.0, "another service"),
        ("own", 3600.0, None),
        ("1.2.3.other", None, None),
    ],
)
def test_the_first_reading_must_be_of_the_worker_that_the_pool_means(
    token: str | None, age: float | None, why: str | None
) -> None:
    run = own_run()
    assert run is not None
    env = {**os.environ, "POOL_MONITOR_RUN": run.token if token == "own" else token or ""}
    process = subprocess.Popen(["sleep", "600"], env=env if token else {"PATH": os.environ["PATH"]})
    try:
        while proc.read(f"/proc/{process.pid}/comm", 100) != b"sleep\n":  # `Popen` returns a moment earlier
            pass
        found = only(WorkerSampler(), slot(process.pid, age=age))
        assert why in missing(found) if why else found.measurements["rss"] > 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("error", [PermissionError(13, "not allowed"), OSError(5, "broken"), ValueError("nonsense")])
def test_what_cannot_be_read_is_missing_with_its_reason(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def unreadable(path: str, most: int) -> bytes:
        if path.endswith(("/io", "/smaps_rollup", "/limits")):
            raise error
        return real(path, most)

    real = proc.read
    monkeypatch.setattr(proc, "read", unreadable)
    found = only(WorkerSampler(), slot(os.getpid()))
    assert {"read_bytes", "uss", "fds_limit"} <= found.metadata["missing"].keys()
    assert {"rss", "threads", "fds"} <= found.measurements.keys()


@pytest.mark.parametrize("text", [b"", b"12 (a", b"12 (a) S 1", b"12 (a) b c) S", b"\xff" * 1000])
def test_a_text_that_is_no_stat_is_no_reading(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        proc.parse_stat(text)


def test_the_name_of_a_program_may_contain_anything() -> None:
    figures = " ".join(map(str, range(3, 60)))
    stat = proc.parse_stat(b"12 (a) S 9 (b\n) R " + figures.encode())
    assert (stat.letter, stat.parent) == ("R", 3)


def test_without_proc_every_worker_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_args: Any) -> Any:
        raise FileNotFoundError(2, "No such file or directory", "/proc")

    for name in ("stat_of", "pids", "read"):
        monkeypatch.setattr(proc, name, nothing)
    sampler = WorkerSampler()
    assert missing(only(sampler, slot(os.getpid())))
    own = Execution(workers.RESOURCE_PROCESS, {}, {"missing": {}, "pid": 1})
    assert "children" in sampler.complete([own])[0].metadata["missing"]


def test_what_is_kept_of_workers_goes_with_their_slots() -> None:
    sampler, leaks = WorkerSampler(), LeakWatch(1.0)
    slots = [slot(os.getpid(), id=f"text-{nth}") for nth in range(50)]
    for nth in range(3):
        moment = Moment(nth * 10**9, slots)
        leaks.complete(moment, sampler.sample(moment))
    assert (len(sampler._known), len(leaks._trends)) == (50, 50)
    moment = Moment(4 * 10**9, slots[:2])
    leaks.complete(moment, sampler.sample(moment))
    assert (len(sampler._known), len(leaks._trends)) == (2, 2)


# -- the faults -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.gate
async def test_leaks_are_reported_with_the_time_to_the_limit_and_a_warm_up_is_not(
    fast: Any, events: list[CapturedEvent]
) -> None:
    rate, limit = 20 * MB, 700 * MB
    async with strained(size=3, recycle_rss=limit, recycle_jitter=0) as pool, monitored(pool) as monitor:
        of = [pool.options(worker=f"strains-{nth}") for nth in range(3)]
        await of[1].run("warm_up", 80 * MB, 1.0)
        await of[2].run("leak_fds", 40, 1200)
        await of[0].run("leak", rate)
        reached = await fault(events, "leak")
        assert reached.metadata["worker"] == "strains-0"
        assert "reaches its limit of 668 MiB in" in reached.metadata["reason"]
        reading = next(event for event in events if "leak_rate" in event.measurements)
        assert reading.metadata["worker"] == "strains-0"
        left = (limit - reading.measurements["rss"]) / rate
        assert reading.measurements["leak_rate"] == pytest.approx(rate, rel=0.3)
        assert reading.measurements["time_to_limit_duration"] / 1e9 == pytest.approx(left, rel=0.4)

        of_fds = await fault(events, "fd_leak")
        assert of_fds.metadata["worker"] == "strains-2"
        assert "reach the limit of 1200 in" in of_fds.metadata["reason"]
        assert 0 < of_fds.measurements["value"] < 60
        snapshot = monitor.snapshot()
        view = snapshot.pools["strains"].workers["strains-0"]
        assert view.leak_rate == pytest.approx(rate, rel=0.3)
        assert view.time_to_limit is not None
        assert view.fds_limit is not None
        assert {(one.kind, one.worker) for one in snapshot.resources.faults} >= {("leak", "strains-0")}
        shown = notices(snapshot, snapshot.pools["strains"], LIVE)
        assert [one.level for one in shown if one.text.startswith("strains-0: its memory grows by")] == ["bad"]

        for each in of:
            await each.run("stop")
        await fault(events, "leak", "left")
        await fault(events, "fd_leak", "left")
    assert {each.metadata["worker"] for each in faults(events, "leak", "reached")} == {"strains-0"}
    assert {each.metadata["worker"] for each in faults(events, "fd_leak", "reached")} == {"strains-2"}


async def test_a_worker_that_computes_without_a_call_is_reported_in_time(
    fast: Any, events: list[CapturedEvent]
) -> None:
    async with strained() as pool, monitored(pool):
        await eventually(lambda: any("cpu_ratio" in event.measurements for event in events))
        await pool.run("spin")
        first = len(events)
        reached = await fault(events, "hot_idle")
        assert samples_before(events, reached, first) <= 4 + math.ceil(10 / FAST / INTERVAL)
        await pool.run("stop")
        await fault(events, "hot_idle", "left")


@pytest.mark.slow
@pytest.mark.gate
async def test_a_zombie_of_a_worker_is_reported_in_time(fast: Any, events: list[CapturedEvent]) -> None:
    async with strained() as pool, monitored(pool):
        await pool.run("zombie")
        first = len(events)
        reached = await fault(events, "zombie")
        assert reached.metadata["worker"] == "strains-0"
        assert samples_before(events, reached, first) <= 3 + math.ceil(10 / FAST / INTERVAL)
        await pool.run("stop")
        await fault(events, "zombie", "left")


async def test_a_zombie_of_the_service_is_reported(fast: Any, events: list[CapturedEvent]) -> None:
    async with ops_pool() as pool, monitored(pool):
        process = subprocess.Popen(["true"])
        try:
            reached = await fault(events, "zombie")
            assert reached.metadata["subject"] == "process"
        finally:
            process.wait()
        await fault(events, "zombie", "left")


@pytest.mark.slow
@pytest.mark.gate
async def test_a_crash_loop_is_a_fault_and_a_finding_once(fast: Any, events: list[CapturedEvent]) -> None:
    # Long enough for samples that are rarer because they cost much in a large process.
    slow = {"restart_limit": 0, "restart_period": 1.5, "backoff_min": 1.2, "backoff_max": 1.2}
    async with ops_pool(**slow) as pool, monitored(pool) as monitor:
        first = len(events)
        os.kill(pid_of(pool), signal.SIGKILL)
        reached = await fault(events, "crash_loop")
        assert samples_before(events, reached, first) <= 4
        snapshot = monitor.snapshot()
        found = findings.of_pool(snapshot, snapshot.pools["ops"], findings.levels(snapshot))
        assert [each.kind for each in found].count("crash_loop") <= 1
        assert "crash_loop" not in findings.STRAINS
        await fault(events, "crash_loop", "left")
        assert len(faults(events, "crash_loop", "reached")) == 1


async def test_a_stopped_worker_has_a_letter_and_no_figures_until_it_goes_on(
    fast: Any, events: list[CapturedEvent]
) -> None:
    async with ops_pool() as pool, monitored(pool):
        pid = pid_of(pool)
        await eventually(lambda: any(event.measurements.get("cpu_ratio") is not None for event in events))
        os.kill(pid, signal.SIGSTOP)
        try:
            await fault(events, "stopped")
            last = [event for event in events if event.name == RESOURCE_WORKER.name][-1]
            assert last.metadata["state_letter"] == "T"
            assert set(last.measurements) <= {"interval"}
            assert last.metadata["missing"]["figures"] == "the process is stopped"
        finally:
            os.kill(pid, signal.SIGCONT)
        await fault(events, "stopped", "left")
        await eventually(lambda: "rss" in [event for event in events if event.name == RESOURCE_WORKER.name][-1][1])


@pytest.mark.slow
@pytest.mark.gate
async def test_faults_end_with_the_process_and_with_the_monitor(fast: Any, events: list[CapturedEvent]) -> None:
    async with strained() as pool, monitored(pool):
        await pool.run("zombie")
        await fault(events, "zombie")
        os.kill(pid_of(pool), signal.SIGKILL)
        ended = await fault(events, "zombie", "left")
        assert "gone" in ended.metadata["reason"]
        await pool.run("zombie")
        await eventually(lambda: len(faults(events, "zombie", "reached")) == 2)
    assert faults(events, "zombie", "left")[-1].metadata["reason"] == "measuring has ended"


async def test_every_event_of_workers_and_faults_is_as_the_catalogue_says(events: list[CapturedEvent]) -> None:
    async with strained(size=2) as pool, monitored(pool):
        child = await pool.run("child")
        await eventually(lambda: any(event.measurements.get("children") == 1 for event in events))
        os.kill(child, signal.SIGKILL)
    for event in events:
        if event.name in (RESOURCE_WORKER.name, RESOURCE_LIMIT.name):
            spec = {RESOURCE_WORKER.name: RESOURCE_WORKER, RESOURCE_LIMIT.name: RESOURCE_LIMIT}[event.name]
            assert spec.problems(event.measurements, event.metadata) == []


async def test_the_workers_of_another_executor_are_measured_too(events: list[CapturedEvent]) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        pool = MonitoredExecutor(executor, name="others")
        async with monitored(pool):
            assert pool.submit(abs, -1).result() == 1
            await eventually(lambda: any(event.measurements.get("rss", 0) > MB for event in events
                                         if event.name == RESOURCE_WORKER.name))  # fmt: skip


def test_a_process_started_by_a_pool_has_the_token_of_this_service() -> None:
    run = own_run()
    assert isinstance(run, ServiceRun)
    assert run.pid == os.getpid()
    assert own_run() is run
