"""How the value of a label is matched, the same for rules, silences and inhibitions."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from pool_monitor.alerts.rule import Matcher

SPECIAL = frozenset("*?[")
"""What makes a shell pattern of a text."""


def is_pattern(one: Matcher) -> bool:
    """Whether *one* may match several values."""
    return one.pattern and not SPECIAL.isdisjoint(one.value)


def matching(one: Matcher) -> Callable[[str], object]:
    """Return a function that says whether a value matches *one*. An absent label is the empty text.

    A shell pattern is case-sensitive and matches the whole value. It does not match the empty text: ``{team: "*"}`` is
    about alerts that have a team. Otherwise a label that is misspelt would match all alerts.
    """
    return _compiled(one.value).match if is_pattern(one) else one.value.__eq__


class LabelMatch:
    """Says whether labels match all of *matchers*."""

    __slots__ = ("_tests", "exact")

    def __init__(self, matchers: Iterable[Matcher]) -> None:
        matchers = tuple(matchers)
        self.exact = [(one.label, one.value) for one in matchers if not is_pattern(one)]
        """The labels that must have one value."""
        # What is to be equal comes first: it is compared faster, and most labels fail it.
        self._tests = tuple([(one.label, matching(one)) for one in sorted(matchers, key=is_pattern)])

    def __call__(self, labels: Mapping[str, str]) -> bool:
        for label, test in self._tests:  # noqa: SIM110 - a generator would take twice as long
            if not test(labels.get(label, "")):
                return False
        return True


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a shell pattern made ready: that takes as long as an evaluation of many rules, and many rules share it."""
    return re.compile(rf"(?=[\s\S]){fnmatch.translate(pattern)}")
