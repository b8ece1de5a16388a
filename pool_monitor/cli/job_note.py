"""The note beside an output of ``pool-monitor run``, ``OUT.job``: what the output was made from.

It holds the target, the operation, and a digest of the input up to a line; all lines up to it are answered. The digest
is compared while the input is read. So an input that has grown is accepted, and a different input is refused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from pool_monitor.cli.jsonl import Job
from pool_monitor.cli.output import remark
from pool_monitor.errors import ConfigError

_VERSION = 1
_LIMIT = 1 << 16  # bytes of a note
START_OVER = "Give another --output, or remove it to start over"


class JobNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an output was made from."""

    target: str
    operation: str
    settings: str = ""
    """Digest of the other settings that results depend on: arguments of the target, and how lines are read."""
    lines: int = 0
    """All lines of the input up to this number are answered."""
    digest: str = ""
    """Digest of these lines, hexadecimal."""
    version: int = _VERSION


class JobNoteFile:
    """The note beside the output *path*, named *name* in messages. *made*: what this run makes the output from."""

    def __init__(self, path: Path, name: str, made: JobNote) -> None:
        self.path = path.with_name(f"{path.name}.job")
        self.new_path = path.with_name(f"{path.name}.job.{os.getpid()}")
        self._name, self._made = name, made

    def compare(self) -> None:
        """Continue from the existing note, if there is one. Raises ConfigError if the note is of another job."""
        found, made = _read(self.path), self._made
        if found is None:
            remark(f"{self._name}: has no note of what it was made from; continuing where ids match")
            return
        if (found.target, found.operation) != (made.target, made.operation):
            raise ConfigError(
                f"{self._name}: holds answers of {found.operation!r} of {found.target}, not of {made.operation!r} of "
                f"{made.target}. {START_OVER}"
            )
        if found.settings != made.settings:
            raise ConfigError(
                f"{self._name}: was made with other init_args or init_kwargs, or only one of the two runs has --text. "
                f"{START_OVER}"
            )
        self._made = found

    async def verified(self, jobs: AsyncIterator[Job]) -> AsyncIterator[Job]:
        """Yield *jobs*. Raises ConfigError if the lines up to the noted line are not those of the note."""
        noted, last = self._made, 0
        why = f"some of the first {noted.lines} lines differ"
        async for job in jobs:
            if job.number >= noted.lines > last and (job.number, job.digest.hex()) != (noted.lines, noted.digest):
                break
            last = job.number
            yield job
        else:
            why = f"the output answers {noted.lines} lines, but this input ends with line {last}"
        if last < noted.lines:
            raise ConfigError(
                f"{self._name}: was made from another input: {why}. Give another --output, or remove {self.path} to "
                "continue anyway"
            )

    def answered(self, job: Job) -> None:
        """Note that *job* and all jobs before it are answered."""
        if job.number > self._made.lines:
            self._made = msgspec.structs.replace(self._made, lines=job.number, digest=job.digest.hex())
            self.write()

    def write(self) -> None:
        """Write the note. The first failure is reported as a remark; later ones are silent."""
        try:
            self.new_path.write_bytes(msgspec.json.encode(self._made) + b"\n")
            self.new_path.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.new_path.unlink()
            what = f"a later run cannot check what {self._name} was made from"
            remark(f"{self.path}: cannot be written: {error.strerror}; {what}")
            self._made = msgspec.structs.replace(self._made, lines=1 << 62)  # no further note is written


def _read(path: Path) -> JobNote | None:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - may be a pipe
            data = file.read(_LIMIT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; remove it to continue anyway") from error
    try:
        note = msgspec.json.decode(data, type=JobNote)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: is not a note of what the output was made from; remove it to continue anyway"
        ) from error
    if note.version != _VERSION:
        raise ConfigError(f"{path}: was written by another version; remove it to continue anyway")
    return note
