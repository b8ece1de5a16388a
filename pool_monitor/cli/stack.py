"""``pool-monitor stack``: what a worker is doing, now or over some seconds."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from pool_monitor.cli import EXIT_FAILED
from pool_monitor.cli.output import print_bytes, print_json, print_text, remark, stderr_is_terminal
from pool_monitor.errors import ConfigError, PoolError
from pool_monitor.metrics.timespan import seconds_of
from pool_monitor.service.client import open_client, resolve
from pool_monitor.service.stacks import SAMPLED_AT_ONCE, SECONDS_MAX
from pool_monitor.snapshot import Snapshot, WorkerView
from pool_monitor.view import flame_graph
from pool_monitor.view import format as fmt

EVERY_BUSY = "-"


class _Slot(NamedTuple):
    pool: str
    worker: WorkerView

    @property
    def heading(self) -> str:
        """The worker and its call, in words."""
        worker = self.worker
        if worker.operation is None:
            return f"{worker.id}: {worker.state}"
        age = "" if worker.call_age is None else f" for {fmt.age(worker.call_age)}"
        return f"{worker.id}: on {worker.operation}{age}"


class _Told(msgspec.Struct, kw_only=True):
    """One worker in ``--json``."""

    pool: str
    worker: str
    operation: str | None
    stack: str | None
    reason: str | None


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    seconds = float(seconds_of(value, "--flame"))
    if seconds > SECONDS_MAX:
        raise click.BadParameter(f"{value!r}: stacks are sampled for at most {SECONDS_MAX:g}s")
    return seconds


@click.command("stack")
@click.argument("worker", required=False)
@click.argument("address", required=False)
@click.option("--flame", metavar="5s", callback=_seconds, help="Sample for this long, and print folded stacks.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file; .html is a page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(worker: str | None, address: str | None, flame: float | None, output: Path | None, as_json: bool) -> None:
    """Print what a worker of a running service is doing: its Python stack, innermost frame last.

    WORKER is a slot, such as summarizers-0. Without it, or with "-", every busy worker is asked. The calls go on
    undisturbed.

    With --flame, the stacks are sampled about 50 times a second and printed as folded lines, for flamegraph.pl or
    speedscope. With --output FILE.html they become a flame graph that opens in any browser, without a network.

    ADDRESS is a service's name or pid, or the path of its socket. Without it, it is the only service running here.
    Exit code 1: a stack was not available.
    """
    if as_json and flame is not None and output is not None and output.suffix == ".html":
        raise click.UsageError("--json does not fit an --output that is a page: leave one of them out")
    if flame is None and output is not None and output.suffix == ".html":
        raise click.UsageError("--output FILE.html is for a flame graph: add --flame 5s, or name another file")
    if output is not None:
        _check_place(output)
    asked = None if worker == EVERY_BUSY else worker
    complete = asyncio.run(_stacks(asked, address, output, as_json=as_json)) if flame is None else asyncio.run(
        _flame(asked, address, flame, output, as_json=as_json)
    )  # fmt: skip
    if not complete:
        raise click.exceptions.Exit(EXIT_FAILED)


async def _stacks(asked: str | None, address: str | None, output: Path | None, *, as_json: bool) -> bool:
    """Print the stacks of the workers now. Return whether all were available."""
    told: list[_Told] = []
    texts: list[str] = []
    async with open_client(resolve(address)) as service:
        for slot in _chosen(await service.snapshot("1m"), asked):
            found = await service.stack(slot.pool, slot.worker.id)
            told.append(
                _Told(
                    pool=slot.pool, worker=slot.worker.id, operation=slot.worker.operation,
                    stack=found.stack, reason=found.reason,
                )
            )  # fmt: skip
            texts.append(f"{slot.heading}\n{_indented(found.stack, found.reason)}")
    if as_json or output is not None:
        body = msgspec.json.encode({"workers": told}) if as_json else "\n\n".join([*texts, ""]).encode()
        _put(output, body, as_json=as_json)
    else:
        print_text("\n\n".join(texts or ["no worker is busy"]) + "\n")
    return all(one.stack is not None for one in told)


async def _flame(asked: str | None, address: str | None, seconds: float, output: Path | None, *, as_json: bool) -> bool:
    """Print or write the folded samples of the workers. Return whether there are any of each worker."""
    where = resolve(address)
    async with open_client(where) as service:
        slots = _chosen(await service.snapshot("1m"), asked)
        if not slots:
            raise PoolError("no worker is busy, so there is nothing to sample; name a WORKER to sample an idle one")
        if len(slots) > SAMPLED_AT_ONCE:
            remark(f"{len(slots)} workers are busy: the first {SAMPLED_AT_ONCE} are sampled")
            slots = slots[:SAMPLED_AT_ONCE]
        if stderr_is_terminal():
            remark(f"sampling {fmt.plural(len(slots), 'worker')} for {seconds:g} s ...")
        sampled = await asyncio.gather(*(service.stack_samples(slot.pool, slot.worker.id, seconds) for slot in slots))
    folded: Counter[str] = Counter()
    for slot, samples in zip(slots, sampled, strict=True):
        prefix = f"{slot.worker.id};" if len(slots) > 1 else ""
        folded.update({prefix + stack: count for stack, count in samples.folded.items()})
        if samples.missed:
            remark(f"{slot.worker.id}: {samples.missed} samples not available: {samples.reason}")
    total = sum(samples.samples for samples in sampled)
    if output is not None and output.suffix == ".html":
        title = f"{', '.join(slot.worker.id for slot in slots)} at {where.name}"
        about = f"{fmt.plural(total, 'sample')} in {max(samples.seconds for samples in sampled):.1f} s."
        body = flame_graph.html(folded, title, about).encode()
    elif as_json:
        body = msgspec.json.encode({"samples": total, "folded": folded})
    else:
        body = flame_graph.text(folded).encode()
    _put(output, body, as_json=as_json)
    return all(samples.samples for samples in sampled)


def _chosen(snapshot: Snapshot, asked: str | None) -> list[_Slot]:
    """Return the slot *asked* for, or those that are busy. Raises ConfigError if there is none of that name."""
    every = [_Slot(name, worker) for name, pool in snapshot.pools.items() for worker in pool.workers.values()]
    if asked is None:
        return [slot for slot in every if slot.worker.operation is not None]
    found = [slot for slot in every if slot.worker.id == asked]
    if not found:
        names = ", ".join(slot.worker.id for slot in every[:50]) or "none"
        raise ConfigError(f"no worker {asked!r} in {snapshot.service.name}; there are {names}")
    return found


def _indented(stack: str | None, reason: str | None) -> str:
    if stack is None:
        return f"  not available: {reason or 'no reason is known'}"
    return "\n".join(f"  {line}" for line in stack.splitlines())


def _check_place(output: Path) -> None:
    """Raise ConfigError if *output* cannot be written, before time is spent on what would be in it."""
    if not output.parent.is_dir():
        raise ConfigError(f"--output {output}: there is no directory {output.parent}")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise ConfigError(f"--output {output}: may not be written")


def _put(output: Path | None, body: bytes, *, as_json: bool) -> None:
    """Write *body* to the file, or else to stdout."""
    if output is None:
        if as_json:
            print_json(body, msgspec.json.format(body, indent=2))
        else:
            print_bytes([body])
        return
    try:
        output.write_bytes(body)
    except OSError as error:
        raise PoolError(f"{output}: cannot be written: {error.strerror}") from error
