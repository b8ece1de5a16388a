"""The process of the service."""

from __future__ import annotations

import os
from collections.abc import Sequence

import psutil

from pool_monitor.events import RESOURCE_PROCESS
from pool_monitor.resources.sample import Execution, Moment, Reading


class ProcessSampler:
    """Measures this process."""

    def sample(self, moment: Moment) -> Sequence[Execution]:
        found = Reading()
        found.take("rss", lambda: psutil.Process().memory_info().rss)
        found.take("tasks", lambda: moment.tasks)
        return [Execution(RESOURCE_PROCESS, found.values, {"missing": found.missing, "pid": os.getpid()})]
