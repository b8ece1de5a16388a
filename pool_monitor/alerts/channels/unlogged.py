"""Keeps what libraries log of our messages out of the service's log: it has URLs, headers and bodies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_SENDING: ContextVar[bool] = ContextVar("pool_monitor sends a message", default=False)


@contextmanager
def unlogged(*names: str) -> Iterator[None]:
    """Drop what the loggers *names* log inside, in this task or thread. Others who use them keep their log."""
    for name in names:
        logging.getLogger(name).addFilter(_unless_sending)
    before = _SENDING.set(True)
    try:
        yield
    finally:
        _SENDING.reset(before)


def _unless_sending(_record: logging.LogRecord) -> bool:
    return not _SENDING.get()
