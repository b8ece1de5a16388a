"""The table of sessions: bounded in number and time; it never drops a session that has a call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.pool.policy.session_table import Dropped, SessionTable


def table(ttl: float = 10.0, limit: int = 3) -> SessionTable[str]:
    return SessionTable(ttl, limit)


def test_a_session_is_made_once_and_found_again() -> None:
    sessions = table()
    made, new = sessions.use("a", 0)
    assert new
    assert sessions.use("a", 1) == (made, False)
    assert sessions.get("a") is made
    assert len(sessions) == 1


def test_a_session_is_dropped_when_unused_for_its_time_to_live_and_not_before() -> None:
    sessions = table(ttl=10)
    sessions.use("a", 0)
    sessions.use("b", 5)
    assert sessions.expire(9.9) == []
    assert sessions.expire(10) == [Dropped("a", 10, "ttl")]
    assert sessions.get("a") is None
    assert len(sessions) == 1


def test_the_one_unused_longest_goes_when_there_are_too_many() -> None:
    sessions = table(limit=2)
    for now, session_id in enumerate("abac"):
        sessions.use(session_id, now)
    assert sessions.expire(3) == [Dropped("b", 2, "limit")]
    assert len(sessions) == 2


def test_a_session_with_a_call_in_it_is_never_dropped() -> None:
    sessions = table(ttl=10, limit=1)
    busy, _ = sessions.use("busy", 0)
    busy.active = "call"
    sessions.use("idle", 1)
    assert sessions.expire(100) == [Dropped("idle", 99, "ttl")]
    assert sessions.get("busy") is busy


def test_a_long_call_counts_as_use_until_its_end() -> None:
    sessions = table(ttl=10)
    session, _ = sessions.use("a", 0)
    sessions.use("b", 5)
    session.active = "call"
    session.active = None
    sessions.touch(session, 100)
    assert [dropped.id for dropped in sessions.expire(100)] == ["b"]


def test_the_end_of_a_call_does_not_bring_a_session_back_that_was_ended() -> None:
    sessions = table()
    session, _ = sessions.use("a", 0)
    assert sessions.end("a") is session
    assert sessions.end("a") is None
    sessions.touch(session, 1)
    assert len(sessions) == 0


def test_sessions_with_calls_are_not_looked_through_again_for_each_newcomer() -> None:
    sessions = table(limit=3)
    for number in range(100):
        session, _ = sessions.use(str(number), number)
        session.active = "call"
        assert sessions.expire(number) == []
        assert len(sessions._idle) == 0  # the sessions that the next `expire` would check
    session.active = None
    sessions.touch(session, 200)
    assert sessions.expire(200) == [Dropped("99", 0, "limit")]
    assert len(sessions) == 99


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["use", "call", "left", "end"]), st.floats(0, 5))),
    st.integers(1, 4),
)
def test_never_more_than_its_limit_and_those_with_calls(steps: list[tuple[str, str, float]], limit: int) -> None:
    sessions, now = table(ttl=10, limit=limit), 0.0
    for session_id, step, pause in steps:
        now += pause
        if step == "end":
            sessions.end(session_id)
            continue
        session, _ = sessions.use(session_id, now)
        if step == "call":
            session.active = "call"
        elif step == "left":
            session.active = None
            sessions.touch(session, now)
        dropped = sessions.expire(now)
        assert all(gone.idle >= 10 or gone.reason == "limit" for gone in dropped)
        kept = [state for name in "abcdef" if (state := sessions.get(name)) is not None]
        assert len(kept) == len(sessions) <= max(limit, sum(state.active is not None for state in kept))
        assert all(state.active is not None or now - state.last_used < 10 for state in kept)
