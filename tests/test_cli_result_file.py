"""``pool-monitor run`` with an existing output: continue it, refuse it, or try its failed lines again."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from pool_monitor.cli.job_note import JobNote
from pool_monitor.cli.jsonl import Job, output_line, parse_lines
from pool_monitor.cli.result_file import EarlierAnswers, PlaceTable, ResultFile
from pool_monitor.cli.streams import open_stream
from pool_monitor.errors import ConfigError, OperationError, PoolError
from pool_monitor.pool.caller import CallResult
from tests.helpers.programs import answers

NOTE = JobNote("/t.py:T", "op")
INPUT = [b'{"args": [1], "id": "same"}', b"2", b"", b'{"args": [4], "id": "same"}', b'{"args": [5], "id": 2}', b"6"]


class Killed(Exception):
    pass


def run(
    path: Path,
    lines: list[bytes] = INPUT,
    *,
    fail: set[int] = frozenset(),  # type: ignore[assignment]
    order: Callable[[list[Job]], list[Job]] = list,
    stop: int | None = None,
    killed: bool = False,
    made: JobNote = NOTE,
    unordered: bool = False,
    retry: bool = False,
) -> tuple[list[Any], EarlierAnswers]:
    """Run without a pool. Return the arguments of the jobs that were run, and the counts of earlier answers.

    The run ends after *stop* jobs, as by Ctrl-C or, if *killed*, as by SIGKILL.
    """

    async def source() -> AsyncIterator[bytes]:
        for line in lines:
            yield line

    async def work() -> tuple[list[Any], EarlierAnswers]:
        done: list[Any] = []
        with (
            open_stream(str(path), to_write=True) as stream,
            ResultFile(stream, made, ordered=not unordered, retry=retry) as to,
        ):
            jobs = [job async for job in await to.begin(parse_lines(source(), "in"))]
            for job in order(jobs)[:stop]:
                value = job.args[0]
                error = OperationError("op", "ValueError", "no") if value in fail else None
                result = CallResult(None if error else value * 10, error, "t-0", 0.1)
                await to.write(output_line(job, result, placed=to.placed))
                done.append(value)
                if not unordered:
                    to.answered(job)
            if killed:
                raise Killed
            to.finish()
            return done, to.earlier

    try:
        return asyncio.run(work())
    except Killed:
        return [], EarlierAnswers()


def results(path: Path) -> list[Any]:
    return [answer.get("result") for answer in answers(path)]


# -- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unordered", [False, True])
@pytest.mark.parametrize("killed", [False, True])
def test_a_run_continues_where_it_stopped_and_repeats_nothing(unordered: bool, killed: bool, tmp_path: Path):
    out = tmp_path / "out"
    run(out, order=lambda jobs: jobs[::-1] if unordered else jobs, stop=2, killed=killed, unordered=unordered)
    first = out.read_bytes()
    done, earlier = run(out, unordered=unordered)
    assert (done, earlier) == ([1, 2, 4] if unordered else [4, 5, 6], EarlierAnswers(2, 0))
    assert out.read_bytes().startswith(first)
    assert sorted(results(out)) == [10, 20, 40, 50, 60]


def test_an_unordered_output_is_continued_by_place_whatever_its_ids(tmp_path: Path):
    out = tmp_path / "out"
    run(out, order=lambda jobs: [jobs[3], jobs[2]], unordered=True)  # other jobs have the ids 2 and "same" too
    assert run(out, unordered=True) == ([1, 2, 6], EarlierAnswers(2, 0))
    assert sorted(answer["place"] for answer in answers(out)) == [1, 2, 3, 4, 5]


def test_an_ordered_output_can_be_continued_unordered_and_not_vice_versa(tmp_path: Path):
    out = tmp_path / "out"
    run(out, stop=2)
    assert run(out, order=lambda jobs: jobs[::-1][:2], unordered=True)[0] == [6, 5]
    for retry in (False, True):
        with pytest.raises(ConfigError, match=r"out:3: its answers are not in order; continue with --unordered"):
            run(out, retry=retry)
    assert run(out, unordered=True)[0] == [4]


def test_an_input_that_has_grown_is_accepted(tmp_path: Path):
    out = tmp_path / "out"
    run(out)
    assert run(out, [*INPUT, b"7"]) == ([7], EarlierAnswers(5, 0))


def test_half_a_line_at_the_end_is_done_again(tmp_path: Path):
    for unordered in (False, True):
        out = tmp_path / f"out{unordered}"
        run(out, stop=3, unordered=unordered)
        out.write_bytes(out.read_bytes()[:-5])
        assert run(out, unordered=unordered) == ([4, 5, 6], EarlierAnswers(2, 0))


# -- refusing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unordered", [False, True])
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize(
    ("made", "lines", "complaint"),
    [
        (JobNote("/other.py:T", "op"), INPUT, "holds answers of 'op' of /t.py:T, not of 'op' of /other.py:T"),
        (JobNote("/t.py:T", "other"), INPUT, "holds answers of 'op' of /t.py:T, not of 'other' of"),
        (JobNote("/t.py:T", "op", "abc"), INPUT, "made with other init_args"),
        (NOTE, [INPUT[0], b"3", *INPUT[2:]], "was made from another input"),
        (NOTE, INPUT[:4], "was made from another input|the input has no more lines"),
        (NOTE, [INPUT[0].replace(b"1", b"9"), *INPUT[1:]], "was made from another input"),
    ],
)
def test_the_output_of_another_job_is_refused_and_kept(
    unordered: bool, retry: bool, made: JobNote, lines: list[bytes], complaint: str, tmp_path: Path
):
    out = tmp_path / "out"
    run(out)
    before = out.read_bytes()
    with pytest.raises(ConfigError, match=complaint):
        run(out, lines, made=made, unordered=unordered, retry=retry)
    assert out.read_bytes() == before


def test_an_output_without_its_note_is_continued_with_a_remark_if_ids_match(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    run(out, stop=2)
    out = out.rename(tmp_path / "moved")
    assert run(out)[0] == [4, 5, 6]
    assert "moved: has no note of what it was made from" in capsys.readouterr().err
    assert run(out) == ([], EarlierAnswers(5, 0))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("unordered", [False, True])
@pytest.mark.parametrize("retry", [False, True])
def test_an_output_without_its_note_is_refused_if_ids_differ(unordered: bool, retry: bool, tmp_path: Path):
    out = tmp_path / "out"
    run(out, unordered=unordered)
    (tmp_path / "out.job").unlink()
    before = out.read_bytes()
    others = [b'{"args": [%d], "id": "%d of another"}' % (number, number) for number in range(5)]
    with pytest.raises(ConfigError, match=r"out:?1?: cannot continue from here.*made from another input"):
        run(out, others, unordered=unordered, retry=retry)
    assert out.read_bytes() == before


def test_a_removed_output_is_started_over_whatever_its_note_says(tmp_path: Path):
    out = tmp_path / "out"
    run(out)
    out.unlink()
    assert run(out, [b"7"], made=JobNote("/other.py:T", "else"))[0] == [7]
    assert run(out, [b"7"], made=JobNote("/other.py:T", "else")) == ([], EarlierAnswers(1, 0))


@pytest.mark.parametrize("text", [b"", b"diary", b'{"target": "x"}', b'{"target":"","operation":"","version":9}'])
def test_an_invalid_note_is_refused_with_a_remedy(text: bytes, tmp_path: Path):
    out = tmp_path / "out"
    run(out)
    (tmp_path / "out.job").write_bytes(text)
    with pytest.raises(ConfigError, match=r"out\.job: .*remove it to continue anyway"):
        run(out)


def test_a_run_that_cannot_write_its_note_reports_that_and_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    (tmp_path / "out.job" / "sub").mkdir(parents=True)
    assert run(out)[0] == [1, 2, 4, 5, 6]
    assert capsys.readouterr().err.count("out.job: cannot be written") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.job"]


@pytest.mark.parametrize(
    "name", ["n" * 255, "n" * 246, "\u00fc" * 123], ids=["longest", "with room for a note", "not ascii"]
)
def test_a_name_too_long_for_the_files_beside_it_is_refused(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match=r"name is too long: its companion files need names \d+ characters longer"):
        run(tmp_path / name)
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [(name, 0)]


def test_an_input_that_has_become_shorter_is_refused_as_such(tmp_path: Path):
    run(tmp_path / "out")
    with pytest.raises(
        ConfigError, match=r"another input: the output answers 6 lines, but this input ends with line 2"
    ):
        run(tmp_path / "out", INPUT[:2])


def test_a_link_to_an_output_has_the_notes_of_the_file(tmp_path: Path):
    out, link = tmp_path / "out", tmp_path / "link"
    link.symlink_to(out)
    run(link, stop=2, fail={1})
    assert run(out, stop=0) == ([], EarlierAnswers(2, 1))
    assert run(link, retry=True)[0] == [1, 4, 5, 6]
    assert link.is_symlink()
    assert results(out) == [10, 20, 40, 50, 60]


# -- trying again -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unordered", [False, True])
def test_failed_lines_are_tried_again_and_all_others_are_kept(unordered: bool, tmp_path: Path):
    out = tmp_path / "out"
    run(out, fail={2, 5}, stop=4, unordered=unordered)
    assert run(out, unordered=unordered) == ([6], EarlierAnswers(4, 2))
    out.chmod(0o640)
    assert run(out, fail={5}, unordered=unordered, retry=True)[0] == [2, 5]
    done, _ = run(out, [*INPUT, b"7"], unordered=unordered, retry=True)
    assert done == [5, 7]
    found = answers(out) if not unordered else sorted(answers(out), key=lambda answer: answer["place"])
    assert [answer["result"] for answer in found] == [10, 20, 40, 50, 60, 70]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.job"]
    assert out.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("unordered", [False, True])
def test_a_file_that_cannot_be_tried_again_is_left_alone(unordered: bool, tmp_path: Path):
    out = tmp_path / "out"
    run(out, fail={2}, unordered=unordered)
    out.write_bytes(before := out.read_bytes() + b"no answer\n")
    with pytest.raises(ConfigError, match="out:6: cannot continue from here: this line is not an answer"):
        run(out, unordered=unordered, retry=True)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.job"]


def test_a_retry_keeps_the_group_of_the_file(tmp_path: Path):
    out = tmp_path / "out"
    run(out, fail={2})
    others = [group for group in (*os.getgroups(), *range(1, 3)) if group != out.stat().st_gid]
    try:
        os.chown(out, -1, others[0])
    except OSError:
        pytest.skip("needs a second group")
    assert run(out, retry=True)[0] == [2]
    assert out.stat().st_gid == others[0]


def test_failed_lines_of_an_ordered_output_can_be_retried_unordered(tmp_path: Path):
    out = tmp_path / "out"
    run(out, fail={1, 4}, stop=3)
    assert run(out, order=lambda jobs: jobs[::-1], fail={4}, unordered=True, retry=True)[0] == [6, 5, 4, 1]
    assert run(out, unordered=True, retry=True)[0] == [4]
    assert sorted((answer["place"], answer["result"]) for answer in answers(out)) == [
        (1, 10), (2, 20), (3, 40), (4, 50), (5, 60)
    ]  # fmt: skip


@pytest.mark.parametrize("unordered", [False, True])
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("stop", range(6))
def test_no_answer_is_lost_when_a_retry_ends_in_the_middle(unordered: bool, killed: bool, stop: int, tmp_path: Path):
    out = tmp_path / "out"
    run(out, fail={1, 4}, stop=4, unordered=unordered)
    first = results(out)
    run(out, fail={4}, stop=stop, killed=killed, unordered=unordered, retry=True)
    run(out, stop=0, unordered=unordered)  # every next command merges the patch
    after = results(out)
    assert not {result for result in first if result} - set(after)
    again, _ = run(out, unordered=unordered, retry=True)
    assert (10 in after) == (1 not in again), "an existing answer is not requested again"
    assert sorted(results(out)) == [10, 20, 40, 50, 60]
    assert [answer["id"] for answer in answers(out)] == ["same", 2, "same", 2, 6] or unordered
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.job"]


def test_half_a_line_of_a_killed_retry_is_no_answer(tmp_path: Path):
    out, new = tmp_path / "out", tmp_path / "out.retry"
    run(out, fail={2, 5})
    run(out, stop=3, killed=True, retry=True)
    new.write_bytes(new.read_bytes()[:-7])
    assert run(out) == ([], EarlierAnswers(5, 1))
    assert results(out) == [10, 20, 40, None, 60]


def test_a_retry_that_finds_no_room_names_its_file_and_can_be_resumed(tmp_path: Path):
    out = tmp_path / "out"
    run(out, fail={2})
    before, limits = out.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(PoolError, match=r"out\.retry\.new: writing failed: File too large"):
            run(out, stop=2, retry=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert out.read_bytes() == before
    assert run(out) == ([], EarlierAnswers(5, 0))
    assert results(out) == [10, 20, 40, 50, 60]


def test_a_patch_whose_output_has_disappeared_is_kept(tmp_path: Path):
    out = tmp_path / "out"
    run(out, fail={2})
    run(out, stop=2, killed=True, retry=True)
    out.unlink()
    with pytest.raises(
        ConfigError, match=r"out\.retry: .*rename it to .*out and continue with --unordered, or remove it"
    ):
        run(out)
    (tmp_path / "out.retry").rename(out)
    assert run(out, unordered=True) == ([1, 4, 5, 6], EarlierAnswers(1, 0))
    assert results(out) == [20, 10, 40, 50, 60]


def test_a_patch_can_be_applied_twice(tmp_path: Path):
    out, patch = tmp_path / "out", tmp_path / "out.retry"
    run(out, fail={2, 5}, stop=4)
    run(out, fail={5}, killed=True, retry=True)
    left = patch.read_bytes()
    assert run(out) == ([], EarlierAnswers(5, 1))  # 6 was answered too
    after = out.read_bytes()
    patch.write_bytes(left)  # as after a kill before the removal
    assert run(out) == ([], EarlierAnswers(5, 1))
    assert out.read_bytes() == after
    assert not patch.exists()
    run(out, retry=True)
    patch.write_bytes(left)  # an old patch, with a failure where there is a good answer
    assert run(out) == ([], EarlierAnswers(5, 0))
    assert results(out) == [10, 20, 40, 50, 60]


@pytest.mark.parametrize("unordered", [False, True])
def test_a_patch_that_holds_good_answers_too_is_merged(unordered: bool, tmp_path: Path):
    out = tmp_path / "out"
    run(out, fail={2, 5}, unordered=unordered)
    run(tmp_path / "copy", fail={5}, stop=4, unordered=unordered)
    (tmp_path / "copy").rename(tmp_path / "out.retry")
    assert run(out, unordered=unordered) == ([], EarlierAnswers(5, 1))
    assert results(out) == [10, 20, 40, None, 60]


def test_a_retried_answer_takes_the_form_of_the_file(tmp_path: Path):
    out = tmp_path / "out"
    run(out, fail={2}, stop=4)
    run(out, retry=True)
    assert [list(answer)[:2] for answer in answers(out)] == [["id", "ok"]] * 5
    run(out := tmp_path / "unordered", fail={2}, order=lambda jobs: jobs[::-1], unordered=True)
    run(out, killed=True, unordered=True, retry=True)
    with pytest.raises(ConfigError, match="continue with --unordered"):
        run(out)  # merges the patch before it compares anything
    assert [(*list(answer)[:2], answer["place"]) for answer in answers(out)] == [
        ("id", "place", n) for n in (5, 4, 3, 2, 1)
    ]


@pytest.mark.parametrize("unordered", [False, True])
def test_a_patch_of_another_output_is_refused_and_nothing_is_changed(unordered: bool, tmp_path: Path):
    out, patch = tmp_path / "out", tmp_path / "out.retry"
    run(out, fail={2}, unordered=unordered)
    patch.write_bytes(b'{"id":"of another","place":4,"ok":true,"result":1}\n')
    before = out.read_bytes(), patch.read_bytes()
    refusal = r"out\.retry: does not belong to .*at place 4 it has id 'of another'.*remove .*out\.retry"
    for retry in (False, True):
        with pytest.raises(ConfigError, match=refusal):
            run(out, unordered=unordered, retry=retry)
    assert (out.read_bytes(), patch.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.job", "out.retry"]


@pytest.mark.parametrize("taken_over_unordered", [False, True])
@pytest.mark.parametrize("unordered", [False, True])
def test_a_patch_is_merged_whatever_the_order_of_the_next_run(
    unordered: bool, taken_over_unordered: bool, tmp_path: Path
):
    out = tmp_path / "out"
    run(out, fail={1, 4}, stop=3, unordered=unordered)
    run(out, order=lambda jobs: jobs[::-1], stop=3, killed=True, unordered=True, retry=True)  # 6, 5 and 4
    for _ in range(2):
        run(out, stop=0, unordered=taken_over_unordered)
    assert run(out, unordered=True, retry=True)[0] == [1]
    found = sorted((answer.get("place", number), answer["result"]) for number, answer in enumerate(answers(out), 1))
    assert found == [(1, 10), (2, 20), (3, 40), (4, 50), (5, 60)]
    assert not unordered or all("place" in answer for answer in answers(out))


def test_only_a_file_can_be_retried(tmp_path: Path):
    with pytest.raises(ConfigError, match="--retry-failed needs an --output that is a file"):
        run(Path(os.devnull), retry=True)


def test_a_retry_without_an_output_is_an_ordinary_run(tmp_path: Path):
    assert run(tmp_path / "out", retry=True)[0] == [1, 2, 4, 5, 6]
    assert json.loads((tmp_path / "out.job").read_text())["lines"] == 6


# -- details --------------------------------------------------------------------------------------------------------


def test_places_have_numbers():
    places = PlaceTable("h")
    for place in (5_000_000, 1, 1023, 1024):
        places[place] = -place % 99
    places[1023] = 0
    assert [places[place] for place in (0, 1, 2, 1023, 1024, 1025, 5_000_000)] == [0, 98, 0, 0, 65, 0, 94]
    assert list(places) == [1, 1024, 5_000_000]


def test_an_input_that_ends_before_its_answers_is_refused(tmp_path: Path):
    for unordered in (False, True):
        for retry in (False, True):
            out = tmp_path / f"out{unordered}{retry}"
            run(out, fail={1}, unordered=unordered)
            out.with_name(f"{out.name}.job").unlink()
            with pytest.raises(
                ConfigError, match=r"the input (has no more lines|ends with place 3); was it made from another"
            ):
                run(out, INPUT[:4], unordered=unordered, retry=retry)


@pytest.mark.parametrize("unordered", [False, True])
def test_lines_that_are_not_retried_stay_identical_to_the_byte(unordered: bool, tmp_path: Path):
    out = tmp_path / "out"
    run(out, fail={2}, unordered=unordered)
    out.write_bytes(
        before := out.read_bytes().replace(b'"ok":true,"result":10', b'"ok":true,"result":[1e22,%d]' % 10**29)
    )
    assert run(out, retry=True, unordered=True)[0] == [2]
    kept = [line for line in before.splitlines() if b'"ok":true' in line]
    assert [line.split(b'"ok"')[1] for line in kept] == [
        line.split(b'"ok"')[1] for number, line in enumerate(out.read_bytes().splitlines()) if number != 1
    ]
