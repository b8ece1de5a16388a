"""What a digest says of itself: one message in place of many that were held back."""

from __future__ import annotations

DIGEST = "digest"
"""The reason of a digest."""


def digest_words(groups: int, firing: int, resolved: int, rules: int, held_for: float) -> str:
    """Return what a digest stands for.

    *groups*: the messages that it takes the place of. *held_for*: for how many seconds the first was held back.
    """
    were = "was" if groups == 1 else "were"
    held = f"{were} held back in {held_for:.0f} s" if held_for >= 1.0 else f"{were} due at once"
    counts = f"{_counted(firing + resolved, 'alert')} of {_counted(rules, 'rule')}"
    return f"{_counted(groups, 'message')} {held}: {counts}, {firing:,} firing and {resolved:,} resolved"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
