"""`AdvisorCore`: from what the patterns find in each pass to recommendations, and their lives. No I/O; time comes in.

A pass has two halves. `look` searches the histories; it needs nothing else and may run in a thread. `take` judges what
was found: it counts if it is significant among all tests of the pass (`multiplicity`), if no other finding explains it
(`causes`), and if it lasts (`persistence`). `step` does both at once, for the laboratory.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from pool_monitor.advisor.causes import HOST_SUBJECTS, cause_of
from pool_monitor.advisor.explaining import Grounds, explanation
from pool_monitor.advisor.history import PoolHistory
from pool_monitor.advisor.lifecycle import LIFE, SHOWN, AdviceStage
from pool_monitor.advisor.multiplicity import SignificantDetection, significant
from pool_monitor.advisor.persistence import Persistence
from pool_monitor.advisor.priority import score
from pool_monitor.log import plain
from pool_monitor.snapshot.advice import Change, Effect, Pattern, Recommendation

if TYPE_CHECKING:
    from pool_monitor.advisor.look import Look

FIRST_PASSES_S, FIRST_PASS_S, PASS_S = 900.0, 60.0, 300.0
"""A pass is made every minute in the first 15 minutes, then every 5 minutes."""
RECOMMENDATIONS = 200
"""Most recommendations that are kept, in all stages."""
CANDIDATES = 1000
"""Most pairs of pattern and subject whose passes are remembered."""
NEW_S = 3600.0
DISMISSED_S = 7 * 86400.0
MUCH_WORSE = 2.0
"""How many times as much a dismissed one must matter to be shown again."""
EXPIRED_KEPT_S = 86400.0
_TEXT = 500  # characters of a text that are kept


class Key(NamedTuple):
    """What a recommendation is about. There is one for each."""

    pattern: Pattern
    subject: str
    pool: str | None


class Transition(NamedTuple):
    """A recommendation has entered a stage."""

    recommendation: Recommendation
    before: str
    """The stage that it left; empty: it was not known before."""


class _SavedRow(Struct, frozen=True):
    """A dismissal, as the state file keeps it."""

    recommendation: Recommendation
    at: float
    weight: float
    author: str
    reason: str


class _Entry:
    """A recommendation that is known, and what its next stage depends on."""

    __slots__ = ("dismissal", "grounds", "stage", "told")

    def __init__(self, told: Recommendation, stage: AdviceStage, grounds: Grounds | None) -> None:
        self.told, self.stage, self.grounds = told, stage, grounds
        self.dismissal: _SavedRow | None = None


class AdvisorCore:
    """Keeps at most `RECOMMENDATIONS` recommendations. *since* is when the journal began, in monotonic seconds."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.failures: Mapping[Pattern, str] = {}
        """The patterns that have raised in the latest pass, and what."""
        self.passes = 0
        self.left_out = 0
        """Findings that were not kept because there were too many."""
        self._pass_at: float | None = None
        self._entries: dict[Key, _Entry] = {}
        self._candidates: OrderedDict[Key, Persistence] = OrderedDict()
        self._unsaved: dict[str, bytes | None] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that it takes, about."""
        return len(self._entries) * 6000 + len(self._candidates) * 600

    # -- passes ----------------------------------------------------------------------------------------------------

    def due(self, now: float) -> bool:
        """Whether it is time for a pass."""
        pause = FIRST_PASS_S if now - self.since <= FIRST_PASSES_S else PASS_S
        return now - (self.since if self._pass_at is None else self._pass_at) >= pause

    def begin(self, now: float) -> None:
        """Note that a pass begins, so that the next one is not due for a while."""
        self._pass_at = now

    def step(self, now: float, histories: Callable[[], Sequence[PoolHistory]]) -> tuple[list[Transition], Look | None]:
        """Make a pass if it is due, at once. Returns what has changed, and what was found; None: no pass was due."""
        if not self.due(now):
            return [], None
        from pool_monitor.advisor.look import look  # the patterns are large, and the first pass is after a minute

        self.begin(now)
        seen = look(histories())
        return self.take(seen), seen

    def take(self, seen: Look) -> list[Transition]:
        """Judge what a pass has found. Returns what has changed."""
        self.passes += 1
        self.failures = seen.failures
        judged = self._unexplained(_by_key(significant(seen.found)))
        for key in judged:
            self._candidates.setdefault(key, Persistence())
        for key, persistence in self._candidates.items():
            persistence.note(found=key in judged)
        changed: list[Transition] = []
        for key in [*judged, *(key for key in self._entries if key not in judged)]:
            changed += self._advance(key, judged.get(key), seen)
        self._forget(seen.wall)
        return changed

    def _unexplained(self, judged: dict[Key, SignificantDetection]) -> dict[Key, SignificantDetection]:
        """Without the consequences of what was found too, or is recommended already."""
        there = [*judged, *(key for key, entry in self._entries.items() if entry.stage in SHOWN)]
        kept: dict[Key, SignificantDetection] = {}
        for key, one in judged.items():
            near = [other for other in there if other != key and (_of_host(other) or other.pool == one.pool)]
            if cause_of(key.pattern, key.subject, ((other.pattern, other.subject) for other in near)) is None:
                kept[key] = one
        return kept

    def _advance(self, key: Key, one: SignificantDetection | None, seen: Look) -> Iterable[Transition]:
        entry, persistence = self._entries.get(key), self._candidates.get(key)
        if persistence is None:  # it was forgotten, as too many were found
            persistence = self._candidates.setdefault(key, Persistence())
            persistence.note(found=one is not None)
        if entry is None:
            if one is not None and persistence.holds and self._room():
                grounds = Grounds(one, persistence.share)
                entry = self._entries[key] = _Entry(_told(key, grounds, seen.wall, seen.wall), AdviceStage.NEW, grounds)
                yield Transition(entry.told, "")
            return
        if one is not None and entry.stage in SHOWN:
            entry.grounds = Grounds(one, persistence.share)
            entry.told = _told(key, entry.grounds, entry.told.opened_at, seen.wall, entry.stage)
        trigger = self._trigger(entry, one, persistence, seen)
        if trigger is not None:
            yield self._move(key, entry, trigger, one, persistence, seen.wall)

    def _trigger(
        self, entry: _Entry, one: SignificantDetection | None, persistence: Persistence, seen: Look
    ) -> str | None:
        """What a pass says about a recommendation that is known; None: nothing changes."""
        wall, told = seen.wall, entry.told
        again = "found" if one is not None and persistence.holds else None
        if entry.stage is AdviceStage.DISMISSED:
            dismissal = entry.dismissal
            if dismissal is None or not abs(wall - dismissal.at) < DISMISSED_S:  # a clock may have been far ahead
                return "over"
            much_worse = one is not None and _weight(one) >= MUCH_WORSE * dismissal.weight
            return "worse" if again and much_worse else None
        if entry.stage is AdviceStage.EXPIRED:
            return again
        if persistence.gone:
            return "gone"
        if entry.stage is AdviceStage.APPLIED:
            return again
        if _is_applied(told.change, seen.settings.get(told.pool or "", {})):
            return "applied"
        return "settled" if entry.stage is AdviceStage.NEW and wall - told.opened_at >= NEW_S else None

    def _move(
        self,
        key: Key,
        entry: _Entry,
        trigger: str,
        one: SignificantDetection | None,
        persistence: Persistence,
        wall: float,
    ) -> Transition:
        before = entry.stage
        entry.stage = LIFE.step(before, trigger)
        if trigger == "applied":
            persistence.clear()  # what is found from now on is found after the change
        if before is AdviceStage.DISMISSED:
            entry.dismissal = None
            self._unsaved[entry.told.id] = None
        if entry.stage is AdviceStage.NEW and one is not None:
            entry.grounds = Grounds(one, persistence.share)
            entry.told = _told(key, entry.grounds, wall, wall)
        else:
            changed_at = entry.told.updated_at if trigger == "settled" else wall
            entry.told = msgspec.structs.replace(entry.told, state=entry.stage.value, updated_at=changed_at)
        return Transition(entry.told, before.value)

    def _room(self) -> bool:
        """Whether one more can be kept: the one that has expired first gives way."""
        if len(self._entries) < RECOMMENDATIONS:
            return True
        over = [
            key for key, entry in self._entries.items() if entry.stage in (AdviceStage.EXPIRED, AdviceStage.APPLIED)
        ]
        if not over:
            self.left_out += 1
            return False
        del self._entries[min(over, key=lambda key: self._entries[key].told.updated_at)]
        return True

    def _forget(self, wall: float) -> None:
        for key, entry in list(self._entries.items()):
            if entry.stage is AdviceStage.EXPIRED and wall - entry.told.updated_at >= EXPIRED_KEPT_S:
                del self._entries[key]
        idle = [key for key, one in self._candidates.items() if one.idle and key not in self._entries]
        for key in idle:
            del self._candidates[key]
        while len(self._candidates) > CANDIDATES:
            self._candidates.popitem(last=False)

    # -- what people ask and do ------------------------------------------------------------------------------------

    def recommendations(self) -> tuple[Recommendation, ...]:
        """What is recommended now, the most urgent first."""
        shown = [entry.told for entry in self._entries.values() if entry.stage in SHOWN]
        return tuple(sorted(shown, key=lambda told: (-told.score, told.id)))

    def known(self) -> tuple[Recommendation, ...]:
        """Every recommendation that is kept, also those that were applied or dismissed or are over."""
        everything = [entry.told for entry in self._entries.values()]
        return tuple(sorted(everything, key=lambda told: (-told.updated_at, told.id)))

    def dismiss(self, recommendation: str, reason: str, author: str, wall: float) -> Transition:
        """Show a recommendation no more, for a week or until it is much worse. Raises KeyError for an id that is not
        known, and IllegalTransition for one that is dismissed or over already.
        """
        entry = self._entry(recommendation)
        before = entry.stage
        entry.stage = LIFE.step(before, "dismissed")
        entry.told = msgspec.structs.replace(entry.told, state="dismissed", updated_at=wall)
        weight = 0.0 if entry.grounds is None else _weight(entry.grounds.judged)
        entry.dismissal = _SavedRow(entry.told, wall, weight, plain(author[:_TEXT]), plain(reason[:_TEXT]))
        self._unsaved[entry.told.id] = msgspec.msgpack.encode(entry.dismissal)
        return Transition(entry.told, before.value)

    def explain(self, recommendation: str) -> str:
        """Why it is recommended, with the test, the figures and what would disprove it. Raises KeyError."""
        entry = self._entry(recommendation)
        text = explanation(entry.told, entry.grounds)
        if entry.dismissal is not None:
            row = entry.dismissal
            text += f"\nDismissed{f' by {row.author}' if row.author else ''}{f': {row.reason}' if row.reason else ''}"
        return text

    def _entry(self, recommendation: str) -> _Entry:
        for entry in self._entries.values():
            if entry.told.id == recommendation:
                return entry
        raise KeyError(recommendation)

    # -- what outlives a restart -----------------------------------------------------------------------------------

    def unsaved(self) -> dict[str, bytes | None]:
        """The rows that have changed since the last time, by id, to be stored; None: to be deleted."""
        changed, self._unsaved = self._unsaved, {}
        return changed

    def restore(self, rows: Mapping[str, bytes]) -> list[str]:
        """Take over dismissals that were stored. Returns the ids of rows that cannot be read."""
        damaged = []
        for name, data in rows.items():
            try:
                row = msgspec.msgpack.decode(data, type=_SavedRow)
            except msgspec.MsgspecError:
                damaged.append(name)
                continue
            told = row.recommendation
            if not _sound(name, row):
                damaged.append(name)
                continue
            if len(self._entries) < RECOMMENDATIONS:
                entry = _Entry(told, AdviceStage.DISMISSED, None)
                entry.dismissal = row
                self._entries[Key(told.pattern, told.subject, told.pool)] = entry
        return damaged


def _sound(name: str, row: _SavedRow) -> bool:
    """Whether a row can be what was stored under *name*: its bytes may be damaged."""
    told = row.recommendation
    numbers = (row.at, row.weight, told.score, told.confidence, told.opened_at, told.updated_at)
    texts = (told.subject, told.pool or "", told.summary, told.action, told.check_first, row.author, row.reason)
    return (
        told.id == name == id_of(Key(told.pattern, told.subject, told.pool))
        and told.state == "dismissed"
        and all(map(math.isfinite, (*numbers, *told.evidence.values())))
        and all(plain(text) == text for text in (*texts, *told.evidence))
        and (told.effect is None or _is_finite(told.effect))
    )


def _by_key(judged: Iterable[SignificantDetection]) -> dict[Key, SignificantDetection]:
    """The detections by what they are about: of several, the one that matters most."""
    found: dict[Key, SignificantDetection] = {}
    for one in judged:
        subject = plain(one.detection.subject[:_TEXT])
        key = Key(one.detection.pattern, subject, None if subject in HOST_SUBJECTS else one.pool)
        if key not in found or _weight(one) > _weight(found[key]):
            found[key] = one
    return found


def _of_host(key: Key) -> bool:
    return key.pool is None


def _weight(one: SignificantDetection) -> float:
    return one.detection.impact * one.detection.urgency


def id_of(key: Key) -> str:
    """The id of the recommendation about *key*: always the same."""
    text = "\0".join((key.pattern, key.subject, key.pool or ""))
    return f"{key.pattern}-{hashlib.blake2s(text.encode(errors='replace'), digest_size=4).hexdigest()}"


def _told(
    key: Key, grounds: Grounds, opened_at: float, wall: float, stage: AdviceStage = AdviceStage.NEW
) -> Recommendation:
    """The recommendation, in words that any screen can show."""
    found = grounds.judged.detection
    return Recommendation(
        id=id_of(key),
        pattern=key.pattern,
        subject=key.subject,
        pool=key.pool,
        summary=_clean(found.summary),
        action=_clean(found.action),
        check_first=_clean(found.check_first),
        score=score(found.impact, grounds.confidence, found.urgency, found.risk),
        confidence=grounds.confidence,
        samples=found.samples,
        evidence={_clean(name): float(value) for name, value in found.evidence.items() if math.isfinite(value)},
        change=found.change,
        effect=found.effect if found.effect is None or _is_finite(found.effect) else None,
        risk=min(max(found.risk, 0), 4),
        state=stage.value,
        opened_at=opened_at,
        updated_at=wall,
        playbook=playbook_of(key.pattern),
    )


def playbook_of(pattern: Pattern) -> str:
    """The section of the playbook about *pattern*."""
    return f"docs/OPERATIONS_PLAYBOOK.md#advice-{pattern.replace('_', '-')}"


def _clean(text: str) -> str:
    return plain(text[:_TEXT])


def _is_finite(effect: Effect) -> bool:
    return all(map(math.isfinite, (effect.now, effect.expected, effect.low, effect.high, effect.cost or 0.0)))


def _is_applied(change: Change | None, settings: Mapping[str, float]) -> bool:
    """Whether the setting has the proposed value, or has gone even further."""
    if change is None or change.knob not in settings or change.proposed == change.current:
        return False
    value = settings[change.knob]
    near = math.isclose(value, change.proposed, rel_tol=1e-6)
    return near or (value > change.proposed if change.proposed > change.current else value < change.proposed)
