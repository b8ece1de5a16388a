"""The rate limit of one receiver: what is sent at once, held back, and told as a digest."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.alerts.delivery.rate_limit import (
    BURST,
    DIGEST_EVERY,
    PER_SECOND,
    QUIET,
    STATES_MAX,
    RateLimits,
    Ration,
    is_limited,
    is_page,
    states_ration,
)
from pool_monitor.alerts.routing import LOG, AlertmanagerApi, Receiver, Secret, Webhook

AT = 1_700_000_000.0


class Limited:
    """One receiver behind its limit."""

    def __init__(self, *, page: bool = False) -> None:
        self.limits, self.page = RateLimits(), page

    def __call__(self, due: int, at: float, *, waiting: int = 0, digest_waits: bool = False) -> Ration:
        return self.limits.ration("ops", due, at, page=self.page, waiting=waiting, digest_waits=digest_waits)


def test_twelve_messages_pass_at_once_and_twelve_again_after_a_minute() -> None:
    ration = Limited()
    assert ration(BURST, AT) == Ration(BURST)
    assert ration(BURST, AT + 60.0) == Ration(BURST)


def test_one_more_than_there_are_tokens_makes_one_digest_of_all() -> None:
    assert Limited()(BURST + 1, AT) == Ration(0, digest=True)


def test_digests_are_half_a_minute_apart_while_there_is_something_to_tell() -> None:
    ration = Limited()
    ration(100, AT)
    assert ration(5, AT + 5.0) == Ration(0, next_at=AT + DIGEST_EVERY)
    assert ration(5, AT + DIGEST_EVERY) == Ration(0, digest=True)
    assert ration(1, AT + DIGEST_EVERY + 1.0) == Ration(0, next_at=AT + 2 * DIGEST_EVERY)


def test_a_quiet_minute_ends_it() -> None:
    ration = Limited()
    ration(100, AT)
    assert ration(1, AT + QUIET - 1.0).digest, "the minute was not quiet"
    assert ration(BURST, AT + 2 * QUIET - 1.0) == Ration(BURST)


def test_it_goes_on_until_the_digest_has_arrived() -> None:
    ration = Limited()
    ration(100, AT)
    later = AT + 10 * QUIET
    assert ration(1, later, waiting=1, digest_waits=True).digest
    assert ration(1, later + QUIET) == Ration(1)


def test_a_digest_of_an_earlier_life_that_waits_holds_back_the_next_messages() -> None:
    ration = Limited()
    assert ration(1, AT, waiting=1, digest_waits=True).digest


def test_a_slow_receiver_gets_twelve_messages_a_minute_too() -> None:
    ration = Limited()
    assert ration(6, AT) == Ration(6)
    assert ration(6, AT + 1.0, waiting=6) == Ration(6)


def test_at_most_twelve_messages_wait_for_a_receiver() -> None:
    ration = Limited()
    assert ration(1, AT, waiting=BURST - 1) == Ration(1)
    assert ration(1, AT + 3600.0, waiting=BURST).digest


def test_pages_are_delayed_and_never_put_together() -> None:
    ration = Limited(page=True)
    found = ration(100, AT)
    assert (found.single, found.digest) == (BURST, False)
    found = ration(88, AT)
    assert found.single == 0
    assert found.next_at == pytest.approx(AT + 1 / PER_SECOND)
    assert ration(88, found.next_at).single == 1


def test_the_limits_of_receivers_that_are_gone_are_forgotten() -> None:
    ration = Limited()
    ration(100, AT)
    ration.limits.keep({"ops"})
    assert ration(1, AT).next_at == AT + DIGEST_EVERY
    ration.limits.keep(set())
    assert ration(1, AT) == Ration(1)


def test_what_is_held_back_is_asked_for_again_at_its_time() -> None:
    limits = RateLimits()
    for group in (1, 2):
        limits.hold("ops", group, AT, AT + 5.0)
    limits.hold("ops", 3, AT + 1.0, AT + 5.0)
    limits.hold("mail", 4, AT, None)
    assert (limits.held_back("ops"), limits.held_for("ops", AT + 2.0), limits.until("ops")) == (3, 2.0, AT + 5.0)
    assert limits.next_at == AT + 5.0
    assert limits.asked_again(AT + 4.0) == []
    limits.release("ops", 1)
    assert limits.asked_again(AT + 5.0) == [2, 3]
    assert limits.next_at is None
    for group in (2, 3):
        limits.release("ops", group)
    assert (limits.held_back("ops"), limits.held_for("ops", AT + 9.0)) == (0, 0.0)


@given(
    steps=st.lists(st.tuples(st.floats(0.0, 90.0), st.integers(0, 40)), max_size=80),
    page=st.booleans(),
)
def test_no_group_waits_for_ever_and_no_minute_has_too_many_messages(
    steps: list[tuple[float, int]], page: bool
) -> None:
    ration, at, held = Limited(page=page), AT, 0
    next_at: float | None = None
    sent: list[float] = []
    digests: list[float] = []

    def flush() -> None:
        nonlocal held, next_at
        found = ration(held, at) if held else Ration(0)
        assert found.single <= held
        sent.extend([at] * found.single)
        digests.extend([at] * found.digest)
        held -= held if found.digest else found.single
        next_at = found.next_at
        assert (next_at is None) == (held == 0)

    for pause, more in steps:
        ends = at + pause
        while next_at is not None and next_at <= ends:
            assert next_at >= at
            at = next_at
            flush()
        at, held = ends, held + more
        flush()
    while next_at is not None:
        assert next_at > at
        at = next_at
        flush()
    assert held == 0
    assert not (page and digests)
    assert all(b - a >= DIGEST_EVERY - 1e-3 for a, b in pairwise(digests))
    assert all(sum(start <= one < start + 60.0 - 1e-3 for one in sent) <= 2 * BURST for start in sent)


def test_a_running_alertmanager_takes_what_it_can_and_leaves_room_for_others() -> None:
    assert states_ration(STATES_MAX, 0, AT) == Ration(STATES_MAX)
    found = states_ration(10_000, STATES_MAX - 1, AT)
    assert (found.single, found.digest) == (1, False)
    assert found.next_at is not None
    assert states_ration(1, STATES_MAX + 5, AT).single == 0


@pytest.mark.parametrize(
    ("receiver", "page", "limited"),
    [
        (LOG, False, True),
        (Receiver(name="a", channel=Webhook(url=Secret("http://x")), page=True), True, True),
        (Receiver(name="a", channel=Webhook(url=Secret("http://x"), format="pagerduty")), True, True),
        (Receiver(name="a", channel=Webhook(url=Secret("http://x"), format="slack")), False, True),
        (Receiver(name="a", channel=AlertmanagerApi(url=Secret("http://x"))), False, False),
    ],
    ids=["log", "page", "pagerduty", "slack", "alertmanager"],
)
def test_which_receivers_are_pagers_and_which_have_no_limit(receiver: Receiver, page: bool, limited: bool) -> None:
    assert (is_page(receiver), is_limited(receiver)) == (page, limited)
