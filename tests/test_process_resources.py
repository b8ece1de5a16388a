"""What is measured of the service's own process, compared with independent readings of it."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.events import RESOURCE_PROCESS
from pool_monitor.resources import process
from pool_monitor.resources.garbage import GarbagePauses
from pool_monitor.resources.process import ProcessSampler
from pool_monitor.resources.rates import Counters, Seldom
from pool_monitor.resources.sample import Moment, Unknown, reason_of
from pool_monitor.resources.tasks import TaskCensus
from tests.helpers.kernel_tree import PROC, KernelTree

SECOND = 10**9
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def sample(sampler: ProcessSampler, now_ns: int = SECOND) -> tuple[dict[str, Any], dict[str, str]]:
    [execution] = sampler.sample(Moment(now_ns, (), 3, 4))
    assert RESOURCE_PROCESS.problems(execution.measurements, {**execution.metadata, "monitor": "m"}) == []
    assert execution.metadata["pid"] == os.getpid()
    return dict(execution.measurements), dict(execution.metadata["missing"])


def test_figures_come_from_the_files_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    KernelTree(tmp_path, PROC)
    for name in "012":
        (tmp_path / "proc/self/fd" / name).mkdir(parents=True)
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # not root
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (77, 99))
    found, missing = sample(ProcessSampler(GarbagePauses(), root=str(tmp_path)))
    assert found["rss"] == 50 * os.sysconf("SC_PAGE_SIZE")
    assert found["uss"] == 7 * 1024
    assert found["threads"] == 5
    assert (found["fds_limit"], found["threads_limit"], found["user_threads"]) == (77, 77, 0)
    assert (found["tasks"], found["oldest_task_duration"]) == (3, 4)
    assert missing["gc_pause_duration"] == "the garbage collector is not watched"


def test_no_limit_and_no_proc_are_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (resource.RLIM_INFINITY,) * 2)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    found, missing = sample(ProcessSampler(GarbagePauses(), root=str(tmp_path)))
    assert set(found) == {"tasks", "oldest_task_duration"}
    assert missing["fds_limit"] == missing["threads_limit"] == missing["user_threads"] == "there is no limit"
    assert "No such file or directory" in missing["rss"]
    monkeypatch.setattr(os, "getuid", lambda: 0)
    _found, missing = sample(ProcessSampler(GarbagePauses(), root=str(tmp_path)))
    assert missing["threads_limit"] == "root has no limit of processes and threads"


@LINUX
def test_figures_agree_with_ps_and_getrusage(monkeypatch: pytest.MonkeyPatch):
    sampler = ProcessSampler(GarbagePauses())
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic_ns()
    sample(sampler, began)
    while time.process_time() < before.ru_utime + before.ru_stime + 0.1:
        pass
    ended = time.monotonic_ns()
    found, _missing = sample(sampler, ended)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert found["cpu_ratio"] * (ended - began) / 1e9 == pytest.approx(used, abs=0.05)
    ps = subprocess.run(["ps", "-o", "rss=,nlwp=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    rss, threads = map(int, ps.stdout.split())
    assert found["rss"] == pytest.approx(rss * 1024, rel=0.1)
    assert found["threads"] == threads
    assert found["uss"] == pytest.approx(psutil.Process().memory_full_info().uss, rel=0.1)
    assert found["fds"] == pytest.approx(psutil.Process().num_fds(), abs=2)
    assert found["fds_limit"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@LINUX
def test_descriptors_are_counted_where_the_kernel_does_not(monkeypatch: pytest.MonkeyPatch):
    by_kernel = sample(ProcessSampler(GarbagePauses()))[0]["fds"]
    real = os.stat
    monkeypatch.setattr(
        process.os, "stat", lambda path: os.stat_result((0,) * 10) if str(path).endswith("/fd") else real(path)
    )
    assert sample(ProcessSampler(GarbagePauses()))[0]["fds"] == by_kernel


@LINUX
def test_threads_of_the_user_include_those_of_other_processes():
    mine = ProcessSampler(GarbagePauses())._threads_of_user()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        listed = subprocess.run(["ps", "-Lo", "pid=", "-p", str(child.pid)], capture_output=True, text=True, check=True)
        assert len(listed.stdout.split()) == 1
        found = ProcessSampler(GarbagePauses())._threads_of_user()
        child.kill()
    assert found >= threading.active_count() + 1
    assert mine >= threading.active_count()


# -- the garbage collector --------------------------------------------------------------------------------------------


def test_pauses_of_the_garbage_collector_are_measured_while_it_is_watched():
    pauses = GarbagePauses()
    assert pauses.take() is None
    before = list(gc.callbacks)
    pauses.start()
    pauses.start()  # once is enough
    try:
        pauses.take()
        began = time.perf_counter_ns()
        gc.collect()
        took = time.perf_counter_ns() - began
        found = pauses.take()
        assert found is not None
        assert found.gc_collections >= 1
        assert 0 < found.gc_pause_duration <= found.gc_duration <= took
        gc.disable()
        pauses.take()
        assert pauses.take() == (0, 0, 0)
    finally:
        gc.enable()
        pauses.stop()
    pauses.stop()
    assert gc.callbacks == before
    assert pauses.take() is None


def test_a_pause_in_which_measuring_began_does_not_count_and_waiting_pauses_are_bounded():
    pauses = GarbagePauses(most=3)
    pauses._started = True
    pauses.measuring("stop", {})
    assert pauses.take() == (0, 0, 0)
    for _ in range(10):
        pauses.measuring("start", {})
        pauses.measuring("stop", {})
    assert len(pauses._waiting) == 3
    found = pauses.take()
    assert found is not None
    assert found.gc_collections == 10


# -- tasks ------------------------------------------------------------------------------------------------------------


async def test_tasks_are_counted_and_the_oldest_has_the_age_since_it_was_seen():
    going = asyncio.Event()
    census = TaskCensus(cost_clock_ns=lambda: 0)
    own = len(asyncio.all_tasks())
    assert census.count(SECOND).tasks == own
    first = asyncio.create_task(going.wait())
    only_new = TaskCensus(cost_clock_ns=lambda: 0, list_tasks=lambda: asyncio.all_tasks() - {asyncio.current_task()})
    only_new = TaskCensus(cost_clock_ns=lambda: 0, list_tasks=lambda: {t for t in (first,) if not t.done()})
    assert only_new.count(10 * SECOND) == (1, 0)
    assert only_new.count(15 * SECOND) == (1, 5 * SECOND)
    going.set()
    await first
    assert only_new.count(16 * SECOND) == (0, None)
    assert census.count(17 * SECOND).tasks == own


async def test_the_memory_of_tasks_is_bounded_and_ages_are_never_too_high():
    going = asyncio.Event()
    tasks = [asyncio.create_task(going.wait()) for _ in range(20)]
    census = TaskCensus(most=5, cost_clock_ns=lambda: 0, list_tasks=lambda: [t for t in tasks if not t.done()])
    census.count(SECOND)
    assert len(census) == 5
    for task in tasks[:5]:
        task.cancel()
    await asyncio.wait(tasks[:5])
    assert census.count(9 * SECOND) == (15, 0)
    assert len(census) == 5
    assert census.count(11 * SECOND) == (15, 2 * SECOND)
    going.set()
    await asyncio.wait(tasks)
    del tasks[:], task
    gc.collect()
    assert len(census) == 0  # it keeps no task alive


def test_counting_dear_tasks_is_done_seldom():
    looked, cost = [], iter(range(0, 10**12, 4_000_000))  # each look takes 4 ms
    census = TaskCensus(cost_clock_ns=lambda: next(cost), list_tasks=lambda: looked.append(1) or [])
    for second in range(20):
        census.count(second * SECOND)
    assert len(looked) == 10  # 4 ms each 2 s: 0.2 %


# -- figures of a stretch of time -------------------------------------------------------------------------------------


def test_a_dear_figure_is_read_seldom_but_is_never_old():
    now, read = [0], []

    def dear() -> int:
        read.append(now[0])
        now[0] += SECOND // 5  # takes 0.2 s: 0.2 % would be once in 100 s
        return len(read)

    figure = Seldom(lambda: now[0])
    values = []
    for second in range(0, 70, 1):
        now[0] = max(now[0], second * SECOND)
        values.append(figure.read(dear))
    assert [at // SECOND for at in read] == [0, 30, 60]
    assert values[29] == 1
    assert values[31] == 2


def test_a_dear_figure_that_cannot_be_read_says_why_until_it_can():
    now = [0]
    figure = Seldom(lambda: now[0])

    def refused() -> int:
        now[0] += 10_000_000
        raise PermissionError(13, "Permission denied", "/proc/x")

    for _ in range(3):
        with pytest.raises(PermissionError):
            figure.read(refused)
    now[0] += 60 * SECOND
    assert figure.read(lambda: 3) == 3


@given(st.lists(st.tuples(st.integers(-(10**10), 10**10), st.integers(0, 10**9)), max_size=20))
def test_a_growth_is_never_negative_and_never_of_a_gap(steps: list[tuple[int, int]]):
    counters, now, before = Counters(), 0, None
    for took, value in steps:
        now += took
        counters.step(now, SECOND, {"x": value})
        if before is None or not 0 < took <= 3 * SECOND or value < before:
            with pytest.raises(Unknown):
                counters.growth("x")
        else:
            assert counters.growth("x") == value - before >= 0
            assert counters.seconds() == took / 1e9
        before = value


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/proc/1/fd"), "/proc/1/fd: Permission denied"),
        (Unknown("no limit"), "no limit"),
        (TimeoutError("no answer for 3 s"), "no answer for 3 s"),
        (ValueError("a\nb\x1b[31m"), "ValueError: a b [31m"),
        (KeyError("x" * 900), None),
        (OSError(), "OSError:"),
    ],
)
def test_a_reason_is_one_short_line(error: Exception, words: str | None):
    reason = reason_of(error)
    assert words is None or reason == words
    assert 0 < len(reason) <= 200
    assert reason.isprintable()
