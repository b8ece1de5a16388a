"""The rows of the tuner in the state file: how they are written, and what can be read of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import isfinite
from typing import NamedTuple

import msgspec
from msgspec import Struct

from pool_monitor.log import logger, plain
from pool_monitor.snapshot.tuning import TunerMode
from pool_monitor.tuner.trial import STEPS_MAX, Trial

VERSION = 1
TRIALS, TUNING = "trials", "tuning"
"""The tables."""
SETTINGS = "settings"
"""The key in `TUNING` of `TunerSettings`."""


class Freeze(Struct, kw_only=True):
    """Why nothing is changed."""

    kind: str
    """``person``, ``rollbacks`` or ``repeated``: see `pool_monitor.tuner.freeze`."""
    reason: str
    author: str = ""
    since: float
    """Wall-clock seconds."""
    until: float | None = None
    """None: until a person ends it."""


class TunerSettings(Struct, kw_only=True):
    """What the tuner must remember beside its trials."""

    mode: TunerMode = "recommend"
    configured: TunerMode = "recommend"
    """The mode of the configuration when *mode* was stored: another one there replaces *mode*."""
    demoted: str = ""
    """Why the mode was taken back to ``recommend``; empty: it was not."""
    freezes: list[Freeze] = []
    rollbacks: list[float] = []
    """Wall-clock times of the latest rollbacks that were the tuner's own."""
    frozen_at: list[float] = []
    """Wall-clock times at which repeated rollbacks have frozen it."""
    pinned: dict[str, dict[str, float]] = {}
    """By pool and setting: the value with which the pool began."""


class LoggedChange(Struct, kw_only=True):
    """One change without a trial, such as one of the policy."""

    at: float
    knob: str
    before: float
    after: float
    origin: str
    why: str
    actor: str = ""
    """Who asked for it; empty: the tuner itself."""
    failed: str = ""
    """Why it could not be made; empty: it was."""


class _Row(Struct, kw_only=True):
    version: int
    trial: Trial | None = None
    settings: TunerSettings | None = None


class RestoredRows(NamedTuple):
    """What could be read."""

    trials: list[Trial]
    settings: TunerSettings | None
    refused: int
    """Rows that are damaged or of a newer version. They stay in the file."""


def encoded(value: Trial | TunerSettings) -> bytes:
    """Return *value* as a row."""
    if isinstance(value, Trial):
        return msgspec.json.encode(_Row(version=VERSION, trial=value))
    return msgspec.json.encode(_Row(version=VERSION, settings=value))


def encoded_changes(changes: Iterable[LoggedChange]) -> bytes:
    """Return the latest changes of a pool as a row."""
    return msgspec.json.encode(list(changes))


def restored_changes(rows: Mapping[str, bytes]) -> dict[str, list[LoggedChange]]:
    """Read the changes without a trial, by pool, of the rows of `TUNING`. A row that is damaged is left out."""
    found = {}
    for key, row in rows.items():
        kind, colon, pool = key.partition(":")
        if kind == "changes" and colon:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                changes = msgspec.json.decode(row, type=list[LoggedChange])
                found[pool] = [one for one in changes if _told(one)]
    return found


def restored(rows: Mapping[str, Mapping[str, bytes]]) -> RestoredRows:
    """Read *rows*, by table and key. A row that cannot be used is counted and logged, and never an error."""
    trials, settings, refused = [], None, 0
    for table in (TRIALS, TUNING):
        for key, row in rows.get(table, {}).items():
            if table == TUNING and key != SETTINGS:
                continue  # of another owner, such as the season
            found = _read(row)
            if found is None:
                refused += 1
            elif found.trial is not None and found.trial.id == key and _sound(found.trial):
                trials.append(found.trial)
            elif found.settings is not None and table == TUNING and _is_shown(found.settings):
                settings = found.settings
            else:
                refused += 1
    if refused:
        logger("tuner").warning("some rows of the saved state cannot be used", refused=refused)
    return RestoredRows(trials, settings, refused)


def _told(change: LoggedChange) -> bool:
    texts = change.knob, change.origin, change.why, change.actor, change.failed
    return all(map(_is_plain, texts)) and all(map(isfinite, (change.at, change.before, change.after)))


def _read(row: bytes) -> _Row | None:
    try:
        found = msgspec.json.decode(row, type=_Row)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if found.version == VERSION else None


def _is_shown(settings: TunerSettings) -> bool:
    texts = [text for one in settings.freezes for text in (one.kind, one.reason, one.author)]
    return all(map(_is_plain, (settings.demoted, *texts)))


def _sound(trial: Trial) -> bool:
    """Whether it can be shown: what is stored is printable."""
    texts = [trial.pool, trial.knob, trial.unit, trial.origin, trial.reason, trial.why, trial.actor, trial.cause]
    texts += [text for step in trial.steps for text in (step.reason, step.actor)]
    numbers = (trial.before, trial.after, trial.started_at, trial.changed_at)
    return all(map(isfinite, numbers)) and all(map(_is_plain, texts)) and len(trial.steps) <= STEPS_MAX


def _is_plain(text: str) -> bool:
    return plain(text) == text
