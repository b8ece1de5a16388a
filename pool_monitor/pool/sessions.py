"""Decides which call of a session may go on and on which worker, and emits the events of sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pool_monitor import emit, events
from pool_monitor.errors import SessionLost
from pool_monitor.pool.call import Call, Options
from pool_monitor.pool.policy.queue import WaitQueue
from pool_monitor.pool.policy.session_table import SessionState, SessionTable, deep_copy
from pool_monitor.pool.roster import Roster
from pool_monitor.pool.worker import Worker

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig

_START = events.SESSION_START.event
_AFFINITY = events.SESSION_AFFINITY.event
_EXPIRE = events.SESSION_EXPIRE.event
_END = events.SESSION_END.event
_LIMIT = events.SESSION_LIMIT.event

_WARN_AT = 0.8  # share of the limit at which the event is emitted
_REARM_BELOW = 0.7  # share of the limit below which the event can be emitted again


class Sessions:
    """A pool's sessions. Calls of one session run one after another, in the order they were made."""

    def __init__(self, roster: Roster, config: PoolConfig) -> None:
        self.table: SessionTable[Call] = SessionTable(config.session_ttl, config.session_limit)
        self._roster = roster
        self._identity = roster.identity
        self._limit = config.session_limit
        self._strict = config.affinity == "strict"
        self._limit_reported = False  # the event of the limit was emitted

    def __len__(self) -> int:
        return len(self.table)

    def enter(self, call: Call, session_id: str, now: float) -> bool:
        """Add the call to its session. Returns whether it may go on now, or waits for the session's other calls."""
        session, new = self.table.use(session_id, now)
        call.session = session
        first = session.active is None
        if first:
            session.active = call
        else:
            session.pending.append(call)
        if new:  # only now, when it has a call: so this session is not dropped itself if the table is over its limit
            self.expire(now)
            self._check_limit()
            if _START.on:
                emit.session_start(self._identity, session_id, sessions=len(self.table))
        return first

    def leave(self, call: Call, now: float) -> Call | None:
        """Remove a call that has ended from its session. Returns the session's call that may go on now, if any."""
        session = call.session
        if session is None:
            return None
        if session.active is not call:
            session.pending.remove(call)
            return None
        self.table.touch(session, now)
        session.active = session.pending.popleft() if session.pending else None
        if session.active is None and not session.calls and self.table.get(session.id) is session:
            self.end(session.id)  # no call of it has reached a worker: so it takes no other session's place
        return session.active

    def choose(self, options: Options, session: SessionState[Call] | None) -> Worker | None:
        """Return a free worker for a call with these *options* that belongs to *session*, or None."""
        if options.worker is not None:
            return self._roster.free(options.worker)
        if session is None or session.worker is None:
            return self._roster.choose(None)
        if self.is_strict(options):
            return self._roster.free(session.worker)
        return self._roster.choose(session.worker)

    def can_start(self, options: Options) -> bool:
        """Whether a worker would take a call with these *options* at once."""
        session = self.table.get(options.session or "")
        return (session is None or session.active is None) and self.choose(options, session) is not None

    def required_worker(self, call: Call) -> str | None:
        """Return the id of the only worker that the call may run on, or None."""
        if call.options.worker is None and call.session is not None and self.is_strict(call.options):
            return call.session.worker
        return call.options.worker

    def is_strict(self, options: Options) -> bool:
        """Whether a call of a session may run only on the process that its session is bound to."""
        return self._strict if options.affinity is None else options.affinity == "strict"

    def queue_for(self, call: Call, common: WaitQueue[Call]) -> WaitQueue[Call]:
        """Return the queue for the call: that of its required worker if that exists, else *common*."""
        pinned = self._roster.workers.get(self.required_worker(call) or "")
        return common if pinned is None else pinned.pinned

    def lost_error(self, call: Call) -> SessionLost | None:
        """Return the error of a call that is bound to a process that is gone, and unbind its session. Else None."""
        session = call.session
        if session is None or session.worker is None or not self.is_strict(call.options):
            return None
        if self._roster.alive(session.worker, session.process):
            return None
        session.worker = None
        return SessionLost(
            f"the process of session {session.id!r} is gone; the next call binds the session to another process"
        )

    def bind(self, call: Call, worker: Worker) -> None:
        """Bind the session of a call that was handed to *worker* to that worker's process."""
        session = call.session
        if session is None or worker.process is None:
            return
        before, here = (session.worker, session.process), (worker.id, worker.process)
        session.calls += 1
        session.previous = before
        session.worker, session.process = here
        if _AFFINITY.on:
            result = self._result(before, here)
            affinity = call.in_context(emit.session_affinity)
            affinity(self._identity, session.id, worker=worker.id, calls=session.calls, result=result)

    def unbind(self, call: Call) -> None:
        """Restore the binding of the session after a call was handed over and not begun."""
        session = call.session
        if session is not None:
            session.calls -= 1
            session.worker, session.process = session.previous

    def _result(self, before: tuple[str | None, object], here: tuple[str, object]) -> str:
        if before[0] is None:
            return "new"
        if before == here:
            return "hit"
        return "miss" if self._roster.alive(before[0], before[1]) else "broken"

    def expire(self, now: float) -> None:
        """Drop sessions that have expired or are over the limit."""
        for dropped in self.table.expire(now):
            if _EXPIRE.on:
                idle = round(dropped.idle * 1e9)
                emit.session_expire(
                    self._identity, dropped.id, idle=idle, sessions=len(self.table), reason=dropped.reason
                )

    def data(self, session_id: str) -> dict[str, Any]:
        """Return a copy of the session's data; empty if there is no such session."""
        state = self.table.get(session_id)
        return {} if state is None else deep_copy(state.data)

    def end(self, session_id: str) -> bool:
        """Drop a session and its data; its calls go on. Returns whether the session existed."""
        session = self.table.end(session_id)
        if session is not None and _END.on:
            emit.session_end(self._identity, session_id, calls=session.calls, sessions=len(self.table))
        return session is not None

    def payload(self, call: Call) -> tuple[str, dict[str, Any]] | None:
        """Return the id and the data of the call's session, which are sent with the call; None without a session."""
        session: SessionState[Call] | None = call.session
        return None if session is None else (session.id, session.data)

    def _check_limit(self) -> None:
        if len(self.table) >= _WARN_AT * self._limit:
            if not self._limit_reported:
                self._limit_reported = True
                emit.session_limit(self._identity, sessions=len(self.table), limit=self._limit)
        elif self._limit_reported and len(self.table) < _REARM_BELOW * self._limit:
            self._limit_reported = False
