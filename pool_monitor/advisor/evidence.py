"""The figures of a finding with their units, for an explanation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite

from pool_monitor.resources.wording import size

_SECONDS = (
    "timeout p999 start_seconds life lag_p99 limit execution_p50 execution_mean execution_mean_before wait "
    "wait_elsewhere wait_mean wait_mean_replayed p95_wait mean mean_before slow_above seconds seconds_left "
    "worker_seconds_wasted worker_seconds_lost"
)
_SHARES = (
    "cut_ratio hung_ratio wasted_ratio start_ratio failed_ratio share_of_calls blocked_ratio host_cpu_ratio "
    "pressure_cpu late_ratio wait_ratio crowded_ratio slow_ratio throttled_ratio idle_ratio_p10 utilisation "
)
_TIMES = "ratio service_ratio busy_ratio lives_in_starts"
_BYTES = "rss bytes_per_hour"

_WORDS: Mapping[str, Callable[[float], str]] = {
    **dict.fromkeys(_SECONDS.split(), lambda value: f"{value:.3g} s"),
    **dict.fromkeys(_SHARES.split(), lambda value: f"{value * 100:.3g} %"),
    **dict.fromkeys(_TIMES.split(), lambda value: f"{value:.3g}x"),
    **dict.fromkeys(_BYTES.split(), size),
}
"""Figure -> how it is shown. Others are numbers: a count, processors, or a statistic without a unit."""


def figure_words(name: str, value: float) -> str:
    """Return a figure of `Recommendation.evidence` as text, such as ``p95_wait = 0.48 s``. *name* has its base unit;
    the ends of an interval, ``NAME_low`` and ``NAME_high``, have that of NAME.
    """
    words = _WORDS.get(name.removesuffix("_low").removesuffix("_high"))
    return f"{name} = {value:g}" if words is None or not isfinite(value) else f"{name} = {words(value)}"
