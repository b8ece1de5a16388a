"""The output file of ``pool-monitor run``: gone on with, never mixed up, and made better by ``--retry-failed``.

Theory of operation: each line of the file answers one line of the input. Answers have *places*, 1, 2, 3 and so on,
those that they have when they are in order; a line of an unordered output has its place in it, any other stands at it.

Beside ``OUT`` there is a note, ``OUT.job``: target, operation, and a digest of the input up to a line before which all
are answered. The digest is compared as the input is read, so an input that has grown fits, and another one does not.

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
from pool_monitor.cli.output import for_terminal, say
from pool_monitor.cli.streams import Stream, opened
from pool_monitor.errors import ConfigError, PoolError

_VERSION = 1
_NOTE_LIMIT = 1 << 16  # bytes of a note
_BLOCK = 1024  # places
_START_OVER = "Give another --output, or remove it to start over"


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an output was made from."""

    target: str
    operation: str
    settings: str = ""
    """Digest of what else decides about results: how the target is set up, how lines are read."""
    lines: int = 0
    """Up to this line of the input all are answered;"""
    digest: str = ""
    """and this is what they were, hexadecimal."""
    version: int = _VERSION


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
    return ConfigError(f"{name}:{number}: cannot go on from here: {why}; was it made from another input? {_START_OVER}")


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
        self._made, self._retry = made, retry
        self._stream = self._old = stream
        self._files = contextlib.ExitStack()
        self._path = Path(os.path.realpath(stream.name)) if stream.readable else None
        if retry and self._path is None:
            raise ConfigError(f"{self.name}: --retry-failed goes on with an --output that is a file on disk")
        if self._path is not None:
            _check_length(self._path, self.name)

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
        if self._path is None:
            return jobs
        self._stream = self._old = self._finished()
        empty = os.fstat(self._old.fd).st_size == 0
        found = None if empty else self._compared()
        if found is not None and found.lines:
            jobs = _verified(jobs, found, self.name, _note_path(self._path))
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
        self._made = msgspec.structs.replace(
            self._made, lines=found.lines if found else 0, digest=found.digest if found else ""
        )
        self._write_note()
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
        if self._path is not None and job.number > self._made.lines:
            self._made = msgspec.structs.replace(self._made, lines=job.number, digest=job.digest.hex())
            self._write_note()

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

    # -- the note -----------------------------------------------------------------------------------------------------

    def _compared(self) -> Note | None:
        """The note beside the file, if there is one. Raises ConfigError when it is of another job."""
        assert self._path is not None
        found, made = _read_note(_note_path(self._path)), self._made
        if found is None:
            say(f"{self.name}: nothing beside it says what it was made from; going on where ids fit")
            return None
        if (found.target, found.operation) != (made.target, made.operation):
            raise ConfigError(
                f"{self.name}: holds answers of {found.operation!r} of {found.target}, not of {made.operation!r} of "
                f"{made.target}. {_START_OVER}"
            )
        if found.settings != made.settings:
            raise ConfigError(
                f"{self.name}: was made with other init_args or init_kwargs, or with --text where now there is none. "
                f"{_START_OVER}"
            )
        return found

    def _write_note(self) -> None:
        assert self._path is not None
        path, new = _note_path(self._path), _new_note_path(self._path)
        try:
            new.write_bytes(msgspec.json.encode(self._made) + b"\n")
            new.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink()
            say(f"{path}: cannot be written: {error.strerror}; a later run cannot see what {self.name} was made from")
            self._made = msgspec.structs.replace(self._made, lines=1 << 62)  # once is enough


async def _verified(jobs: AsyncIterator[Job], note: Note, name: str, path: Path) -> AsyncIterator[Job]:
    """The *jobs*, of which those up to the line that *note* names must be those that it was written for."""
    last, why = 0, f"of the first {note.lines} lines of this one, some differ"
    async for job in jobs:
        if job.number >= note.lines > last and (job.number, job.digest.hex()) != (note.lines, note.digest):
            break
        last = job.number
        yield job
    else:
        why = f"{note.lines} lines of that are answered, and this one ends with line {last}"
    if last < note.lines:
        raise ConfigError(
            f"{name}: was made from another input: {why}. Give another --output, or remove {path} to go on all the same"
        )


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
                f"was it made from another input? {_START_OVER}"
            )


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.job")


def _new_note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.job.{os.getpid()}")


def _check_length(path: Path, name: str) -> None:
    """Raise ConfigError where the file system has no room for the names of the files beside *path*."""
    longest = max(_new_note_path(path), _retry_path(path), key=lambda beside: len(beside.name))
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


def _read_note(path: Path) -> Note | None:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - may be a pipe
            data = file.read(_NOTE_LIMIT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; remove it to go on all the same") from error
    try:
        note = msgspec.json.decode(data, type=Note)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: says nothing of what the output was made from; remove it to go on") from error
    if note.version != _VERSION:
        raise ConfigError(f"{path}: was written by another version; remove it to go on all the same")
    return note


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
