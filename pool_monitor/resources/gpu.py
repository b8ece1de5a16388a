"""The GPUs of the machine, through NVML, the library of NVIDIA's driver (nvidia-ml-py, the extra ``gpu``).

Theory of operation
-------------------
A driver may be absent, raise, hang, or answer nonsense, and none of this may cost more than these figures. So all calls
run in a thread that can be left behind (`BoundedCalls`), each figure is checked before it is used, and each failure
becomes a reason in words. Where there is no library, no driver or no GPU, asking again at every sample would cost as
much as measuring: it is asked again after five minutes, and after a failure of the driver after one. A GPU that is
lost, while others answer, costs only its own figures.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

from pool_monitor.events import RESOURCE_GPU
from pool_monitor.resources.bounded import BoundedCalls
from pool_monitor.resources.sample import Execution, Moment, one_line

GPUS_MAX = 64
"""More GPUs than this are not measured."""
_TIMEOUT = 1.0
_AGAIN_ABSENT_NS, _AGAIN_FAILED_NS = 300 * 10**9, 60 * 10**9
_NAME_MAX = 100


class Absent(Exception):
    """There is nothing to measure. The text is the reason."""


class GpuSampler:
    """Measures the GPUs. *load* imports the library."""

    def __init__(
        self, *, load: Callable[[], Any] = lambda: importlib.import_module("pynvml"), timeout: float = _TIMEOUT
    ) -> None:
        self._load, self._calls = load, BoundedCalls("gpu", timeout)
        self._nvml: Any = None  # the library while it is initialised; used in the thread of the calls only
        self._missing = ""
        self._again_ns: int | None = None

    @property
    def cpu_ns(self) -> int:
        """Processor time of the thread that asks the driver."""
        return self._calls.cpu_ns

    def close(self) -> None:
        """End the thread. A driver that hangs keeps it; a daemon, it does not keep the program."""
        self._calls.close()

    def sample(self, moment: Moment) -> Sequence[Execution]:
        gpus: Sequence[dict[str, Any]] = ()
        if self._again_ns is None or not 0 < self._again_ns - moment.now_ns <= _AGAIN_ABSENT_NS:
            self._again_ns = None
            try:
                gpus, self._missing = self._calls.run(self._measure)
            except Absent as absent:
                self._missing, self._again_ns = str(absent), moment.now_ns + _AGAIN_ABSENT_NS
            except TimeoutError as error:
                self._missing = f"the driver hangs: {error}"
            except Exception as error:  # noqa: BLE001 - of a driver: it may raise anything
                self._missing = f"the driver failed: {_reason(error)}"
                self._again_ns = moment.now_ns + _AGAIN_FAILED_NS
        return [Execution(RESOURCE_GPU, {"gpus": len(gpus)}, {"gpus": tuple(gpus), "missing": self._missing})]

    # -- in the thread of the calls -------------------------------------------------------------------------------

    def _measure(self) -> tuple[Sequence[dict[str, Any]], str]:
        """Return the figures of the GPUs, and in words which ones are lost. Raises if all are."""
        if self._nvml is None:
            self._nvml = self._initialised()
        nvml = self._nvml
        try:
            count = _whole(nvml.nvmlDeviceGetCount())
            if not count:
                raise Absent("the driver finds no GPU")
            return _gpus(nvml, min(count, GPUS_MAX))
        except Exception:
            self._nvml = None
            _quietly(nvml.nvmlShutdown)
            raise

    def _initialised(self) -> Any:
        try:
            nvml = self._load()
        except ImportError:
            raise Absent("nvidia-ml-py is not installed: pip install 'pool-monitor[gpu]'") from None
        except Exception as error:  # noqa: BLE001 - it is foreign code
            raise Absent(f"nvidia-ml-py cannot be imported: {one_line(repr(error), 200)}") from None
        try:
            nvml.nvmlInit()
        except Exception as error:  # noqa: BLE001 - it is foreign code
            raise Absent(f"no driver of NVIDIA answers: {one_line(str(error), 200)}") from None
        return nvml


def _gpus(nvml: Any, count: int) -> tuple[Sequence[dict[str, Any]], str]:
    found, lost, last = [], [], None
    for index in range(count):
        try:
            found.append(_gpu(nvml, index))
        except Exception as error:  # noqa: BLE001 - of a driver: it may raise anything
            lost.append(str(index))
            last = error
    if last is None:
        return found, ""
    if not found:
        raise last
    return found, f"GPU {', '.join(lost)}: {_reason(last)}"


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    """Measure one GPU: the fields of `GpuView`. What the driver cannot say, or says wrongly, is None. Raises what the
    driver raises when the GPU itself is gone.
    """
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def of(name: str, check: Callable[[Any], Any], *more: Any) -> Any:
        return _quietly(lambda: check(getattr(nvml, name)(handle, *more)))

    sensor = getattr(nvml, "NVML_TEMPERATURE_GPU", 0)
    memory = of("nvmlDeviceGetMemoryInfo", lambda found: _memory(found.total, found.used)) or (None, None, None)
    return {
        "index": index,
        "name": of("nvmlDeviceGetName", _name),
        "uuid": of("nvmlDeviceGetUUID", _name),
        "utilisation": of("nvmlDeviceGetUtilizationRates", lambda found: _within(found.gpu, 0, 100, per=100)),
        "memory_total": memory[0],
        "memory_used": memory[1],
        "memory_ratio": memory[2],
        "temperature": of("nvmlDeviceGetTemperature", lambda found: _within(found, -50, 250), sensor),
        "power": of("nvmlDeviceGetPowerUsage", lambda found: _within(found, 0, 10_000_000, per=1000)),
    }


def _quietly(read: Callable[[], Any]) -> Any:
    """Return what *read* returns; None if it raises."""
    try:
        return read()
    except Exception:  # noqa: BLE001 - a figure that this GPU does not have: drivers raise for it
        return None


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r:.40} is no number of things")
    return value


def _within(value: Any, least: float, most: float, *, per: float = 1) -> float:
    """Return *value*, in units of one *per*-th. Raises ValueError outside its range, and for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no number")
    if not least <= value <= most:
        raise ValueError(f"{value} is out of range")
    return value / per


def _memory(total: Any, used: Any) -> tuple[int, int, float]:
    if not 0 <= _whole(used) <= _whole(total) < 1 << 60 or not total:
        raise ValueError(f"{used} of {total} bytes")
    return total, used, used / total


def _name(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not text.strip():
        raise ValueError("no name")
    return one_line(text, _NAME_MAX)


def _reason(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}", 200)
