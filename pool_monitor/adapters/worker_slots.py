"""The slots of another pool: stable places that are assigned to its threads and processes, which come and go.

A worker keeps its slot as long as it is seen. A new worker gets the first of these that exists: a slot that no worker
holds, a new slot within the limit, the slot of a worker that is gone, the slot that has been idle longest. So the
number of slots never exceeds the limit, however many workers there have been.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

from pool_monitor.adapters.tracked_call import Holder, TrackedCall, WorkerSlot

SLOTS_MAX = 64
"""The highest number of slots of a pool, because all pools share one budget of labels. Further workers share slots."""
SLOTS_OF_UNKNOWN = 16
"""The highest number of slots of a pool whose number of workers is not known."""


class SlotTable:
    """The slots of one pool, made when they are needed. *size* returns its number of workers; None: not known."""

    def __init__(self, pool: str, size: Callable[[], int | None]) -> None:
        self._pool = pool
        self._size = size
        self._slots: list[WorkerSlot] = []
        self._held: dict[Holder, WorkerSlot] = {}
        self._update_limit()

    def __len__(self) -> int:
        return len(self._slots)

    def held_by(self, holder: Holder) -> WorkerSlot:
        """Return the slot of *holder*; assign a slot if it has none."""
        slot = self._held.get(holder)
        if slot is not None and slot.number < self._limit:
            return slot
        if slot is not None:
            slot.holder = None
        slot = self._assignable()
        if slot.holder is not None:
            del self._held[slot.holder]
        slot.holder = holder
        self._held[holder] = slot
        return slot

    def least_busy(self) -> WorkerSlot:
        """Return the first slot without calls; else a new slot; at the limit, the slot with the fewest calls."""
        for slot in self._slots:
            if not slot.calls:
                return slot
        return self._add() or min(self._slots, key=lambda slot: len(slot.calls))

    def oldest_calls(self, unseen: Iterable[TrackedCall]) -> dict[WorkerSlot, TrackedCall | None]:
        """Return every slot that has had a call, with the oldest call that is on it now.

        *unseen* are running calls whose worker is unknown, oldest first. Each is assigned to the free slot whose last
        call is the oldest. If even that last call is younger than the unseen call, a new slot is preferred, within the
        limit.
        """
        self._update_limit()
        free = sorted((slot for slot in self._slots[: self._limit] if not slot.calls), key=lambda slot: slot.last_ended)
        assigned: dict[WorkerSlot, TrackedCall] = {}
        for call in unseen:
            slot = None if free and free[0].last_ended < call.id else self._add()
            if slot is None and free:
                slot = free.pop(0)
            if slot is not None:
                assigned[slot] = call
        return {
            slot: next(iter(slot.calls.values()), assigned.get(slot))
            for slot in self._slots
            if slot.calls or slot in assigned or (slot.since_ns and slot.number < self._limit)
        }

    def _assignable(self) -> WorkerSlot:
        """Return the slot that a new worker gets. It may still have a holder."""
        self._update_limit()
        within = self._slots[: self._limit]
        slot = next((slot for slot in within if slot.holder is None), None) or self._add()
        if slot is None:
            threads = {thread.ident for thread in threading.enumerate()}
            abandoned = next((slot for slot in within if not _exists(slot.holder, threads)), None)
            slot = abandoned or min(within, key=lambda slot: (bool(slot.calls), slot.since_ns))
        return slot

    def _update_limit(self) -> None:
        self._limit = min(self._size() or SLOTS_OF_UNKNOWN, SLOTS_MAX)

    def _add(self) -> WorkerSlot | None:
        """Add a slot and return it; None at the limit."""
        if len(self._slots) >= self._limit:
            return None
        self._slots.append(WorkerSlot(self._pool, len(self._slots)))
        return self._slots[-1]


def _exists(holder: Holder | None, threads: set[int | None]) -> bool:
    """Whether *holder* still exists. A process of another user or machine counts as existing, since it cannot be
    checked.
    """
    if not isinstance(holder, tuple):
        return holder in threads
    try:
        os.kill(holder[0], 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
