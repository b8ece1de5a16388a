"""The output file of ``pool-monitor run``: gone on with, never mixed up, and made better by ``--retry-failed``.

Theory of operation: each line of the file answers one line of the input. Answers have *places*, 1, 2, 3 and so on,
those that they have when they are in order; a line of an unordered output has its place in it, any other stands at it.

What the file was made from stands in a note beside it.

``--retry-failed`` writes ``OUT.retry``: good answers are copied, failed lines are tried again. At the end, also of an
interrupted run, what has no answer there is added from ``OUT``, and the new file takes the old one's name. Killed in
between, it leaves both, and the next run does that first. So there is no moment at which an answer is in neither.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import msgspec

from pool_monitor.cli.lines import Answer, Job
from pool_monitor.cli.note import START_OVER, Note, NoteFile
from pool_monitor.cli.output import for_terminal, say
from pool_monitor.cli.streams import Stream, opened
from pool_monitor.errors import ConfigError, PoolError

_BLOCK = 1024  # places


class Earlier(NamedTuple):
    """How many answers of earlier runs there are."""

    lines: int = 0
    failed: int = 0


class Places:
    """A set of places, at a byte each where they are close together: it tells the id there from nearly all others."""

    def __init__(self) -> None:
        self._blocks: defaultdict[int, bytearray] = defaultdict(lambda: bytearray(_BLOCK))

    def add(self, place: int, id_: Any) -> None:
        self._blocks[place // _BLOCK][place % _BLOCK] = _hash(id_)

    def __contains__(self, place: int) -> bool:
        block = self._blocks.get(place // _BLOCK)
        return block is not None and block[place % _BLOCK] != 0

    def fit(self, place: int, id_: Any) -> bool:
        """Whether *id_* may be what was added for *place*, which is there."""
        return self._blocks[place // _BLOCK][place % _BLOCK] == _hash(id_)


def _hash(id_: Any) -> int:
    return 1 + zlib.crc32(msgspec.json.encode(id_)) % 255


# -- the lines of an output -------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    data: bytes
    place: int
    id: Any
    ok: bool
    placed: bool
    """Whether its place stands in it."""


def _read(file: BinaryIO, name: str) -> Iterator[_Line]:
    """The whole lines of an output; a last one without its end is none. Raises ConfigError for what is no answer."""
    file.seek(0)
    for number, data in enumerate(file, 1):
        if not data.endswith(b"\n"):
            if not _is_beginning(data):
                raise _unfit(name, number, "this is no answer")
            return
        try:
            said = msgspec.json.decode(data)
            line = _Line(data, said.get("place", number), said["id"], said["ok"], "place" in said)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError):
            raise _unfit(name, number, "this is no answer") from None
        if type(line.place) is not int or line.place < 1 or type(line.ok) is not bool:
            raise _unfit(name, number, "this is no answer")
        yield line


def _in_order(file: BinaryIO, name: str) -> Iterator[_Line]:
    """The same of an output in order. Raises ConfigError also where it is none."""
    for number, line in enumerate(_read(file, name), 1):
        if line.place != number:
            raise ConfigError(
                f"{name}:{number}: its answers are not in order; go on with --unordered, or give another --output"
            )
        yield line


def _is_beginning(data: bytes, job: Job | None = None) -> bool:
    """Whether *data* may be what a killed run has left of the answer to *job*, or of any. Not everything without an end
    is ours to remove.
    """
    begin = b'{"id":' if job is None else msgspec.json.encode({"id": job.id})[:-1] + b","
    return data.startswith(begin) or begin.startswith(data)


def _unfit(name: str, number: int, why: str) -> ConfigError:
    return ConfigError(f"{name}:{number}: cannot go on from here: {why}; was it made from another input? {START_OVER}")


def _placed(line: _Line) -> bytes:
    """The same line with its place in it."""
    if line.placed:
        return line.data
    said = msgspec.json.decode(line.data)
    return msgspec.json.encode({"id": said.pop("id"), "place": line.place, **said}) + b"\n"


# -- going on ---------------------------------------------------------------------------------------------------------


class ResultFile:
    """Where answers go: a file that is gone on with or, when it cannot be read back, whatever *stream* is.

    Use it as a context manager. *made* says what the answers are made from. Without *ordered*, answers are written as
    they are ready. With *retry*, earlier answers that are failures count for nothing.
    """

    def __init__(self, stream: Stream, made: Note, *, ordered: bool, retry: bool) -> None:
        self.name, self.ordered = stream.name, ordered
        self.earlier = Earlier()
        self._retry = retry
        self._stream = self._old = stream
        self._files = contextlib.ExitStack()
        self._path = Path(os.path.realpath(stream.name)) if stream.readable else None
        if retry and self._path is None:
            raise ConfigError(f"{self.name}: --retry-failed goes on with an --output that is a file on disk")
        self._note = NoteFile(self._path, self.name, made) if self._path is not None else None
        if self._path is not None and self._note is not None:
            _check_length(self._path, self.name, self._note.new_path, _retry_path(self._path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._files.close()

    @property
    def kept(self) -> bool:
        """Whether the same command can go on from here."""
        return self._path is not None

    async def begin(self, jobs: AsyncIterator[Job]) -> AsyncIterator[Job]:
        """Find out what is there already; the jobs that are left to do, and those whose answers are to be kept.

        Raises ConfigError, before anything is changed, for a file that holds no answers to these jobs.
        """
        if self._note is None:
            return jobs
        self._stream = self._old = self._finished()
        empty = os.fstat(self._old.fd).st_size == 0
        if not empty:
            self._note.compare()
            jobs = self._note.verified(jobs)
        if self._retry and not empty:
            try:
                jobs = self._begin_again(jobs)
            except ConfigError:
                self.forget()
                raise
        elif self.ordered:
            jobs = await self._after_beginning(jobs)
        else:
            jobs = self._without_answered(jobs)
        self._note.write()
        return jobs

    async def _after_beginning(self, jobs: AsyncIterator[Job]) -> AsyncIterator[Job]:
        """The jobs behind those that the file answers, in their order."""
        count = failed = end = 0
        for line in _in_order(self._old.file, self.name):
            job = await anext(jobs, None)
            if job is None or line.id != job.id:
                why = f"an answer with id {job.id!r:.80} should stand there" if job else "the input has ended"
                raise _unfit(self.name, count + 1, why)
            count, failed, end = count + 1, failed + (not line.ok), end + len(line.data)
        self._old.file.seek(end)
        if cut := self._old.file.read():
            job = await anext(jobs, None)
            if job is None or not _is_beginning(cut, job):
                raise _unfit(self.name, count + 1, "its last line has no end, and is no beginning of this answer")
            jobs = _chained(job, jobs)
        self._old.file.truncate(end)
        self.earlier = Earlier(count, failed)
        return jobs

    def _without_answered(self, jobs: AsyncIterator[Job]) -> AsyncIterator[Job]:
        count = failed = end = 0
        answered = Places()
        for line in _read(self._old.file, self.name):
            answered.add(line.place, line.id)
            count, failed, end = count + 1, failed + (not line.ok), end + len(line.data)
        self._old.file.truncate(end)
        self.earlier = Earlier(count, failed)
        return _without(jobs, answered, self.name)

    def _begin_again(self, jobs: AsyncIterator[Job]) -> AsyncIterator[Job]:
        """Open the new file, and have failed lines tried again."""
        assert self._path is not None
        self._stream = self._files.enter_context(opened(str(_retry_path(self._path)), to_write=True))
        old = os.fstat(self._old.fd)
        with contextlib.suppress(OSError):  # only root gives files away
            os.fchown(self._stream.fd, old.st_uid, old.st_gid)
        os.fchmod(self._stream.fd, stat.S_IMODE(old.st_mode))
        if self.ordered:
            return self._with_answers(jobs)
        good = Places()
        count = 0
        with _explained(self._stream):
            for line in _read(self._old.file, self.name):
                if line.ok:
                    good.add(line.place, line.id)
                    count += 1
                    self._stream.file.write(_placed(line))
            self._stream.file.flush()
        self.earlier = Earlier(count)
        return _without(jobs, good, self.name)

    async def _with_answers(self, jobs: AsyncIterator[Job]) -> AsyncIterator[Job]:
        for line in _in_order(self._old.file, self.name):
            job = await anext(jobs, None)
            if job is None or job.id != line.id:
                raise _unfit(self.name, line.place, "the input has no line with this id there")
            yield job._replace(answer=line.data) if line.ok else job
        async for job in jobs:
            yield job

    # -- writing ------------------------------------------------------------------------------------------------------

    async def write(self, answer: Answer) -> None:
        """Write one line. Errors as for `Stream.write`."""
        await self._stream.write(for_terminal(answer.line) if self._stream.is_terminal else answer.line)

    def answered(self, job: Job) -> None:
        """Note that *job* and all before it are answered. Call it seldom: each note is a file that is written."""
        if self._note is not None:
            self._note.answered(job)

    def finish(self) -> None:
        """Give the new file the old one's name, if there is a new one."""
        if self._path is not None and self._stream is not self._old:
            added = _merge(self._old, self._stream, self._path)
            self.earlier = Earlier(self.earlier.lines + added.lines, self.earlier.failed + added.failed)
            self._old = self._stream

    def forget(self) -> None:
        """Leave the old file as it was, and no new one."""
        if self._path is not None and self._stream is not self._old:
            _retry_path(self._path).unlink(missing_ok=True)
            self._stream = self._old

    def _finished(self) -> Stream:
        """The file, after what a killed ``--retry-failed`` has left to do."""
        assert self._path is not None
        left = _retry_path(self._path)
        if not left.exists():
            return self._stream
        if os.fstat(self._stream.fd).st_size == 0:
            raise ConfigError(
                f"{left}: a --retry-failed was killed, and {self.name} has gone since; rename it to {self.name} to go "
                "on with it, or remove it"
            )
        with opened(str(left), to_write=True) as new:
            if os.fstat(new.fd).st_size == 0:
                left.unlink()
                return self._stream
            _merge(self._stream, new, self._path)
        say(f"{self.name}: took over what a --retry-failed that was killed has left in {left.name}")
        return self._files.enter_context(opened(str(self._path), to_write=True))


async def _chained(first: Job, rest: AsyncIterator[Job]) -> AsyncIterator[Job]:
    yield first
    async for job in rest:
        yield job


async def _without(jobs: AsyncIterator[Job], places: Places, name: str) -> AsyncIterator[Job]:
    """Those of the *jobs* that have no answer there. Raises ConfigError where it has another id."""
    async for job in jobs:
        if job.place not in places:
            yield job
        elif not places.fit(job.place, job.id):
            raise ConfigError(
                f"{name}: cannot go on from here: the answer with place {job.place} should have the id {job.id!r:.80}; "
                f"was it made from another input? {START_OVER}"
            )


def _check_length(path: Path, name: str, *beside: Path) -> None:
    """Raise ConfigError where the file system has no room for the names of the files *beside* it."""
    longest = max(beside, key=lambda beside: len(beside.name))
    try:
        longest.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            more = len(longest.name) - len(path.name)
            raise ConfigError(
                f"{name}: its name is too long: files beside it need names of {more} characters more. Give a shorter "
                "--output"
            ) from error


def _retry_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.retry")


def _merge(old: Stream, new: Stream, path: Path) -> Earlier:
    """Add to *new* what only *old* has an answer for, and give it the name *path*. Says what was added.

    Raises PoolError when that cannot be written; then both are there as before.
    """
    there = Places()
    end = count = failed = 0
    unordered = False
    for line in _read(new.file, new.name):
        there.add(line.place, line.id)
        unordered = unordered or line.placed
        end += len(line.data)
    with _explained(new):
        new.file.truncate(end)
        new.file.seek(0, os.SEEK_END)
        for line in _read(old.file, old.name):
            if line.place not in there:
                new.file.write(_placed(line) if unordered else line.data)
                count, failed = count + 1, failed + (not line.ok)
        new.file.flush()
        os.fsync(new.fd)
        Path(new.name).replace(path)
    return Earlier(count, failed)


@contextlib.contextmanager
def _explained(stream: Stream) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PoolError(f"{stream.name}: writing failed: {error.strerror}") from error
