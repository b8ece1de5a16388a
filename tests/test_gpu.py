"""GPUs through a stand-in for NVIDIA's library, in each of the ways in which the real one fails."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pool_monitor import Monitor, telemetry
from pool_monitor.config import MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.events import RESOURCE_GPU
from pool_monitor.resources.gpu import GPUS_MAX, GpuSampler
from pool_monitor.resources.sample import Moment
from pool_monitor.snapshot import GpuView
from tests.helpers.support import eventually
from tests.test_monitor import Gauges

SECOND = 10**9
STAND_IN = '''
"""Stands in for pynvml, the module of nvidia-ml-py: a machine with two GPUs."""
from types import SimpleNamespace

NVML_TEMPERATURE_GPU = 0

def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(handle): return f"Stand-in {handle}"
def nvmlDeviceGetUUID(handle): return f"GPU-{handle}".encode()
def nvmlDeviceGetUtilizationRates(handle): return SimpleNamespace(gpu=25 * (handle + 1), memory=0)
def nvmlDeviceGetMemoryInfo(handle): return SimpleNamespace(total=8 << 30, used=(2 << 30) * handle, free=0)
def nvmlDeviceGetTemperature(handle, sensor): return 40 + handle
def nvmlDeviceGetPowerUsage(handle): return 150_500
'''


class Library:
    """A stand-in whose functions the test replaces."""

    def __init__(self, **replaced: Any) -> None:
        space: dict[str, Any] = {}
        exec(STAND_IN, space)
        self.calls: list[str] = []
        for name, function in {**space, **replaced}.items():
            if name.startswith("nvml"):
                setattr(self, name, self._counted(name, function))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (self.calls.append(name), function(*args))[1]


def sampled(sampler: GpuSampler, at: float = 1.0) -> tuple[tuple[dict[str, Any], ...], str]:
    [execution] = sampler.sample(Moment(round(at * SECOND), ()))
    assert RESOURCE_GPU.problems(execution.measurements, {**execution.metadata, "monitor": "m"}) == []
    gpus, missing = execution.metadata["gpus"], execution.metadata["missing"]
    assert execution.measurements["gpus"] == len(gpus)
    assert bool(gpus) != bool(missing)
    for gpu in gpus:
        msgspec.convert(gpu, GpuView)
    return gpus, missing


def raising(error: Exception) -> Callable[..., Any]:
    def raises(*_args: Any) -> Any:
        raise error

    return raises


def test_each_gpu_has_its_figures():
    sampler = GpuSampler(load=Library)
    gpus, missing = sampled(sampler)
    sampler.close()
    assert missing == ""
    assert [gpu["index"] for gpu in gpus] == [0, 1]
    assert gpus[1] == {
        "index": 1, "name": "Stand-in 1", "uuid": "GPU-1", "utilisation": 0.5, "memory_total": 8 << 30,
        "memory_used": 2 << 30, "memory_ratio": 0.25, "temperature": 41.0, "power": 150.5,
    }  # fmt: skip


def test_without_a_library_it_is_asked_again_seldom():
    asked: list[int] = []

    def load() -> Any:
        asked.append(1)
        raise ImportError("No module named 'pynvml'")

    sampler = GpuSampler(load=load)
    for second in range(600):
        _gpus, missing = sampled(sampler, second)
        assert missing == "nvidia-ml-py is not installed: pip install 'pool-monitor[gpu]'"
    sampler.close()
    assert len(asked) == 2  # once in five minutes


@pytest.mark.parametrize(
    ("replaced", "reason"),
    [
        ({"nvmlInit": raising(RuntimeError("Driver Not Loaded"))}, "no driver of NVIDIA answers: Driver Not Loaded"),
        ({"nvmlDeviceGetCount": lambda: 0}, "the driver finds no GPU"),
        ({"nvmlDeviceGetCount": raising(RuntimeError("GPU\nis lost"))}, "the driver failed: RuntimeError: GPU is lost"),
        ({"nvmlDeviceGetCount": lambda: -1}, "the driver failed: ValueError: -1 is no number of things"),
        ({"nvmlDeviceGetCount": lambda: "two"}, "the driver failed: ValueError: 'two' is no number of things"),
        ({"nvmlDeviceGetHandleByIndex": raising(OSError("gone"))}, "the driver failed: OSError: gone"),
    ],
)
def test_a_driver_that_fails_is_a_reason_and_is_initialised_again_later(replaced: dict[str, Any], reason: str):
    library = Library(**replaced)
    sampler = GpuSampler(load=lambda: library)
    for second in range(50):
        assert sampled(sampler, second) == ((), reason)
    assert library.calls.count("nvmlInit") == 1
    library.__init__()  # type: ignore[misc]
    assert len(sampled(sampler, 1000)[0]) == 2
    sampler.close()


@pytest.mark.parametrize(
    ("function", "value", "fields"),
    [
        ("nvmlDeviceGetUtilizationRates", SimpleNamespace(gpu=101), {"utilisation"}),
        ("nvmlDeviceGetUtilizationRates", SimpleNamespace(gpu=float("nan")), {"utilisation"}),
        ("nvmlDeviceGetUtilizationRates", None, {"utilisation"}),
        ("nvmlDeviceGetMemoryInfo", SimpleNamespace(total=1, used=2), {"memory_total", "memory_used", "memory_ratio"}),
        ("nvmlDeviceGetMemoryInfo", SimpleNamespace(total=0, used=0), {"memory_total", "memory_used", "memory_ratio"}),
        ("nvmlDeviceGetTemperature", -2000, {"temperature"}),
        ("nvmlDeviceGetPowerUsage", True, {"power"}),
        ("nvmlDeviceGetName", "", {"name"}),
        ("nvmlDeviceGetUUID", 7, {"uuid"}),
    ],
)
def test_nonsense_of_a_driver_is_unknown_and_costs_only_that_figure(function: str, value: Any, fields: set[str]):
    sampler = GpuSampler(load=lambda: Library(**{function: lambda *_: value}))
    gpus, _missing = sampled(sampler)
    sampler.close()
    assert {name for name, figure in gpus[0].items() if figure is None} == fields


def test_a_gpu_that_is_lost_costs_only_its_own_figures():
    lost = {1}

    def handle(index: int) -> int:
        if index in lost:
            raise RuntimeError("GPU is lost")
        return index

    sampler = GpuSampler(load=lambda: Library(nvmlDeviceGetHandleByIndex=handle, nvmlDeviceGetCount=lambda: 3))
    [execution] = sampler.sample(Moment(SECOND, ()))
    assert RESOURCE_GPU.problems(execution.measurements, {**execution.metadata, "monitor": "m"}) == []
    assert [gpu["index"] for gpu in execution.metadata["gpus"]] == [0, 2]
    assert execution.metadata["missing"] == "GPU 1: RuntimeError: GPU is lost"
    lost.clear()
    assert len(sampled(sampler, 2)[0]) == 3  # at once: the others did not have to be initialised again
    sampler.close()


def test_names_are_cleaned_and_gpus_are_bounded():
    library = Library(nvmlDeviceGetCount=lambda: 10**9, nvmlDeviceGetName=lambda _: "\x1b[31mred\n" + "x" * 10**6)
    sampler = GpuSampler(load=lambda: library)
    gpus, _missing = sampled(sampler)
    sampler.close()
    assert len(gpus) == GPUS_MAX
    assert gpus[0]["name"].startswith("[31mred x")
    assert len(gpus[0]["name"]) == 100


def test_a_driver_that_hangs_is_left_alone_until_it_answers():
    answers = threading.Event()
    library = Library(nvmlDeviceGetCount=lambda: (answers.wait(30), 2)[1])
    sampler = GpuSampler(load=lambda: library, timeout=0.05)
    for second in range(20):
        assert sampled(sampler, second)[1].startswith("the driver hangs: no answer")
    assert library.calls.count("nvmlDeviceGetCount") == 1
    answers.set()
    second = 20
    while sampled(sampler, second)[1]:
        second += 1
    sampler.close()


async def test_the_figures_of_a_library_on_the_path_reach_the_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pynvml.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    config = MonitorConfig(service=ServiceConfig(socket=False))
    with telemetry.capture(RESOURCE_GPU.name) as events:
        async with Monitor(Gauges(), config=config):
            await eventually(lambda: events)
    sys.modules.pop("pynvml", None)
    assert [gpu["name"] for gpu in events[0].metadata["gpus"]] == ["Stand-in 0", "Stand-in 1"]


async def test_gpus_can_be_left_out():
    config = MonitorConfig(service=ServiceConfig(socket=False), resources=ResourcesConfig(gpu=False))
    with telemetry.capture(("resource",)) as events:
        async with Monitor(Gauges(), config=config):
            await eventually(lambda: any(event.name == ("resource", "process") for event in events))
    assert not any(event.name == RESOURCE_GPU.name for event in events)
