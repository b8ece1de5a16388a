"""Events of sessions."""

from __future__ import annotations

from pool_monitor.events.spec import POOL_KEYS, declare

_SESSION_KEYS = {**POOL_KEYS, "session": "str: the session's id"}

SESSION_START = declare(
    "pool.session.start",
    "A session was used for the first time.",
    {"sessions": "count: live sessions, including this one"},
    _SESSION_KEYS,
)
SESSION_AFFINITY = declare(
    "pool.session.affinity",
    "A call of a session was handed to a worker.",
    {"calls": "count: calls of the session so far, including this one"},
    {
        **_SESSION_KEYS,
        "worker": "str: the slot that got the call",
        "result": "str: new (first call), hit (the same worker as for the last call), miss (another worker: the "
        "last one is busy) or broken (another process: the last one is gone)",
    },
)
SESSION_EXPIRE = declare(
    "pool.session.expire",
    "A session was dropped: it was unused for longer than its time to live, or it was the session unused longest when "
    "a new one exceeded the limit.",
    {"idle_duration": "ns: time since its last call", "sessions": "count: sessions that remain"},
    {**_SESSION_KEYS, "reason": "str: ttl or limit"},
)
SESSION_LIMIT = declare(
    "pool.session.limit",
    "The sessions of a pool reached four fifths of the limit. Beyond the limit, the session unused longest is dropped.",
    {"sessions": "count: live sessions", "limit": "count: most sessions the pool keeps"},
    POOL_KEYS,
)
SESSION_END = declare(
    "pool.session.end",
    "A caller ended a session.",
    {"calls": "count: calls the session made", "sessions": "count: sessions that remain"},
    _SESSION_KEYS,
)
