"""The exported metrics of advice and tuning: what is recommended, what the tuner does, and the sizes that it wants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import get_args

from pool_monitor.export.family import Family, Number, family_of, labels
from pool_monitor.snapshot import TRIAL_OVER, SizingView, Snapshot, TunerMode, TuningView

_MODES: tuple[str, ...] = get_args(TunerMode)
_TUNER: dict[str, tuple[str, Callable[[TuningView], Number]]] = {
    "tuner_frozen": (
        "1 while the tuner changes nothing, because of a freeze, else 0.",
        lambda one: int(one.frozen is not None),
    ),
    "tuner_pending": ("Changes that wait for approval.", lambda one: len(one.pending)),
    "tuner_running": (
        "Changes that are on trial.",
        lambda one: sum(trial.state in ("applying", "validating", "rolling_back", "verifying") for trial in one.trials),
    ),
}
_SIZES: dict[str, tuple[str, Callable[[SizingView], Number]]] = {
    "tuner_size_wanted": ("Workers that the policy wants; absent: it knows too little.", lambda one: one.wanted),
    "tuner_size_low": ("Fewest workers that the tuner may choose now.", lambda one: one.low),
    "tuner_size_high": ("Most workers that the tuner may choose now.", lambda one: one.high),
    "tuner_size_floor": ("Fewest workers by the schedule or the season; absent: there is none.", lambda one: one.floor),
    "tuner_size_ceiling": (
        "Most workers by a limit that was measured; absent: there is none.",
        lambda one: one.ceiling,
    ),
}


def tuning_families(snapshot: Snapshot) -> Iterator[Family]:
    """Every metric of advice and tuning, also metrics that have no series now. There are at most as many series as
    patterns and pools.
    """
    found = Counter(one.pattern for one in snapshot.recommendations)
    yield family_of(
        "advice_open",
        "Recommendations that are open, by pattern.",
        ((labels(pattern=pattern), [number]) for pattern, number in found.items()),
    )
    tuning = snapshot.tuning
    yield family_of(
        "tuner_mode",
        "1 for the mode of the tuner, 0 for the others; absent: it was never on.",
        [] if tuning is None else [((), [int(tuning.mode == mode) for mode in _MODES])],
        "mode",
        _MODES,
    )
    for name, (text, read) in _TUNER.items():
        yield family_of(name, text, [] if tuning is None else [((), [read(tuning)])])
    yield family_of(
        "tuner_changes_total",
        "Changes of settings that are over, by the state in which they ended, since the monitor was made.",
        [] if tuning is None else [((), [tuning.ended.get(state, 0) for state in TRIAL_OVER])],
        "state",
        TRIAL_OVER,
    )
    for name, (text, of_pool) in _SIZES.items():
        sizing = () if tuning is None else tuning.sizing
        yield family_of(name, text, ((labels(pool=one.pool), [of_pool(one)]) for one in sizing))
