"""The output of the commands: remarks to stderr, results to stdout.

Names, messages and tracebacks come from targets, files and other processes. Only this module writes them to a terminal.
It escapes them, so that they cannot move the cursor, set the title or reverse the direction of text.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from pool_monitor.errors import PoolError

_NOTES = 20  # remarks that are kept while a dashboard has the screen


def printable(text: str) -> str:
    """Return *text* with an escape for every character that controls a terminal or is invisible. Line ends stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char == "\n" or char.isprintable() else _ESCAPES.get(char) or _escape(char) for char in text)


_ESCAPES = {"\t": "    ", "\u00a0": " ", "\u3000": "  "}  # harmless blanks


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def escaped_json(text: str, *, ascii_only: bool = False) -> str:
    """Return the same JSON, in which JSON escapes replace what `printable` escapes, or all that is not ASCII."""
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
    """Remarks made while a dashboard has the screen: keeps the first `_NOTES` and counts the rest."""

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
    """Write a remark to stderr; while a dashboard has the screen, keep it. Never raises: the terminal may be gone."""
    if _held is not None:
        _held.keep(text)
    elif sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{printable(text)}\n")
            sys.stderr.flush()


def stderr_is_terminal() -> bool:
    """Whether remarks go to a terminal."""
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
    """In the block, turn log records into remarks: all output of workers, and warnings of the pool, of asyncio and of
    others. Unless *started*, warnings of the pool are left out until `pools_started` is called: if the pool cannot
    start, the command reports the error.
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
    """End the suppression of pool warnings in `log_as_remarks`."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Remarks):
            handler.pools_started = True


@contextlib.contextmanager
def screen_in_use() -> Iterator[None]:
    """In the block, a dashboard has the screen: keep remarks and write the first `_NOTES` afterwards."""
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
    """The program that read our output has closed it."""


def print_text(text: str) -> None:
    """Print *text* for people. Characters that stdout cannot encode are escaped. Raises as `print_bytes` does."""
    stream = _stdout()
    encoding = stream.encoding or "utf-8"
    text = printable(text) if _is_terminal(stream) else text
    _write(stream, [text.encode(encoding, "backslashreplace").decode(encoding)])


def print_json(data: bytes, pretty: bytes) -> None:
    """Print JSON: *data*, in UTF-8, for programs; *pretty*, the same indented, on a terminal."""
    stream = _stdout()
    _write(stream, [for_terminal(pretty) if _is_terminal(stream) else data, b"\n"])


def for_terminal(data: bytes) -> bytes:
    """Return the same JSON, with escapes for what the terminal at stdout cannot show."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    return escaped_json(data.decode(), ascii_only=encoding != "utf8").encode()


def print_bytes(pieces: Iterable[bytes]) -> None:
    """Print a format for programs, unchanged in every locale. On a terminal, control characters are escaped.

    Raises BrokenPipeError if the reader has closed stdout, and PoolError if stdout is closed, full or otherwise broken.
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
        raise PoolError("stdout: is closed: there is nowhere to print to")
    return sys.stdout


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def flush_stdout() -> None:
    """Write the buffered output. Raises as `print_bytes` does."""
    if sys.stdout is not None and not sys.stdout.closed:
        with _as_pool_error(sys.stdout):
            sys.stdout.flush()


def discard(stream: TextIO | None) -> None:
    """Discard what *stream* still has in its buffer, so that the interpreter reports no error at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            assert stream is not None
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


def fill_closed_descriptors() -> frozenset[int]:
    """Open the closed ones of the descriptors 0, 1 and 2 on the null device, and return them. Otherwise a file opened
    later would get such a number, and this program and every program it starts would use it as stdin, stdout or stderr.
    """
    closed = set()
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            closed.add(fd)
            opened = os.open(os.devnull, os.O_RDWR)  # open takes the lowest free number: this one
            os.set_inheritable(opened, True)
    return frozenset(closed)
