"""Workers that the kernel kills for want of memory are told apart from those that something else kills.

A real shortage of memory would endanger the machine of the tests. So the files of the kernel are a tree of the test,
whose counter the test raises, and real workers are killed by a real signal 9.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import Monitor, Pool, StartError, WorkerDied, telemetry
from pool_monitor.cgroup import OutOfMemoryKills
from pool_monitor.config import MonitorConfig, ServiceConfig
from pool_monitor.pool import kernel_kills
from pool_monitor.pool.kernel_kills import KernelKillWatch
from pool_monitor.pool.policy.out_of_memory import FRESH, KillLedger
from pool_monitor.pool.transport.exiting import is_exiting
from tests.helpers.kernel_tree import PROC, V2, KernelTree
from tests.helpers.support import eventually, ops_pool, running

pytestmark = pytest.mark.usefixtures("no_leaks")
EVENTS = "sys/fs/cgroup/outer/inner/memory.events"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelTree:
    tree = KernelTree(tmp_path / "kernel", PROC, V2, {"sys/fs/cgroup/outer/memory.max": str(512 << 20)})
    monkeypatch.setattr(kernel_kills, "OutOfMemoryKills", lambda: OutOfMemoryKills(str(tree.root)))
    return tree


async def killed(pool: Pool, events: list[Any], slot: int = 0) -> tuple[WorkerDied, dict[str, Any]]:
    events.clear()
    with pytest.raises(WorkerDied) as caught:
        await pool.options(worker=pool.workers()[slot].id).run("kill_self")
    [crash] = [event for event in events if event.name == ("pool", "worker", "crash")]
    return caught.value, dict(crash.metadata)


async def test_a_worker_killed_for_want_of_memory_is_told_as_that(kernel: KernelTree):
    with telemetry.capture(("pool",)) as events:
        async with (
            ops_pool() as pool,
            Monitor(pool, config=MonitorConfig(service=ServiceConfig(socket=False))) as monitor,
        ):
            kernel.write({EVENTS: "oom 4\noom_kill 3\n"})
            error, crash = await killed(pool, events)
            seen = monitor.snapshot().pools["ops"]
    words = "killed by signal 9: the kernel's out-of-memory killer (cgroup limit 512 MiB)"
    assert error.cause == crash["reason"] == words
    assert words in str(error)
    assert error.reason is None  # the pool did not end it
    assert error.exit_code == crash["exit_code"] == -9
    assert crash["out_of_memory"] == "yes"
    assert seen.last_death == "signal 9, out of memory"


async def test_a_worker_that_something_else_kills_is_not(kernel: KernelTree):
    with telemetry.capture(("pool",)) as events:
        async with ops_pool() as pool:
            error, crash = await killed(pool, events)
    assert error.cause is None
    assert (crash["reason"], crash["out_of_memory"]) == ("signal 9 (SIGKILL)", "no")


async def test_one_kill_explains_one_death(kernel: KernelTree):
    with telemetry.capture(("pool",)) as events:
        async with ops_pool(size=3) as pool:
            kernel.write({EVENTS: "oom_kill 4\n"})  # two more than when the pool was entered
            verdicts = [(await killed(pool, events, slot))[1]["out_of_memory"] for slot in range(3)]
    assert verdicts == ["yes", "yes", "no"]


async def test_where_only_the_machine_counts_it_is_probable(kernel: KernelTree):
    kernel.remove(EVENTS)
    with telemetry.capture(("pool",)) as events:
        async with ops_pool() as pool:
            kernel.write({"proc/vmstat": "oom_kill 8\n"})
            error, crash = await killed(pool, events)
    assert crash["out_of_memory"] == "probably"
    assert error.cause == "killed by signal 9: probably the kernel's out-of-memory killer, by the machine's count"


async def test_a_worker_that_the_pool_ends_is_never_called_out_of_memory(kernel: KernelTree):
    async with ops_pool(cancel_grace=0.05) as pool:
        kernel.write({EVENTS: "oom_kill 9\n"})
        other = await running(pool, "stuck_in_c")
        other.cancel()
        with telemetry.capture(("pool", "worker")) as events:
            await eventually(lambda: any(event.name[2] == "terminate" for event in events))
        assert not any(event.name[2] == "crash" for event in events)


async def test_a_worker_killed_while_it_loads_says_so(kernel: KernelTree, tmp_path: Path):
    target = tmp_path / "loads.py"
    events_file = kernel.root / EVENTS
    target.write_text(
        f"import os, pathlib\npathlib.Path({str(events_file)!r}).write_text('oom_kill 3\\n')\nos.kill(os.getpid(), 9)\n"
    )
    with pytest.raises(StartError, match=r"It was killed by signal 9: the kernel's out-of-memory killer") as caught:
        async with Pool(f"{target}:Ops", size=1, name="loads"):
            pass
    assert caught.value.cause == "killed by signal 9: the kernel's out-of-memory killer (cgroup limit 512 MiB)"


async def test_a_machine_without_these_files_is_no_hindrance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(kernel_kills, "OutOfMemoryKills", lambda: OutOfMemoryKills(str(tmp_path / "none")))
    with telemetry.capture(("pool",)) as events:
        async with ops_pool() as pool:
            _error, crash = await killed(pool, events)
            await asyncio.sleep(0)
            assert await pool.run("echo", 1) == 1
    assert crash["out_of_memory"] == "no"


# -- the decision -----------------------------------------------------------------------------------------------------


def test_the_first_counts_say_nothing_and_old_kills_explain_nothing():
    ledger = KillLedger()
    ledger.note(0, 100, None)
    assert ledger.explain(0) == "no"
    ledger.note(1, 101, None)
    assert ledger.explain(1 + FRESH) == "yes"
    ledger.note(100, 102, None)
    assert ledger.explain(101 + FRESH) == "no"


def test_a_counter_that_was_set_back_or_that_begins_to_be_read_says_nothing():
    ledger = KillLedger()
    for count in (5, 1, None, 50):
        ledger.note(0, count, None)
        assert ledger.explain(0) == "no"
    ledger.note(0, 51, None)
    assert ledger.explain(0) == "yes"


def test_of_more_ends_than_kills_each_was_only_probably_killed():
    ledger = KillLedger()
    ledger.note(0, 5, None)
    ledger.note(1, 6, None)
    assert [ledger.explain(1, others) for others in (1, 0, 0)] == ["probably", "probably", "no"]
    ledger.note(2, 8, None)
    assert [ledger.explain(2, others) for others in (1, 0, 0)] == ["yes", "yes", "no"]


async def test_a_worker_that_a_person_kills_is_not_told_as_the_kernels_kill_of_another(kernel: KernelTree):
    with telemetry.capture(("pool", "worker", "crash")) as events:
        async with ops_pool(size=2) as pool:
            pids = [worker.pid for worker in pool.workers() if worker.pid is not None]
            for pid in pids:  # both before the event loop notices one of them
                os.kill(pid, signal.SIGKILL)
            give_up = time.monotonic() + 10
            while not all(is_exiting(pid) for pid in pids) and time.monotonic() < give_up:
                time.sleep(0.001)  # the loop must not run
            kernel.write({EVENTS: "oom_kill 3\n"})
            await eventually(lambda: len(events) == 2)
    assert [event.metadata["out_of_memory"] for event in events] == ["probably", "probably"]
    assert "some of the processes" in events[0].metadata["reason"]


@given(st.lists(st.tuples(st.floats(0, 100), st.none() | st.integers(0, 10**12), st.booleans())))
def test_no_more_deaths_are_explained_than_kills_were_counted(steps: list[tuple[float, int | None, bool]]):
    ledger, now, before, counted, explained = KillLedger(), 0.0, None, 0, 0
    for after, count, died in steps:
        now += after
        ledger.note(now, count, None)
        if before is not None and count is not None:
            counted += max(0, count - before)
        before = count
        assert len(ledger._unexplained) <= 64
        explained += died and ledger.explain(now) != "no"
        assert explained <= counted


def test_counters_are_read_every_few_seconds_so_that_old_kills_are_known_to_be_old(tmp_path: Path):
    tree, now = KernelTree(tmp_path, PROC, V2), [0.0]
    watch = KernelKillWatch(lambda: now[0], OutOfMemoryKills(str(tmp_path)))
    tree.write({EVENTS: "oom_kill 3\n"})  # of another process of the cgroup
    for now[0] in range(0, 60, 1):
        watch.refresh()
    assert watch.judge(-9).out_of_memory == "no"
    assert watch.judge(1) == ("no", None)
