"""The advisor as a part of the monitor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from pool_monitor.parts import raise_if_ended, retrieve_error, set_within

if TYPE_CHECKING:
    from pool_monitor.advisor.manager import Advisor

LOOK_S = 1.0
"""Seconds between two looks whether a pass is due."""
LEAVE_S = 5.0
"""How long leaving waits for a pass that has begun."""


class AdvisorPart:
    """Drives *advisor* while entered: shows it the gauges every second, and has it advise when that is due."""

    def __init__(self, advisor: Advisor) -> None:
        self._advisor = advisor
        self._advising: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._advisor.open()
        self._advising = asyncio.get_running_loop().create_task(self._advise(), name="pool_monitor advisor passes")
        self._advising.add_done_callback(retrieve_error)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leaving.set()
        try:
            if self._advising is not None:
                await asyncio.wait([self._advising], timeout=LEAVE_S)
                self._advising.cancel()
        finally:
            await self._advisor.close()

    @property
    def held_bytes(self) -> int:
        """Memory of the history and of the recommendations, in bytes."""
        return self._advisor.held_bytes

    def view(self) -> None:
        """Nothing: `Snapshot.recommendations` has what there is to see."""

    def tick(self) -> None:
        """Take the gauges of the pools into the history. Raise when the task has ended."""
        self._advisor.tick()
        if self._advising is not None:
            raise_if_ended(self._advising)

    async def _advise(self) -> None:
        while not self._leaving.is_set():
            await self._advisor.count_calls()
            await self._advisor.advise_when_due()
            await set_within(self._leaving, LOOK_S)
