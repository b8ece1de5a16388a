"""The tuner as a part of the monitor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from pool_monitor.parts import raise_if_ended, retrieve_error, set_within

if TYPE_CHECKING:
    from pool_monitor.tuner.manager import Tuner

LEAVE_S = 5.0
"""How long leaving waits for a step that has begun."""


class TunerPart:
    """Drives *tuner* while entered, once per interval. While the mode is ``off`` it does nothing, and has loaded
    nothing unless the mode was another one before.
    """

    def __init__(self, tuner: Tuner) -> None:
        self._tuner = tuner
        self._driving: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()

    async def __aenter__(self) -> Self:
        if self._tuner.wanted:
            await self._tuner.open()
            self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leaving.set()
        try:
            if self._driving is not None:
                await asyncio.wait([self._driving], timeout=LEAVE_S)
                self._driving.cancel()
        finally:
            await self._tuner.close()

    @property
    def held_bytes(self) -> int:
        """Memory of the trials and of the policies, in bytes."""
        return self._tuner.held_bytes

    def view(self) -> None:
        """Nothing: `Snapshot.tuning` has what there is to see."""

    def tick(self) -> None:
        """Start driving if the mode is not ``off`` any more. Raise when the task has ended."""
        if self._driving is not None:
            raise_if_ended(self._driving)
        elif self._tuner.mode != "off":
            self._start()

    def _start(self) -> None:
        self._driving = asyncio.get_running_loop().create_task(self._drive(), name="pool_monitor tuner steps")
        self._driving.add_done_callback(retrieve_error)

    async def _drive(self) -> None:
        await self._tuner.open()
        while not self._leaving.is_set():
            await self._tuner.step()
            await set_within(self._leaving, self._tuner.interval)
