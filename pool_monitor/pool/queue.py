"""Who waits, and who is next. No I/O, no clock.

Calls wait by priority; within a priority the keys take turns, and within a key it is first come, first served. So
one tenant's burst delays that tenant, and with no key given everybody is the same tenant: plain FIFO.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What the queue must know of a call."""

    @property
    def id(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def key(self) -> str: ...


CallT = TypeVar("CallT", bound=Waiting)


class WaitQueue(Generic[CallT]):
    """Waiting calls. ``push``, ``pop`` and ``discard`` are O(1) but for the number of priorities in use.

    Bounded by its owner, which looks at ``len`` before it pushes.
    """

    __slots__ = ("_levels", "_size")

    def __init__(self) -> None:
        self._levels: dict[int, OrderedDict[str, OrderedDict[int, CallT]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[CallT]:
        return (call for level in self._levels.values() for line in level.values() for call in line.values())

    def push(self, call: CallT) -> None:
        """Put *call* at the end of its line."""
        level = self._levels.setdefault(call.priority, OrderedDict())
        level.setdefault(call.key, OrderedDict())[call.id] = call
        self._size += 1

    def pop(self) -> CallT:
        """The next call: of the highest priority, the key whose turn it is. Raises KeyError when nobody waits."""
        priority = max(self._levels) if len(self._levels) > 1 else next(iter(self._levels), 0)
        level = self._levels[priority]
        key, line = next(iter(level.items()))
        _, call = line.popitem(last=False)
        self._size -= 1
        level.move_to_end(key)
        self._tidy(call)
        return call

    def discard(self, call: CallT) -> bool:
        """Take *call* out, wherever it stands. Returns whether it was there."""
        line = self._levels.get(call.priority, OrderedDict()).get(call.key)
        if line is None or line.pop(call.id, None) is None:
            return False
        self._size -= 1
        self._tidy(call)
        return True

    def _tidy(self, call: CallT) -> None:
        """Drop empty lines and levels, so that keys cannot pile up."""
        level = self._levels[call.priority]
        if not level[call.key]:
            del level[call.key]
        if not level:
            del self._levels[call.priority]
