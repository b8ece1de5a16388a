"""A tree of files as the kernel shows them under /proc and /sys/fs/cgroup, made by a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PROC = {
    "proc/loadavg": "1.50 1.00 0.50 2/345 4242\n",
    "proc/meminfo": "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 600 kB\nHugePages_Total: 0\n"
    "SwapTotal: 200 kB\nSwapFree: 150 kB\n",
    "proc/stat": "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 10 0 10 70 10 0 0 0 0 0\ncpu1 50 0 50 0 0 0 0 0 0 0\nintr 1 2 3\n",
    "proc/sys/fs/file-nr": "1100\t100\t5000\n",
    "proc/sys/kernel/threads-max": "9000\n",
    "proc/sys/kernel/pid_max": "8000\n",
    "proc/pressure/cpu": "some avg10=12.50 avg60=1.00 avg300=1.00 total=5\nfull avg10=99.00 avg60=0 avg300=0 total=0\n",
    "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "proc/pressure/io": "some avg10=100.00 avg60=0.00 avg300=0.00 total=0\n",
    "proc/vmstat": "nr_free_pages 1\noom_kill 7\n",
    "proc/self/statm": "100 50 10 1 0 40 0\n",
    "proc/self/status": "Name:\tx\nThreads:\t5\n",
    "proc/self/smaps_rollup": "0-1 ---p 0 0:0 0 [rollup]\nRss: 9 kB\nPrivate_Clean: 3 kB\nPrivate_Dirty: 4 kB\n"
    "Private_Hugetlb: 0 kB\n",
}
"""Of a machine with two processors, 1000 kB of memory, and 345 tasks."""

V2 = {
    "proc/self/cgroup": "0::/outer/inner\n",
    "proc/self/mountinfo": "30 20 0:5 / /proc rw - proc proc rw\n40 20 0:6 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n",
    "sys/fs/cgroup/outer/memory.max": "512000\n",
    "sys/fs/cgroup/outer/memory.current": "300000\n",
    "sys/fs/cgroup/outer/memory.stat": "anon 5\nfile_dirty 2000\nfile_writeback 1000\ninactive_file 50000\n"
    "active_file 53000\nslab_reclaimable 10000\n",
    "sys/fs/cgroup/outer/memory.swap.max": "max\n",
    "sys/fs/cgroup/outer/cpu.max": "50000 100000\n",
    "sys/fs/cgroup/outer/cpu.stat": "usage_usec 1000000\nnr_periods 100\nnr_throttled 10\nthrottled_usec 5\n",
    "sys/fs/cgroup/outer/pids.max": "100\n",
    "sys/fs/cgroup/outer/pids.current": "60\n",
    "sys/fs/cgroup/outer/inner/memory.max": "max\n",
    "sys/fs/cgroup/outer/inner/memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 0\n",
    "sys/fs/cgroup/outer/inner/cpu.max": "max 100000\n",
    "sys/fs/cgroup/outer/inner/cpu.pressure": "some avg10=50.00 avg60=0.00 avg300=0.00 total=0\n",
    "sys/fs/cgroup/outer/inner/pids.max": "max\n",
}
"""Limits of the outer one of two cgroups of version 2."""

V1 = {
    "proc/self/cgroup": "5:pids:/box\n4:memory:/box\n3:cpuacct,cpu:/box\n1:name=systemd:/x\n0::/\n",
    "proc/self/mountinfo": "40 20 0:6 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 20 0:7 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "42 20 0:8 / /sys/fs/cgroup/with\\040space rw - cgroup cgroup rw,pids\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "400000\n",
    "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "200000\n",
    "sys/fs/cgroup/memory/box/memory.stat": "inactive_file 1\ntotal_inactive_file 30000\ntotal_active_file 20000\n"
    "total_dirty 5000\ntotal_writeback 0\n",
    "sys/fs/cgroup/memory/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu,cpuacct/box/cpu.stat": "nr_periods 40\nnr_throttled 4\nthrottled_time 1\n",
    "sys/fs/cgroup/cpu,cpuacct/box/cpuacct.usage": "7000000000\n",
    "sys/fs/cgroup/with space/box/pids.max": "50\n",
    "sys/fs/cgroup/with space/box/pids.current": "20\n",
}
"""Limits of one cgroup of version 1."""

NO_CGROUP = {"proc/self/cgroup": "", "proc/self/mountinfo": ""}


class KernelTree:
    """The tree below *root*, which the test changes."""

    def __init__(self, root: Path, *files: Mapping[str, str]) -> None:
        self.root = root
        for some in files:
            self.write(some)

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def remove(self, name: str) -> None:
        (self.root / name).unlink()

    def break_file(self, name: str) -> None:
        """Make the file one that exists and cannot be read, by root neither: a folder."""
        path = self.root / name
        path.unlink(missing_ok=True)
        path.mkdir(parents=True)
