"""The errors that many failures are: a bounded store of groups, with exact counts in every window.

Each failure belongs to the group of its fingerprint (`pool_monitor.metrics.fingerprint`). A pool has a limited number
of groups. A failure of a further kind takes the place of a group that no window has a failure of; if there is none, it
counts in the group ``other``. So the counts of all groups always add up to the failures counted.

A failure counts in the same second as its call does in the windows, and a window of groups has the same steps as the
window of calls, so both agree at every moment.

Only text whose secrets are replaced (`pool_monitor.redaction`) is kept. Arguments of operations never reach this store,
except where a target writes them into its message.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pool_monitor.metrics.fingerprint import CACHE_BYTES, MESSAGE_READ, Fingerprint, FingerprintCache
from pool_monitor.metrics.window import LONGEST, SECOND_NS, WINDOWS, Window, WindowStore
from pool_monitor.redaction import redact, redact_and_cut
from pool_monitor.snapshot import ErrorGroup, ErrorSample
from pool_monitor.snapshot.validation import plain_text

LIMIT = 256
"""Default of the most groups of a pool."""
OTHER = "other"
"""Fingerprint and type of the group of all failures beyond the limit."""
NAMES_SHOWN = 8
"""Most operations, and most workers, of a group."""
NAMES_LIMIT = 256
"""Most names of operations and workers in the store. Further ones count as ``other``."""
SAMPLE_BYTES = 8 * 1024
"""Most bytes of a sample."""
SAMPLES_SHOWN = 32
"""Most groups of a pool that show their sample in a Snapshot: the most frequent ones."""
ALL_SAMPLES = 2**31
SAMPLED_AGAIN_NS = 60 * SECOND_NS
"""A sample is replaced by the next failure once it is older than this."""
NAME_MAX = 200
_MESSAGE_BYTES, _STACK_BYTES = 1024, 2048
_MOST = 2**32 - 1
_LEFT_OUT = "[the beginning is left out]\n"
_OTHER_MESSAGE = "failures of further kinds"

_OFFSETS: dict[str, int] = {}
_COLUMNS = 0
for _window in WINDOWS.values():
    _OFFSETS[_window.name] = _COLUMNS
    _COLUMNS += _window.steps

GROUP_BYTES = _COLUMNS * 4 + 2600
"""Upper estimate of the memory for a group without its sample."""
SAMPLES_BYTES = 768
"""Memory for samples, per group that the limit allows. When they take more, the samples of the groups that were not
seen for longest are dropped."""
KNOWN_BYTES = 192
"""Upper estimate of the memory for when a group was first seen."""
NAME_BYTES = 900
"""Upper estimate of the memory for a name."""


def other_group(first_seen: float, last_seen: float) -> ErrorGroup:
    """The group of the failures beyond a limit, without a count."""
    return ErrorGroup(
        fingerprint=OTHER,
        type=OTHER,
        message=_OTHER_MESSAGE,
        count=0,
        total=0,
        first_seen=first_seen,
        last_seen=last_seen,
    )


class GroupCount(NamedTuple):
    """How often the failure of one group happened in a second."""

    pool: str
    group: ErrorGroup
    """The group as of the end of that second. Its ``count`` is the number of failures in the second. It has a sample
    only if the sample is new."""


@dataclass(slots=True)
class _Group:
    """One group. Times are those of the collector's clock."""

    row: int
    digest: str
    error: str
    message: str
    frames: tuple[str, ...]
    first_ns: int
    last_ns: int
    total: int = 0
    open: int = 0
    """Failures in the open second."""
    operations: dict[str, int] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    sample: bytes | None = None
    sampled_ns: int = 0
    has_stack: bool = False
    is_sample_new: bool = False


class FailedCall(NamedTuple):
    """A failed call, as far as its event describes it."""

    error: str
    message: str
    operation: str
    worker: str | None
    traceback: str | None = None
    stack: str | None = None
    reason: str | None = None
    """The error in words, for a sample, where *message* is shortened; None: it is not."""

    @classmethod
    def of(
        cls, error: str, message: str | None, operation: str, worker: str | None, metadata: Mapping[str, Any]
    ) -> FailedCall:
        """The failed call of a ``pool.operation.exception`` event. *message*: for an event that has none of its own.

        The message of a failure that is not an exception of the target is the first line of the reason, without the
        names of operation, worker and pool: they are shown beside it.
        """
        own, traceback, stack = (_text(metadata.get(name)) for name in ("message", "traceback", "stack"))
        if own is not None:
            return cls(error, own, operation, worker, traceback, stack)
        reason = message or ""
        short = reason.strip().partition("\n")[0][:MESSAGE_READ]
        names = (operation, "<operation>"), (worker, "<worker>"), (_text(metadata.get("pool")), "<pool>")
        for name, what in names:
            if name and name in short:
                short = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", what, short)
        return cls(error, short, operation, worker, traceback, stack, reason)


class ErrorGroups:
    """The error groups of *pools*, at most *limit* of each, and a group ``other``. Holds at most `bytes_for` bytes."""

    def __init__(self, pools: Iterable[str], limit: int = LIMIT) -> None:
        self._pools = {pool: _PoolGroups(pool, limit) for pool in pools}
        self._cache = FingerprintCache()
        self._names: dict[str, str] = {}

    @staticmethod
    def bytes_for(pools: int, limit: int) -> int:
        return (
            pools * (limit + 1) * (GROUP_BYTES + SAMPLES_BYTES + KNOWN_BYTES) + CACHE_BYTES + NAMES_LIMIT * NAME_BYTES
        )

    @property
    def nbytes(self) -> int:
        """Bytes held now, by the estimates of `bytes_for`; the caches count in full as soon as there is a group."""
        held = sum(groups.nbytes for groups in self._pools.values())
        return held + CACHE_BYTES + len(self._names) * NAME_BYTES if held else 0

    def note(self, pool: str, failure: FailedCall, counted_ns: int, now_ns: int, times: int = 1) -> None:
        """Count *times* equal failures of *pool*. *counted_ns* is the moment at which the windows count the call."""
        error = plain_text(failure.error, NAME_MAX)
        found = self._cache.of(error, failure.message, failure.traceback)
        groups = self._pools[pool]
        group = groups.count(error, found, failure, counted_ns // SECOND_NS, now_ns, times)
        _count_name(group.operations, self._name(failure.operation), times)
        if failure.worker is not None:
            _count_name(group.workers, self._name(failure.worker), times)

    def closed(self, second: int, wall_offset_ns: int) -> list[GroupCount]:
        """The failures up to the end of *second* that were not returned before: once a second, for the history.

        *wall_offset_ns* is the wall clock minus the collector's clock.
        """
        return [count for groups in self._pools.values() for count in groups.closed(second, wall_offset_ns)]

    def of(
        self, pool: str, window: WindowStore, covered_s: float, wall_offset_ns: int, samples: int = SAMPLES_SHOWN
    ) -> tuple[ErrorGroup, ...]:
        """The groups of *pool* in *window*, the most frequent first; the first *samples* of them with their sample."""
        return self._pools[pool].of(window, covered_s, wall_offset_ns, samples)

    def clear_windows(self) -> None:
        """Forget what the windows have of each group. Totals, times and samples stay."""
        for groups in self._pools.values():
            groups.clear_windows()

    def know(self, first_seen: Mapping[tuple[str, str], float]) -> None:
        """Take over when groups were first seen, by pool and fingerprint, from before the monitor was entered. As many
        groups of a pool as the limit allows, in the given order.
        """
        for (pool, digest), at in first_seen.items():
            if pool in self._pools:
                self._pools[pool].know(digest, at)

    def known(self) -> dict[tuple[str, str], float]:
        """What `know` took over."""
        return {(pool, digest): at for pool, groups in self._pools.items() for digest, at in groups.known.items()}

    def _name(self, name: str) -> str:
        known = self._names.get(name)
        if known is None:
            if len(self._names) >= NAMES_LIMIT:
                return OTHER
            known = self._names[name] = plain_text(name, NAME_MAX)
        return known


class _PoolGroups:
    """The groups of one pool."""

    def __init__(self, pool: str, limit: int) -> None:
        self._pool, self._limit = pool, limit
        self._groups: dict[str, _Group] = {}
        """By fingerprint, the one that was seen last at the end."""
        self._other: _Group | None = None
        self._cells = np.zeros((limit + 1, _COLUMNS), np.uint32)
        """Failures by group and step, exact up to `_MOST` in a step. The steps of a window are a ring of columns. Only
        rows in use take memory."""
        self._steps = np.full(_COLUMNS, -1, np.int64)
        """The number of the step that each column has."""
        self._second = 0
        self._touched: dict[str, _Group] = {}
        """The groups with failures in the open second."""
        self._due: dict[str, tuple[_Group, int]] = {}
        """Failures that `closed` has not returned yet, by group."""
        self._samples_bytes = 0
        self.known: dict[str, float] = {}
        """When groups were first seen before the monitor was entered, by fingerprint."""

    @property
    def nbytes(self) -> int:
        return (
            (len(self._groups) + (self._other is not None)) * GROUP_BYTES
            + self._samples_bytes
            + len(self.known) * KNOWN_BYTES
        )

    def count(
        self, error: str, found: Fingerprint, failure: FailedCall, second: int, now_ns: int, times: int
    ) -> _Group:
        if second != self._second:
            self._close()
            self._second = second
        group = self._groups.pop(found.digest, None)
        if group is None:
            group = self._added(error, found, now_ns)
        if group.row != self._limit:
            self._groups[group.digest] = group
        group.last_ns = now_ns
        group.total += times
        group.open += times
        self._touched[group.digest] = group
        if (
            group.sample is None
            or now_ns - group.sampled_ns > SAMPLED_AGAIN_NS
            or (failure.stack and not group.has_stack)
        ):
            self._take_sample(group, failure, now_ns)
        return group

    def _added(self, error: str, found: Fingerprint, now_ns: int) -> _Group:
        row = len(self._groups)
        if row >= self._limit:
            oldest = next(iter(self._groups.values()))
            # One step more than the window: its counts have left every window for certain.
            if now_ns - oldest.last_ns <= (LONGEST.seconds + LONGEST.step) * SECOND_NS:
                return self._overflow(now_ns)
            row = oldest.row
            self._forget(oldest, now_ns)
        frames = tuple(map(plain_text, found.frames))
        return _Group(row, found.digest, error, plain_text(found.message), frames, now_ns, now_ns)

    def _overflow(self, now_ns: int) -> _Group:
        if self._other is None:
            self._other = _Group(self._limit, OTHER, OTHER, _OTHER_MESSAGE, (), now_ns, now_ns)
        return self._other

    def _forget(self, group: _Group, now_ns: int) -> None:
        """Drop *group*, and add its total to ``other``."""
        del self._groups[group.digest]
        self._drop_sample(group)
        self._cells[group.row] = 0
        other = self._overflow(now_ns)
        other.total += group.total
        other.first_ns = min(other.first_ns, group.first_ns)

    # -- samples --------------------------------------------------------------------------------------------------

    def _take_sample(self, group: _Group, failure: FailedCall, now_ns: int) -> None:
        self._drop_sample(group)
        sample = sample_of(failure)
        group.sample = msgspec.msgpack.encode(sample)
        group.sampled_ns, group.has_stack, group.is_sample_new = now_ns, failure.stack is not None, True
        self._samples_bytes += sys.getsizeof(group.sample)
        if self._samples_bytes > (self._limit + 1) * SAMPLES_BYTES:
            for other in self._groups.values():
                if other is not group:
                    self._drop_sample(other)
                if self._samples_bytes <= (self._limit + 1) * SAMPLES_BYTES:
                    break

    def _drop_sample(self, group: _Group) -> None:
        if group.sample is not None:
            self._samples_bytes -= sys.getsizeof(group.sample)
            group.sample = None

    # -- reading --------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """Move the counts of the open second into its steps."""
        for group, column in ((group, column) for group in self._touched.values() for column in self._columns()):
            self._cells[group.row, column] = min(int(self._cells[group.row, column]) + group.open, _MOST)
        for group in self._touched.values():
            _, before = self._due.get(group.digest, (group, 0))
            self._due[group.digest] = (group, before + group.open)
            group.open = 0
        self._touched.clear()

    def _columns(self) -> Iterator[int]:
        """The columns of the steps that the open second is in, after clearing those that have an older step."""
        for window in WINDOWS.values():
            step = self._second // window.step
            column = _OFFSETS[window.name] + step % window.steps
            if self._steps[column] != step:
                self._cells[:, column] = 0
                self._steps[column] = step
            yield column

    def clear_windows(self) -> None:
        self._close()
        self._cells[:] = 0
        self._steps[:] = -1

    def closed(self, second: int, wall_offset_ns: int) -> list[GroupCount]:
        if self._second <= second:
            self._close()
        due, self._due = self._due, {}
        counts = []
        for group, count in due.values():
            sampled = group.is_sample_new
            group.is_sample_new = False
            counts.append(GroupCount(self._pool, self._view(group, count, None, wall_offset_ns, sampled)))
        return counts

    def of(self, window: WindowStore, covered_s: float, wall_offset_ns: int, samples: int) -> tuple[ErrorGroup, ...]:
        counts = self._counts(window.window, window.first)
        groups = [*self._groups.values(), *([self._other] if self._other else [])]
        found = [(int(counts[group.row]) + group.open, group) for group in groups]
        found = sorted((pair for pair in found if pair[0]), key=lambda pair: (-pair[0], -pair[1].last_ns))
        return tuple(
            self._view(group, count, count / covered_s if covered_s else None, wall_offset_ns, number < samples)
            for number, (count, group) in enumerate(found)
        )

    def _counts(self, window: Window, first: int) -> Any:
        """Failures by row in the steps of *window* from *first* on, without the open second."""
        columns = slice(_OFFSETS[window.name], _OFFSETS[window.name] + window.steps)
        return self._cells[:, columns][:, self._steps[columns] >= first].sum(axis=1, dtype=np.int64)

    def _view(self, group: _Group, count: int, rate: float | None, offset_ns: int, with_sample: bool) -> ErrorGroup:
        first_seen = (group.first_ns + offset_ns) / 1e9
        sample = None
        if with_sample and group.sample is not None:
            taken: ErrorSample = msgspec.msgpack.decode(group.sample, type=ErrorSample)
            sample = msgspec.structs.replace(taken, at=(group.sampled_ns + offset_ns) / 1e9)
        return ErrorGroup(
            fingerprint=group.digest,
            type=group.error,
            message=group.message,
            frames=group.frames,
            count=count,
            total=group.total,
            rate=rate,
            first_seen=min(first_seen, self.known.get(group.digest, first_seen)),
            last_seen=(group.last_ns + offset_ns) / 1e9,
            operations=_by_count(group.operations),
            workers=_by_count(group.workers),
            sample=sample,
        )

    def know(self, digest: str, at: float) -> None:
        if digest in self.known or len(self.known) < self._limit:
            self.known[digest] = at


def sample_of(failure: FailedCall) -> ErrorSample:
    """The sample of *failure*, at most `SAMPLE_BYTES` long, without secrets. Its time is not set yet."""
    stack = None if failure.stack is None else _last_lines(failure.stack, _STACK_BYTES)
    text = failure.message if failure.reason is None else failure.reason
    message = _cut(redact_and_cut(text, _MESSAGE_BYTES), _MESSAGE_BYTES)
    operation, worker = (None if name is None else _cut(name, NAME_MAX) for name in (failure.operation, failure.worker))
    left = SAMPLE_BYTES - _MESSAGE_BYTES - 2 * NAME_MAX - 128 - len((stack or "").encode())
    traceback = None if failure.traceback is None else _last_lines(failure.traceback, left)
    return ErrorSample(at=0.0, message=message, operation=operation, worker=worker, traceback=traceback, stack=stack)


def _last_lines(text: str, limit: int) -> str:
    """The end of *text*, where the innermost frames are, in whole lines of at most *limit* bytes, without secrets."""
    end = text[-limit:]
    if len(end) < len(text):
        end = end.partition("\n")[2]
        if not end:  # one line without an end
            return _cut(redact_and_cut(text, limit), limit)
    encoded = redact(end).encode("utf-8", "backslashreplace")
    if len(end) == len(text) and len(encoded) <= limit:
        return encoded.decode()
    room = limit - len(_LEFT_OUT)
    lines = encoded[-room:].partition(b"\n")[2] if len(encoded) > room else encoded
    return _LEFT_OUT + lines.decode()


def _cut(text: str, limit: int) -> str:
    """The beginning of *text* in at most *limit* bytes. Lone surrogates are escaped."""
    return text[:limit].encode("utf-8", "backslashreplace")[:limit].decode("utf-8", "ignore")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count_name(names: dict[str, int], name: str, times: int) -> None:
    """Count *name*. When `NAMES_SHOWN` names are known, it takes the place and the count of the rarest one.

    The counts of up to that many names are exact; of more, the frequent ones stay (the Space-Saving algorithm:
    Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005).
    """
    if name not in names and len(names) >= NAMES_SHOWN:
        rarest = min(names, key=names.__getitem__)
        names[name] = names.pop(rarest)
    names[name] = names.get(name, 0) + times


def _by_count(names: dict[str, int]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: (-names[name], name)))
