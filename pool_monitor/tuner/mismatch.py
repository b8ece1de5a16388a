"""`mismatches`: what ``[tuner]`` says that cannot be followed, because the pools offer something else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pool_monitor.config.tuner import ScheduleEntry, TunerConfig
from pool_monitor.tunable import Tunable
from pool_monitor.tuner.rules import range_of

Offers = Mapping[str, Sequence[Tunable]]


def mismatches(config: TunerConfig, pools: Iterable[str], offers: Offers) -> list[str]:
    """Return a sentence for each part of *config* that has no effect, or another one than written, with what there is.

    *pools* are all pools, *offers* the settings of those that offer some. A service must begin all the same, so this
    is no error: a pool may offer other settings later.
    """
    names = sorted(pools)
    return [
        *_of_knobs(config, offers),
        *(text for entry in config.schedule for text in _of_entry(entry, config, names, offers)),
    ]


def _of_knobs(config: TunerConfig, offers: Offers) -> Iterator[str]:
    offered = sorted({one.name for found in offers.values() for one in found})
    for knob, (low, high) in config.knobs.items():
        if knob not in offered:
            yield f"[tuner] knobs.{knob}: no pool has such a setting; there are {', '.join(offered) or 'none'}"
        for pool, found in sorted(offers.items()):
            for one in found:
                if one.name == knob and (high < one.low or low > one.high):
                    yield (
                        f"[tuner] knobs.{knob} = [{low:g}, {high:g}]: pool {pool} allows {one.low:g} to {one.high:g} "
                        f"only, so {range_of(one, config.knobs).low:g} is used there"
                    )


def _of_entry(entry: ScheduleEntry, config: TunerConfig, pools: Sequence[str], offers: Offers) -> Iterator[str]:
    about = f"[tuner] schedule {entry.days} {entry.start}-{entry.end}"
    if entry.pool is not None and entry.pool not in pools:
        yield f"{about}: there is no pool {entry.pool!r:.80}; there are {', '.join(pools) or 'none'}"
    for pool, found in sorted(offers.items()):
        size = next((one for one in found if one.name == "size"), None)
        if size is None or entry.pool not in (None, pool):
            continue
        most = math.floor(range_of(size, config.knobs).high)
        if entry.min_size > most:
            yield f"{about}: min_size = {entry.min_size} is more than pool {pool} may have, so it gets {most}"
