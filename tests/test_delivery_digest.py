"""The words of a digest."""

from __future__ import annotations

import pytest

from pool_monitor.alerts.delivery.digest import digest_words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            digest_words(34, 2000, 100, 3, 30.2),
            "34 messages were held back in 30 s: 2,100 alerts of 3 rules, 2,000 firing and 100 resolved",
        ),
        (
            digest_words(13, 13, 0, 1, 0.0),
            "13 messages were due at once: 13 alerts of 1 rule, 13 firing and 0 resolved",
        ),
        (
            digest_words(1, 0, 1, 1, 12.0),
            "1 message was held back in 12 s: 1 alert of 1 rule, 0 firing and 1 resolved",
        ),
    ],
    ids=["held_back", "at_once", "one"],
)
def test_a_digest_says_how_much_it_stands_for(found: str, words: str) -> None:
    assert found == words
