"""Asks services whether they live, again and again, and tells the list.

A service takes connections while its event loop is blocked or its process is stopped, because the kernel does. So who
connects and gets no answer has found a frozen service, and who cannot connect has found one that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec

from pool_monitor.errors import ConfigError
from pool_monitor.log import logger, plain
from pool_monitor.service.client import Address, connected, resolve
from pool_monitor.service.discovery import NAME, door, file_name, runtime_dir, sockets, was_left_behind
from pool_monitor.service.silence import why_silent
from pool_monitor.snapshot import SCHEMA_VERSION
from pool_monitor.watch.watch_list import Poll, Seen, WatchList, missing_key

ANSWER_MAX = 16 * 1024 * 1024
"""Most bytes that are read of an answer. A Snapshot of a thousand workers has about one million."""
TEXT_MAX = 200
"""Most characters of a reason that has words of a service."""
LIMIT_MAX_S = 10.0
"""The longest time for one poll. With a short interval, it is half of that."""
_NO_LEAVE = "its process has ended without taking its leave"
_decode = msgspec.json.Decoder(Seen).decode


class Wanted(NamedTuple):
    """A service that was asked for."""

    service: str
    """Its name: the label ``service``."""
    address: Address | None
    """None: it is looked for by its name."""


def wanted_of(text: str) -> Wanted:
    """Return what a user asks for: the name of a service, the pid of one that runs, the path of a socket, a URL, or
    HOST:PORT. It need not be there. Raises ConfigError for what can be none of these.
    """
    if text.startswith(("http://", "https://")) or (":" in text and "/" not in text):
        address = resolve(text)
        if address.socket is None:
            parts = urlsplit(address.base)
            host = parts.hostname or ""
            return Wanted(f"{host}{f':{parts.port}' if parts.port else ''}{parts.path}", address)
    if "/" in text or text.endswith(".sock"):
        path = Path(text)
        match = NAME.fullmatch(path.name)
        return Wanted(match["name"] if match else plain(path.stem), Address(text, path, "http://localhost"))
    if not text:
        raise ConfigError("an address is empty: needs the name of a service, the path of its socket, or a URL")
    named = next((one.name for one in sockets() if text in (str(one.pid), one.id)), None)
    return Wanted(named or file_name(text), None)


class Poller:
    """Polls the services of *wanted*, or, without any, all that there are. *changed* is called after each poll.

    A poll begins every half *interval*, and, when one has failed, after an eighth of it.
    """

    def __init__(
        self,
        watch_list: WatchList,
        wanted: Sequence[Wanted],
        interval: float,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self._list, self._wanted, self._interval, self._changed = watch_list, wanted, interval, changed
        self._limit = min(LIMIT_MAX_S, interval / 2)
        self._by_name = {one.service for one in wanted if one.address is None}
        self._looks = not wanted or bool(self._by_name)  # into the directory
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._looked = False
        self._unreadable = ""
        for one in wanted:
            watch_list.expect(one.service)

    @property
    def is_settled(self) -> bool:
        """Whether something can be said about every service."""
        return (self._looked or not self._looks) and self._list.is_settled

    @property
    def trouble(self) -> str:
        """Why services cannot be looked for, in words; empty: they can."""
        return self._unreadable

    async def run(self) -> None:
        """Poll until this is cancelled."""
        try:
            for one in self._wanted:
                if one.address is not None:
                    self._begin(one.service, one.address.name, one.address, fixed=True)
            while True:
                if self._looks:
                    self._look()
                for key in [key for key, task in self._tasks.items() if task.done()]:
                    self._tasks.pop(key).result()
                await asyncio.sleep(self._interval / 4)
        finally:
            tasks, self._tasks = self._tasks, {}
            for task in tasks.values():
                task.cancel()
            if tasks:
                await asyncio.wait(tasks.values())

    def _look(self) -> None:
        """Look into the directory of sockets."""
        try:
            found = sockets()
        except ConfigError as error:
            if not self._unreadable:
                logger("watch").error("services cannot be looked for", reason=str(error))
            self._unreadable = str(error)
            return
        self._unreadable, self._looked = "", True
        there = {str(one.path) for one in found}
        for one in found:
            wanted = not self._by_name or one.name in self._by_name
            # Nobody was seen to listen on a socket that is closed: it may have been left behind long ago.
            if wanted and (str(one.path) in self._list or door(one.path) != "closed"):
                self._begin(one.name, str(one.path), Address(one.name, one.path, "http://localhost"))
        for key in self._tasks.keys() - there - {one.address.name for one in self._wanted if one.address is not None}:
            self._note(key, _vanished(Path(key)))
        for service in self._list.missing:
            self._note(missing_key(service), Poll("refused", f"there is no socket of it in {runtime_dir()}"))

    def _begin(self, service: str, key: str, address: Address, *, fixed: bool = False) -> None:
        if self._list.join(service, key, self._now(), fixed=fixed):
            old = self._tasks.pop(key, None)
            if old is not None:
                old.cancel()
            task = asyncio.get_running_loop().create_task(self._poll_again(key, address), name=f"watch {key}")
            self._tasks[key] = task

    async def _poll_again(self, key: str, address: Address) -> None:
        now = asyncio.get_running_loop().time
        async with connected(address) as http:
            while key in self._list:
                began, silent = now(), self._list.is_silent(key)
                found = await poll(http, address, self._limit, explain=self._list.is_doubtful(key))
                if found is not None:
                    self._note(key, found)
                if self._list.is_doubtful(key):
                    await asyncio.sleep(self._interval / 8)
                else:
                    # One that is frozen keeps the connections of all polls in its queue.
                    pause = self._interval if silent else self._interval / 2
                    await asyncio.sleep(max(began + pause - now(), self._interval / 8))

    def _note(self, key: str, found: Poll) -> None:
        self._list.note(key, found, self._now())
        self._changed()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


async def poll(http: httpx.AsyncClient, address: Address, limit: float, *, explain: bool = False) -> Poll | None:
    """Ask a service for its Snapshot, within *limit* seconds. None: this process was held up itself, so nothing can be
    said. *explain*: look for the reason of a silence, which costs the service another connection.
    """
    now = asyncio.get_running_loop().time
    began = now()
    # anyio's connecting to a socket whose queue is full takes a whole processor, and leaks a descriptor when cancelled.
    if address.socket is not None and (found := _unreached_at(address.socket)) is not None:
        return found
    try:
        async with asyncio.timeout(limit):
            return await _answer(http)
    except (TimeoutError, httpx.TimeoutException):
        took = now() - began
        if took > 1.5 * limit + 0.25:
            return None
        why = why_silent(address.socket) if explain else "it hangs"
        return Poll("silent", f"no answer in {took:.1f} s; {why}")
    except (httpx.HTTPError, OSError) as error:
        return _unreached(address, error)
    except Exception as error:  # noqa: BLE001 - httpx raises others too for odd headers; they cost this poll alone
        return Poll("odd", f"its answer cannot be read: {type(error).__name__}")


async def _answer(http: httpx.AsyncClient) -> Poll:
    """Read a Snapshot as it is sent: a few compressed bytes may become gigabytes before they can be counted."""
    plainly = {"Accept-Encoding": "identity"}
    async with http.stream("GET", "/v1/snapshot", params={"window": "1m"}, headers=plainly) as response:
        if response.status_code != httpx.codes.OK:
            return Poll("odd", f"it answers with the status {response.status_code}")
        if "Content-Encoding" in response.headers:
            return Poll("odd", "it answers with compressed content, which was not asked for")
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > ANSWER_MAX:
                return Poll("odd", f"it answers with more than {ANSWER_MAX >> 20} MiB")
    return read(bytes(body))


def read(body: bytes) -> Poll:
    """Return what an answer says. It may say anything."""
    try:
        seen = _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Poll("odd", f"its answer is not a Snapshot: {plain(str(error))[:TEXT_MAX]}")
    if seen.version > SCHEMA_VERSION:
        return Poll("odd", f"its snapshot schema is {seen.version}, and this watch reads {SCHEMA_VERSION}: update it")
    return Poll("answered", "", seen)


def _unreached(address: Address, error: Exception) -> Poll:
    """Return what a failed connection means."""
    if address.socket is not None:
        dropped = Poll("silent", "it drops connections without an answer")
        return _unreached_at(address.socket) or dropped
    gone = isinstance(error, httpx.ConnectError)
    words = "no connection" if gone else "it drops connections"
    return Poll("refused" if gone else "silent", f"{words}: {plain(str(error) or type(error).__name__)[:TEXT_MAX]}")


def _unreached_at(path: Path) -> Poll | None:
    """Return why no connection to a socket can be had; None: one can."""
    match door(path):
        case "missing":
            return _vanished(path)
        case "closed":
            return Poll("refused", _NO_LEAVE)
        case "full":
            return Poll("silent", "the queue of its socket is full: it has taken no connection for long")
        case "locked":
            return Poll("odd", "its socket may not be opened by this user")
    return None


def _vanished(path: Path) -> Poll:
    """Return what it means that a socket is not there."""
    if was_left_behind(path):
        return Poll("refused", _NO_LEAVE)
    return Poll("left", "its socket was removed, or was never there")
