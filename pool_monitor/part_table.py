"""The parts of a monitor, one line each: when a part is wanted, and how it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from pool_monitor.config import MonitorConfig
from pool_monitor.parts import Context, Limits, Part
from pool_monitor.snapshot import AlertingView, HistoryView, OtlpView, SamplingView


class PartEntry(NamedTuple):
    """One part. Its modules are imported only when the part is made, so a part that is switched off costs nothing."""

    name: str
    """The part's name in ``monitor.degrade``, and the field of `MonitorView` for its view."""
    view: type[Struct] | None
    """The type of that field; None: the part has no view."""
    wanted: Callable[[MonitorConfig], bool]
    make: Callable[[MonitorConfig, Context], Part]
    before_collecting: bool = False
    """Whether the part is entered before the collector begins, and left after its last second."""
    limits: Limits = Limits()
    modules: tuple[str, ...] = ()
    """What *make* imports."""


def _advisor(_config: MonitorConfig, context: Context) -> Part:
    from pool_monitor.advisor.part import AdvisorPart

    return AdvisorPart(context.advisor())


def _alerts(config: MonitorConfig, context: Context) -> Part:
    from pool_monitor.alerts.part import AlertsPart

    return AlertsPart(context.alerts(), config.alerts, context)


def _history(config: MonitorConfig, context: Context) -> Part:
    from pool_monitor.storage.part import HistoryPart

    return HistoryPart(config.history, context)


def _otlp(config: MonitorConfig, context: Context) -> Part:
    from pool_monitor.export.part import OtlpPart

    return OtlpPart(config.otlp, context)


def _resources(config: MonitorConfig, context: Context) -> Part:
    from pool_monitor.resources.part import ResourcesPart

    return ResourcesPart(config.resources, context, config.history.path)


def _tuner(_config: MonitorConfig, context: Context) -> Part:
    from pool_monitor.tuner.part import TunerPart

    return TunerPart(context.tuner())


def _socket(_config: MonitorConfig, context: Context) -> Part:
    from pool_monitor.service.part import SocketPart

    return SocketPart(context)


_HERE = "pool_monitor."
PARTS = (
    PartEntry(
        "history",
        HistoryView,
        lambda config: config.history.path is not None,
        _history,
        before_collecting=True,
        modules=(_HERE + "storage.part",),
    ),
    PartEntry(
        "otlp", OtlpView, lambda config: config.otlp.endpoint is not None, _otlp, modules=(_HERE + "export.part",)
    ),
    PartEntry(
        "resources",
        SamplingView,
        lambda config: config.resources.enabled,
        _resources,
        modules=(_HERE + "resources.part",),
    ),
    PartEntry(
        "alerts",
        AlertingView,
        lambda config: config.alerts.enabled,
        _alerts,
        modules=(_HERE + "alerts.part", _HERE + "alerts.manager"),
    ),
    PartEntry(
        "advisor",
        None,
        lambda config: config.advisor.enabled,
        _advisor,
        modules=(_HERE + "advisor.part", _HERE + "advisor.manager"),
    ),
    PartEntry(
        "tuner",
        None,
        lambda _config: True,  # it may be switched on later; while it is off, it does nothing
        _tuner,
        modules=(_HERE + "tuner.part", _HERE + "tuner.manager"),
    ),
    PartEntry("socket", None, lambda config: config.service.socket, _socket, modules=(_HERE + "service.part",)),
)
"""In the order of entering. Parts are left in the reverse order."""
