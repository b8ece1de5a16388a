"""Our log lines: structured with structlog, through the standard library's logging, quiet unless the service asks.

Nothing is printed: lines go to the loggers below ``pool_monitor``, which have a NullHandler, so an application
that configured no logging sees nothing and one that did decides where they go. structlog takes tens of milliseconds to
import: only who has a handler pays for it, and with `prepare` not in the middle of a crash.

Handlers, filters and formatters are the application's. One that raises costs the line and nothing else: the exception
goes where `logging` sends those of its own handlers (to stderr, unless ``logging.raiseExceptions`` is false).
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

_ROOT = "pool_monitor"
logging.getLogger(_ROOT).addHandler(logging.NullHandler())


class _Nobody:
    """Where lines go when nobody listens."""

    def info(self, event: str, **fields: Any) -> None: ...

    warning = error = exception = info


_NOBODY = _Nobody()


def logger(area: str) -> Any:
    """The logger of one area of the package (``telemetry``, ``pool``, ``monitor``), with structlog's methods ``info``,
    ``warning``, ``error`` and ``exception``.
    """
    return _structured(area) if heard(area) else _NOBODY


def heard(area: str) -> bool:
    """Whether the application has a handler that lines of *area* would come to."""
    log: logging.Logger | None = logging.getLogger(f"{_ROOT}.{area}")
    while log is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in log.handlers):
            return True
        log = log.parent if log.propagate else None
    return False


def prepare(area: str) -> None:
    """Have what `logger` needs imported, if it is going to."""
    logger(area)


@cache
def _structured(area: str) -> Any:
    import structlog

    class Shielded(structlog.stdlib.BoundLogger):
        def _proxy_to_logger(self, *args: Any, **fields: Any) -> Any:
            try:
                return super()._proxy_to_logger(*args, **fields)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # noqa: BLE001 - code of others, which may raise anything
                record = log.makeRecord(log.name, logging.ERROR, __file__, 0, str(args[1]), (), None)
                logging.Handler().handleError(record)

    log = logging.getLogger(f"{_ROOT}.{area}")
    return structlog.wrap_logger(
        log,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=Shielded,
        cache_logger_on_first_use=True,
    )
