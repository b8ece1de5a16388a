"""The rate limit of one receiver: what is sent at once, held back, and told as a digest."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.alerts.delivery.rate_limit import BURST, DIGEST_EVERY, PER_SECOND, QUIET, RateLimit, is_limited, is_page
from pool_monitor.alerts.routing import LOG, AlertmanagerApi, Receiver, Secret, Webhook

AT = 1_700_000_000.0


def test_twelve_messages_pass_at_once_and_twelve_again_after_a_minute() -> None:
    limit = RateLimit()
    assert limit.grant(BURST, AT).messages == BURST
    assert limit.grant(BURST, AT + 60.0).messages == BURST
    assert not limit.holds_back


def test_one_more_than_there_are_tokens_makes_one_digest_of_all() -> None:
    assert RateLimit().grant(BURST + 1, AT) == (0, True)


def test_digests_are_half_a_minute_apart_while_there_is_something_to_tell() -> None:
    limit = RateLimit()
    limit.grant(100, AT)
    assert limit.grant(5, AT + 5.0) == (0, False)
    assert limit.next_at(5, AT + 5.0) == AT + DIGEST_EVERY
    assert limit.grant(5, AT + DIGEST_EVERY) == (0, True)
    assert limit.grant(1, AT + DIGEST_EVERY + 1.0) == (0, False)


def test_a_quiet_minute_ends_it() -> None:
    limit = RateLimit()
    limit.grant(100, AT)
    assert limit.grant(1, AT + QUIET - 1.0) == (0, True), "the minute was not quiet"
    assert limit.grant(BURST, AT + 2 * QUIET - 1.0) == (BURST, False)
    assert not limit.holds_back


def test_it_goes_on_until_the_digest_has_arrived() -> None:
    limit = RateLimit()
    limit.grant(100, AT)
    later = AT + 10 * QUIET
    assert limit.grant(1, later, waiting=1, digest_waits=True) == (0, True)
    assert limit.grant(1, later + QUIET) == (1, False)


def test_a_digest_of_an_earlier_life_that_waits_holds_back_the_next_messages() -> None:
    limit = RateLimit()
    assert limit.grant(1, AT, waiting=1, digest_waits=True) == (0, True)
    assert limit.holds_back


def test_messages_that_have_not_arrived_occupy_tokens() -> None:
    limit = RateLimit()
    assert limit.grant(1, AT, waiting=BURST - 1) == (1, False)
    assert limit.grant(1, AT + 3600.0, waiting=BURST) == (0, True)


def test_pages_are_delayed_and_never_put_together() -> None:
    limit = RateLimit(page=True)
    assert limit.grant(100, AT) == (BURST, False)
    assert limit.grant(88, AT) == (0, False)
    due_at = limit.next_at(88, AT)
    assert due_at == pytest.approx(AT + 1 / PER_SECOND)
    assert limit.grant(88, due_at) == (1, False)
    assert not limit.holds_back


def test_nothing_to_tell_asks_for_no_time() -> None:
    assert RateLimit().next_at(0, AT) is None


@given(
    steps=st.lists(st.tuples(st.floats(0.0, 90.0), st.integers(0, 40)), max_size=80),
    page=st.booleans(),
)
def test_no_group_waits_for_ever_and_no_minute_has_too_many_messages(
    steps: list[tuple[float, int]], page: bool
) -> None:
    limit, at, held = RateLimit(page=page), AT, 0
    sent: list[float] = []
    digests: list[float] = []

    def flush() -> None:
        nonlocal held
        granted = limit.grant(held, at)
        assert granted.messages <= held
        if granted.digest:
            digests.append(at)
        sent.extend([at] * granted.messages)
        held -= held if granted.digest else granted.messages

    for pause, more in steps:
        ends = at + pause
        while (found := limit.next_at(held, at)) is not None and found <= ends:
            assert found >= at
            at = found
            flush()
        at, held = ends, held + more
        flush()
    for _ in range(40 * len(steps) + 1):
        found = limit.next_at(held, at)
        if found is None:
            break
        at = found
        flush()
    assert held == 0
    assert not (page and digests)
    assert all(b - a >= DIGEST_EVERY - 1e-3 for a, b in pairwise(digests))
    assert all(sum(start <= one < start + 60.0 - 1e-3 for one in sent) <= 2 * BURST for start in sent)


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
