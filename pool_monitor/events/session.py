"""Events of sessions."""

from __future__ import annotations

from pool_monitor.events.spec import POOL_KEYS, declare

_SESSION_KEYS = {**POOL_KEYS, "session": "str: the session's id"}

SESSION_START = declare(
    "pool.session.start",
    "A session was used for the first time.",
    {"sessions": "count: sessions alive, this one included"},
    _SESSION_KEYS,
)
SESSION_AFFINITY = declare(
    "pool.session.affinity",
    "A call of a session was handed to a worker.",
    {"calls": "count: calls of the session so far, this one included"},
    {
        **_SESSION_KEYS,
        "worker": "str: the slot it got",
        "result": "str: new (first call), hit (the worker it had last), miss (another, that one being busy) or "
        "broken (another, that process being gone)",
    },
)
SESSION_EXPIRE = declare(
    "pool.session.expire",
    "A session was dropped: unused for longer than its time to live, or the oldest when there were too many.",
    {"idle_duration": "ns: time since its last call", "sessions": "count: sessions left"},
    {**_SESSION_KEYS, "reason": "str: ttl or limit"},
)
SESSION_LIMIT = declare(
    "pool.session.limit",
    "A pool keeps four fifths of the sessions it may; past the limit the one unused longest is dropped.",
    {"sessions": "count: sessions alive", "limit": "count: how many may be"},
    POOL_KEYS,
)
SESSION_END = declare(
    "pool.session.end",
    "A session was ended by its owner.",
    {"calls": "count: calls it made", "sessions": "count: sessions left"},
    _SESSION_KEYS,
)
