"""What the package writes to the log of the application: where that says, once; and without it, to stderr."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from pool_monitor import log as ours
from pool_monitor import telemetry
from pool_monitor.errors import WorkerDied
from pool_monitor.log import logger, output, plain
from tests.helpers.gates import in_gates
from tests.helpers.support import OPS, ops_pool

CRASH = f"""
import asyncio, logging, sys
from pool_monitor import Pool, WorkerDied

async def main():
    async with Pool({OPS!r}, name="ops", size=1) as pool:
        await pool.run("noise")
        try:
            await pool.run("die", 3)
        except WorkerDied:
            pass
    print("structlog" in sys.modules)

"""
BASIC = "logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(levelname)s %(name)s %(message)s')\n"
SILENT = "logging.getLogger('pool_monitor').addHandler(logging.NullHandler())\n"
JSON = """
import structlog
structlog.configure(processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()])
"""
CRASHED = "worker crashed pool='ops' worker='ops-0' pid="


def crashed(configuration: str = "", **fds: Any) -> tuple[list[str], list[str]]:
    """What a service whose worker writes and crashes has on stdout and stderr."""
    program = CRASH + configuration + "asyncio.run(main())\n"
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=root, capture_output=True, text=True, check=True, timeout=50
    )
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_where_nothing_is_configured_a_crash_and_what_workers_write_is_on_stderr_once() -> None:
    out, err = crashed()
    assert out == ["False"], "and structlog, which takes long to import, is not"
    assert sorted(line for line in err if not line.startswith(CRASHED)) == sorted(
        [
            "ops-0: printed",
            "ops-0: written",
            "ops-0: from a child",
            "ops-0: complained",
            "ops-0: last words",
            "ops-0: \ufffd\ufffd",
        ]
    )
    [crash] = (line for line in err if line.startswith(CRASHED))
    assert "exit_code=3 operation='die'" in crash


def test_where_logging_is_configured_each_line_goes_there_and_nowhere_else() -> None:
    out, err = crashed(BASIC)
    assert err == []
    assert sum(line.startswith(f"WARNING pool_monitor.pool {CRASHED}") for line in out) == 1
    assert out.count("INFO pool_monitor.output ops-0: printed") == 1
    assert out.count("WARNING pool_monitor.output ops-0: complained") == 1
    assert out[-1] == "False"


def test_where_structlog_is_configured_its_processors_write_each_line_with_one_level() -> None:
    out, err = crashed(JSON)
    assert err == []
    lines = [json.loads(line) for line in out[:-1]]
    [crash] = (line for line in lines if line["event"] == "worker crashed")
    assert {
        "pool": "ops",
        "worker": "ops-0",
        "level": "warning",
        "logger": "pool_monitor.pool",
    }.items() <= crash.items()
    assert (crash["exit_code"], crash["operation"]) == (3, "die")
    [printed] = (line for line in lines if line["event"] == "printed")
    assert printed | {"operation": "noise"} == {
        "event": "printed", "level": "info", "logger": "pool_monitor.output",
        "pool": "ops", "worker": "ops-0", "stream": "stdout", "operation": "noise",
    }  # fmt: skip
    assert out[0].count("level") == 1


def test_an_application_that_wants_no_line_gets_none() -> None:
    assert crashed(SILENT) == (["False"], [])


# -- who decides --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def unconfigured() -> Iterator[io.StringIO]:
    """As in a process that has configured nothing; what comes to its stderr."""
    handlers, logging.root.handlers = logging.root.handlers, []
    level, logging.root.level = logging.root.level, logging.WARNING
    ours._STDERR = ours._Stderr()  # which has left nothing out yet
    try:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            yield err
    finally:
        logging.root.handlers, logging.root.level = handlers, level


@contextlib.contextmanager
def handled(name: str, handler: logging.Handler) -> Iterator[None]:
    log = logging.getLogger(name)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_unhandled_are_warnings_and_errors_and_of_what_workers_write_all_from_info_on() -> None:
    with unconfigured() as err:
        logger("odd").info("of no interest", a=1)
        logger("odd").warning("look", a=1, text="two\nlines \x1b[31m")
        logger("odd").error("worse")
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            output(level, "w-0", f"at {level}", {"worker": "w-0"})
    assert err.getvalue().splitlines() == [
        "look a=1 text='two\\nlines \\x1b[31m'", "worse", "w-0: at 20", "w-0: at 30",
    ]  # fmt: skip


@pytest.mark.parametrize("where", ["", "pool_monitor", "pool_monitor.odd"])
def test_a_handler_anywhere_above_takes_the_lines_and_stderr_has_none(where: str) -> None:
    kept = Kept()
    with unconfigured() as err, handled(where, kept):
        logger("odd").warning("look", pool="p", worker="p-0")
    assert err.getvalue() == ""
    [record] = kept.records
    assert record.getMessage() == "look pool='p' worker='p-0'"
    assert (record.name, record.levelname, record.filename) == ("pool_monitor.odd", "WARNING", "test_log.py")
    assert (record.pool, record.worker) == ("p", "p-0")  # type: ignore[attr-defined]


def test_a_handler_of_another_part_is_none_of_this_one() -> None:
    with unconfigured() as err, handled("pool_monitor.odd.deeper", Kept()), handled("pool_monitor.other", Kept()):
        logger("odd").warning("look")
    assert err.getvalue() == "look\n"


@pytest.mark.parametrize("where", ["", "pool_monitor", "pool_monitor.odd"])
def test_a_null_handler_ends_it(where: str) -> None:
    with unconfigured() as err, handled(where, logging.NullHandler()):
        logger("odd").error("look")
    assert err.getvalue() == ""


@pytest.mark.parametrize("root", [[], [Kept()]])
def test_what_does_not_propagate_and_has_no_handler_goes_nowhere(root: list[Kept], monkeypatch: Any) -> None:
    with unconfigured() as err:
        logging.root.handlers = [*root]
        monkeypatch.setattr(logging.getLogger("pool_monitor"), "propagate", False)
        logger("odd").error("look")
    assert err.getvalue() == ""
    assert [record for kept in root for record in kept.records] == []


def test_levels_filters_and_the_end_of_the_last_resort_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("pool_monitor.odd")
    with unconfigured() as err:
        for name, attribute, value in [
            ("pool_monitor", "level", logging.CRITICAL),
            ("pool_monitor.odd", "level", logging.CRITICAL),
            ("pool_monitor.odd", "disabled", True),
            ("pool_monitor.odd", "filters", [lambda record: "look" not in record.msg]),
        ]:
            with monkeypatch.context() as patch:
                patch.setattr(logging.getLogger(name), attribute, value)
                log.manager._clear_cache()  # type: ignore[attr-defined]
                logger("odd").error("look")
        log.manager._clear_cache()  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(log.manager, "disable", logging.ERROR)
            logger("odd").error("look")
        with monkeypatch.context() as patch:
            patch.setattr(logging, "lastResort", None)
            logger("odd").error("look")
        assert err.getvalue() == ""
        logger("odd").error("look")
    assert err.getvalue() == "look\n"


@pytest.mark.parametrize("handler", [False, True])
def test_an_exception_is_written_with_its_traceback(handler: bool) -> None:
    stream = io.StringIO()
    with (
        unconfigured() as err,
        handled("pool_monitor", logging.StreamHandler(stream)) if handler else contextlib.nullcontext(),
    ):
        try:
            raise ValueError("boom \x1b]0;title\x07")
        except ValueError:
            logger("odd").exception("it failed", a=1)
    told = stream.getvalue() if handler else err.getvalue()
    assert told.startswith("it failed a=1\nTraceback")
    assert "ValueError: boom" in told
    assert handler or "\x1b" not in told, "no control character gets to a terminal"


# -- structlog ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def structured(**configuration: Any) -> Iterator[None]:
    structlog.configure(**configuration)
    try:
        yield
    finally:
        structlog.reset_defaults()


def test_structlog_that_is_imported_and_not_configured_changes_nothing() -> None:
    assert not structlog.is_configured()
    with unconfigured() as err:
        logger("odd").warning("look", a=1)
    assert err.getvalue() == "look a=1\n"


def test_structlog_over_the_standard_library_is_written_once_by_its_formatter() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer()))
    chain = [structlog.stdlib.add_log_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
    with (
        unconfigured() as err,
        handled("", handler),
        structured(
            processors=chain,
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        ),
    ):
        logger("odd").warning("look", a=1)
        output(logging.WARNING, "w-0", "a line", {"worker": "w-0", "fields": {"event": "mine", "level": 5}})
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first == {"event": "look", "a": 1, "level": "warning", "logger": "pool_monitor.odd"}
    assert (second["event"], second["fields"]) == ("a line", {"event": "mine", "level": 5})
    assert err.getvalue() == ""


async def test_structlogs_asynchronous_loggers_are_written_to_at_once() -> None:
    kept = Kept()
    with (
        unconfigured(),
        handled("", kept),
        structured(
            processors=[structlog.processors.KeyValueRenderer(sort_keys=True)],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.AsyncBoundLogger,
        ),
    ):
        logger("odd").warning("look", a=1)
    assert [record.getMessage() for record in kept.records] == ["a=1 event='look' logger='pool_monitor.odd'"]


def test_levels_and_null_handlers_of_our_loggers_count_with_structlog_too(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []

    def keep(_logger: object, _method: str, event: Any) -> Any:
        written.append(event)
        raise structlog.DropEvent

    with unconfigured(), structured(processors=[keep]):
        with handled("pool_monitor", logging.NullHandler()):
            logger("odd").warning("not this")
        monkeypatch.setattr(logging.getLogger("pool_monitor"), "level", logging.ERROR)
        logger("odd").warning("nor this")
        logger("odd").error("but this")
    assert [event["event"] for event in written] == ["but this"]


# -- a stderr that takes nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["none", "closed", "closed below", "no file", "full disk"])
def test_a_stderr_that_cannot_be_written_to_costs_the_line_and_no_more(state: str) -> None:
    stream: Any = None
    if state != "none":
        path = "/dev/full" if state == "full disk" else os.devnull
        if not Path(path).exists():
            pytest.skip("no /dev/full")
        stream = Path(path).open("w")  # noqa: SIM115
    if state == "closed":
        stream.close()
    elif state == "closed below":
        os.close(stream.fileno())
    elif state == "no file":
        stream.close()
        stream = object()
    with unconfigured(), contextlib.redirect_stderr(stream):
        logger("odd").error("look")
    if state in ("closed below", "full disk"):
        with contextlib.suppress(OSError):
            stream.close()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_encoding_of_stderr_lacks_is_spelt_out(encoding: str) -> None:
    raw = io.BytesIO()
    with unconfigured(), contextlib.redirect_stderr(io.TextIOWrapper(raw, encoding=encoding, newline="\n")) as stream:
        logger("odd").error("größer 大")
        stream.flush()
    assert raw.getvalue() == "größer 大\n".encode(encoding, "backslashreplace")


def test_a_stderr_of_the_applications_own_needs_only_a_write() -> None:
    class Proxy:
        written = ""

        def write(self, text: str) -> None:
            self.written += text

    proxy: Any = Proxy()
    with unconfigured(), contextlib.redirect_stderr(proxy):
        logger("odd").error("look")
    assert proxy.written == "look\n"


class Pipe:
    """The writing end of a pipe that is read only when asked."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self.stream = os.fdopen(writing, "w")

    def read(self) -> str:
        os.set_blocking(self.reading, False)
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.reading, 65536):
                data += piece
        return data.decode()


def test_a_stderr_that_is_not_read_holds_up_nothing_and_what_is_missing_is_counted() -> None:
    pipe = Pipe()
    with unconfigured(), contextlib.redirect_stderr(pipe.stream):
        for number in range(3000):
            output(logging.INFO, "w-0", f"{number} {'x' * 100}", {})
        written = pipe.read()
        logger("odd").error("look")
        rest = pipe.read().splitlines()
    pipe.stream.close()
    os.close(pipe.reading)
    missing = 3000 - written.count("\n")
    assert missing > 0
    assert rest == [f"pool_monitor: {missing} lines are missing here: nothing was reading stderr", "look"]


def test_a_stderr_whose_reader_has_gone_costs_the_lines() -> None:
    pipe = Pipe()
    os.close(pipe.reading)
    with unconfigured(), contextlib.redirect_stderr(pipe.stream):
        logger("odd").error("look")
    pipe.stream.close()  # nothing is left in it that could not be written


# -- text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("as it is", "as it is"),
        ("größer 大 🙂\tand more", "größer 大 🙂\tand more"),
        ("\x1b[1;31mred\x1b[0m and \x9b4mmore\x9b0m", "red and more"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink"),
        ("\x1b]0;never ends", "\\x1b]0;never ends"),
        ("\x1bc\x07\r\x00\x85", "\\x1bc\\x07\\r\\x00\\x85"),
        ("a\u202eb\u2066c\u200bd\u2028e\ud800", "a\\u202eb\\u2066c\\u200bd\\u2028e\\ud800"),
        ("\x1b\x1b[31m[31m", "\\x1b[31m"),
    ],
)
def test_text_of_others_is_made_plain(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert plain(shown) == shown


# -- what the application's own code does --------------------------------------------------------------------------


class Closed(BaseException):
    pass


@pytest.mark.parametrize("error", [OSError, *map(in_gates, [asyncio.CancelledError, GeneratorExit]), Closed])
@pytest.mark.parametrize("where", ["handler", "filter", "formatter", "processor"])
async def test_a_log_that_raises_costs_its_line_and_no_call(where, error, monkeypatch, capsys):
    def broken(*_args: object) -> None:
        raise error("the log server is away")

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            broken() if where == "handler" else self.format(record)

    handler = Broken()
    if where == "filter":
        handler.addFilter(broken)
    handler.setFormatter(formatter := logging.Formatter())
    if where == "formatter":
        monkeypatch.setattr(formatter, "format", broken)
    processors = structured(processors=[broken]) if where == "processor" else contextlib.nullcontext()
    with handled("pool_monitor", handler), processors:
        async with ops_pool() as pool:
            telemetry.attach("bad", ("pool", "worker", "checkout"), broken)
            assert await pool.run("echo", 1) == 1
            assert await pool.run("flood", 1) == 1
            with pytest.raises(WorkerDied):
                await pool.run("die", 3)
            assert await pool.run("echo", 2) == 2
            assert pool.status().busy == 0
    said = capsys.readouterr().err
    assert said.count("--- Logging error ---") >= 2
    assert "the log server is away" in said
    assert "worker crashed" in said


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_for_the_whole_program_passes_the_log(error, monkeypatch):
    def leave(_record: logging.LogRecord) -> bool:
        raise error

    handler = logging.Handler()
    handler.addFilter(leave)
    monkeypatch.setattr(logging.getLogger("pool_monitor"), "handlers", [handler])
    with pytest.raises(error):
        logger("odd").warning("goodbye")


def test_every_level_of_a_target_is_one_of_the_log() -> None:
    from pool_monitor.pool.transport.child.telemetry import LEVELS

    assert set(LEVELS) == ours.LEVELS.keys()
