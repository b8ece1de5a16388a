"""Whether the server that runs the app still takes connections. That is how an endless answer learns of the end.

Theory of operation
-------------------
A server that is told to stop lets answers under way end, waits for that, and then tells the app (its lifespan). An
endless answer that waits for the app to be told makes both wait for ever. The first thing every server does, however,
is to close its listening socket, and that can be seen from inside the process: it is one of the process's descriptors,
and listens at the address the request came to. So a stream looks for it once, and later asks whether it is still
there. That needs no signal handler and no task, and is right for every reason a server may have to stop.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

_DESCRIPTORS = Path("/dev/fd")
_LOOKED_AT = 1000
"""Descriptors, the lowest first: some 10 ms. Listening sockets are among the first that a server opens."""


class Listener:
    """The listening sockets behind *server*, a request's ``scope["server"]``, as they were when this was made.

    All of the process if it is None, as where a server does not tell.
    """

    def __init__(self, server: tuple[str, Any] | None) -> None:
        self._sockets: dict[int, Any] = {}
        with suppress(OSError):
            self._sockets.update(_listening_at(server))

    @property
    def known(self) -> bool:
        """Whether there is one. If not, the sockets are another process's, or this system does not show them."""
        return bool(self._sockets)

    def closed(self) -> bool:
        """Whether one that was there is there no more. False where that cannot be asked now."""
        with suppress(OSError):
            return any(_address(descriptor) != address for descriptor, address in self._sockets.items())
        return False


def _listening_at(server: tuple[str, Any] | None) -> Iterator[tuple[int, Any]]:
    for descriptor in islice(_descriptors(), _LOOKED_AT):
        address = _address(descriptor)
        if address is not None and (server is None or _is(address, *server)):
            yield descriptor, address


def _is(address: Any, host: str, port: Any) -> bool:
    """Whether a socket that listens at *address* may have taken a connection to *host* and *port*."""
    if isinstance(address, tuple):
        return str(address[1]) == str(port)  # not the host: it may listen on all of them
    return os.fsencode(address) == os.fsencode(host)  # a Unix socket


def _descriptors() -> list[int]:
    return sorted(int(entry.name) for entry in _DESCRIPTORS.iterdir())


def _address(descriptor: int) -> Any:
    """Where the socket listens; None for what is none, or not open. Raises OSError when no descriptor is to be had."""
    try:
        copy = os.dup(descriptor)  # of our own, to close whatever happens
    except OSError as error:
        if error.errno == errno.EBADF:
            return None
        raise
    try:
        sock = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
    with sock:
        return sock.getsockname() if _listens(sock) else None


def _listens(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:  # of a kind that never does
        return False
