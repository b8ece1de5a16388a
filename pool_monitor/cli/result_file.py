"""The output file of ``pool-monitor run``: continued by later runs, and improved by ``--retry-failed``.

Theory of operation: each line of the file answers one line of the input. The *place* of an answer is its line number in
an ordered output, from 1. Lines of an unordered output contain their place. A note beside the file records what it was
made from.

``--retry-failed`` does not change ``OUT``. It writes a patch, ``OUT.retry``, of new answers with their places. When the
run ends or is interrupted, it merges both into ``OUT.retry.new``, renames that file to ``OUT``, and removes the patch.
A run that finds the patch of a killed run merges it first. So every answer is in ``OUT`` or in the patch at all times.
A patch may be applied twice, because a good answer is never replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import zlib
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import msgspec

from pool_monitor.cli.job_note import START_OVER, JobNote, JobNoteFile
from pool_monitor.cli.jsonl import Job, OutputLine
from pool_monitor.cli.output import for_terminal, remark
from pool_monitor.cli.streams import Stream, open_stream
from pool_monitor.errors import ConfigError, PoolError

_BLOCK = 1024  # places


class EarlierAnswers(NamedTuple):
    """How many lines earlier runs have answered, and how many of these failed."""

    lines: int = 0
    failed: int = 0


class PlaceTable:
    """Maps places to numbers of the array type *code*, compactly if the places are close together."""

    def __init__(self, code: str) -> None:
        empty = array(code, [0]) * _BLOCK
        self._blocks: defaultdict[int, array[int]] = defaultdict(lambda: empty[:])

    def __getitem__(self, place: int) -> int:
        """Return the number of *place*. 0: it has none."""
        block = self._blocks.get(place // _BLOCK)
        return 0 if block is None else block[place % _BLOCK]

    def __setitem__(self, place: int, number: int) -> None:
        self._blocks[place // _BLOCK][place % _BLOCK] = number

    def __iter__(self) -> Iterator[int]:
        """Yield the places that have a number, in order."""
        for index in sorted(self._blocks):
            yield from (index * _BLOCK + at for at, number in enumerate(self._blocks[index]) if number)


# -- the lines of an output -------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    data: bytes
    place: int
    id: Any
    ok: bool
    placed: bool
    """Whether the line contains its place."""


def _parsed(data: bytes, place: int) -> _Line | None:
    """Return a whole line as an answer, with *place* unless the line contains its place. None: it is not an answer."""
    try:
        fields = msgspec.json.decode(data)
        line = _Line(data, fields.get("place", place), fields["id"], fields["ok"], "place" in fields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    return line if type(line.place) is int and line.place >= 1 and type(line.ok) is bool else None


def _read(file: BinaryIO, name: str) -> Iterator[_Line]:
    """Yield the whole lines of an output, without an unfinished last line. Raises ConfigError for other data."""
    file.seek(0)
    for number, data in enumerate(file, 1):
        if not data.endswith(b"\n") and _is_beginning(data):
            return
        line = _parsed(data, number) if data.endswith(b"\n") else None
        if line is None:
            raise _cannot_go_on(f"{name}:{number}", "this line is not an answer")
        yield line


def _in_order(file: BinaryIO, name: str) -> Iterator[_Line]:
    """Like `_read`, for an ordered output. Raises ConfigError also if the lines are not in order."""
    for number, line in enumerate(_read(file, name), 1):
        if line.place != number:
            raise ConfigError(
                f"{name}:{number}: its answers are not in order; continue with --unordered, or give another --output"
            )
        yield line


def _is_beginning(data: bytes, job: Job | None = None) -> bool:
    """Return whether *data* may be the beginning of the answer to *job*, or of any answer, that a killed run has left.
    Other data must not be removed.
    """
    begin = b'{"id":' if job is None else msgspec.json.encode({"id": job.id})[:-1] + b","
    return data.startswith(begin) or begin.startswith(data)


def _cannot_go_on(where: str, why: str) -> ConfigError:
    return ConfigError(f"{where}: cannot continue from here: {why}; was it made from another input? {START_OVER}")


def _with_place(line: _Line, *, placed: bool) -> bytes:
    """Return the data of *line* with its place in it if *placed*, else without."""
    if line.placed == placed:
        return line.data
    fields = msgspec.json.decode(line.data, type=dict[str, msgspec.Raw])
    begin = {"id": fields.pop("id"), "place": line.place} if placed else {"id": fields.pop("id")}
    fields.pop("place", None)
    return msgspec.json.encode({**begin, **fields}) + b"\n"


def _take_answer(patch: Stream, begins: PlaceTable, place: int) -> _Line:
    """Return the answer for *place* in *patch*, and remove it from *begins*."""
    patch.file.seek(begins[place] - 1)
    begins[place] = 0
    line = _parsed(patch.file.readline(), place)
    assert line is not None
    return line


# -- going on ---------------------------------------------------------------------------------------------------------


class ResultFile:
    """The destination of answers: a file that later runs continue or, if it cannot be read back, any *stream*.

    Use it as a context manager. *made* records what the answers are made from. Without *ordered*, answers are written
    as they are ready. With *retry*, earlier failures count as unanswered.
    """

    def __init__(self, stream: Stream, made: JobNote, *, ordered: bool, retry: bool) -> None:
        self.name, self.ordered = stream.name, ordered
        self.placed = not ordered
        """Whether answers have to be written with their places."""
        self.earlier = EarlierAnswers()
        self._retry = retry
        self._stream = self._old = stream
        self._files = contextlib.ExitStack()
        self._path = Path(os.path.realpath(stream.name))
        self._note = JobNoteFile(self._path, self.name, made) if stream.readable else None
        if self._note is not None:
            _check_length(self._path, self.name, self._note.new_path, self._beside(".retry.new"))
        elif retry:
            raise ConfigError(f"{self.name}: --retry-failed needs an --output that is a file on disk")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._files.close()

    @property
    def kept(self) -> bool:
        """Whether the same command can go on from here."""
        return self._note is not None

    async def begin(self, jobs: AsyncIterator[Job]) -> AsyncIterator[Job]:
        """Read the existing answers, and return the jobs that are left to do.

        Raises ConfigError, before anything is changed, if the file does not hold answers to these jobs.
        """
        if self._note is None:
            return jobs
        self._finish_earlier_retry()
        if os.fstat(self._old.fd).st_size:
            self._note.compare()
            jobs = self._note.verified(jobs)
        else:
            self._retry = False  # there is nothing to try again
        if self.ordered and not self._retry:
            jobs = await self._after_beginning(jobs)
        else:
            jobs = self._without_answered(jobs)
        self._note.write()
        return jobs

    async def _after_beginning(self, jobs: AsyncIterator[Job]) -> AsyncIterator[Job]:
        """Return the jobs behind those that the file answers, in their order."""
        count = failed = end = 0
        for line in _in_order(self._old.file, self.name):
            job = await anext(jobs, None)
            if job is None or line.id != job.id:
                why = f"an answer with id {job.id!r:.80} is expected here" if job else "the input has no more lines"
                raise _cannot_go_on(f"{self.name}:{count + 1}", why)
            count, failed, end = count + 1, failed + (not line.ok), end + len(line.data)
        self._old.file.seek(end)
        if cut := self._old.file.read():
            job = await anext(jobs, None)
            if job is None or not _is_beginning(cut, job):
                raise _cannot_go_on(
                    f"{self.name}:{count + 1}", "its last line has no line end, and is not the beginning of this answer"
                )
            jobs = _with_first(job, jobs)
        self._old.file.truncate(end)
        self.earlier = EarlierAnswers(count, failed)
        return jobs

    def _without_answered(self, jobs: AsyncIterator[Job]) -> AsyncIterator[Job]:
        """Return the jobs without those that the file answers; with *retry*, without those that have a good answer."""
        count = failed = end = 0
        answered = PlaceTable("h")  # a hash of the id; negative if the job is tried again
        for line in (_in_order if self.ordered else _read)(self._old.file, self.name):
            counts = line.ok or not self._retry
            answered[line.place] = _hash(line.id) if counts else -_hash(line.id)
            count, failed, end = count + counts, failed + (counts and not line.ok), end + len(line.data)
        self.earlier = EarlierAnswers(count, failed)
        if self._retry:
            self._stream, self.placed = self._created(".retry"), True
        else:
            self._old.file.truncate(end)
        return _unanswered(jobs, answered, self.name)

    # -- writing ------------------------------------------------------------------------------------------------------

    async def write(self, answer: OutputLine) -> None:
        """Write one line. Raises as `Stream.write` does."""
        await self._stream.write(for_terminal(answer.line) if self._stream.is_terminal else answer.line)

    def answered(self, job: Job) -> None:
        """Note that *job* and all jobs before it are answered. Call it seldom: each call writes a file."""
        if self._note is not None:
            self._note.answered(job)

    def finish(self) -> None:
        """Merge the retried answers into the file. Raises PoolError if that fails; the next run then merges them."""
        if self._stream is not self._old:
            self._apply_patch(self._stream)

    def forget(self) -> None:
        """Discard the retried answers and leave the file as it was."""
        if self._stream is not self._old:
            Path(self._stream.name).unlink(missing_ok=True)
            self._stream = self._old

    # -- the patch ----------------------------------------------------------------------------------------------------

    def _finish_earlier_retry(self) -> None:
        """Merge the patch that a killed ``--retry-failed`` has left."""
        left = self._beside(".retry")
        if not left.exists():
            return
        if os.fstat(self._old.fd).st_size == 0:
            raise ConfigError(
                f"{left}: is from a killed --retry-failed, but {self.name} was removed since; rename it to "
                f"{self.name} and continue with --unordered, or remove it"
            )
        with open_stream(str(left), to_write=True) as patch:
            self._apply_patch(patch)
        remark(f"{self.name}: merged the answers in {left.name} of a --retry-failed that was killed")

    def _apply_patch(self, patch: Stream) -> None:
        """Merge the answers of *patch* into the file, and remove *patch*. A failure leaves both as they were."""
        path = self._beside(".retry.new")
        try:
            path.unlink(missing_ok=True)
            new = self._created(".retry.new")
            new.file.writelines(self._patched(patch))
            new.file.flush()
            os.fsync(new.fd)
            path.replace(self._path)
            _sync(self._path.parent)  # otherwise a power failure may undo the renaming and not the removal
        except OSError as error:
            raise PoolError(f"{path}: writing failed: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
        Path(patch.name).unlink()
        self._stream = self._old = new._replace(name=self.name)

    def _patched(self, patch: Stream) -> Iterator[bytes]:
        """Yield the lines of the file, with failures replaced from *patch*, then the rest of *patch* by place."""
        begins = PlaceTable("q")  # place of an answer in *patch* -> its offset, plus 1
        offset = lines = count = failed = 0
        placed = not self.ordered
        for line in _read(patch.file, patch.name):
            begins[line.place] = offset + 1
            offset += len(line.data)
        for line in _read(self._old.file, self.name):
            lines += 1
            placed = placed or line.placed
            again = _take_answer(patch, begins, line.place) if begins[line.place] else line
            if again.id != line.id:
                raise ConfigError(
                    f"{patch.name}: does not belong to {self.name}: at place {line.place} it has id {again.id!r:.80}, "
                    f"but {self.name} has {line.id!r:.80}; remove {patch.name}, or move it away"
                )
            if line.ok or again is line:
                again, count, failed = line, count + 1, failed + (not line.ok)
            yield _with_place(again, placed=placed)
        for number, place in enumerate(begins, lines + 1):
            placed = placed or place != number
            yield _with_place(_take_answer(patch, begins, place), placed=placed)
        self.earlier = EarlierAnswers(count, failed)

    def _beside(self, end: str) -> Path:
        return self._path.with_name(self._path.name + end)

    def _created(self, end: str) -> Stream:
        """Create a file beside the output, with the owner and mode of the output."""
        stream = self._files.enter_context(open_stream(str(self._beside(end)), to_write=True))
        old = os.fstat(self._old.fd)
        with contextlib.suppress(OSError):  # only root may change the owner
            os.fchown(stream.fd, old.st_uid, old.st_gid)
        os.fchmod(stream.fd, stat.S_IMODE(old.st_mode))
        return stream


def _sync(directory: Path) -> None:
    """Write renamings in *directory* to disk, if the file system supports it."""
    with contextlib.suppress(OSError):
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


async def _with_first(first: Job, rest: AsyncIterator[Job]) -> AsyncIterator[Job]:
    yield first
    async for job in rest:
        yield job


async def _unanswered(jobs: AsyncIterator[Job], answered: PlaceTable, name: str) -> AsyncIterator[Job]:
    """Yield the *jobs* without an answer that counts. Raises ConfigError if an answer has another id than its job, or
    if the input ends before the answers do.
    """
    place = 0
    async for job in jobs:
        place = job.place
        if abs(answered[place]) not in (0, _hash(job.id)):
            raise _cannot_go_on(name, f"the answer with place {place} should have the id {job.id!r:.80}")
        if answered[place] <= 0:
            yield job
    if place < (last := max(answered, default=0)):
        raise _cannot_go_on(name, f"the output has an answer with place {last}, but the input ends with place {place}")


def _hash(id_: Any) -> int:
    return 1 + zlib.crc32(msgspec.json.encode(id_)) % 0x7FFF


def _check_length(path: Path, name: str, *beside: Path) -> None:
    """Raise ConfigError if the names of the files *beside* the output are too long for the file system."""
    longest = max(beside, key=lambda beside: len(beside.name))
    try:
        longest.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            more = len(longest.name) - len(path.name)
            raise ConfigError(
                f"{name}: its name is too long: its companion files need names {more} characters longer. Give a "
                "shorter --output"
            ) from error
