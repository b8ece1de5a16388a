"""Inhibition: a firing alert keeps others quiet. A function of the set of firing alerts alone, so the order in which
they began or ended does not matter.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from pool_monitor.alerts.pattern import LabelMatch
from pool_monitor.alerts.rule import Inhibition

NAMED_MAX = 10
"""Most sources that are named for one alert."""

_Key = tuple[str, ...]


class Inhibitors:
    """What the firing alerts inhibit. Add all of them, then ask.

    An alert is inhibited if it matches the target of an inhibition and a firing alert matches its source, with equal
    values of the labels ``equal`` (a label that is absent is empty). Two alerts that both match source and target do
    not inhibit each other: otherwise nobody would hear of either. Bound: one entry per inhibition and firing alert.
    """

    def __init__(self, inhibitions: Sequence[Inhibition]) -> None:
        self._all = [_Inhibitor(inhibition) for inhibition in inhibitions]

    def add(self, fingerprint: str, labels: Mapping[str, str]) -> None:
        """Add a firing alert. *labels* are all labels, with ``alertname`` and ``severity``."""
        for one in self._all:
            one.add(fingerprint, labels)

    def of(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Return the fingerprints of the alerts that inhibit an alert with *labels*: at most `NAMED_MAX`, in order."""
        found = {source for one in self._all for source in one.of(labels)}
        return tuple(sorted(found)[:NAMED_MAX])


class _Inhibitor:
    """One inhibition and the firing alerts that match its source, by the values of the labels that must agree."""

    def __init__(self, inhibition: Inhibition) -> None:
        self._source, self._target = LabelMatch(inhibition.one), LabelMatch(inhibition.target)
        self._equal = inhibition.equal
        self._sources: dict[tuple[_Key, bool], list[str]] = {}  # with whether they match the target too
        self._first: dict[tuple[_Key, bool], list[str]] = {}

    def add(self, fingerprint: str, labels: Mapping[str, str]) -> None:
        if self._source(labels):
            self._sources.setdefault((self._key(labels), self._target(labels)), []).append(fingerprint)

    def of(self, labels: Mapping[str, str]) -> list[str]:
        if not self._target(labels):
            return []
        key = self._key(labels)
        sources = self._named(key, False)
        return sources if self._source(labels) else sources + self._named(key, True)

    def _named(self, key: _Key, both: bool) -> list[str]:
        found = self._first.get((key, both))
        if found is None:
            found = self._first[key, both] = heapq.nsmallest(NAMED_MAX, self._sources.get((key, both), ()))
        return found

    def _key(self, labels: Mapping[str, str]) -> _Key:
        return tuple(labels.get(label, "") for label in self._equal)
