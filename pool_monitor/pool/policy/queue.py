"""Decides which waiting call is next. No I/O, no clock.

Higher priorities go first. Within a priority, keys take turns; within a key, calls are served in order of arrival. So
one tenant's burst delays only that tenant. Calls without a key share one key, and are served in order of arrival.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar


class Waiting(Protocol):
    """The attributes of a call that the queue uses."""

    @property
    def id(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def expects(self) -> tuple[float, float]:
        """How long it is expected to hold its worker: mean (seconds) and variance. Constant while the call waits."""
        ...


class WorkAhead(NamedTuple):
    """The calls that would be served before a given call."""

    calls: int
    seconds: float
    """The sum of the times that they are expected to hold their workers."""
    variance: float


CallT = TypeVar("CallT", bound=Waiting)


class _Level(Generic[CallT]):
    """The calls of one priority: a line per key, in the order of their turns."""

    __slots__ = ("lines", "seconds", "size", "variance")

    def __init__(self) -> None:
        self.lines: OrderedDict[str, OrderedDict[int, CallT]] = OrderedDict()
        self.size = 0
        self.seconds = self.variance = 0.0  # sums of `Waiting.expects` of its calls


class WaitQueue(Generic[CallT]):
    """Waiting calls. Every method is O(1) in calls and keys, and O(n) in the priorities in use.

    The queue has no bound of its own: its owner checks `size` before it pushes.
    """

    __slots__ = ("_key", "_level", "_levels", "_line", "_priority", "size")

    def __init__(self) -> None:
        self._levels: dict[int, _Level[CallT]] = {}
        self.size = 0  # calls that wait
        # The level and line of the last call that was put, where the next call nearly always goes too. While this line
        # is not empty, it is in `_level`, and `_level` is in `_levels`.
        self._priority, self._key = 0, ""
        self._level: _Level[CallT] = _Level()
        self._line: OrderedDict[int, CallT] = OrderedDict()

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[CallT]:
        return (call for level in self._levels.values() for line in level.lines.values() for call in line.values())

    def push(self, call: CallT) -> None:
        """Put *call* at the end of its line."""
        level, line = self._level, self._line
        if not line or call.priority != self._priority or call.key != self._key:
            level, line = self._find(call.priority, call.key)
        line[call.id] = call
        seconds, variance = call.expects
        level.seconds += seconds
        level.variance += variance
        level.size += 1
        self.size += 1

    def _find(self, priority: int, key: str) -> tuple[_Level[CallT], OrderedDict[int, CallT]]:
        """Return the level of *priority* and its line of *key*; make them if they do not exist."""
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
        line = level.lines.get(key)
        if line is None:
            line = level.lines[key] = OrderedDict()
        self._priority, self._key, self._level, self._line = priority, key, level, line
        return level, line

    def push_front(self, call: CallT) -> None:
        """Put *call*, which was popped before, back at the front of its line, and make its key the next one."""
        self.push(call)
        lines = self._levels[call.priority].lines
        lines[call.key].move_to_end(call.id, last=False)
        lines.move_to_end(call.key, last=False)

    def ahead(self, call: CallT) -> WorkAhead:
        """Return the calls that would be served before *call* if it were pushed now. Never too few; exact if its
        priority has no other key.
        """
        calls, seconds, variance = 0, 0.0, 0.0
        for priority, level in self._levels.items():
            if priority > call.priority:
                calls += level.size
                seconds += level.seconds
                variance += level.variance
            elif priority == call.priority:
                own = level.lines.get(call.key)
                of_key = 0 if own is None else len(own)
                others = len(level.lines) - (own is not None)
                before = min(level.size, of_key + (of_key + 1) * others)  # each other key gets as many turns as its key
                share = before / level.size
                calls += before
                seconds += share * level.seconds
                variance += share * level.variance
        return WorkAhead(calls, seconds, variance)

    def pop(self) -> CallT:
        """Remove and return the next call: of the highest priority, the first of the key whose turn it is. Raises
        KeyError if no call waits.
        """
        levels, level, line = self._levels, self._level, self._line
        if len(line) > 1 and len(levels) == len(level.lines) == 1:  # the only line, which does not become empty
            _, call = line.popitem(last=False)
            seconds, variance = call.expects
            level.seconds -= seconds
            level.variance -= variance
            level.size -= 1
            self.size -= 1
            return call
        level = levels[max(levels) if len(levels) > 1 else next(iter(levels), 0)]
        key, line = next(iter(level.lines.items()))
        _, call = line.popitem(last=False)
        if line:
            level.lines.move_to_end(key)
        self._removed(call, level, line)
        return call

    def discard(self, call: CallT) -> bool:
        """Remove *call*, wherever it is in the queue. Returns whether it was there."""
        level = self._levels.get(call.priority)
        line = None if level is None else level.lines.get(call.key)
        if level is None or line is None or line.pop(call.id, None) is None:
            return False
        self._removed(call, level, line)
        return True

    def _removed(self, call: CallT, level: _Level[CallT], line: OrderedDict[int, CallT]) -> None:
        """Update the sums after *call* was removed. Drops its line and level if they are empty, so that keys cannot
        pile up.
        """
        seconds, variance = call.expects
        level.seconds -= seconds
        level.variance -= variance
        level.size -= 1
        self.size -= 1
        if not line:
            del level.lines[call.key]
            if not level.lines:
                del self._levels[call.priority]
