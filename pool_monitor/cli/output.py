"""What the commands write: remarks to stderr, results to stdout.

Names, messages and tracebacks come from targets, files and other processes. This is the one place where they meet a
terminal, so that none of them can move its cursor, set its title or turn its text around.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from pool_monitor.errors import PoolError

_NOTES = 20  # remarks that are kept while the screen is taken


def printable(text: str) -> str:
    """*text* with everything that acts on a terminal, or is invisible there, as an escape. Line ends stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char == "\n" or char.isprintable() else _ESCAPES.get(char) or _escape(char) for char in text)


_ESCAPES = {"\t": "    ", "\u00a0": " ", "\u3000": "  "}  # blanks that are no harm


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def escaped_json(text: str, *, ascii_only: bool = False) -> str:
    """The same JSON with what `printable` would escape, or all that is not ASCII, in JSON's own escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char == "\n" or (char.isprintable() and (char.isascii() or not ascii_only)) else _json_escape(char)
        for char in text
    )


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


# -- remarks ----------------------------------------------------------------------------------------------------------


class _HeldRemarks:
    """Remarks made while a dashboard has the screen: the first `_NOTES`, and how many more there were."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.left_out = 0

    def keep(self, text: str) -> None:
        if len(self.notes) < _NOTES:
            self.notes.append(text)
        else:
            self.left_out += 1


_held: _HeldRemarks | None = None


def remark(text: str) -> None:
    """Write a remark to stderr, or keep it while a dashboard has the screen. Never raises: a terminal may be gone."""
    if _held is not None:
        _held.keep(text)
    elif sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{printable(text)}\n")
            sys.stderr.flush()


def stderr_is_terminal() -> bool:
    """Whether a person reads the remarks."""
    return _is_terminal(sys.stderr)


class _Remarks(logging.Handler):
    pools_started = True

    def filter(self, record: logging.LogRecord) -> bool:
        return (self.pools_started or record.name != "pool_monitor.pool") and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            remark(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)


@contextlib.contextmanager
def log_as_remarks(*, started: bool = True) -> Iterator[None]:
    """Meanwhile log records become remarks: all output of workers, and warnings of the pool, of asyncio and of others;
    of the pool not before `pools_started`, unless *started*: what keeps it from starting is an error of the command.
    """
    root, output = logging.getLogger(), logging.getLogger("pool_monitor.output")
    if any(isinstance(handler, _Remarks) for handler in root.handlers):
        yield
        return
    handler, level = _Remarks(), output.level
    handler.pools_started = started
    root.addHandler(handler)
    output.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        output.setLevel(level)


def pools_started() -> None:
    """From now on, what a pool warns of is worth a remark."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Remarks):
            handler.pools_started = True


@contextlib.contextmanager
def screen_in_use() -> Iterator[None]:
    """Meanwhile a dashboard has the screen: nothing is written to it, and the first remarks follow afterwards."""
    global _held
    kept = _held = _HeldRemarks()
    try:
        with log_as_remarks():
            logging.captureWarnings(True)
            try:
                yield
            finally:
                logging.captureWarnings(False)
    finally:
        _held = None
        for note in kept.notes:
            remark(note)
        if kept.left_out:
            remark(f"and {kept.left_out} more remarks")


# -- results ----------------------------------------------------------------------------------------------------------


class ReaderGone(Exception):
    """What we print is read by a program that has enough of it."""


def print_text(text: str) -> None:
    """Print *text* for people. What the encoding of stdout has no form for is escaped. Errors as for `print_bytes`."""
    stream = _stdout()
    encoding = stream.encoding or "utf-8"
    text = printable(text) if _is_terminal(stream) else text
    _write(stream, [text.encode(encoding, "backslashreplace").decode(encoding)])


def print_json(data: bytes, pretty: bytes) -> None:
    """Print JSON: *data* for programs, in UTF-8; on a terminal *pretty*, the same in more lines."""
    stream = _stdout()
    _write(stream, [for_terminal(pretty) if _is_terminal(stream) else data, b"\n"])


def for_terminal(data: bytes) -> bytes:
    """The same JSON, as our terminal may have it."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    return escaped_json(data.decode(), ascii_only=encoding != "utf8").encode()


def print_bytes(pieces: Iterable[bytes]) -> None:
    """Print a format for programs, as it is whatever the locale; on a terminal without what would act on it.

    Raises BrokenPipeError when the reader has enough, and PoolError when stdout is closed, full or otherwise broken.
    """
    stream = _stdout()
    if _is_terminal(stream):
        for piece in pieces:
            print_text(piece.decode(errors="replace").replace("\r\n", "\n"))
    else:
        _write(stream, pieces)


def _write(stream: TextIO, pieces: Iterable[str | bytes]) -> None:
    with _as_pool_error(stream):
        stream.flush()
        for piece in pieces:
            if isinstance(piece, bytes):
                stream.buffer.write(piece)
            else:
                stream.write(piece)
        stream.flush()


@contextlib.contextmanager
def _as_pool_error(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        discard(stream)
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise PoolError(f"stdout: writing failed: {reason}") from error


def _stdout() -> TextIO:
    if sys.stdout is None or sys.stdout.closed:
        raise PoolError("stdout: it is closed, so there is nowhere to print to")
    return sys.stdout


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def flush_stdout() -> None:
    """Write what stdout still holds. Errors as for `print_bytes`."""
    if sys.stdout is not None and not sys.stdout.closed:
        with _as_pool_error(sys.stdout):
            sys.stdout.flush()


def discard(stream: TextIO | None) -> None:
    """Have what *stream* still holds go nowhere, so that the interpreter does not complain about it when it leaves."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            assert stream is not None
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


def fill_closed_descriptors() -> frozenset[int]:
    """Which of descriptors 0, 1 and 2 are closed. Each is opened on nothing, or a file that is opened later would get
    its number and be taken for stdin, stdout or stderr, by us and by every program that we start.
    """
    closed = set()
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            closed.add(fd)
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(opened, True)
    return frozenset(closed)
