"""Silences: alerts that match are not told to anybody for a while. One that begins later is a maintenance window."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice

import msgspec
from msgspec import Struct

from pool_monitor.alerts.pattern import LabelMatch
from pool_monitor.alerts.rule import Matcher
from pool_monitor.alerts.saved_rows import SavedRows
from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.snapshot import SilenceView
from pool_monitor.snapshot.validation import plain_text

SILENCES_MAX = 1000
"""Most silences. The oldest that is over gives way to a new one; while none is over, a new one is refused."""
MATCHERS_MAX = 32
TEXT_MAX = 1000
"""Most characters of a value, an author or a comment."""
_GLOB = "glob:"


class Silence(Struct, frozen=True, kw_only=True):
    """One silence. Times are seconds since the epoch."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: float
    ends_at: float
    author: str = ""
    comment: str = ""
    ended: bool = False
    """Whether somebody ended it. A clock that goes back does not bring it back."""

    def lasts(self, at: float) -> bool:
        """Whether it silences at the time *at*."""
        return not self.ended and self.starts_at <= at < self.ends_at

    def is_over(self, at: float) -> bool:
        """Whether it has ended."""
        return self.ended or self.ends_at <= at


class LastingSilences:
    """The silences that last at one moment, by a label and value that an alert must have to match."""

    def __init__(self, silences: Iterable[tuple[str, LabelMatch]]) -> None:
        self._by_label: defaultdict[tuple[str, str], list[tuple[str, LabelMatch]]] = defaultdict(list)
        self._others: list[tuple[str, LabelMatch]] = []
        for name, match in silences:
            (self._by_label[match.exact[0]] if match.exact else self._others).append((name, match))

    def of(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Return the ids of the silences that match *labels*."""
        found = [name for name, match in self._others if match(labels)]
        for pair in labels.items():
            if pair in self._by_label:
                found += [name for name, match in self._by_label[pair] if match(labels)]
        return tuple(sorted(found))


class Silences:
    """The silences of a monitor. Bound: `SILENCES_MAX`. Methods take the wall-clock time as *at*."""

    def __init__(self) -> None:
        self.saved = SavedRows(Silence)
        self._matches: dict[str, LabelMatch] = {}

    def add(
        self, matchers: Mapping[str, object], *, starts_at: float, ends_at: float, at: float, author: str, comment: str
    ) -> Silence:
        """Silence alerts whose labels match, and return the silence. Raises ConfigError.

        *matchers* are as in `checked_matchers`. ``alertname`` and ``severity`` are labels too.
        """
        if not ends_at > max(starts_at, at):
            raise ConfigError("a silence must end after it begins, and in the future")
        author, comment = checked_text("author", author), checked_text("comment", comment)
        checked = checked_matchers(matchers)
        self._make_room(at)
        name = secrets.token_hex(4)
        while name in self.saved:
            name = secrets.token_hex(4)
        silence = Silence(
            id=name, matchers=checked, starts_at=starts_at, ends_at=ends_at, author=author, comment=comment
        )
        self._put(silence)
        return silence

    def end(self, name: str, at: float) -> Silence:
        """End the silence with the id *name*, also before it begins. Raises UnknownName."""
        silence = self.saved.get(name)
        if silence is None or silence.is_over(at):
            lasting = ", ".join(one.id for one in self.upcoming(at)[:10]) or "none"
            raise UnknownName(f"no silence {name!r:.100} lasts or is to come; those that do: {lasting}")
        silence = msgspec.structs.replace(silence, ended=True, ends_at=at)
        self._put(silence)
        return silence

    def upcoming(self, at: float) -> list[Silence]:
        """Return the silences that last or are to come, the next to end first."""
        return sorted(
            (one for one in self.saved.values() if not one.is_over(at)), key=lambda one: (one.ends_at, one.id)
        )

    def lasting(self, at: float) -> LastingSilences:
        """Return those that last now."""
        return LastingSilences((name, self._matches[name]) for name, one in self.saved.items() if one.lasts(at))

    def views(self, at: float) -> tuple[SilenceView, ...]:
        """Return `upcoming` as a Snapshot shows it."""
        return tuple(
            SilenceView(
                id=one.id,
                matchers={m.label: f"{_GLOB}{m.value}" if m.pattern else m.value for m in one.matchers},
                starts_at=one.starts_at,
                ends_at=one.ends_at,
                author=one.author,
                comment=one.comment,
            )
            for one in self.upcoming(at)
        )

    def restore(self, rows: Mapping[str, bytes]) -> list[str]:
        """Take over the rows of a state file. Returns the ids of those that cannot be used, which are left out."""
        return self.saved.restore(dict(islice(rows.items(), SILENCES_MAX)), self._check)

    def _check(self, name: str, silence: Silence) -> None:
        if silence.id != name or not silence.matchers:
            raise ValueError(name)
        self._matches[name] = LabelMatch(silence.matchers)

    def _put(self, silence: Silence) -> None:
        self.saved[silence.id] = silence
        self._matches[silence.id] = LabelMatch(silence.matchers)

    def _make_room(self, at: float) -> None:
        if len(self.saved) < SILENCES_MAX:
            return
        over = [one for one in self.saved.values() if one.is_over(at)]
        if not over:
            raise ConfigError(f"there are {SILENCES_MAX} silences already; end one, or give it a wider matcher")
        oldest = min(over, key=lambda one: one.ends_at).id
        del self.saved[oldest]
        del self._matches[oldest]


def checked_matchers(matchers: Mapping[str, object]) -> tuple[Matcher, ...]:
    """Return what *matchers* means: label -> text that matches itself to the letter, or ``{"glob": "text*"}``, a shell
    pattern.

    Raises ConfigError if there is none, if a value is empty (an alert without the label would match), and for other
    types.
    """
    if not isinstance(matchers, Mapping) or not matchers:
        raise ConfigError("a silence needs at least one matcher, such as {'alertname': 'FailingCalls'}")
    if len(matchers) > MATCHERS_MAX:
        raise ConfigError(f"a silence has at most {MATCHERS_MAX} matchers, not {len(matchers)}")
    return tuple(_checked_matcher(label, wanted) for label, wanted in matchers.items())


def _checked_matcher(label: object, wanted: object) -> Matcher:
    if not isinstance(label, str) or not label:
        raise ConfigError(f"the matcher {label!r:.100} needs the name of a label")
    label = checked_text("label", label)
    pattern = isinstance(wanted, Mapping)
    value = wanted.get("glob") if isinstance(wanted, Mapping) and len(wanted) == 1 else wanted
    if not isinstance(value, str):
        raise ConfigError(f"the matcher of {label!r} must be a text, or a pattern such as {{'glob': 'text*'}}")
    if not value:
        raise ConfigError(f"the matcher of {label!r} is empty, so alerts without this label would match; give a value")
    return Matcher(label, checked_text(f"matcher of {label!r:.100}", value), pattern)


def checked_text(name: str, text: object) -> str:
    """Return what somebody wrote, with lone surrogates escaped as in the labels of a Snapshot. Raises ConfigError."""
    if not isinstance(text, str) or len(text) > TEXT_MAX:
        raise ConfigError(f"the {name} must be a text of at most {TEXT_MAX} characters")
    return plain_text(text)
