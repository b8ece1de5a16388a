"""``underused``: a smaller pool would have been enough, in every ten minutes of the last days.

The size that each ten minutes needed is known by replay (`Spans.needed`). The largest of them in up to seven days, and
one worker to spare for the day on which one fails, must be at most three quarters of the size. Less than a day is no
evidence: the daily peak may not have come yet. Less than a week is said: so may the weekly one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pool_monitor.advisor.capacity import worker_memory
from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import latest, mean, say_seconds
from pool_monitor.advisor.history import SPAN_S, PoolHistory
from pool_monitor.advisor.replay import SizeForecast, what_if
from pool_monitor.snapshot.advice import Change, Effect

DAY_S = 86_400.0
WHOLE = 0.98
"""So much of a day is a day: the latest passes of the first day may be the last that there are."""
FEWEST = 5_000
SPARE = 1
"""Workers above what was needed."""
MOST = 0.75
"""The size with the spare is at most this share of the size now: less is not worth a change."""
IDLE = 0.2
"""In nine of ten spans, at least this share of the workers was idle."""
AIM = 0.7
"""`Spans.needed` is for this share of the target."""
_COVERED = 0.9


def underused(history: PoolHistory) -> Iterator[Detection]:
    """Find a pool that is larger than it has needed to be."""
    spans = history.spans
    days = min(history.now - history.since, 7 * DAY_S) / DAY_S
    kept = spans.at >= history.now - 7 * DAY_S - SPAN_S
    size, calls, busy = spans.size[kept], float(np.nansum(spans.calls[kept])), spans.busy[kept]
    if days < WHOLE or calls < FEWEST or np.count_nonzero(~np.isnan(size)) < _COVERED * days * DAY_S / SPAN_S:
        return
    sizes = history.buckets.size[~np.isnan(history.buckets.size)]
    if not len(sizes) or np.isnan(spans.needed[kept]).all():
        return
    peak = float(np.nanmax(spans.needed[kept]))
    now, least = float(sizes[-1]), float(min(np.nanmin(size), sizes[-1]))
    enough = max(int(peak) + SPARE, 1)
    with np.errstate(invalid="ignore"):
        idle = float(np.nanquantile(1 - busy / size, 0.1))
    recent = latest(history.buckets, history.now, 3600.0)
    ended = float(np.nansum(recent.ended))
    if enough > MOST * least or idle <= IDLE or float(np.nansum(recent.wait_over)) > 0.05 * max(ended, 1.0):
        return
    held = now > least or enough < history.low  # the size moves by itself, or may not be so low: the floor is too high
    if held and least > history.low:
        return
    played = what_if(history, [enough]) if now == least else None
    yield _told(history, played, enough, least, "min_size" if held else "size", days, calls, peak, idle)


def _told(
    history: PoolHistory,
    played: SizeForecast | None,
    enough: int,
    size: float,
    knob: str,
    days: float,
    calls: float,
    peak: float,
    idle: float,
) -> Detection:
    saved = (size - enough) * 24
    memory = worker_memory(history)
    known = played is not None and played.trusted
    current = float(history.low) if knob == "min_size" else size
    summary = f"no ten minutes of {days:.3g} days needed more than {peak:.0f} of {size:.0f} workers"
    effect = None
    if played is not None and known:
        then = played.sizes[enough].p95
        high = max(then.high, AIM * history.wait_target)  # at the peak: that is what `needed` is for
        summary += f": {enough} would save {saved:.0f} worker-hours a day; predicted p95 wait {say_seconds(then.value)}"
        summary += f", at most {say_seconds(high)} at the peak"
        effect = Effect(
            metric="pool.queue.p95",
            now=played.seen.value,
            expected=then.value,
            low=then.low,
            high=high,
            cost=-memory * (size - enough) if memory else None,
        )
    week = "the week's peak is in these figures" if days >= 7 else "whether a peak comes that these days did not have"
    return Detection(
        pattern="underused",
        subject=f"pool {history.pool}",
        summary=summary,
        action=f"lower {knob} from {current:.0f} to {enough}",
        evidence={
            "size": size,
            "size_needed": peak,
            "spare": float(SPARE),
            "idle_ratio_p10": idle,
            "utilization": mean(history.spans.busy) / size,
            "days": days,
            "worker_hours_saved": saved,
        },
        samples=int(calls),
        p=0.0,
        fidelity=played.fidelity if played is not None and known else _confidence(days),
        impact=(size - enough) / size,
        urgency=0.1,
        risk=1 if days >= 7 else 2,
        samples_min=FEWEST,
        change=Change(knob=knob, current=current, proposed=float(enough)),
        effect=effect,
        check_first=f"{week}; whether the spare workers are there on purpose, or for what they keep in memory",
    )


def _confidence(days: float) -> float:
    """Without a replay of now, the days are the evidence: 0.8 after one, nearly 1 after a week."""
    return 1 - 0.2 / math.sqrt(max(days, 1.0))
