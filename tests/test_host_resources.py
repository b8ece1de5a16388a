"""What is measured of the machine: from trees of files, and compared with independent readings of this machine."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from pool_monitor.events import RESOURCE_HOST
from pool_monitor.resources import host
from pool_monitor.resources.bounded import BoundedCalls
from pool_monitor.resources.host import HostSampler, folder_to_measure
from pool_monitor.resources.sample import Moment
from tests.helpers.kernel_tree import NO_CGROUP, PROC, V1, V2, KernelTree

SECOND = 10**9
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


class Sampling:
    """A sampler on a tree, and its samples."""

    def __init__(self, tree: KernelTree, processors: frozenset[int] = frozenset({0, 1})) -> None:
        self.sampler = HostSampler(str(tree.root), root=str(tree.root), affinity=lambda: set(processors))
        self.now_ns = 5 * SECOND
        self.missing: dict[str, str] = {}

    def sample(self, after: float = 1.0) -> dict[str, Any]:
        self.now_ns += round(after * SECOND)
        [execution] = self.sampler.sample(Moment(self.now_ns, ()))
        assert RESOURCE_HOST.problems(execution.measurements, {**execution.metadata, "monitor": "m"}) == []
        self.missing = execution.metadata["missing"]
        named = {"interval"} | set(execution.measurements) | set(self.missing)
        assert named >= {name for name, text in RESOURCE_HOST.measurements.items() if "?" in text.partition(":")[0]}
        return {**execution.metadata, **execution.measurements}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sampler.close()


def test_without_a_cgroup_the_figures_are_the_machines(tmp_path: Path):
    tree = KernelTree(tmp_path, PROC, NO_CGROUP)
    with Sampling(tree) as sampling:
        first = sampling.sample()
        assert "cpu_ratio" not in first
        assert sampling.missing["cpu_ratio"] == "there was no sample before this one"
        # processor 0: 20 of 100 ticks more in use; processor 1: all of 100
        tree.write({"proc/stat": "cpu0 20 0 20 140 20 0 0 0 0 0\ncpu1 100 0 100 0 0 0 0 0 0 0\n"})
        found = sampling.sample()
    assert (found["cpus"], found["cpu_ratio"]) == (2.0, 120 / 200)
    assert (found["memory_total"], found["memory_used"], found["memory_ratio"]) == (1000 * 1024, 400 * 1024, 0.4)
    assert (found["swap_total"], found["swap_used"]) == (200 * 1024, 50 * 1024)
    assert (found["fds"], found["fds_limit"]) == (1000, 5000)
    assert (found["processes"], found["processes_limit"]) == (345, 8000)
    assert (found["pressure_cpu"], found["pressure_memory"], found["pressure_io"]) == (0.125, 0.0, 1.0)
    assert found["load1"] == 1.5
    assert "cgroup" not in found
    assert sampling.missing["throttled_ratio"] == "no cgroup limits the processor time"
    assert sampling.missing["oom_kills"] == "the kernel counts none for this cgroup"


def test_only_the_processors_that_this_process_may_use_count(tmp_path: Path):
    tree = KernelTree(tmp_path, PROC, NO_CGROUP)
    with Sampling(tree, frozenset({0})) as sampling:
        sampling.sample()
        tree.write({"proc/stat": "cpu0 20 0 20 140 20 0 0 0 0 0\ncpu1 100 0 100 0 0 0 0 0 0 0\n"})
        found = sampling.sample()
    assert (found["cpus"], found["cpu_ratio"]) == (1.0, 0.2)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_in_a_container_percent_is_of_what_it_may_use(tmp_path: Path, version: str):
    tree = KernelTree(tmp_path, PROC, V2 if version == "v2" else V1)
    with Sampling(tree) as sampling:
        before = sampling.sample()
        if version == "v2":
            stat = "usage_usec 1400000\nnr_periods 120\nnr_throttled 15\n"
            tree.write({"sys/fs/cgroup/outer/cpu.stat": stat})
        else:
            folder = "sys/fs/cgroup/cpu,cpuacct/box"
            tree.write({f"{folder}/cpuacct.usage": "8200000000", f"{folder}/cpu.stat": "nr_periods 60\nnr_throttled 9"})
        found = sampling.sample()
    assert found["cgroup"] == version
    expected = {
        "v2": (0.5, 0.8, 512_000, 190_000, 60, 100, 2),  # 0.4 s of half a processor
        "v1": (1.5, 0.8, 400_000, 155_000, 20, 50, 4),  # 1.2 s of one and a half
    }[version]
    names = ("cpus", "cpu_ratio", "memory_total", "memory_used", "processes", "processes_limit", "oom_kills")
    assert tuple(found[name] for name in names) == pytest.approx(expected)
    assert found["throttled_ratio"] == 0.25
    assert "throttled_ratio" not in before


def test_a_quota_above_the_affinity_limits_nothing(tmp_path: Path):
    tree = KernelTree(tmp_path, PROC, V2, {"sys/fs/cgroup/outer/cpu.max": "900000 100000\n"})
    with Sampling(tree, frozenset({1})) as sampling:
        sampling.sample()
        tree.write({"proc/stat": "cpu1 50 0 100 50 0 0 0 0 0 0\n"})
        found = sampling.sample()
    assert (found["cpus"], found["cpu_ratio"]) == (1.0, 0.5)


def test_a_limit_above_the_machines_memory_limits_nothing(tmp_path: Path):
    tree = KernelTree(tmp_path, PROC, V2, {"sys/fs/cgroup/outer/memory.max": "99999999\n"})
    with Sampling(tree) as sampling:
        assert sampling.sample()["memory_total"] == 1000 * 1024


def test_after_a_suspend_rates_are_unknown_and_not_wrong(tmp_path: Path):
    tree = KernelTree(tmp_path, PROC, NO_CGROUP)
    with Sampling(tree) as sampling:
        sampling.sample()
        tree.write({"proc/stat": "cpu0 20 0 20 140 20 0 0 0 0 0\ncpu1 100 0 100 0 0 0 0 0 0 0\n"})
        assert "cpu_ratio" not in sampling.sample(after=3600)
        assert sampling.missing["cpu_ratio"] == "there was no sample for 3.6e+03 s"
        tree.write({"proc/stat": "cpu0 30 0 30 220 20 0 0 0 0 0\ncpu1 150 0 150 0 0 0 0 0 0 0\n"})
        assert sampling.sample()["cpu_ratio"] == 120 / 200


@pytest.mark.parametrize("after", [0.0, -5.0])
def test_a_clock_that_does_not_advance_gives_no_rate(tmp_path: Path, after: float):
    with Sampling(KernelTree(tmp_path, PROC, V2)) as sampling:
        sampling.sample()
        found = sampling.sample(after=after)
    assert "cpu_ratio" not in found
    assert "throttled_ratio" not in found


def test_counters_that_were_set_back_give_no_rate(tmp_path: Path):
    tree = KernelTree(tmp_path, PROC, V2)
    with Sampling(tree) as sampling:
        sampling.sample()
        tree.write({"sys/fs/cgroup/outer/cpu.stat": "usage_usec 5\nnr_periods 1\nnr_throttled 0\n"})
        assert "cpu_ratio" not in sampling.sample()
        assert sampling.missing["cpu_ratio"] == "its counter was set back"


def test_a_machine_without_proc_has_reasons_instead_of_figures(tmp_path: Path):
    with Sampling(KernelTree(tmp_path)) as sampling:
        found = sampling.sample()
    left = {"disk_total", "disk_free", "missing", "disk_path"}
    assert set(found) == left
    assert all(sampling.missing.values())
    assert "No such file or directory" in sampling.missing["memory_total"]


@pytest.mark.parametrize("name", [name for name in {**PROC, **V2} if name.startswith(("proc/", "sys/"))])
@pytest.mark.parametrize("text", [None, "", "\0\xff nonsense -1 \n", "x" * 200_000])
def test_a_file_that_is_broken_costs_only_its_own_figures(tmp_path: Path, name: str, text: str | None):
    tree = KernelTree(tmp_path, PROC, V2)
    if text is None:
        tree.break_file(name)
    else:
        tree.write({name: text})
    with Sampling(tree) as sampling:
        sampling.sample()
        found = sampling.sample()
        assert len(sampling.missing) < 14
        assert all(reason and len(reason) <= 260 and reason.isprintable() for reason in sampling.missing.values())
    assert found["disk_total"] > 0


# -- disks that do not answer -----------------------------------------------------------------------------------------


def test_a_folder_that_vanished_is_missing_until_it_is_back(tmp_path: Path):
    folder = tmp_path / "history"
    sampler = HostSampler(str(folder), root=str(KernelTree(tmp_path, PROC, NO_CGROUP).root))
    try:
        [gone] = sampler.sample(Moment(SECOND, ()))
        folder.mkdir()
        [back] = sampler.sample(Moment(2 * SECOND, ()))
    finally:
        sampler.close()
    assert gone.metadata["missing"]["disk_free"] == f"{folder}: No such file or directory"
    assert gone.measurements["memory_ratio"] == 0.4
    assert back.measurements["disk_total"] == shutil.disk_usage(folder).total


def test_a_disk_that_hangs_costs_its_own_figures_until_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    answers = threading.Event()
    real = os.statvfs
    monkeypatch.setattr(host, "_DISK_TIMEOUT", 0.05)
    monkeypatch.setattr(os, "statvfs", lambda path: (answers.wait(30), real(path))[1])
    threads = threading.active_count()
    with Sampling(KernelTree(tmp_path, PROC, NO_CGROUP, {"dev/shm/x": ""})) as sampling:
        found = sampling.sample()
        assert "no answer" in sampling.missing["disk_free"]
        assert "no answer" in sampling.missing["shm_free"]
        assert found["memory_ratio"] == 0.4
        for _ in range(20):
            sampling.sample()
        assert threading.active_count() <= threads + 2  # no further threads
        answers.set()
        while "disk_free" not in sampling.sample():
            pass
    assert sampling.missing.get("disk_free") is None


def test_a_call_that_fails_raises_and_the_next_one_works():
    calls = BoundedCalls("test", 5.0)
    with pytest.raises(KeyError):
        calls.run(lambda: {}["x"])
    assert calls.run(lambda: 3) == 3
    assert calls.cpu_ns > 0
    calls.close()


def test_the_folder_is_that_of_the_history_or_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert folder_to_measure(None) == str(tmp_path)
    assert folder_to_measure("var/x.db") == str(tmp_path / "var")
    assert folder_to_measure("x.db") == str(tmp_path)
    assert folder_to_measure("~/x.db") == "/home/me"
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "/proc/self/cwd" in folder_to_measure("x.db")


# -- agreement with this machine --------------------------------------------------------------------------------------


@LINUX
def test_figures_agree_with_independent_readings(tmp_path: Path):
    sampler = HostSampler(str(tmp_path))
    try:
        sampler.sample(Moment(SECOND, ()))
        before = psutil.cpu_times(percpu=True)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
        after = psutil.cpu_times(percpu=True)
        [execution] = sampler.sample(Moment(2 * SECOND, ()))
    finally:
        sampler.close()
    found = execution.measurements
    mine = [(before[one], after[one]) for one in os.sched_getaffinity(0)]
    idle = sum(b.idle + b.iowait - a.idle - a.iowait for a, b in mine)
    passed = sum(sum(b[:8]) - sum(a[:8]) for a, b in mine)
    machine = psutil.virtual_memory()
    assert found["memory_total"] <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") == machine.total
    if found["memory_total"] == machine.total:
        assert found["memory_used"] == pytest.approx(machine.total - machine.available, abs=machine.total * 0.1)
    assert found["cpus"] <= len(os.sched_getaffinity(0))
    if found["cpus"] == len(mine):  # no quota
        assert found["cpu_ratio"] == pytest.approx(1 - idle / passed, abs=0.2)
    assert found["disk_total"] == shutil.disk_usage(tmp_path).total
    assert found["disk_free"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert found["load1"] == pytest.approx(os.getloadavg()[0], abs=2.0)
    assert found["processes"] >= len(psutil.pids()) or execution.metadata.get("cgroup")
    assert found["swap_total"] <= psutil.swap_memory().total
