"""Our log lines: structured with structlog, through the standard library's logging, quiet unless the service asks.

Nothing is ever printed: lines go to the loggers below ``pool_monitor``, which have a NullHandler, so an application
that configured no logging sees nothing and one that did decides where they go. structlog costs tens of
milliseconds to import, hence the import inside.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

_ROOT = "pool_monitor"
logging.getLogger(_ROOT).addHandler(logging.NullHandler())


@cache
def logger(area: str) -> Any:
    """The structlog logger of one area of the package (``telemetry``, ``pool``, ``monitor`` ...)."""
    import structlog

    return structlog.wrap_logger(
        logging.getLogger(f"{_ROOT}.{area}"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
