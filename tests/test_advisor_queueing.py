"""Queueing formulas: known values, the limits of their domain, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.advisor import queueing
from pool_monitor.advisor.replay import replay


@pytest.mark.parametrize(
    ("servers", "load", "blocked", "waits"),
    [
        (1, 0.5, 1 / 3, 0.5),  # one server: B = a / (1 + a), C = a
        (2, 1.0, 0.2, 1 / 3),
        (10, 8.0, 0.12166, 0.40918),
        (100, 90.0, 0.02696, 0.21694),
        (10_000, 9_900.0, 0.00286, 0.22278),
    ],
)
def test_the_formulas_of_erlang_have_their_known_values(
    servers: int, load: float, blocked: float, waits: float
) -> None:
    assert queueing.erlang_b(servers, load) == pytest.approx(blocked, abs=1e-5)
    assert queueing.erlang_c(servers, load) == pytest.approx(waits, abs=1e-5)


@pytest.mark.parametrize(("servers", "highest"), [(2, 0.35), (4, 0.58), (8, 0.75), (16, 0.86), (32, 0.92), (128, 0.98)])
def test_the_highest_utilisation_depends_on_the_number_of_servers(servers: int, highest: float) -> None:
    assert queueing.highest_utilisation(servers, 1.0, 1.0) == pytest.approx(highest, abs=0.005)


@pytest.mark.parametrize(("servers", "p95"), [(9, 0.257), (10, 0.105), (11, 0.053), (12, 0.026), (13, 0.008), (20, 0)])
def test_the_p95_of_the_wait_falls_with_the_servers(servers: int, p95: float) -> None:
    assert queueing.wait_percentile(servers, 8.0, 0.1) == pytest.approx(p95, abs=0.0006)


@pytest.mark.parametrize("load", [4.0, 4.5, 400.0])
def test_a_load_that_is_too_high_has_no_finite_wait(load: float) -> None:
    assert queueing.erlang_c(4, load) == 1.0
    assert queueing.wait_mean(4, load, 0.1) == math.inf
    assert queueing.wait_tail(4, load, 0.1, 60.0) == 1.0
    assert queueing.wait_percentile(4, load, 0.1) == math.inf
    assert queueing.kingman(load / 4, 0.1) == math.inf
    assert queueing.size_for(load, 0.1, 0.1, most=4) is None


def test_laws_of_load_and_number() -> None:
    assert queueing.utilisation(80, 0.1, 10) == pytest.approx(0.8)
    assert queueing.utilisation(80, 0.1, 0) == math.inf
    assert queueing.little(80, 0.25) == 20
    assert queueing.variability(1, 3) == 2


def test_no_load_needs_one_server_and_no_wait() -> None:
    assert queueing.size_for(0.0, 0.1, 0.1) == 1
    assert queueing.erlang_c(3, 0.0) == 0.0
    assert queueing.wait_percentile(3, 0.0, 0.1) == 0.0


@settings(max_examples=40)
@given(
    load=st.floats(0.01, 300),
    target=st.floats(0.0, 3.0),
    share=st.floats(0.5, 0.999),
    factor=st.floats(0.2, 10),
)
def test_the_size_is_the_smallest_that_meets_the_target(
    load: float, target: float, share: float, factor: float
) -> None:
    size = queueing.size_for(load, 1.0, target, share, factor)
    assert size is not None
    assert size > load
    assert queueing.wait_tail(size, load, 1.0, target, factor) <= 1 - share + 1e-12
    assert size == 1 or queueing.wait_tail(size - 1, load, 1.0, target, factor) > 1 - share - 1e-12


@pytest.mark.parametrize("servers", [1, 4, 16])
def test_the_wait_of_simulated_queues_is_that_of_erlang(servers: int) -> None:
    draw = np.random.default_rng(servers)
    load, service = 0.8 * servers, 0.1
    arrivals = np.cumsum(draw.exponential(service / load, 20_000))
    waits = replay(arrivals, draw.exponential(service, 20_000), servers)
    assert waits.mean() == pytest.approx(queueing.wait_mean(servers, load, service), rel=0.25)
    assert np.mean(waits > 0) == pytest.approx(queueing.erlang_c(servers, load), rel=0.1)
    assert np.quantile(waits, 0.95) == pytest.approx(queueing.wait_percentile(servers, load, service), rel=0.2)


@pytest.mark.parametrize("cv2", [0.0, 1.0, 4.0])
def test_kingman_describes_one_server_with_any_service_times(cv2: float) -> None:
    draw = np.random.default_rng(7)
    spread = math.log(1 + cv2)
    services = draw.lognormal(math.log(0.1) - spread / 2, math.sqrt(spread), 40_000)
    waits = replay(np.cumsum(draw.exponential(0.1 / 0.7, 40_000)), services, 1)
    assert waits.mean() == pytest.approx(queueing.kingman(0.7, 0.1, queueing.variability(1, cv2)), rel=0.2)


@pytest.mark.parametrize(("mean", "cv2", "rel"), [(0.1, 0.25, 0.2), (0.1, 1.0, 0.2), (0.1, 4.0, 0.35)])
def test_allen_and_cunneen_come_near_to_simulated_queues(mean: float, cv2: float, rel: float) -> None:
    draw = np.random.default_rng(5)
    spread = math.log(1 + cv2)
    services = draw.lognormal(math.log(mean) - spread / 2, math.sqrt(spread), 40_000)
    waits = replay(np.cumsum(draw.exponential(mean / 8, 40_000)), services, 10)
    factor = queueing.variability(1, cv2)
    assert waits.mean() == pytest.approx(queueing.wait_mean(10, 8.0, mean, factor), rel=rel)
    assert np.quantile(waits, 0.95) == pytest.approx(queueing.wait_percentile(10, 8.0, mean, 0.95, factor), rel=rel)


def test_bursts_make_erlang_too_optimistic_and_are_told() -> None:
    draw = np.random.default_rng(3)
    rates = np.repeat(draw.permutation([50.0, 100.0] * 30), 10)  # 10 s each, 600 s
    counts = draw.poisson(rates)
    arrivals = np.sort(np.concatenate([second + draw.random(int(n)) for second, n in enumerate(counts)]))
    waits = replay(arrivals, draw.exponential(0.1, len(arrivals)), 10)
    load = len(arrivals) / 600 * 0.1
    assert np.quantile(waits, 0.95) > 5 * queueing.wait_percentile(10, load, 0.1)
    assert not queueing.trusted(1.0, queueing.dispersion(counts.tolist()))
    assert queueing.trusted(1.0, queueing.dispersion(draw.poisson(80, 600).tolist()))
    assert not queueing.trusted(2.0, 1.0)


def test_dispersion_without_arrivals_is_unknown_and_not_trusted() -> None:
    for counts in ([], [0.0, 0.0]):
        assert math.isnan(queueing.dispersion(counts))
        assert not queueing.trusted(1.0, queueing.dispersion(counts))


# -- the universal scalability law ------------------------------------------------------------------------------------

TRUE = queueing.ScalabilityFit(100.0, 0.03, 0.0008, 0.0)  # its peak is at 34.8


def test_the_scalability_law_is_found_again_in_noise() -> None:
    draw = np.random.default_rng(1)
    levels = np.array([4, 8, 12, 16, 24, 32, 40, 48.0])
    rates = [TRUE.throughput(n) * (1 + 0.03 * draw.standard_normal()) for n in levels]
    fit = queueing.fit_scalability(levels.tolist(), rates)
    assert fit is not None
    assert TRUE.peak == pytest.approx(34.8, abs=0.1)
    assert fit.peak == pytest.approx(TRUE.peak, rel=0.2)
    assert fit.error < 0.1


@pytest.mark.parametrize(
    "levels",
    [[4, 8, 12, 16], [10, 12, 14, 16, 18, 20], [4, 8, 16, 4, 8, 16], []],
    ids=["few", "near", "repeated", "none"],
)
def test_too_few_levels_are_not_fitted(levels: list[float]) -> None:
    assert queueing.fit_scalability(levels, [TRUE.throughput(n) for n in levels]) is None


def test_a_pool_that_scales_has_no_peak() -> None:
    levels = [1, 2, 4, 8, 16, 32.0]
    fit = queueing.fit_scalability(levels, [10 * n for n in levels])
    assert fit is not None
    assert fit.peak == math.inf or fit.peak > 1e4
    assert fit.throughput(10) == pytest.approx(100)
