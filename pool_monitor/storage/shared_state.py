"""One file of saved state for several owners in one process: alerts, the advisor and the tuner.

Each owner has tables of its own (`OWNERS`), and a `Keeper` that knows no others. The first owner that opens its keeper
opens the file, and the last one that closes its keeper closes it. A disk that fails is reported once, as an outage of
``state`` or of the owner that asked to be told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from pool_monitor.clock import Clock
from pool_monitor.storage.state import NOTHING, Changes, Keeper, MemoryState, StateFile
from pool_monitor.storage.state_store import TABLES, SavedState, Table

Owner = Literal["alerts", "advisor", "tuner"]
OWNERS: Mapping[Owner, tuple[Table, ...]] = {
    "alerts": tuple(table for table in TABLES if table not in ("advice", "tuning", "trials")),
    "advisor": ("advice",),
    "tuner": ("tuning", "trials"),
}
"""The tables of each owner. The transitions are those of the alerts."""


class StateContext(Protocol):
    """What the state needs of a `parts.Context`."""

    @property
    def clock(self) -> Clock:
        """The clock of the monitor."""

    @property
    def degraded(self) -> Callable[[str, str], None]:
        """Says that the part ``state`` is degraded, and why."""

    @property
    def recovered(self) -> Callable[[str, str], None]:
        """Says that it works again."""

    @property
    def spent(self) -> Callable[[float], None]:
        """Adds processor time of the thread of the file."""


class Outage(NamedTuple):
    """Who is told that the file cannot be written."""

    begins: Callable[[str], object]
    """Called with the reason."""
    ends: Callable[[str], object]
    """Called with what works again, in words."""


class SharedState:
    """The saved state of one monitor, in the file *path*, or in memory where *path* is None.

    While it is open, it belongs to one event loop. *alerts*: whether alerts will open it; their transitions are held
    until then. An owner that closes its keeper and opens it again finds what it has committed.
    """

    def __init__(self, path: str | Path | None, context: StateContext, *, alerts: bool = True) -> None:
        self._path, self._context, self._alerts = path, context, alerts
        self._file: StateFile | None = None
        self._saved: SavedState | None = None
        """What the file had; the alerts take the transitions over once."""
        self._open: set[Owner] = set()
        self._turn = asyncio.Lock()
        self._outage: Outage | None = None
        """Whom the outage under way was told to."""
        self._tell: dict[Owner, Outage] = {}

    async def open(self, owner: Owner, outage: Outage | None = None) -> Keeper:
        """Return the keeper of *owner*, opening the file if it is not open. *outage* is told when the file can no
        longer be written, and when it can be written again; the first owner that asks for it is told.

        Raises ConfigError as `StateFile.open` does, and then nothing is open. Where there is no file, the keeper keeps
        nothing, and its `commit` returns True.
        """
        if self._path is None:
            return MemoryState()
        if self._file is None and not self._turn.locked():
            self._turn = asyncio.Lock()  # a lock belongs to the event loop that first waited for it
        async with self._turn:
            if outage is not None:
                self._tell[owner] = outage
            if self._file is None:
                self._file = await StateFile.open(
                    self._path,
                    clock=self._context.clock,
                    on_degrade=self._degrade,
                    on_recover=self._recover,
                    spent=self._context.spent,
                )
                saved = self._file.load()
                self._saved = saved if self._alerts else None
            self._open.add(owner)
            return _OwnedState(self._file, owner, self._take, self._close)

    def _take(self, owner: Owner) -> SavedState:
        """What the file has of *owner* now."""
        assert self._file is not None
        first = self._saved if owner == "alerts" else None
        if first is not None:
            self._saved = None
        return self._file.kept(OWNERS[owner], () if first is None else first.transitions)

    async def _close(self, owner: Owner) -> None:
        async with self._turn:
            if owner not in self._open or self._file is None:
                return
            self._open.discard(owner)
            self._tell.pop(owner, None)
            if self._open:
                await self._file.commit()
                return
            file, self._file, self._saved = self._file, None, None
            await file.close()
            self._outage = None  # whoever opens it next says what is wrong then

    def _degrade(self, why: str) -> None:
        ours = Outage(partial(self._context.degraded, "state"), partial(self._context.recovered, "state"))
        self._outage = next(iter(self._tell.values()), ours)
        self._outage.begins(why)

    def _recover(self) -> None:
        outage, self._outage = self._outage, None
        if outage is not None:
            outage.ends(f"{self._path} is written again")


class _OwnedState:
    """The `Keeper` of one owner. Raises ValueError for rows of another owner."""

    def __init__(
        self,
        file: StateFile,
        owner: Owner,
        take: Callable[[Owner], SavedState],
        close: Callable[[Owner], Coroutine[object, object, None]],
    ) -> None:
        self._file, self._owner, self._take, self._close = file, owner, take, close
        self.path: Path | None = file.path

    @property
    def degraded(self) -> str | None:
        """Why the file cannot be written; None while it can."""
        return self._file.degraded

    @property
    def held_bytes(self) -> int:
        """Memory of the whole state for the alerts, which everything else is small beside; 0 for other owners."""
        return self._file.held_bytes if self._owner == "alerts" else 0

    def load(self) -> SavedState:
        """Return what the file has of this owner: what was committed is in it."""
        return self._take(self._owner)

    async def commit(self, changes: Changes = NOTHING, /) -> bool:
        """Do what `Keeper.commit` says. *whole* concerns the tables of this owner."""
        own = OWNERS[self._owner]
        if not set(changes.rows) <= set(own) or (changes.transitions and self._owner != "alerts"):
            raise ValueError(f"the {self._owner} may change {', '.join(own)} only, not {', '.join(changes.rows)}")
        return await self._file.commit(changes._replace(tables=own))

    async def close(self) -> None:
        """Keep what is not kept yet. The file is closed with the last owner."""
        await self._close(self._owner)
