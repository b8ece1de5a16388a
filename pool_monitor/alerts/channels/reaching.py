"""Connects to the machine that a name stands for. All channels that open connections do it this way.

The addresses of a name are looked up once, checked, and connected to as they were checked. An address that does not
answer leaves time for those after it, as when a machine has an address of IPv6 that leads nowhere.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import anyio

from pool_monitor.alerts.channels.address_guard import Reach, address_problem
from pool_monitor.side_thread import SideThread

T = TypeVar("T")

LOOKUP_S = 12.0
"""How long the look-up of a name may take. A resolver asks the next server when one has been silent for 5 s."""
_TRIED_MAX = 4
"""Most addresses of a name that are tried."""


class Forbidden(Exception):
    """Nothing is sent to this address. The text says why, and has nothing secret."""


class Unreachable(Exception):
    """There is no connection. The text says why, and has nothing secret."""


class LookupTimeout(Exception):
    """A name was not found in time."""

    def __init__(self) -> None:
        super().__init__(f"its name was not looked up within {LOOKUP_S:g} s")


async def addresses_of(host: str, port: int, side_thread: SideThread, reach: Reach) -> list[str]:
    """Return the addresses of *host*. It is looked up in *side_thread*, where a resolver that hangs delays nobody else.

    Every address must be allowed: of a mixed answer, nobody knows which one is meant. Raises Forbidden, LookupTimeout
    and OSError.
    """
    try:
        with anyio.fail_after(LOOKUP_S):
            found = await side_thread.run(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except TimeoutError as error:
        raise LookupTimeout from error
    except UnicodeError as error:
        raise OSError(0, "its name is not valid") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if problem := address_problem(address, reach):
            raise Forbidden(problem)
    if not addresses:
        raise OSError(0, "its name has no address")
    return addresses


async def first_connected(
    addresses: Sequence[str],
    seconds: float | None,
    connect: Callable[[str, float | None], Awaitable[T]],
    failures: tuple[type[Exception], ...],
) -> T:
    """Return what *connect* returns for the first of *addresses* where it raises none of *failures*. It is given the
    time that it has, which is a share of *seconds* (None: no limit). Raises the failure of the last address.
    """
    end = None if seconds is None else time.monotonic() + seconds
    tried = addresses[:_TRIED_MAX]
    for left, address in zip(range(len(tried), 1, -1), tried, strict=False):
        try:
            return await connect(address, _share(end, left))
        except failures:
            pass
    return await connect(tried[-1], _share(end, 1))


def _share(end: float | None, left: int) -> float | None:
    return None if end is None else max(end - time.monotonic(), 0.01) / left


async def connected_socket(
    host: str, port: int, seconds: float, side_thread: SideThread, reach: Reach = Reach.ANY_BUT_METADATA
) -> socket.socket:
    """Return a socket that is connected to *host*, within `LOOKUP_S` and *seconds*. Raises Forbidden, LookupTimeout
    and Unreachable.
    """

    async def connect(address: str, share: float | None) -> socket.socket:
        return await _socket(address, port, share)

    try:
        return await first_connected(await addresses_of(host, port, side_thread, reach), seconds, connect, (OSError,))
    except OSError as error:
        late = isinstance(error, TimeoutError) and error.errno is None
        raise Unreachable(f"no connection within {seconds:g} s" if late else words(error)) from error


async def _socket(address: str, port: int, seconds: float | None) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        with anyio.fail_after(seconds):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made


def system_error(error: BaseException) -> OSError | None:
    """Return what the system said that led to *error*; None: it said nothing."""
    return next((one for one in _causes(error) if isinstance(one, OSError) and one.strerror), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        for one in error.args[:1]:
            if isinstance(one, Exception):
                yield from _causes(one)
        if isinstance(error, ExceptionGroup):
            yield from _causes(error.exceptions[0])
        error = error.__cause__ or error.__context__


def words(error: OSError | None) -> str:
    """Return what the system says of an error, without the address."""
    if error is None:
        return "the connection failed"
    known = error.errno is not None and error.errno > 0 and not isinstance(error, ssl.SSLError)
    return os.strerror(error.errno or 0) if known else error.strerror or type(error).__name__
