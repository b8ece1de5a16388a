"""Slots: the stable places that calls of somebody else's pool ran on, made from threads and processes that come and go.

A holder keeps its slot as long as it is seen. A new one gets a slot nobody holds, or a new slot while there may be
more, or the slot of a holder that is gone, or the one that was idle for longest. So there are never more than are
allowed, and not one for every process there ever was.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pool_monitor.adapters.tracker import Call

SLOTS_MAX = 64
"""Most slots of one pool: the label budget is for all pools together. More workers than that share slots."""
SLOTS_OF_UNKNOWN = 16
"""The same for a pool of which nobody says how many workers it has."""

Holder: TypeAlias = int | tuple[int, int]
"""The id of a thread of this process, or of another process and a thread in it."""


class Slot:
    """One place, and the calls on it."""

    __slots__ = ("calls", "holder", "id", "last", "number", "since_ns")

    def __init__(self, pool: str, number: int) -> None:
        self.id = f"{pool}-{number}"
        self.number = number
        self.calls: dict[int, Call] = {}
        self.holder: Holder | None = None
        self.last = 0
        """The call that ended on it last."""
        self.since_ns = 0
        """When it became busy, or idle; 0: it never had a call."""

    @property
    def pid(self) -> int | None:
        """The process that holds it; None for a thread, which is no process of its own."""
        return self.holder[0] if isinstance(self.holder, tuple) else None


class Slots:
    """The slots of one pool, made when they are needed. *size* says how many workers it has, if anybody knows."""

    def __init__(self, pool: str, size: Callable[[], int | None]) -> None:
        self._pool = pool
        self._size = size
        self._slots: list[Slot] = []
        self._held: dict[Holder, Slot] = {}
        self._count()

    def __len__(self) -> int:
        return len(self._slots)

    def held_by(self, holder: Holder) -> Slot:
        """The slot of *holder*."""
        slot = self._held.get(holder)
        if slot is not None and slot.number < self._most:
            return slot
        if slot is not None:
            slot.holder = None
        slot = self._unheld()
        if slot.holder is not None:
            del self._held[slot.holder]
        slot.holder = holder
        self._held[holder] = slot
        return slot

    def idle(self) -> Slot:
        """The first without a call; the one with the fewest calls when all have some."""
        for slot in self._slots:
            if not slot.calls:
                return slot
        return self._new() or min(self._slots, key=lambda slot: len(slot.calls))

    def calls(self, unseen: Iterable[Call]) -> dict[Slot, Call | None]:
        """Every slot that has had a call, with the oldest it has now.

        *unseen* are calls that run nobody knows where, in the order they were asked for. Not where one has ended that
        was asked for later, so they are put where the last end was longest ago, or where none has been.
        """
        self._count()
        silent = sorted((slot for slot in self._slots[: self._most] if not slot.calls), key=lambda slot: slot.last)
        guessed: dict[Slot, Call] = {}
        for call in unseen:
            slot = None if silent and silent[0].last < call.id else self._new()
            if slot is None and silent:
                slot = silent.pop(0)
            if slot is not None:
                guessed[slot] = call
        return {
            slot: next(iter(slot.calls.values()), guessed.get(slot))
            for slot in self._slots
            if slot.calls or slot in guessed or (slot.since_ns and slot.number < self._most)
        }

    def _unheld(self) -> Slot:
        self._count()
        within = self._slots[: self._most]
        free = next((slot for slot in within if slot.holder is None), None) or self._new()
        if free is None:
            threads = {thread.ident for thread in threading.enumerate()}
            left = next((slot for slot in within if not _there(slot.holder, threads)), None)
            free = left or min(within, key=lambda slot: (bool(slot.calls), slot.since_ns))
        return free

    def _count(self) -> None:
        self._most = min(self._size() or SLOTS_OF_UNKNOWN, SLOTS_MAX)

    def _new(self) -> Slot | None:
        if len(self._slots) >= self._most:
            return None
        self._slots.append(Slot(self._pool, len(self._slots)))
        return self._slots[-1]


def _there(holder: Holder | None, threads: set[int | None]) -> bool:
    """Whether it still is, as far as can be told: a process of another machine or user counts as there."""
    if not isinstance(holder, tuple):
        return holder in threads
    try:
        os.kill(holder[0], 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
