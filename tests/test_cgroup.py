"""The limits of a container, as the kernel writes them, and as it should not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.cgroup import (
    Cgroup,
    KernelKills,
    Mount,
    OutOfMemoryKills,
    Quota,
    Used,
    folders,
    parse_counts,
    parse_limit,
    parse_membership,
    parse_mounts,
    parse_pressure,
    parse_quota,
)
from tests.helpers.kernel_tree import NO_CGROUP, PROC, V1, V2, KernelTree


def test_version_2_limits_of_an_outer_cgroup_bind_with_the_use_of_that_cgroup(tmp_path: Path):
    cgroup = Cgroup(str(KernelTree(tmp_path / "odd näme", V2).root))
    assert cgroup.version == "v2"
    # 300,000 less the clean pages of files (103,000 - 3,000) and the kernel's caches (10,000)
    assert cgroup.memory() == Used(512_000, 190_000)
    assert cgroup.swap() is None
    assert cgroup.quota() == Quota(0.5, 1_000_000_000, 100, 10)
    assert cgroup.tasks() == Used(100, 60)
    assert cgroup.oom_kills() == 2
    assert cgroup.pressure("cpu") == 0.5
    assert cgroup.pressure("io") is None


def test_version_1_is_read_by_controller(tmp_path: Path):
    cgroup = Cgroup(str(KernelTree(tmp_path, V1).root))
    assert cgroup.version == "v1"
    assert cgroup.memory() == Used(400_000, 155_000)
    assert cgroup.quota() == Quota(1.5, 7_000_000_000, 40, 4)
    assert cgroup.tasks() == Used(50, 20)
    assert cgroup.oom_kills() == 4
    assert cgroup.pressure("cpu") is None


def test_an_inner_limit_that_is_lower_counts_with_its_own_use(tmp_path: Path):
    inner = "sys/fs/cgroup/outer/inner"
    tree = KernelTree(tmp_path, V2)
    tree.write({
        f"{inner}/memory.max": "100000", f"{inner}/memory.current": "50000", f"{inner}/memory.swap.max": "5000",
        f"{inner}/memory.stat": "inactive_file 0\nactive_file 0\n", f"{inner}/memory.swap.current": "12",
    })  # fmt: skip
    assert Cgroup(str(tmp_path)).memory() == Used(100_000, 50_000)
    assert Cgroup(str(tmp_path)).swap() == Used(5000, 12)


def test_no_cgroup_sets_no_limit(tmp_path: Path):
    cgroup = Cgroup(str(KernelTree(tmp_path, NO_CGROUP).root))
    assert cgroup.version is None
    assert (cgroup.memory(), cgroup.swap(), cgroup.quota(), cgroup.tasks(), cgroup.oom_kills()) == (None,) * 5


@pytest.mark.parametrize("membership", ["0::/\n", "0::/../../elsewhere\n", "0::/docker/of-the-host\n"])
def test_in_a_private_namespace_the_mount_point_is_the_cgroup(tmp_path: Path, membership: str):
    tree = KernelTree(tmp_path, V2, {"proc/self/cgroup": membership})
    tree.write({"sys/fs/cgroup/memory.max": "1000", "sys/fs/cgroup/memory.current": "10"})
    tree.write({"sys/fs/cgroup/memory.stat": "inactive_file 0\nactive_file 0"})
    assert Cgroup(str(tmp_path)).memory() == Used(1000, 10)


def test_the_machines_tree_in_a_private_namespace_is_not_taken_for_the_own_cgroup(tmp_path: Path):
    outer = "40 20 0:6 /../.. /host rw - cgroup2 cgroup rw\n"
    with pytest.raises(ValueError, match="outside the namespace"):
        Cgroup(str(KernelTree(tmp_path / "a", PROC, {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": outer}).root))
    own = "41 20 0:6 / /own rw - cgroup2 cgroup rw\n"
    both = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": outer + own, "own/pids.max": "9\n"}
    tree = KernelTree(tmp_path / "b", PROC, both, {"own/pids.current": "1\n", "host/pids.max": "max\n"})
    assert Cgroup(str(tree.root)).tasks() == (9, 1)


def test_a_limit_that_cannot_be_read_is_not_taken_for_no_limit(tmp_path: Path):
    tree = KernelTree(tmp_path, V2)
    tree.break_file("sys/fs/cgroup/outer/memory.max")
    with pytest.raises(OSError, match="directory"):
        Cgroup(str(tmp_path)).memory()
    assert Cgroup(str(tmp_path)).tasks() == Used(100, 60)  # the others can be


def test_without_proc_there_is_an_error_and_no_guess(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Cgroup(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "limit"),
    [("max\n", None), ("-1\n", None), ("0\n", 0), ("4096\n", 4096), ("9223372036854771712\n", None)],
)
def test_a_limit_is_a_number_or_none(text: str, limit: int | None):
    assert parse_limit(text) == limit


@pytest.mark.parametrize("text", ["", "many", "-5", "1 2"])
def test_what_is_no_limit_is_refused(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 - any words will do
        parse_limit(text)


@pytest.mark.parametrize("text", ["0 100000", "100 0", "x y", "100", ""])
def test_what_is_no_quota_is_refused(text: str):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_quota(text)


@pytest.mark.parametrize("text", ["", "full avg10=1.00", "some avg10=101", "some avg10=nan", "some avg60=1"])
def test_what_is_no_pressure_is_refused(text: str):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_pressure(text)


def test_a_mount_below_the_root_of_the_hierarchy_is_followed():
    mount = Mount("v1", frozenset({"memory"}), "/docker/a", "/sys/fs/cgroup/memory")
    assert folders(mount, "/docker/a/x") == ["/sys/fs/cgroup/memory/x", "/sys/fs/cgroup/memory"]
    assert folders(mount, "/docker/ab") == ["/sys/fs/cgroup/memory"]  # another one, whose name begins alike


@given(st.text())
def test_parsers_of_whole_files_take_any_text(text: str):
    for mount in parse_mounts(text):
        assert 1 <= len(folders(mount, "/" + text)) <= 64
    assert all(path.startswith("/") for path in parse_membership(text).values())
    assert all(number >= 0 for number in parse_counts(text).values())


@given(st.lists(st.text(st.characters(exclude_characters="/"), min_size=1), max_size=100))
def test_folders_never_leave_the_mount_and_are_bounded(names: list[str]):
    found = folders(Mount("v2", frozenset(), "/", "/sys/fs/cgroup"), "/" + "/".join(names))
    assert len(found) <= 64
    assert all(folder.startswith("/sys/fs/cgroup") and ".." not in folder.split("/") for folder in found)
    assert found[-1] == "/sys/fs/cgroup"


# -- kills for want of memory -----------------------------------------------------------------------------------------


def test_kills_are_those_of_the_cgroup_or_else_of_the_machine(tmp_path: Path):
    tree = KernelTree(tmp_path, PROC, V2)
    kills = OutOfMemoryKills(str(tmp_path))
    assert kills.count() == KernelKills(cgroup=2)
    assert kills.limit() == 512_000
    tree.remove("sys/fs/cgroup/outer/inner/memory.events")
    assert kills.count() == KernelKills(machine=7)
    tree.break_file("proc/vmstat")
    assert kills.count() == KernelKills()


def test_counting_kills_never_raises(tmp_path: Path):
    kills = OutOfMemoryKills(str(tmp_path / "nothing"))
    assert (kills.count(), kills.limit()) == (KernelKills(), None)


def test_the_kills_of_this_machine_can_be_counted_or_are_unknown():
    kills = OutOfMemoryKills().count()
    assert all(count is None or count >= 0 for count in kills)
