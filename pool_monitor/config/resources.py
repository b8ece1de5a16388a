"""The section ``[resources]``: what is measured of the machine, the process, its event loop and its workers."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from pool_monitor.config.fields import Seconds, Validated
from pool_monitor.errors import ConfigError


class ResourcesConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is measured beside the calls. Times are seconds."""

    enabled: bool = True
    """Measure the machine, the process, its event loop and the workers."""
    interval: Seconds | None = None
    """Time between two samples; None: 1 s, and 2 s from 64 workers on. It is longer, up to 60 s, where sampling would
    take more than 2 % of a processor."""
    lag_interval: Annotated[float, Meta(ge=0.01, le=10)] = 0.1
    """Time between two measurements of the event loop's lag."""
    blocked_after: Annotated[float, Meta(ge=0.05, le=3600)] = 0.5
    """The event loop counts as blocked when it has run no callback for this long; its stack is taken then. Not below
    ``lag_interval``."""
    orphans: Literal["report", "end", "off"] = "report"
    """What to do with processes that workers of an earlier service of this user have left behind: report them, also
    end them, or not look for them."""
    gpu: bool = True
    """Measure GPUs, if nvidia-ml-py is installed and finds one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocked_after < self.lag_interval:
            raise ConfigError(
                f"ResourcesConfig: blocked_after={self.blocked_after:g} is below lag_interval={self.lag_interval:g}: a "
                "block cannot be found between two measurements; raise blocked_after or lower lag_interval"
            )
