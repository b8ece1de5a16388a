"""Run by ``make bench-suite``: the time each piece takes, in turns with its reference, and the memory it needs."""

from __future__ import annotations

import gc
import time
import tracemalloc

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.suite.pieces import PIECES, REFERENCES, Work

SECONDS = 0.8
ROUNDS = 20, 1000


@pytest.mark.parametrize("name", PIECES)
def test_cost(name: str, benchmark: BenchmarkFixture) -> None:
    piece = PIECES[name]
    reference, times = REFERENCES[piece.reference]
    with piece.ready() as work, reference() as refer:
        taken: list[int] = []
        turn_s = min(_ns(work) for _ in range(3)) / 1e9
        rounds = max(ROUNDS[0], min(ROUNDS[1], round(SECONDS / turn_s)))
        benchmark.pedantic(work, setup=lambda: taken.append(_ns(refer)), rounds=rounds)  # type: ignore[no-untyped-call]
        peak, kept = _bytes(work)
    assert benchmark.stats is not None
    ns = benchmark.stats["min"] * 1e9 / piece.times
    benchmark.extra_info |= {
        "unit": piece.unit,
        "ns": ns,
        "reference": piece.reference,
        "ratio": ns / (min(taken) / times),
        "peak_bytes": peak,
        "kept_bytes": kept / piece.times,
    }


def _ns(work: Work) -> int:
    began = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - began


def _bytes(work: Work, turns: int = 10) -> tuple[int, float]:
    """What one turn takes at its most, and what is left of each of several."""
    tracemalloc.start()
    try:
        work()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        work()
        peak = tracemalloc.get_traced_memory()[1] - before
        for _ in range(turns - 1):
            work()
        gc.collect()
        return peak, (tracemalloc.get_traced_memory()[0] - before) / turns
    finally:
        tracemalloc.stop()
