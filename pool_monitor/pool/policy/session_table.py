"""Sessions: who they are, what they keep, where they were last. No I/O: time is passed in (seconds, monotonic).

The parent keeps a session's data, so it survives any worker; the worker it was on last is only a preference. Calls
of one session run one after another: two at once would each start from the same data, and one would be lost.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from typing import Any, Generic, NamedTuple, TypeVar

CallT = TypeVar("CallT")


def copied(data: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of a session's data. Takes no recursion for dicts and lists, however deep they are."""
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

    __slots__ = ("active", "calls", "data", "former", "id", "last_used", "pending", "process", "worker")

    def __init__(self, session_id: str, now: float) -> None:
        self.id = session_id
        self.data: dict[str, Any] = {}
        self.calls = 0
        self.last_used = now
        self.worker: str | None = None  # the slot it was on last
        self.process: object | None = None  # which of that slot's processes; only compared, by identity
        self.former: tuple[str | None, object | None] = (None, None)  # both, before the latest call was handed over
        self.active: CallT | None = None  # the call under way or in the queue
        self.pending: deque[CallT] = deque()  # calls behind it; they count towards the pool's queue limit


class Dropped(NamedTuple):
    """A session that is no longer kept, and why: ``ttl`` or ``limit``."""

    id: str
    idle: float
    reason: str


class SessionTable(Generic[CallT]):
    """All sessions of a pool: at most *limit*, each for *ttl* seconds after the end of its last call.

    A session with a call in it is never dropped; when all have one, the table grows by the newcomer, and shrinks
    when calls end (calls are bounded by the pool's queue).
    """

    def __init__(self, ttl: float, limit: int) -> None:
        self._ttl, self._limit = ttl, limit
        self._sessions: dict[str, SessionState[CallT]] = {}
        # Those that may have no call, least recently used first. One with a call is taken out when it is come across,
        # so that many of them are not looked through for each newcomer.
        self._idle: OrderedDict[str, SessionState[CallT]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session_id: str) -> SessionState[CallT] | None:
        return self._sessions.get(session_id)

    def use(self, session_id: str, now: float) -> tuple[SessionState[CallT], bool]:
        """The session, made if it is not there; and whether it was made now."""
        session = self._sessions.get(session_id)
        new = session is None
        if session is None:
            session = self._sessions[session_id] = SessionState(session_id, now)
        self._used(session, now)
        return session, new

    def left(self, session: SessionState[CallT], now: float) -> None:
        """A call of *session* has ended: it counts as used until now."""
        if self._sessions.get(session.id) is session:
            self._used(session, now)

    def _used(self, session: SessionState[CallT], now: float) -> None:
        session.last_used = now
        self._idle[session.id] = session
        self._idle.move_to_end(session.id)

    def end(self, session_id: str) -> SessionState[CallT] | None:
        """Forget a session. Its calls go on; their data goes nowhere."""
        self._idle.pop(session_id, None)
        return self._sessions.pop(session_id, None)

    def expire(self, now: float) -> list[Dropped]:
        """Drop what is out of date and what is over the limit."""
        dropped: list[Dropped] = []
        while self._idle:
            session = next(iter(self._idle.values()))
            if session.active is None:
                idle = now - session.last_used
                if idle < self._ttl and len(self._sessions) <= self._limit:
                    break  # the rest was used later still
                dropped.append(Dropped(session.id, idle, "limit" if idle < self._ttl else "ttl"))
                del self._sessions[session.id]
            del self._idle[session.id]
        return dropped
