"""What must survive a restart, as its owner uses it: a file that is written in a thread, or memory alone.

After `StateFile.commit` has returned True, the changes are in the file, and outlive a kill and a loss of power. The
event loop never waits for the disk, and no failure of the disk reaches the owner. When the file cannot be written, the
state is *degraded*: it is kept in memory, and the whole of it is written once the file can be written again.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from pool_monitor.clock import Clock, SystemClock
from pool_monitor.errors import ConfigError
from pool_monitor.log import logger
from pool_monitor.parts import retrieve_error
from pool_monitor.storage.connection import CLOSE_MAX_S, FileConnection, connect
from pool_monitor.storage.files import expanded
from pool_monitor.storage.sqlite_file import DAMAGED, failure_reason
from pool_monitor.storage.state_store import (
    ROW_LIMIT,
    ROWS_LIMIT,
    TABLES,
    TRANSITION_LIMIT,
    TRANSITIONS_MAX,
    Batch,
    SavedState,
    SavedTransition,
    StateStore,
    Table,
    nothing_saved,
    read_state,
)

OPEN_MAX_S = 5.0
"""How long opening waits for a disk that does not answer. After that, the owner begins without the file."""
COMMIT_MAX_S = 5.0
"""How long a commit waits for a disk that does not answer."""
RETRY_MAX_S = 60.0
"""Longest pause before a file that could not be written is tried again."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG)
_EXPECTED = (sqlite3.Error, OSError, ConfigError, MemoryError)


class Changes(NamedTuple):
    """What has changed since the last commit. The bytes are not looked into."""

    rows: Mapping[Table, Mapping[str, bytes | None]] = {}
    """By table and key; None: the row is gone. A row has at most `ROW_LIMIT` bytes."""
    transitions: Sequence[SavedTransition] = ()
    """The oldest first, each with at most `TRANSITION_LIMIT` bytes."""
    whole: bool = False
    """Whether *rows* are all that there is in *tables*: rows that are not among them are gone."""
    tables: Sequence[Table] = TABLES
    """The tables that *whole* is about."""


NOTHING = Changes()
"""No changes."""


class Keeper(Protocol):
    """Keeps rows and transitions."""

    path: Path | None
    """The file; None: a restart forgets everything."""

    @property
    def degraded(self) -> str | None:
        """Why the file cannot be written; None while it can, and where there is none."""

    @property
    def held_bytes(self) -> int:
        """Memory that it takes."""

    def load(self) -> SavedState:
        """Return what was kept when it was opened. For one call: it is not held any longer."""

    async def commit(self, changes: Changes = NOTHING, /) -> bool:
        """Keep *changes*. Returns whether everything that was committed is where it has to be.

        Never raises for the file or the disk. Call it for each evaluation, without changes too: a file that could not
        be written is then tried again.
        """

    async def close(self) -> None:
        """Keep what is not kept yet, and close the file."""


class MemoryState:
    """The state where there is no file. It keeps nothing, because its owner has everything in memory."""

    path: Path | None = None
    degraded: str | None = None
    held_bytes: int = 0

    def load(self) -> SavedState:
        """Return `nothing_saved`."""
        return nothing_saved()

    async def commit(self, changes: Changes = NOTHING, /) -> bool:  # noqa: ARG002
        """Return True."""
        return True

    async def close(self) -> None:
        """Do nothing."""


class StateFile:
    """The state in a file. Made by `open`; its methods must be called in the event loop it was opened in.

    Bound: what is kept in memory takes at most `ROWS_LIMIT` bytes, and while the file cannot be written, at most
    `TRANSITIONS_MAX` transitions more. A row or transition that does not fit is left out, counted and logged once.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        on_degrade: Callable[[str], object],
        on_recover: Callable[[], object],
        spent: Callable[[float], object],
    ) -> None:
        self.path: Path | None = path
        self._path, self._clock, self._on_degrade, self._on_recover = path, clock, on_degrade, on_recover
        self._spent = spent
        self._saved: SavedState | None = None
        self._id = secrets.token_hex(8)
        self._rows: dict[Table, dict[str, bytes]] = {table: {} for table in TABLES}
        self._bytes = 0
        self._changed: dict[Table, dict[str, bytes | None]] = {}
        self._transitions: deque[SavedTransition] = deque(maxlen=TRANSITIONS_MAX)  # that are not in the file
        self._seq = 0
        self._left_out = 0
        self._whole = False
        """Whether the file has to be written anew: it is not known what it has."""
        self._noted = self._written = 0
        """Numbers of the latest commit, and of the latest one that is in the file."""
        self._connection: FileConnection[StateStore] | None = None
        self._task: asyncio.Task[None] | None = None
        self._degraded: str | None = None
        self._failures = 0
        self._retry_ns = 0
        self._hung = self._ended = self._known = False

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        clock: Clock | None = None,
        on_degrade: Callable[[str], object] = lambda _reason: None,
        on_recover: Callable[[], object] = lambda: None,
        spent: Callable[[float], object] = lambda _cpu_s: None,
    ) -> Self:
        """Open the saved state in the file *path*. A missing file is made, with access for us alone.

        Raises ConfigError for a file that another process writes, and for one that is damaged, of another program or
        of a newer version; such a file is left as it is. For a failure of the disk it does not raise: the state then
        begins degraded, with what can be read. If the file is there but cannot be read, it is left as it is until the
        next start, and everything is kept in memory. It waits at most `OPEN_MAX_S`.

        *on_degrade* is called with the reason when the file can no longer be written, *on_recover* when it can be
        written again. *spent* is called in the thread of the file with the processor time of each piece of work, in
        seconds. None of them may raise.
        """
        state = cls(expanded(path), clock or SystemClock(), on_degrade, on_recover, spent)
        try:
            await state._run(state._begin(), OPEN_MAX_S)
            if state._task is not None:
                state._ended = True  # nothing is known of the file, so it is not written
        except BaseException:
            if state._task is not None:
                state._task.cancel()
            await state._disconnect()
            raise
        return state

    @property
    def degraded(self) -> str | None:
        """Why the file cannot be written; None while it can."""
        return self._degraded

    @property
    def held_bytes(self) -> int:
        """Memory of the rows, and of the transitions that are not in the file."""
        return self._bytes + sum(len(transition.value) for transition in self._transitions)

    @property
    def left_out(self) -> int:
        """Rows and transitions that were too large to keep, or that the file had and that could not be used."""
        return self._left_out

    def load(self) -> SavedState:
        """Return what the file had when it was opened. For one call: it is not held any longer."""
        saved, self._saved = self._saved or nothing_saved(), None
        return saved

    def kept(self, tables: Sequence[Table], transitions: Sequence[SavedTransition] = ()) -> SavedState:
        """Return what is kept in *tables* now, with *transitions*, and the highest number of a transition so far."""
        rows = {table: dict(self._rows[table]) if table in tables else {} for table in TABLES}
        return SavedState(rows, list(transitions), self._seq, self._left_out, self._id)

    async def commit(self, changes: Changes = NOTHING, /) -> bool:
        """Write *changes*, in one transaction with what was committed before and is not in the file.

        Returns whether everything is in the file. Waits at most `COMMIT_MAX_S`. Never raises for the file or the disk.
        While it cannot be written, it is tried again by a commit, after growing pauses. When the caller is cancelled,
        the changes are written all the same.
        """
        self._note(changes)
        return await self._catch_up(self._noted)

    async def close(self) -> None:
        """Write what is not in the file, and close it. Waits for the disk at most `CLOSE_MAX_S`."""
        self._retry_ns = 0
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSE_MAX_S)
        if not await self._catch_up(self._noted):
            logger("storage").warning("the state was not written", path=str(self._path), reason=self._degraded)
        self._ended = True
        if self._task is None or self._task.done():
            await self._disconnect()
            return
        self._task.cancel()
        if self._connection is not None:
            self._connection.stop()  # takes effect once the hanging thread goes on

    # -- what is kept ---------------------------------------------------------------------------------------------

    def _note(self, changes: Changes) -> None:
        if changes.whole:
            self._rows.update({table: {} for table in changes.tables})
            self._bytes = sum(map(_size, self._rows.values()))
            self._whole = True
        if not (changes.rows or changes.transitions or changes.whole):
            return
        self._noted += 1
        for table, rows in changes.rows.items():
            found = rows if all(map(str.isascii, rows)) else {_key(name): value for name, value in rows.items()}
            self._changed.setdefault(table, {}).update(self._kept(self._rows[table], found))
        transitions = changes.transitions
        if any(len(transition.value) > TRANSITION_LIMIT for transition in transitions):
            transitions = [one for one in transitions if len(one.value) <= TRANSITION_LIMIT]
            for _ in range(len(changes.transitions) - len(transitions)):
                self._leave_out()
        self._transitions.extend(transitions)
        if changes.transitions:
            self._seq = max(self._seq, changes.transitions[-1].seq)

    def _kept(self, kept: dict[str, bytes], rows: Mapping[str, bytes | None]) -> Mapping[str, bytes | None]:
        """Replace *rows* among those that are *kept*, and return them with None for those that there is no room for.

        Thousands may come at once, in the event loop. Where all of them have room, nothing is done for each of them.
        """
        there = {name: value for name, value in rows.items() if value is not None}
        size, longest = _size(there), max(map(len, there.values()), default=0) + max(map(len, there), default=0)
        if longest <= ROW_LIMIT and self._bytes + size <= ROWS_LIMIT:
            replaced = {name: old for name in rows if (old := kept.get(name)) is not None}
            self._bytes += size - _size(replaced)
            if len(there) < len(rows):
                for name in rows.keys() - there.keys():
                    kept.pop(name, None)
            kept.update(there)
            return rows
        return {name: self._keep(kept, name, value) for name, value in rows.items()}

    def _keep(self, rows: dict[str, bytes], key: str, value: bytes | None) -> bytes | None:
        """Replace a row. Returns what is kept: None when there is no room for *value*."""
        before = rows.pop(key, None)
        if before is not None:
            self._bytes -= len(key) + len(before)
        if value is None:
            return None
        size = len(key) + len(value)
        if size > min(ROW_LIMIT, ROWS_LIMIT - self._bytes):
            self._leave_out()
            return None
        rows[key] = value
        self._bytes += size
        return value

    def _leave_out(self) -> None:
        if not self._left_out:
            logger("storage").warning("a row of the saved state is too large and is not kept", path=str(self._path))
        self._left_out += 1

    # -- the file -------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        saved = None
        try:
            await self._connect()
            assert self._connection is not None
            saved = await self._connection.run(self._connection.store.load)
        except ConfigError:
            await self._disconnect()
            raise
        except _EXPECTED as error:
            await self._disconnect()
            _raise_if_damaged(self._path, error)
            self._whole = True
            self._degrade(failure_reason(self._path, error))
            saved = await self._read()
        if saved is not None and not self._hung:
            self._known = True
            self._saved, self._seq, self._left_out = saved, saved.seq, saved.unusable
            self._id = saved.id or self._id
            self._rows = {table: dict(rows) for table, rows in saved.rows.items()}
            self._bytes = sum(map(_size, saved.rows.values()))
        else:
            self._ended = True
            await self._disconnect()

    async def _read(self) -> SavedState | None:
        """Return what the file has that cannot be opened for writing; None if it cannot be read either."""
        try:
            return await asyncio.to_thread(read_state, self._path)
        except _EXPECTED as error:
            _raise_if_damaged(self._path, error)
            self._degraded = f"{failure_reason(self._path, error)}; it is left as it is until the next start"
            return None

    async def _catch_up(self, number: int) -> bool:
        while self._written < number or self._whole:
            if self._ended or (self._hung and self._task is not None and not self._task.done()):
                return False
            if self._task is None and self._degraded and self._clock.monotonic_ns() < self._retry_ns:
                return False
            await self._run(self._write(), COMMIT_MAX_S)
            if self._degraded:
                return False
        return not self._ended

    async def _run(self, work: Coroutine[Any, Any, None], most: float) -> None:
        """Do *work* in a task of its own, or wait for the one that runs, for at most so many seconds."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(work, name="pool_monitor state")
            self._task.add_done_callback(retrieve_error)
        else:
            work.close()
        task = self._task
        done, _ = await asyncio.wait([task], timeout=most)
        if not done:
            self._hung = True
            self._degrade(f"{self._path}: the disk has not answered for {most:.0f} s")
            return
        if self._task is task:
            self._task = None
        task.result()

    async def _write(self) -> None:
        number, whole, transitions = self._noted, self._whole, list(self._transitions)
        rows: Mapping[Table, Mapping[str, bytes | None]]
        rows = {table: dict(kept) for table, kept in self._rows.items()} if whole else self._changed
        self._changed, self._whole = {}, False
        try:
            await self._connect()
            assert self._connection is not None
            batch, now = Batch(rows, transitions, self._seq, whole), self._clock.wall_ns() / 1e9
            await self._connection.run(partial(self._connection.store.write, batch, now))
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end the evaluation of rules
            if not isinstance(error, _EXPECTED):
                logger("storage").exception("the state could not be written", path=str(self._path))
            self._whole = True
            await self._disconnect()
            self._degrade(failure_reason(self._path, error))
            return
        self._written = number
        while transitions and self._transitions and self._transitions[0].seq <= transitions[-1].seq:
            self._transitions.popleft()
        self._hung, self._failures = False, 0
        if self._degraded is not None:
            self._degraded = None
            self._on_recover()

    async def _connect(self) -> None:
        if self._connection is None:
            self._connection = connection = await connect(partial(StateStore, self._path, self._id))
            connection.spent = self._spent
            if self._known:
                await connection.run(partial(_check_same, connection.store, self._path, self._id, self._seq))

    def _degrade(self, why: str) -> None:
        self._failures += 1
        self._retry_ns = self._clock.monotonic_ns() + round(min(2.0**self._failures, RETRY_MAX_S) * 1e9)
        before, self._degraded = self._degraded, why
        if before is None:
            self._on_degrade(why)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*_EXPECTED):
                await connection.close()


def _key(name: str) -> str:
    """Return the key of the row *name*. A lone surrogate has no UTF-8 form."""
    return name.encode("utf-8", "backslashreplace").decode()


def _size(rows: Mapping[str, bytes]) -> int:
    """The bytes of *rows*."""
    return sum(map(len, rows)) + sum(map(len, rows.values()))


def _check_same(store: StateStore, path: Path, own_id: str, seq: int) -> None:
    """Raise ConfigError when the file is not the one that was opened first, or somebody else has written to it."""
    found_id, found_seq = store.identity()
    if found_id != own_id:
        raise ConfigError(f"{path}: another file has replaced it; restart the service to use what it has")
    if found_seq > seq:
        raise ConfigError(f"{path}: another process has written to it; restart the service to use what it has")


def _raise_if_damaged(path: Path, error: Exception) -> None:
    damaged = isinstance(error, sqlite3.DatabaseError) and (
        getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED or str(error) == DAMAGED
    )
    if damaged:
        raise ConfigError(failure_reason(path, error)) from error
