"""Our log lines: to structlog where the application has configured it, else to the standard library's logging.

All loggers stand below ``pool_monitor``, and where their lines go is the application's decision, as with any library.
An application without any handler finds warnings and errors on stderr, each once and as plain text: what Python's own
last resort does. Ours differs from that in three ways, since a service runs unattended: it never waits for a reader of
stderr, it lets no control character through, and it shows what workers write (the area ``output``) from INFO on.
A NullHandler, or ``propagate = False``, on one of the loggers ends it.

Handlers, filters, formatters and processors are the application's. One that raises costs the line and nothing else:
the exception goes where `logging` sends those of its own handlers (to stderr, unless ``logging.raiseExceptions`` is
false).
"""

from __future__ import annotations

import contextlib
import logging
import re
import select
import sys
import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Any, TextIO

_ROOT = "pool_monitor"
_OUTPUT = "output"
_PIECE = 400  # characters that any encoding has in less than what a pipe takes at once when it takes anything
_METHODS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}
_METHODS[logging.CRITICAL] = "critical"
LEVELS = {name: level for level, name in _METHODS.items()}
_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)")


class Logger:
    """The logger of one area of the package: see `logger`. No method raises, or waits longer than the handlers do."""

    __slots__ = ("_log",)

    def __init__(self, area: str) -> None:
        self._log = logging.getLogger(f"{_ROOT}.{area}")

    def info(self, event: str, **fields: Any) -> None:
        _write(self._log, logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        _write(self._log, logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        _write(self._log, logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """An error, with the traceback of the exception that is being handled."""
        _write(self._log, logging.ERROR, event, fields, trace=True)


@cache
def logger(area: str) -> Logger:
    """The logger of one area of the package (``telemetry``, ``pool``, ``monitor``)."""
    return Logger(area)


def output(level: int, origin: str, text: str, fields: Mapping[str, Any]) -> None:
    """A line that a process of *origin*, a worker or the like, wrote."""
    text = plain(text)
    more = _rendered(fields["fields"]) if "fields" in fields else ""
    _write(logging.getLogger(f"{_ROOT}.{_OUTPUT}"), level, text, fields, message=f"{origin}: {text}{more}")


def plain(text: str) -> str:
    """*text* as any terminal and any file can take it: without the sequences that set colours and titles, and with
    control characters, and those that are not seen, spelt out as Python does. Tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(map(_visible, _SEQUENCE.sub("", text)))


def _visible(char: str) -> str:
    hidden = unicodedata.category(char) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp") and char != "\t"
    return ascii(char)[1:-1] if hidden else char


def _rendered(fields: Mapping[str, Any]) -> str:
    return "".join(f" {key}={value!r}" for key, value in fields.items())


def _write(
    log: logging.Logger,
    level: int,
    event: str,
    fields: Mapping[str, Any],
    *,
    message: str | None = None,
    trace: bool = False,
) -> None:
    """Write one line. *message* is what it is as plain text; None: the event and the fields."""
    handled = _handled(log)
    if handled is False or log.disabled or log.manager.disable >= level:
        return
    try:
        structlog = sys.modules.get("structlog")
        if structlog is not None and structlog.is_configured():
            if level >= _own_level(log):
                bound = structlog.get_logger(log.name)
                method = "exception" if trace else _METHODS[level]
                getattr(getattr(bound, "sync_bl", bound), method)(event, logger=log.name, **fields)
            return
        text = event + _rendered(fields) if message is None else message
        if handled:
            log.log(level, text, exc_info=trace, extra=fields, stacklevel=3)
        else:
            _last_resort(log, level, text, fields, trace=trace)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - code of others, which may raise anything
        record = log.makeRecord(log.name, logging.ERROR, __file__, 0, event, (), None)
        with contextlib.suppress(Exception):  # stderr may be closed
            _STDERR.handleError(record)


def _last_resort(log: logging.Logger, level: int, text: str, fields: Mapping[str, Any], *, trace: bool) -> None:
    floor = logging.INFO if log.name == f"{_ROOT}.{_OUTPUT}" else logging.WARNING
    if level < max(floor, _own_level(log)) or logging.lastResort is None:
        return
    record = log.makeRecord(log.name, level, __file__, 0, text, (), sys.exc_info() if trace else None, extra=fields)
    if log.filter(record):
        _STDERR.handle(record)


def _handled(log: logging.Logger) -> bool | None:
    """Whether the application has a handler that lines of *log* come to: None where it has decided nothing, False where
    a NullHandler or the end of propagation shows that none is wanted.
    """
    answer: bool | None = None
    above: logging.Logger | None = log
    while above is not None:
        for handler in above.handlers:
            if not isinstance(handler, logging.NullHandler):
                return True
            answer = False
        if not above.propagate:
            return False
        above = above.parent
    return answer


def _own_level(log: logging.Logger) -> int:
    """The level set for *log* below the root's: that one is WARNING in an application that has configured nothing."""
    above = log
    while above.parent is not None:
        if above.level:
            return above.level
        above = above.parent
    return logging.NOTSET


class _Stderr(logging.Handler):
    """Where lines go when the application has no handler for them. What stderr does not take at once is counted."""

    def __init__(self) -> None:
        super().__init__()
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO | None = sys.stderr
        if stream is None or getattr(stream, "closed", False):  # what an application puts there may have only a write
            return
        text = "".join(f"{plain(line)}\n" for line in self.format(record).splitlines())
        if self._left_out:
            text = f"pool_monitor: {self._left_out} lines are missing here: nothing was reading stderr\n{text}"
        if _offer(stream, text):
            self._left_out = 0
        else:
            self._left_out += 1


def _offer(stream: TextIO, text: str) -> bool:
    """Write without waiting. False when not all of it went."""
    for start in range(0, len(text), _PIECE):
        if not _takes(stream):
            return False
        piece = text[start : start + _PIECE]
        try:
            stream.write(piece)
        except UnicodeEncodeError as error:
            stream.write(piece.encode(error.encoding, "backslashreplace").decode(error.encoding))
        if hasattr(stream, "flush"):
            stream.flush()
    return True


def _takes(stream: TextIO) -> bool:
    """Whether writing to *stream* would not wait: there is room, and it has not lost its reader."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError, AttributeError):  # it is no file, such as that of a notebook
        return True
    found = poll.poll(0)
    return bool(found) and not found[0][1] & (select.POLLERR | select.POLLNVAL)


_STDERR = _Stderr()
