"""The control groups (cgroups) of this process: the limits that a container sets, what is used of them, their events.

Theory of operation
-------------------
``/proc/self/cgroup`` names this process's cgroup, ``/proc/self/mountinfo`` says where cgroups are mounted. From both
follows, for each controller, a list of folders: the own cgroup first, then each one around it, as far as this process
can see. A limit of an outer cgroup binds the inner ones too, so a limit is the lowest one of the list, and the usage
that is compared with it is that of the same folder.

Both versions of cgroups are read, also side by side: a controller that has a mount of its own is version 1. In a
container with a private namespace the list ends at the container's cgroup. Where the named folder does not exist, the
mount point stands for it: container engines mount a container's own cgroup there. The machine's tree, mounted into such
a container, does not show which folder is its own: there the limits are unknown, unless another mount shows them.

A file that does not exist means that this controller sets no limit there. A file that cannot be read, or that does not
hold what the kernel documents, raises OSError or ValueError: the limit is then unknown, which is not the same.
Reading takes some 15 µs per file. Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Version = Literal["v1", "v2"]

_MOST_BYTES = 1 << 16  # of one file
_MOST_MOUNTS = 1 << 22  # bytes of mountinfo: a host of many containers has thousands of mounts
_MOST_LEVELS = 64
_UNLIMITED = 1 << 62  # version 1 writes "no limit" as the largest multiple of a page that fits into 63 bits
_ABSENT = (errno.ENOENT, errno.ENODEV, errno.ENOTDIR)


class Mount(NamedTuple):
    """One mount of cgroups."""

    version: Version
    controllers: frozenset[str]
    """Of version 1; version 2 has all its controllers in one mount."""
    root: str
    """The cgroup that is mounted there."""
    point: str


class Used(NamedTuple):
    """A limit, and what is used of it."""

    limit: int
    used: int


class Quota(NamedTuple):
    """The processor time that a cgroup may use."""

    cpus: float
    """Processors' worth of time per time."""
    usage_ns: int | None
    """Processor time that the cgroup has used; None: not measured."""
    periods: int
    """Scheduling periods in which the cgroup ran, so far."""
    throttled: int
    """Of these, those in which it was stopped because its quota was used up."""


class KernelKills(NamedTuple):
    """How many processes the kernel's out-of-memory killer has killed so far. None: unknown."""

    cgroup: int | None = None
    """Processes of this process's cgroup."""
    machine: int | None = None
    """Processes of the machine; read only where `cgroup` is unknown."""


# -- parsers ----------------------------------------------------------------------------------------------------------


def parse_membership(text: str) -> dict[str, str]:
    """Return the paths of ``/proc/self/cgroup`` by controller. Version 2 has the key ``""``."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if number.isdigit() and colon and path.startswith("/"):
            found.update(dict.fromkeys(controllers.split(","), path))
    return found


def parse_mounts(text: str) -> list[Mount]:
    """Return the mounts of cgroups in ``/proc/self/mountinfo``. Lines that are not well-formed are skipped."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if len(left) < 6 or len(right) < 3:
            continue
        root, point, kind, options = left[3], left[4], right[0], right[2]
        if kind == "cgroup2":
            found.append(Mount("v2", frozenset(), _unescaped(root), _unescaped(point)))
        elif kind == "cgroup":
            found.append(Mount("v1", frozenset(options.split(",")), _unescaped(root), _unescaped(point)))
    return found


def _unescaped(path: str) -> str:
    """Return a path of mountinfo, in which space, tab, line feed and backslash are written as octal numbers."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def folders(mount: Mount, path: str) -> list[str]:
    """Return the folders of the cgroup *path* and of those around it, the inner ones first, at most 64."""
    inside = ""
    if ".." not in path.split("/"):  # else the cgroup is outside the namespace: only the mount point can be seen
        if mount.root == "/":
            inside = path.strip("/")
        elif path == mount.root or path.startswith(mount.root + "/"):
            inside = path[len(mount.root) :].strip("/")
    names = [name for name in inside.split("/") if name][: _MOST_LEVELS - 1]
    return ["/".join([mount.point.rstrip("/"), *names[:length]]) for length in range(len(names), -1, -1)]


def parse_limit(text: str) -> int | None:
    """Return a limit; None: there is none. Raises ValueError for anything else."""
    word = text.strip()
    if word in ("max", "-1"):
        return None
    limit = int(word)
    if limit < 0:
        raise ValueError(f"{word[:40]!r} is no limit")
    return None if limit >= _UNLIMITED else limit


def parse_counts(text: str) -> dict[str, int]:
    """Return the numbers of a file with one ``name number`` a line. Other lines are skipped."""
    found = {}
    for line in text.splitlines():
        name, _, number = line.strip().partition(" ")
        if number.isascii() and number.isdigit():
            found[name] = int(number)
    return found


def _needed(counts: Mapping[str, int], name: str) -> int:
    if name not in counts:
        raise ValueError(f"the file of the kernel has no {name}")
    return counts[name]


def parse_quota(text: str) -> float | None:
    """Return the processors of a ``cpu.max``; None: no limit. Raises ValueError for anything else."""
    quota, _, period = text.strip().partition(" ")
    return None if quota == "max" else _cpus(int(quota), int(period))


def _cpus(quota: int, period: int) -> float | None:
    if quota == -1:
        return None
    if quota <= 0 or period <= 0:
        raise ValueError(f"a quota of {quota} in {period} µs")
    return quota / period


def parse_pressure(text: str) -> float:
    """Return, of a file of PSI, the share of the last 10 s in which some task waited, 0 to 1. Raises ValueError."""
    for line in text.splitlines():
        kind, *fields = line.split()
        for one in fields if kind == "some" else ():
            name, _, number = one.partition("=")
            if name == "avg10" and 0 <= float(number) <= 100:
                return float(number) / 100
    raise ValueError("the file of the kernel has no avg10")


# -- reading ----------------------------------------------------------------------------------------------------------


def read_text(path: str, most: int = _MOST_BYTES) -> str:
    """Return the first *most* bytes of a file of the kernel. Raises OSError. Never waits for a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        parts = []
        while most > 0 and (part := os.read(descriptor, min(most, _MOST_BYTES))):
            parts.append(part)
            most -= len(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("utf-8", "surrogateescape")


def read_unless_absent(path: str) -> str | None:
    """Return the text of a file; None: there is no such file. Raises OSError where it cannot be read."""
    try:
        return read_text(path)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


class Cgroup:
    """The cgroup of this process. Below *root* are ``proc`` and the mount points.

    Making it finds the folders, which takes about 0.1 ms; it raises OSError where ``/proc`` cannot be read, and
    ValueError where the mounts do not show the own cgroup. The methods read the files now. They raise OSError or
    ValueError where a figure is there but cannot be had.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")
        membership = parse_membership(read_text(f"{self._root}/proc/self/cgroup"))
        mounts = parse_mounts(read_text(f"{self._root}/proc/self/mountinfo", _MOST_MOUNTS))
        self._v1 = {
            controller: found
            for controller, path in membership.items()
            if controller and (found := self._found([m for m in mounts if controller in m.controllers], path))
        }
        unified = [mount for mount in mounts if mount.version == "v2"]
        self._v2 = self._found(unified, membership[""]) if "" in membership else []

    def _found(self, mounts: Iterable[Mount], path: str) -> list[str]:
        """Return the existing folders of *path* in the first of *mounts* that has any."""
        outside = False
        for mount in mounts:
            if mount.root.startswith("/.."):  # it begins above the cgroup that this namespace calls "/"
                outside = True
                continue
            found = [f"{self._root}{folder}" for folder in folders(mount, path)]
            existing = [folder for folder in found if os.path.isdir(folder)]  # noqa: PTH112 - text is all we have
            if existing:
                return existing
        if outside:
            raise ValueError("the mounted cgroups begin outside the namespace of this process")
        return []

    @property
    def version(self) -> Version | None:
        """Where limits of memory, processor time and tasks come from; None: there are no such cgroups."""
        if any(controller in self._v1 for controller in ("memory", "cpu", "pids")):
            return "v1"
        return "v2" if self._v2 else None

    def memory(self) -> Used | None:
        """The lowest limit of memory, and the bytes that its cgroup uses and that cannot be freed at once.

        Clean pages of files can be freed at once, and do not count; neither do, in version 2, the kernel's own caches.
        None: no limit.
        """
        if v1 := "memory" in self._v1:
            limit_file, used_file = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            limit_file, used_file = "memory.max", "memory.current"
        found = self._lowest(self._v1.get("memory", self._v2), limit_file)
        if found is None:
            return None
        limit, folder = found
        counts = parse_counts(read_text(f"{folder}/memory.stat"))
        prefix = "total_" if v1 and "total_inactive_file" in counts else ""
        return Used(limit, max(0, int(read_text(f"{folder}/{used_file}")) - _reclaimable(counts, prefix)))

    def swap(self) -> Used | None:
        """The lowest limit of swap, and the bytes that its cgroup has in swap. None: no limit, or version 1."""
        found = None if "memory" in self._v1 else self._lowest(self._v2, "memory.swap.max")
        return None if found is None else Used(found[0], int(read_text(f"{found[1]}/memory.swap.current")))

    def tasks(self) -> Used | None:
        """The lowest limit of processes and threads, and how many its cgroup has. None: no limit."""
        found = self._lowest(self._v1.get("pids", self._v2), "pids.max")
        return None if found is None else Used(found[0], int(read_text(f"{found[1]}/pids.current")))

    def quota(self) -> Quota | None:
        """The lowest limit of processor time. None: no limit."""
        lowest: tuple[float, str] | None = None
        for folder in self._v1.get("cpu", self._v2):
            cpus = self._quota_of(folder)
            if cpus is not None and (lowest is None or cpus < lowest[0]):
                lowest = cpus, folder
        if lowest is None:
            return None
        cpus, folder = lowest
        counts = parse_counts(read_text(f"{folder}/cpu.stat"))
        if "cpu" in self._v1:
            usage_ns = self._usage_v1(folder)
        else:
            usage_ns = counts["usage_usec"] * 1000 if "usage_usec" in counts else None
        return Quota(cpus, usage_ns, _needed(counts, "nr_periods"), _needed(counts, "nr_throttled"))

    def _quota_of(self, folder: str) -> float | None:
        if "cpu" not in self._v1:
            text = read_unless_absent(f"{folder}/cpu.max")
            return None if text is None else parse_quota(text)
        quota = read_unless_absent(f"{folder}/cpu.cfs_quota_us")
        return None if quota is None else _cpus(int(quota), int(read_text(f"{folder}/cpu.cfs_period_us")))

    def _usage_v1(self, folder: str) -> int | None:
        """Nanoseconds of processor time of the cgroup *folder* of the controller ``cpu``, by its ``cpuacct``."""
        levels = len(self._v1["cpu"]) - self._v1["cpu"].index(folder)  # from the outermost one
        accounts = self._v1.get("cpuacct", [])
        if levels > len(accounts):
            return None
        text = read_unless_absent(f"{accounts[-levels]}/cpuacct.usage")
        return None if text is None else int(text)

    def oom_kills(self) -> int | None:
        """Processes of this cgroup that the kernel's out-of-memory killer has killed. None: not counted here.

        Version 2 counts those of the cgroups within it too. The kernel counts before it kills.
        """
        if "memory" in self._v1:
            text = read_unless_absent(f"{self._v1['memory'][0]}/memory.oom_control")
        else:
            text = read_unless_absent(f"{self._v2[0]}/memory.events") if self._v2 else None
        return None if text is None else parse_counts(text).get("oom_kill")

    def pressure(self, resource: str) -> float | None:
        """The share of the last 10 s in which some task of the cgroup waited for *resource* (``cpu``, ``memory`` or
        ``io``). None: it is not measured for this cgroup.
        """
        text = read_unless_absent(f"{self._v2[0]}/{resource}.pressure") if self._v2 else None
        return None if text is None else parse_pressure(text)

    def _lowest(self, levels: Iterable[str], name: str) -> tuple[int, str] | None:
        """Return the lowest limit in the files *name* of *levels*, with its folder. The outer one of equal limits."""
        lowest: tuple[int, str] | None = None
        for folder in levels:
            text = read_unless_absent(f"{folder}/{name}")
            limit = None if text is None else parse_limit(text)
            if limit is not None and (lowest is None or limit <= lowest[0]):
                lowest = limit, folder
        return lowest


def _reclaimable(counts: Mapping[str, int], prefix: str) -> int:
    """Bytes that the kernel can free at once, by a ``memory.stat``. The pages of tmpfs are not among them: the kernel
    lists them as anonymous ones. Pages that are dirty or being written have to be written first.
    """
    clean = _needed(counts, f"{prefix}inactive_file") + _needed(counts, f"{prefix}active_file")
    unwritten = sum(counts.get(f"{prefix}{name}", 0) for name in ("file_dirty", "file_writeback", "dirty", "writeback"))
    return max(0, clean - unwritten) + counts.get(f"{prefix}slab_reclaimable", 0)


class OutOfMemoryKills:
    """Reads the counters of the kernel's out-of-memory killer. No method raises; each takes some 50 µs."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._cgroup: Cgroup | None = None

    def count(self) -> KernelKills:
        """Read the counters now."""
        try:
            if self._cgroup is None:
                self._cgroup = Cgroup(self._root)
            kills = self._cgroup.oom_kills()
        except (OSError, ValueError):
            kills = None
        return KernelKills(kills) if kills is not None else KernelKills(machine=self._machine())

    def limit(self) -> int | None:
        """The lowest limit of memory of this cgroup, in bytes. None: there is none, or it cannot be read."""
        try:
            found = None if self._cgroup is None else self._cgroup.memory()
        except (OSError, ValueError):
            return None
        return None if found is None else found.limit

    def _machine(self) -> int | None:
        try:
            return parse_counts(read_text(f"{self._root.rstrip('/')}/proc/vmstat")).get("oom_kill")
        except OSError:
            return None
