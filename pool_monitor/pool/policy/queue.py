"""Decides which waiting call is next. No I/O, no clock.

Calls wait by priority; within a priority the keys take turns, and within a key it is first come, first served. So
one tenant's burst delays only that tenant. Calls without a key share one: plain FIFO.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar


class Waiting(Protocol):
    """What the queue needs of a call."""

    @property
    def id(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def expects(self) -> tuple[float, float]:
        """How long it will hold its worker: mean (seconds) and variance. Does not change while it waits."""
        ...


class WorkAhead(NamedTuple):
    """The calls that would be served before a given one."""

    calls: int
    seconds: float
    """How long they are expected to hold their workers, added up."""
    variance: float


CallT = TypeVar("CallT", bound=Waiting)


class _Level(Generic[CallT]):
    """The calls of one priority: a line per key, in the order of their turns."""

    __slots__ = ("lines", "seconds", "size", "variance")

    def __init__(self) -> None:
        self.lines: OrderedDict[str, OrderedDict[int, CallT]] = OrderedDict()
        self.size = 0
        self.seconds = self.variance = 0.0  # sums over its calls of `Waiting.expects`


class WaitQueue(Generic[CallT]):
    """Waiting calls. Every method is O(1) in calls and keys, O(n) in the priorities in use.

    Its owner bounds it: it checks `size` before it pushes.
    """

    __slots__ = ("_key", "_level", "_levels", "_line", "_priority", "size")

    def __init__(self) -> None:
        self._levels: dict[int, _Level[CallT]] = {}
        self.size = 0  # calls that wait
        # Where the last one was put, which is nearly always where the next one goes too: while the line is not empty,
        # it is in its level, and that is in `_levels`.
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
        """The level of that priority, and its line of that key."""
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
        line = level.lines.get(key)
        if line is None:
            line = level.lines[key] = OrderedDict()
        self._priority, self._key, self._level, self._line = priority, key, level, line
        return level, line

    def push_front(self, call: CallT) -> None:
        """Put *call*, which was popped and comes back, at the front of its line, and let its key be next."""
        self.push(call)
        lines = self._levels[call.priority].lines
        lines[call.key].move_to_end(call.id, last=False)
        lines.move_to_end(call.key, last=False)

    def ahead(self, call: CallT) -> WorkAhead:
        """The calls that would be served before *call* if it were pushed now. Never too few; exact where its priority
        has no other key.
        """
        calls, seconds, variance = 0, 0.0, 0.0
        for priority, level in self._levels.items():
            if priority > call.priority:
                calls += level.size
                seconds += level.seconds
                variance += level.variance
            elif priority == call.priority:
                own = level.lines.get(call.key)
                mine = 0 if own is None else len(own)
                others = len(level.lines) - (own is not None)
                before = min(level.size, mine + (mine + 1) * others)  # as many turns for each other key as for its own
                share = before / level.size
                calls += before
                seconds += share * level.seconds
                variance += share * level.variance
        return WorkAhead(calls, seconds, variance)

    def pop(self) -> CallT:
        """The next call: of the highest priority, the key whose turn it is. Raises KeyError when none waits."""
        levels, level, line = self._levels, self._level, self._line
        if len(line) > 1 and len(levels) == len(level.lines) == 1:  # it is the only line, and goes on being one
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
        """Take *call* out, wherever it stands. Returns whether it was there."""
        level = self._levels.get(call.priority)
        line = None if level is None else level.lines.get(call.key)
        if level is None or line is None or line.pop(call.id, None) is None:
            return False
        self._removed(call, level, line)
        return True

    def _removed(self, call: CallT, level: _Level[CallT], line: OrderedDict[int, CallT]) -> None:
        """*call* was taken out: drop its line and its level if they are empty, so that keys cannot pile up."""
        seconds, variance = call.expects
        level.seconds -= seconds
        level.variance -= variance
        level.size -= 1
        self.size -= 1
        if not line:
            del level.lines[call.key]
            if not level.lines:
                del self._levels[call.priority]
