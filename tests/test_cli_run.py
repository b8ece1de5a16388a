"""``pool-monitor run`` with real workers: order, interruptions, resuming, bad lines, pipes and exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from tests.helpers.gates import in_gates
from tests.helpers.programs import (
    JOBS,
    ROOT,
    TEXT_TOOLS,
    Done,
    Program,
    answers,
    lines,
    remarks,
    results,
    until,
    well,
    written,
)

Command = Callable[..., Done]
Start = Callable[..., Program]


# -- the work ---------------------------------------------------------------------------------------------------------


def test_thousands_of_real_documents_come_out_in_order(command: Command, tmp_path: Path):
    texts = list(topics.values())
    documents = [texts[number % len(texts)][: 500 + number] for number in range(2000)]
    source, sink = written(tmp_path / "in.jsonl", *map(json.dumps, documents)), tmp_path / "out.jsonl"
    done = command("run", TEXT_TOOLS, "keywords", "--input", source, "--output", sink, "--size", 2)
    assert well(done)
    found = answers(sink)
    assert [one["id"] for one in found] == list(range(1, 2001))
    assert all(one["ok"] and one["seconds"] > 0 for one in found)
    assert {one["worker"] for one in found} == {"texttools-0", "texttools-1"}
    space: dict[str, Any] = {}
    exec(compile((ROOT / "examples" / "text_tools.py").read_text(), "text_tools", "exec"), space)
    here = space["TextTools"]()
    assert [one["result"] for one in found[:50]] == [here.keywords(text) for text in documents[:50]]


def test_a_line_may_be_a_call_or_any_other_value(command: Command, tmp_path: Path):
    sink = tmp_path / "out"
    source = written(
        tmp_path / "in",
        {"args": [1], "kwargs": {"right": 2}, "id": "both"},
        {"args": [1, 2]},
        {"kwargs": {"left": 1}, "id": {"any": ["thing", None]}},
        {"id": "no call", "other": 1},
        [1, 2],
        "null",
        '  "text"\r',
    )
    assert well(command("run", JOBS, "pair", "--input", source, "--output", sink))
    found = answers(sink)
    assert [one["id"] for one in found] == ["both", 2, {"any": ["thing", None]}, 4, 5, 6, 7]
    assert [one["result"][0] for one in found] == [1, 1, 1, {"id": "no call", "other": 1}, [1, 2], None, "text"]
    assert [one["result"][1] for one in found] == [2, 2, "none", "none", "none", "none", "none"]


def test_a_generator_operation_gives_a_list(command: Command, tmp_path: Path):
    source, sink = written(tmp_path / "in", 3, 0), tmp_path / "out"
    assert command("run", JOBS, "count", "--input", source, "--output", sink).code == 0
    assert results(sink) == [[0, 1, 2], []]


def test_lines_of_a_session_run_one_after_another(command: Command, tmp_path: Path):
    calls = [{"args": [word], "session": who} for word in "abcdef" for who in ("x", "y")]
    calls[4]["kwargs"] = {"pause": 0.1}
    source, sink = written(tmp_path / "in", *calls), tmp_path / "out"
    assert command("run", JOBS, "turn", "--input", source, "--output", sink, "--size", 3).code == 0
    assert results(sink)[::2] == results(sink)[1::2] == ["a", "ab", "abc", "abcd", "abcde", "abcdef"]


@pytest.mark.parametrize(("size", "session"), [(1, None), (4, "shared")])
def test_waiting_for_a_turn_does_not_count_against_the_timeout(
    size: int, session: str | None, command: Command, tmp_path: Path
):
    calls = [{"args": [number], "kwargs": {"pause": 0.2}, "session": session} for number in range(4)]
    source, sink = written(tmp_path / "in", *calls), tmp_path / "out"
    done = command("run", JOBS, "note", "--input", source, "--output", sink, "--size", size, "--timeout", 0.6)
    assert (done.code, results(sink)) == (0, [0, 1, 2, 3])


def test_a_line_that_takes_too_long_fails_alone(command: Command, tmp_path: Path):
    slow = {"args": [2], "kwargs": {"pause": 30}}
    source, sink = written(tmp_path / "in", 1, slow, 3), tmp_path / "out"
    done = command("run", JOBS, "note", "--input", source, "--output", sink, "--size", 1, "--timeout", 0.3)
    assert (done.code, results(sink)) == (1, [1, None, 3])
    error = answers(sink)[1]["error"]
    assert (error["type"], error["category"]) == ("OperationTimeout", "timeout")


def test_the_configuration_may_come_from_a_file(command: Command, tmp_path: Path):
    config = tmp_path / "c.toml"
    config.write_text('[pool]\nframe_limit = 2000\nenv = { JOBS_LOG = "%s" }\n' % (tmp_path / "log"))
    source, sink = written(tmp_path / "in", 10, 3000), tmp_path / "out"
    assert command("run", JOBS, "big", "--input", source, "--output", sink, "--config", config).code == 1
    assert [one["ok"] for one in answers(sink)] == [True, False]
    assert command("run", JOBS, "note", "--input", source, "--config", config, "--output", tmp_path / "2").code == 0
    assert sorted((tmp_path / "log").read_text().split()) == ["10", "3000"]


def test_a_policy_is_found_in_the_working_directory_as_the_target_is(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "policy_of_here.py").write_text("class Two:\n    def decide(self, observation):\n        return 2\n")
    settings = written(tmp_path / "settings.toml", "[tuner]", "mode = 'auto'", "policy = 'policy_of_here:Two'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    source = written(tmp_path / "in", json.dumps("a text"))
    done = command("run", TEXT_TOOLS, "keywords", "--input", source, "--output", "out", "--config", settings)
    assert well(done), done.err


# -- what goes wrong with a line --------------------------------------------------------------------------------------


def test_bad_lines_are_reported_by_number_and_affect_no_others(command: Command, tmp_path: Path):
    source, sink = tmp_path / "in", tmp_path / "out"
    source.write_bytes(
        b'1\n{"args": \n\n   \n"\xff"\n{"args": 3}\n{"kwargs": [], "id": "k"}\n{"args": [], "extra": 1}\n'
        b'{"args": [1], "session": 7}\n' + b"[" * 100_000 + b"\n2"
    )
    done = command("run", JOBS, "note", "--input", source, "--output", sink)
    found = answers(sink)
    assert (done.code, done.out) == (1, "")
    assert [one["id"] for one in found] == [1, 2, 5, 6, "k", 8, 9, 10, 11]
    assert [one["ok"] for one in found] == [True, *[False] * 7, True]
    reported = [line.removeprefix(f"{source}:").partition(": ") for line in remarks(done)]
    assert [(int(number), text) for number, _, text in reported] == [
        (one["error"]["line"], one["error"]["message"]) for one in found if not one["ok"]
    ]
    assert {one["error"]["type"] for one in found if not one["ok"]} == {"InvalidLine"}
    assert all("seconds" not in one and "worker" not in one for one in found if not one["ok"])


@pytest.mark.parametrize(
    ("operation", "value", "type_name", "message"),
    [
        ("fail", {"args": ["luck"]}, "ValueError", "no luck today"),
        ("thing", 1, "TypeError", "object"),
        ("big", 3000, "PayloadError", "frame"),
        ("odd", 1, "PayloadError", "cannot be written as JSON"),
        ("die", 1, "WorkerDied", "exit code 3"),
        ("pair", {"args": [1, 2, 3]}, "TypeError", "positional"),
    ],
)
def test_a_call_that_fails_says_why_and_affects_no_others(
    operation: str, value: object, type_name: str, message: str, command: Command, tmp_path: Path
):
    config = tmp_path / "c.toml"
    codec = "pickle" if operation == "odd" else "auto"
    config.write_text(f'[pool]\nframe_limit = 2000\ncodec = "{codec}"\n')
    source, sink = written(tmp_path / "in", value), tmp_path / "out"
    done = command("run", JOBS, operation, "--input", source, "--output", sink, "--config", config, "--size", 1)
    (answer,) = answers(sink)
    assert (done.code, answer["ok"], answer["id"]) == (1, False, 1)
    assert [line.split(" pool=")[0] for line in remarks(done)] == ["worker crashed"] * (operation == "die")
    assert answer["error"]["type"] == type_name
    assert message in answer["error"]["message"]
    assert ("traceback" in answer["error"]) == (operation not in ("die", "odd"))
    assert operation == "odd" or answer["error"]["category"]


def test_only_answers_are_written_to_stdout(pool_monitor: Start):
    done = pool_monitor("run", JOBS, "chatter", "--size", 1).ended(b'1\nnonsense\n"a"\n')
    assert done.code == 1
    assert [json.loads(line)["ok"] for line in done.out.splitlines()] == [True, False, True]
    assert "stdin:2: not valid JSON" in done.err
    assert "jobs-0: on stdout 1\n" in done.err, "what the target prints is not lost"


# -- interrupted, killed, resumed -------------------------------------------------------------------------------------


def begun(
    pool_monitor: Start, log: Path, tmp_path: Path, *more: object, count: int = 100, pause: float = 0.01
) -> Program:
    """Start a run over *count* lines, and return it when some lines are under way."""
    calls = [{"args": [number], "kwargs": {"pause": pause}} for number in range(1, count + 1)]
    source, sink = written(tmp_path / "in", *calls), tmp_path / "out"
    run = pool_monitor("run", JOBS, "note", "--input", source, "--output", sink, "--size", 2, *more)
    until(lambda: lines(log) > 20 and lines(sink) > 10)
    assert len(run.workers()) == 2
    return run


def finished(command: Command, tmp_path: Path) -> Done:
    return command("run", JOBS, "note", "--input", tmp_path / "in", "--output", tmp_path / "out", "--size", 2)


@pytest.mark.parametrize("number", [signal.SIGINT, in_gates(signal.SIGTERM)])
def test_a_run_interrupted_and_started_again_finishes_the_rest_and_repeats_nothing(
    number: signal.Signals, pool_monitor: Start, command: Command, log: Path, tmp_path: Path
):
    run = begun(pool_monitor, log, tmp_path)
    run.send(number)
    done = run.ended()
    assert done.code == 128 + number
    assert "the same command continues from here" in done.err
    assert "Traceback" not in done.err
    assert 10 < lines(tmp_path / "out") == lines(log) < 100, "every line begun was finished, and no other"
    assert run.left_over() == []
    assert well(finished(command, tmp_path))
    assert results(tmp_path / "out") == list(range(1, 101))
    assert Counter(map(int, log.read_text().split())) == Counter(range(1, 101))


def test_an_interrupted_run_begins_no_line_behind_the_last_that_has_begun(
    pool_monitor: Start, log: Path, tmp_path: Path
):
    go, sink = tmp_path / "go", tmp_path / "out"
    calls = [{"args": [str(go), number], "session": "s" if number < 3 else None} for number in range(1, 12)]
    source = written(tmp_path / "in", *calls)
    run = pool_monitor("run", JOBS, "wait_for", "--input", source, "--output", sink, "--size", 2)
    # Two workers write the log, in either order; the second line waits for its session.
    until(lambda: sorted(log.read_text().split()) == ["1", "3"])
    run.send(signal.SIGINT)
    assert b"finishing" in run.process.stderr.readline()
    go.touch()
    assert run.ended().code == 130
    assert results(sink) == [1, 2, 3]
    assert log.read_text().split()[2:] == ["2"]


def test_a_run_interrupted_twice_exits_immediately(pool_monitor: Start, log: Path, tmp_path: Path):
    calls = [1, {"args": [str(tmp_path / "never"), 2]}]
    source, sink = written(tmp_path / "in", {"args": [str(ROOT), 1]}, calls[1]), tmp_path / "out"
    run = pool_monitor("run", JOBS, "wait_for", "--input", source, "--output", sink, "--size", 2)
    until(lambda: lines(log) == 2 and lines(sink) == 1)
    run.children()
    run.send(signal.SIGINT)
    assert run.process.stderr is not None
    assert b"finishing the lines under way" in run.process.stderr.readline()
    run.send(signal.SIGINT)
    done = run.ended()
    assert (done.code, results(sink)) == (130, [1])
    assert "Traceback" not in done.err
    assert run.left_over() == []


def test_a_run_interrupted_with_nothing_under_way_exits_immediately(pool_monitor: Start, log: Path, tmp_path: Path):
    run = pool_monitor("run", JOBS, "note", "--output", tmp_path / "out", "--size", 1)
    run.process.stdin.write(b"1\n")
    run.process.stdin.flush()
    until(lambda: lines(tmp_path / "out") == 1)  # it waits for the next line
    run.send(signal.SIGINT)
    assert run.process.wait(20) == 130, "though its input is still open"
    assert "Traceback" not in run.ended().err


def test_a_worker_killed_in_the_middle_loses_nothing_with_retries(pool_monitor: Start, log: Path, tmp_path: Path):
    run = begun(pool_monitor, log, tmp_path, "--retries", 1)
    run.workers()[0].kill()
    done = run.ended()
    assert done.code == 0
    assert "worker crashed pool='jobs'" in done.err
    assert results(tmp_path / "out") == list(range(1, 101))
    assert run.left_over() == []


@pytest.mark.slow
@pytest.mark.gate
def test_a_worker_killed_in_the_middle_costs_one_line_without_retries(pool_monitor: Start, log: Path, tmp_path: Path):
    run = begun(pool_monitor, log, tmp_path, pause=0.05)  # long enough that a worker is almost always on a call
    run.workers()[0].kill()
    assert run.ended().code == 1
    failed = [answer for answer in answers(tmp_path / "out") if not answer["ok"]]
    assert [answer["error"]["type"] for answer in failed] == ["WorkerDied"]
    assert "SIGKILL" in failed[0]["error"]["message"]
    assert lines(tmp_path / "out") == 100


def test_a_killed_run_leaves_no_worker_and_an_output_that_can_be_continued(
    pool_monitor: Start, command: Command, log: Path, tmp_path: Path
):
    run, sink = begun(pool_monitor, log, tmp_path), tmp_path / "out"
    run.send(signal.SIGKILL)
    run.ended()
    until(lambda: not run.left_over())
    sink.write_bytes(sink.read_bytes()[:-20])  # as after a kill during a write
    whole = lines(sink)
    assert well(finished(command, tmp_path))
    assert results(sink) == list(range(1, 101))
    again = [number for number, times in Counter(log.read_text().split()).items() if times > 1]
    assert all(int(number) > whole for number in again)


def test_a_finished_output_is_left_as_it_is_and_its_failures_still_count(command: Command, log: Path, tmp_path: Path):
    source, sink = written(tmp_path / "in", 1, "nonsense", 3), tmp_path / "out"
    for _ in range(2):
        assert command("run", JOBS, "note", "--input", source, "--output", sink).code == 1
    assert [one["ok"] for one in answers(sink)] == [True, False, True]
    assert sorted(log.read_text().split()) == ["1", "3"]


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_an_incomplete_last_line_is_completed(cut: int, command: Command, tmp_path: Path):
    source, sink = written(tmp_path / "in", {"args": [1], "id": "a"}, {"args": [2], "id": "b"}), tmp_path / "out"
    first = b'{"id":"a","ok":true,"result":1,"seconds":0.1,"worker":"w"}\n'
    sink.write_bytes(first + b'{"id":"b","ok":true,"result":2,"seconds":0.1}\n'[:-cut])
    done = command("run", JOBS, "note", "--input", source, "--output", sink, "--size", 1)
    assert done.code == 0
    assert "1 line: 1 ok, 0 failed, 1 before" in done.err
    assert results(sink) == [1, 2]
    assert sink.read_bytes().startswith(first)


@pytest.mark.parametrize(
    "there",
    [
        '{"id":"a","ok":true,"result":1}\n{"id":"z","ok":true,"result":2}\n',
        '{"id":"a","ok":true}\n{"id":"b","ok":true}\n{"id":"c","ok":true}\n',
        '{"id":"a"}\n',
        "[]\n",
        "my diary\n",
        "my diary, without an end",
        '{"id":"a","ok":true}\n{"id":"z',
        '{"precious": "data"}',
        "\n",
    ],
)
def test_an_output_made_from_something_else_is_refused_and_kept(there: str, command: Command, tmp_path: Path):
    source, sink = written(tmp_path / "in", {"args": [1], "id": "a"}, {"args": [2], "id": "b"}), tmp_path / "out"
    sink.write_text(there)
    done = command("run", JOBS, "note", "--input", source, "--output", sink)
    assert done.code == 2
    assert f"{sink}:" in done.err
    assert "made from another input" in done.err
    assert sink.read_text() == there


@pytest.mark.parametrize("kind", ["name", "link", "hard link"])
def test_input_and_output_must_differ(kind: str, command: Command, tmp_path: Path):
    source = written(tmp_path / "in", 1, 2)
    sink = source if kind == "name" else tmp_path / "out"
    if kind == "link":
        sink.symlink_to(source)
    elif kind == "hard link":
        sink.hardlink_to(source)
    done = command("run", JOBS, "note", "--input", source, "--output", sink)
    assert (done.code, "the same file" in done.err) == (2, True)
    assert source.read_text() == "1\n2\n"


def test_two_runs_at_once_with_one_output_are_refused(pool_monitor: Start, command: Command, log: Path, tmp_path: Path):
    begun(pool_monitor, log, tmp_path)
    done = finished(command, tmp_path)
    assert (done.code, "another run is writing to it" in done.err) == (2, True)


# -- pipes ------------------------------------------------------------------------------------------------------------


def test_answers_appear_before_the_input_has_ended(pool_monitor: Start):
    run = pool_monitor("run", JOBS, "note", "--size", 1)
    for number in range(3):
        run.process.stdin.write(b"%d\n" % number)
        run.process.stdin.flush()
        assert json.loads(run.process.stdout.readline())["result"] == number
    run.process.stdin.write(b"3")  # without a line end
    assert json.loads(run.ended().out)["result"] == 3


def test_a_reader_that_closes_the_output_ends_the_run_quietly(pool_monitor: Start):
    endless = [sys.executable, "-S", "-c", "while True: print(1)"]
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as yes:
        run = pool_monitor("run", JOBS, "note", "--size", 1, stdin=yes.stdout)
        assert json.loads(run.process.stdout.readline())["ok"]
        run.children()
        run.process.stdout.close()
        assert run.process.stderr.read() == b""
        assert run.process.wait(20) == 141, "as of a program that SIGPIPE ends"
        yes.kill()
    assert run.left_over() == []


def test_a_reader_that_is_slow_does_not_make_calls_time_out(pool_monitor: Start, log: Path, tmp_path: Path):
    source = written(tmp_path / "in", *({"args": ["x" * 20_000]} for _ in range(40)))
    run = pool_monitor("run", JOBS, "note", "--size", 2, "--timeout", 0.5, "--input", source)
    assert run.process.stdout is not None
    until(lambda: lines(log) >= 16)  # it has stopped, because nobody reads; what it has begun goes on
    probe = pool_monitor("snapshot")
    seen = json.loads(probe.ended().out)["pools"]["jobs"]["total"]
    assert seen["timeouts"] == 0
    done = run.ended()
    assert [json.loads(line)["ok"] for line in done.out.splitlines()] == [True] * 40


def test_a_run_whose_output_is_not_read_can_be_interrupted(pool_monitor: Start, log: Path, tmp_path: Path):
    source = written(tmp_path / "in", *({"args": ["x" * 20_000]} for _ in range(40)))
    run = pool_monitor("run", JOBS, "note", "--size", 1, "--input", source)
    until(lambda: lines(log) >= 8)
    run.children()
    run.send(signal.SIGINT)
    assert b"finishing" in run.process.stderr.readline()
    run.send(signal.SIGINT)
    assert run.process.wait(20) == 130
    assert run.left_over() == []


def test_the_output_need_not_be_a_file_on_disk(pool_monitor: Start, tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    run = pool_monitor("run", JOBS, "note", "--output", pipe, "--size", 1, stdin=subprocess.DEVNULL)
    assert pipe.read_text() == ""
    assert well(run.ended())
    done = pool_monitor("run", JOBS, "note", "--output", "/dev/null", "--size", 1).ended(b"1\n")
    assert well(done)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_a_full_disk_is_reported(pool_monitor: Start):
    done = pool_monitor("run", JOBS, "note", "--output", "/dev/full", "--size", 1).ended(b"1\n")
    assert done == (1, "", "Error: /dev/full: writing failed: No space left on device\n")


def test_an_ignored_interrupt_stays_ignored(program: Start, log: Path, tmp_path: Path):
    source, go = written(tmp_path / "in", {"args": [str(tmp_path / "go"), 1]}), tmp_path / "go"
    code = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from pool_monitor.cli import main; sys.argv[0] = 'pool-monitor'; main()"
    )
    run = program("-c", code, "run", JOBS, "wait_for", "--input", str(source), "--size", "1")
    until(lambda: lines(log) == 1)
    run.send(signal.SIGHUP)
    go.touch()
    assert run.ended().code == 0


# -- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "operation", "complaint"),
    [
        ("nothing_of_the_kind:X", "op", "no module named 'nothing_of_the_kind'"),
        ("examples/nothing.py:X", "op", "no file .*; its directory has .*text_tools.py"),
        ("examples/text_tools.py:Nope", "op", "no attribute 'Nope'; it has .*TextTools"),
        ("examples/text_tools.py:TextTools", "keyword", "no operation 'keyword'; .* chat, generate, keywords, summary"),
        ("examples/text_tools.py", "op", "has no public functions; for its class TextTools, use '.*.py:TextTools'"),
        ("examples/text_tools:", "op", "needs 'module:attribute'"),
    ],
)
def test_a_missing_name_is_reported_with_the_names_that_exist(
    target: str, operation: str, complaint: str, command: Command, tmp_path: Path
):
    done = command("run", target, operation, "--input", written(tmp_path / "in", 1, 2, 3), "--output", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert re.search(complaint, done.err), done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists() or lines(tmp_path / "out") == 0


def test_a_target_that_raises_on_import_shows_its_traceback_once(command: Command, tmp_path: Path):
    bad = tmp_path / "bad.py"
    bad.write_text("def helper():\n    raise RuntimeError('not today')\nhelper()\n")
    done = command("run", f"{bad}:X", "op", "--input", written(tmp_path / "in", 1), "--size", 3)
    assert done.code == 2
    assert done.err.count("Traceback") == 1
    assert done.err.count("line 2, in helper") == 1
    assert done.err.count("RuntimeError: not today") == 2  # once in the headline, once at the end of the traceback
    assert "subprocess" not in done.err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[pool]\npython = "/nowhere/python"\n', "cannot run '/nowhere/python'"),
        ("[pool]\nsize = 3\n", "c.toml.*size"),
        ("[pool]\ntimeout = -1\n", "c.toml.*timeout"),
        ("[pol]\n", "c.toml.*pol"),
        (None, "c.toml: cannot be read"),
    ],
)
def test_a_bad_configuration_is_a_usage_error(text: str | None, complaint: str, command: Command, tmp_path: Path):
    if text is not None:
        (tmp_path / "c.toml").write_text(text)
    source = written(tmp_path / "in", 1)
    done = command("run", JOBS, "note", "--config", tmp_path / "c.toml", "--input", source)
    assert done.code == 2
    assert re.search(complaint, done.err), done.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--input", "/nowhere/in"), "/nowhere/in: No such file"),
        (("--input", "/"), "/: Is a directory"),
        (("--output", "/"), "/: Is a directory"),
        (("--output", "/nowhere/out"), "/nowhere/out: No such file"),
        (("--size", "0"), "--size"),
        (("--timeout", "0"), "--timeout"),
        (("--retries", "-1"), "--retries"),
        (("--sise", "2"), "--size"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...], complaint: str, command: Command):
    done = command("run", JOBS, "note", *arguments)
    assert (done.code, done.out) == (2, "")
    assert complaint in done.err
    assert "Traceback" not in done.err


def test_a_closed_stdin_is_reported(program: Start):
    code = "import os, sys; os.close(0); from pool_monitor.cli import main; main()"
    done = program("-c", code, "run", JOBS, "note").ended()
    assert (done.code, done.err) == (2, "Error: stdin: is closed\n")
