"""Ten million calls through two hundred series: memory stands still once the longest window is full."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

from pool_monitor.clock import ManualClock
from pool_monitor.events import OPERATION_STOP
from pool_monitor.metrics import WINDOWS, Collector

PER_SECOND = 1000
SECONDS = 10_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_million_calls_leave_memory_as_it_was_when_the_windows_had_filled() -> None:
    clock = ManualClock(1_699_999_980.0)
    collector = Collector(["p"], clock)
    collector.attach()
    held, resident = [], []
    try:
        series = OPERATION_STOP.event.series
        assert series is not None
        records = [series["p", f"op{number % 8}", f"p-{number // 8}", "none"] for number in range(66)]
        rng = np.random.default_rng(7)
        for second in range(SECONDS):
            queue, execution = rng.lognormal([[11], [17]], 0.8, (2, PER_SECOND)).astype(int).tolist()
            chosen = rng.integers(0, len(records), PER_SECOND).tolist()
            for number, waited, ran in zip(chosen, queue, execution, strict=True):
                records[number](waited + ran, waited, ran)
            clock.advance(1)
            collector.tick()
            assert collector.memory_bytes() <= collector.memory_limit
            if second % 60 == 59:
                held.append(collector.memory_bytes())
                resident.append(psutil.Process().memory_info().rss)
        view = collector.self_view()
        assert (view.events, view.dropped, view.series) == (SECONDS * PER_SECOND, 0, 201)
        assert collector.pool_stats("p", WINDOWS["1h"]).total.calls == PER_SECOND * round(
            collector.covered_seconds(WINDOWS["1h"])
        )
        full = held[61:]  # a sample a minute, the longest window is full
        assert max(full) - min(full) < 0.01 * max(full)
        assert max(resident[61:]) - min(resident[61:]) < 4 * 2**20
        print(
            f"\nheld after 1, 15, from 62 minutes on: {held[0]:,} {held[14]:,} {min(full):,} to {max(full):,} bytes; "
            f"{max(full) / view.series:,.0f} per series; resident {resident[0]:,} {resident[61]:,} {resident[-1]:,}"
        )
    finally:
        collector.detach()
