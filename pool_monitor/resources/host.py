"""The machine, and the container that limits what this process may use of it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import psutil

from pool_monitor.events import RESOURCE_HOST
from pool_monitor.resources.sample import Execution, Moment, Reading


class HostSampler:
    """Measures the machine."""

    def sample(self, _moment: Moment) -> Sequence[Execution]:
        found = Reading()
        found.take("load1", lambda: os.getloadavg()[0])
        found.take("memory_total", lambda: psutil.virtual_memory().total)
        return [Execution(RESOURCE_HOST, found.values, {"missing": found.missing})]
