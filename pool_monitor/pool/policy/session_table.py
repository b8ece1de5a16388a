"""Decides which sessions are kept: a table bounded in number and time. No I/O: time is passed in (seconds, monotonic).

The parent keeps a session's data, so the data survives any worker. The worker that ran the session last is only a
preference. Calls of one session run one after another: if two ran at once, both would start from the same data, and the
changes of one would be lost.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from typing import Any, Generic, NamedTuple, TypeVar

CallT = TypeVar("CallT")


def deep_copy(data: dict[str, Any]) -> dict[str, Any]:
    """Return a deep copy of a session's data. Dicts and lists are copied without recursion, at any depth."""
    copies: dict[int, Any] = {}
    waiting: list[Any] = []

    def copy_of(value: Any) -> Any:
        if type(value) is not dict and type(value) is not list:
            return copy.deepcopy(value)
        if id(value) not in copies:
            copies[id(value)] = type(value)()
            waiting.append(value)
        return copies[id(value)]

    whole: dict[str, Any] = copy_of(data)
    while waiting:
        value = waiting.pop()
        if type(value) is dict:
            copies[id(value)].update({key: copy_of(item) for key, item in value.items()})
        else:
            copies[id(value)].extend([copy_of(item) for item in value])
    return whole


class SessionState(Generic[CallT]):
    """One session."""

    __slots__ = ("active", "calls", "data", "id", "last_used", "pending", "previous", "process", "worker")

    def __init__(self, session_id: str, now: float) -> None:
        self.id = session_id
        self.data: dict[str, Any] = {}
        self.calls = 0
        self.last_used = now
        self.worker: str | None = None  # the slot that it ran on last
        self.process: object = None  # the process of that slot; only compared by identity
        self.previous: tuple[str | None, object] = (None, None)  # both, before the latest call was handed over
        self.active: CallT | None = None  # the call under way or in the queue
        self.pending: deque[CallT] = deque()  # the calls that wait for `active`; they count towards the queue limit


class Dropped(NamedTuple):
    """A session that was dropped, how many seconds it was idle, and why: ``ttl`` or ``limit``."""

    id: str
    idle: float
    reason: str


class SessionTable(Generic[CallT]):
    """All sessions of a pool: at most *limit*, each kept for *ttl* seconds after the end of its last call.

    A session that has a call is never dropped. If all sessions have calls, the table grows beyond its limit, and
    shrinks again when calls end. The pool's queue bounds the number of calls.
    """

    def __init__(self, ttl: float, limit: int) -> None:
        self._ttl, self._limit = ttl, limit
        self._sessions: dict[str, SessionState[CallT]] = {}
        # Sessions that may have no call, least recently used first. `expire` removes sessions that have a call, so that
        # it does not check them again for each new session.
        self._idle: OrderedDict[str, SessionState[CallT]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session_id: str) -> SessionState[CallT] | None:
        """Return the session, or None if it does not exist."""
        return self._sessions.get(session_id)

    def use(self, session_id: str, now: float) -> tuple[SessionState[CallT], bool]:
        """Mark the session as used now; create it if it does not exist. Returns the session, and whether it is new."""
        session = self._sessions.get(session_id)
        new = session is None
        if session is None:
            session = self._sessions[session_id] = SessionState(session_id, now)
        self._mark_used(session, now)
        return session, new

    def touch(self, session: SessionState[CallT], now: float) -> None:
        """Mark *session* as used until now: one of its calls has ended."""
        if self._sessions.get(session.id) is session:
            self._mark_used(session, now)

    def _mark_used(self, session: SessionState[CallT], now: float) -> None:
        session.last_used = now
        self._idle[session.id] = session
        self._idle.move_to_end(session.id)

    def end(self, session_id: str) -> SessionState[CallT] | None:
        """Drop and return a session; None if it does not exist. Its calls go on; their changes to its data are lost."""
        self._idle.pop(session_id, None)
        return self._sessions.pop(session_id, None)

    def expire(self, now: float) -> list[Dropped]:
        """Drop the sessions that were idle for *ttl* seconds, and those over the limit."""
        dropped: list[Dropped] = []
        while self._idle:
            session = next(iter(self._idle.values()))
            if session.active is None:
                idle = now - session.last_used
                if idle < self._ttl and len(self._sessions) <= self._limit:
                    break  # all others were used later
                dropped.append(Dropped(session.id, idle, "limit" if idle < self._ttl else "ttl"))
                del self._sessions[session.id]
            del self._idle[session.id]
        return dropped
