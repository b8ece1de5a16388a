"""Gates on speed: no piece of the hot paths becomes several times slower without a test that says so.

Times are no measure, because machines differ: a gate is how many times longer a piece takes than its reference (see
benchmarks/suite/pieces.py), both the best of several turns, taken alternately. Each limit is some three times the ratio
that was measured, so that a piece ten times slower fails, and a machine that is busy with other work does not.
"""

from __future__ import annotations

import time
from functools import partial

import pytest

from benchmarks.bench_alerts import HIGH, LOW
from benchmarks.suite import pieces
from benchmarks.suite.pieces import PIECES, REFERENCES, Piece, Work
from pool_monitor import telemetry

SHORT = ((1, 20, 5),)
"""Twenty seconds of calls: what the costs are made of is there, and made up in a moment."""
ROUNDS, SECONDS = 5, 3.0


GATES: dict[str, tuple[Piece, float]] = {
    "execute, 0 handlers": (PIECES["execute, 0 handlers"], 2.7),
    "execute, 1 handler": (PIECES["execute, 1 handler"], 5.5),
    "emit, 1 handler": (PIECES["emit, 1 handler"], 2.7),
    "guarded emit, 0 handlers": (PIECES["guarded emit, 0 handlers"], 0.36),
    "ingest": (PIECES["ingest"]._replace(ready=partial(pieces.ingest, SHORT)), 14),
    "snapshot": (PIECES["snapshot"]._replace(ready=partial(pieces.answer, "snapshot", SHORT)), 75),
    "frame": (PIECES["frame 80x24"]._replace(ready=partial(pieces.frame, 80, 24, SHORT)), 27_000),
    "alerts of good instances": (Piece(partial(pieces.judging, HIGH), 1000, "instance", "interpreter"), 15),
    "alerts of bad instances": (Piece(partial(pieces.judging, LOW), 1000, "instance", "interpreter"), 95),
    "alert delivery": (PIECES["alert delivery"], 5_000),
    "calls one after the other": (PIECES["calls one after the other"]._replace(reference="pipe"), 27),
    "calls at once": (PIECES["calls at once"]._replace(reference="pipe"), 10),
}
"""Each with the most times that it may take longer than its reference."""


def ratio_below(limit: float, piece: Piece, patience: float = SECONDS) -> float:
    """How many times longer *piece* takes than its reference; measured until that is below *limit*, or time is up."""
    refer, times = REFERENCES[piece.reference]
    best = best_reference = float("inf")
    end, rounds = time.monotonic() + patience, 0
    with piece.ready() as work, refer() as reference:
        while True:
            best_reference = min(best_reference, seconds(reference) / times)
            best = min(best, seconds(work) / piece.times)
            rounds += 1
            if rounds >= ROUNDS and (best < limit * best_reference or time.monotonic() > end):
                return best / best_reference


def seconds(work: Work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@pytest.mark.parametrize("name", GATES)
def test_it_does_not_take_several_times_as_long_as_it_did(name: str):
    piece, limit = GATES[name]
    assert ratio_below(limit, piece) < limit


def test_a_gate_fails_for_what_is_ten_times_slower(monkeypatch: pytest.MonkeyPatch):
    run = telemetry.execute
    piece, limit = GATES["execute, 1 handler"]

    def ten_times(*event: object) -> None:
        for _ in range(10):
            run(*event)  # type: ignore[arg-type]

    monkeypatch.setattr(telemetry, "execute", ten_times)
    assert ratio_below(limit, piece, patience=0.0) > limit
