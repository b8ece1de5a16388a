"""A file's own thread. The event loop never waits for the disk: it hands functions over, and gets their results."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast

import aiosqlite

CLOSE_MAX_S = 10.0
"""How long closing waits for a disk that does not answer."""

T = TypeVar("T")


class Closable(Protocol):
    """What a connection opens and closes."""

    def close(self) -> None: ...


StoreT = TypeVar("StoreT", bound=Closable)


class FileConnection(aiosqlite.Connection, Generic[StoreT]):
    """A store in a thread of its own, made by `connect`.

    The thread runs functions of many statements, so that a write costs one hand-over.
    """

    store: StoreT
    stopped: asyncio.Future[Any] | None = None
    spent: Callable[[float], object] = staticmethod(lambda _cpu_s: None)
    """Called in the thread with the processor time of each job, in seconds."""

    def __init__(self, opening: Callable[[], StoreT]) -> None:
        super().__init__(partial(self._open, opening), iter_chunk_size=64)
        self._thread.daemon = True  # a program that does not close the file can still end

    async def run(self, job: Callable[[], T]) -> T:
        """Run *job* in the thread and return its result. *job* runs to its end even when the caller is cancelled."""
        result: T = await self._execute(partial(self._measured, job))  # type: ignore[no-untyped-call]
        return result

    def _measured(self, job: Callable[[], T]) -> T:
        began = time.thread_time()
        try:
            return job()
        finally:
            self.spent(time.thread_time() - began)

    def stop(self) -> asyncio.Future[Any] | None:
        """Close once the thread has done its work, without waiting for it."""
        self.stopped = super().stop()
        return self.stopped

    def _open(self, opening: Callable[[], StoreT]) -> sqlite3.Connection:
        self.store = opening()
        # aiosqlite only closes this object, and closing the store closes everything. It is set here, so that aiosqlite
        # also closes it when opening is cancelled.
        self._connection = cast(sqlite3.Connection, self.store)
        return self._connection


async def connect(opening: Callable[[], StoreT]) -> FileConnection[StoreT]:
    """Call *opening* in a new thread, and return a connection to what it returns. Raises what it raises."""
    connection = FileConnection(opening)
    try:
        await connection
    except BaseException:
        # aiosqlite has asked its thread to stop but does not wait for it; the event loop could be closed before.
        if connection.stopped is not None:
            await asyncio.wait([connection.stopped], timeout=CLOSE_MAX_S)
        raise
    return connection
