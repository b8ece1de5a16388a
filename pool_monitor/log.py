"""The package's log lines. They go to structlog if the application has configured it, else to `logging`.

All loggers are below ``pool_monitor``. The application decides where their lines go, as with any library.

In an application without a handler, warnings and errors are written to stderr as plain text. That is what Python's last
resort does. This one differs in three ways, because a service runs unattended: it never waits for a reader of stderr,
it writes no control characters, and it also shows what workers write (the area ``output``) from INFO on. A NullHandler,
or ``propagate = False``, on one of the loggers turns it off.

Handlers, filters, formatters and processors belong to the application. If one raises, only that line is lost. The
exception is reported as `logging` reports those of its handlers: on stderr, unless ``logging.raiseExceptions`` is
false.
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
_PIECE = 400  # characters per write: in any encoding fewer bytes than a writable pipe takes at once
_METHODS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}
_METHODS[logging.CRITICAL] = "critical"
LEVELS = {name: level for level, name in _METHODS.items()}
_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)")


class Logger:
    """The logger of one area of the package: see `logger`. No method raises. None waits longer than the handlers do."""

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
        """Log an error, with the traceback of the exception that is being handled."""
        _write(self._log, logging.ERROR, event, fields, trace=True)


@cache
def logger(area: str) -> Logger:
    """Return the logger of one area of the package (``telemetry``, ``pool``, ``monitor``)."""
    return Logger(area)


def output(level: int, origin: str, text: str, fields: Mapping[str, Any]) -> None:
    """Log a line that a process wrote. *origin* names the worker, or whatever else the process is."""
    text = plain(text)
    suffix = _rendered(fields["fields"]) if "fields" in fields else ""
    _write(logging.getLogger(f"{_ROOT}.{_OUTPUT}"), level, text, fields, message=f"{origin}: {text}{suffix}")


def plain(text: str) -> str:
    """Return *text* for any terminal and any file: without the sequences that set colours and titles, and with control
    and invisible characters escaped as Python does. Tabs stay.
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
    """Write one line. *message* is its plain text; None: the event and its fields."""
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
    except BaseException:  # noqa: BLE001 - code of the application may raise anything
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
    """Whether the application handles the lines of *log*. None: it has configured nothing. False: a NullHandler, or
    ``propagate = False``, shows that it wants no lines.
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
    """Return the level set for *log*, ignoring the root logger: its level is WARNING even if nothing is configured."""
    above = log
    while above.parent is not None:
        if above.level:
            return above.level
        above = above.parent
    return logging.NOTSET


class _Stderr(logging.Handler):
    """Writes lines to stderr, for an application without a handler. Counts those that stderr does not take at once."""

    def __init__(self) -> None:
        super().__init__()
        self._missing = 0

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO | None = sys.stderr
        if stream is None or getattr(stream, "closed", False):  # a replacement may have only `write`
            return
        text = "".join(f"{plain(line)}\n" for line in self.format(record).splitlines())
        if self._missing:
            text = f"pool_monitor: {self._missing} lines are missing here: nothing was reading stderr\n{text}"
        if _write_now(stream, text):
            self._missing = 0
        else:
            self._missing += 1


def _write_now(stream: TextIO, text: str) -> bool:
    """Write *text* without waiting. Return whether all of it was written."""
    for start in range(0, len(text), _PIECE):
        if not is_writable(stream):
            return False
        piece = text[start : start + _PIECE]
        try:
            stream.write(piece)
        except UnicodeEncodeError as error:
            stream.write(piece.encode(error.encoding, "backslashreplace").decode(error.encoding))
        if hasattr(stream, "flush"):
            stream.flush()
    return True


def is_writable(stream: TextIO) -> bool:
    """Whether *stream* can be written without waiting: there is room, and its reader exists."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError, AttributeError):  # no file, such as the stderr of a notebook
        return True
    found = poll.poll(0)
    return bool(found) and not found[0][1] & (select.POLLERR | select.POLLNVAL)


_STDERR = _Stderr()
