"""The ways in from outside: HTTP face, Unix socket, discovery, client."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from pool_monitor import Monitor
from pool_monitor.dashboard.remote import RemoteFeed
from pool_monitor.errors import ConfigError, ConnectError
from pool_monitor.self_measuring import WorkMeter
from pool_monitor.service import app as app_module
from pool_monitor.service import client as client_module
from pool_monitor.service import server as server_module
from pool_monitor.service.app import VIEWERS_MAX, make_app
from pool_monitor.service.client import Address, connected, fetch, follow, open_client, parse, resolve
from pool_monitor.service.discovery import services, socket_path
from pool_monitor.service.listener import Listener
from pool_monitor.service.server import serve
from pool_monitor.service.silence import why_silent
from pool_monitor.snapshot import SCHEMA_VERSION, Readiness, Snapshot, pool_readiness
from tests.helpers import samples
from tests.helpers.programs import runtime_dir
from tests.helpers.support import eventually, ops_pool, running

__all__ = ["runtime_dir"]
pytestmark = pytest.mark.usefixtures("runtime_dir", "no_leaks")


class Source:
    """A monitor as far as the app needs one; ticks when told to."""

    def __init__(self) -> None:
        self.viewers = 0
        self.seq = 0
        self.reason: str | None = None
        self.work = WorkMeter()
        self._ticks: asyncio.Queue[bool] = asyncio.Queue()

    def snapshot(self, window: str = "5m") -> Snapshot:
        if window not in ("1m", "5m", "15m"):
            raise ConfigError(f"no window {window!r}")
        self.seq += 1
        return msgspec.structs.replace(samples.snapshot(window=window), seq=self.seq)

    def readiness(self) -> Readiness:
        pools = {"text": pool_readiness(samples.snapshot().pools["text"])}
        return Readiness(
            ready=self.reason is None, reason=self.reason, live=True, since=1_700_000_000.0, degraded=("otlp: no",),
            mode="full", pools=pools,
        )  # fmt: skip

    def watched(self) -> AbstractContextManager[None]:
        @contextmanager
        def watching() -> Iterator[None]:
            self.viewers += 1
            yield
            self.viewers -= 1

        return watching()

    async def ticked(self) -> bool:
        return await self._ticks.get()

    def tick(self, going_on: bool = True) -> None:
        self._ticks.put_nowait(going_on)


@asynccontextmanager
async def served(source: Source) -> AsyncIterator[tuple[Address, httpx.AsyncClient]]:
    path = socket_path("test")
    address = Address("test", path, "http://localhost")
    async with serve(make_app(source), path), connected(address) as http:
        yield address, http


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[Address]:
    """A service that answers *answer* to whatever is asked."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    path = socket_path("fake")
    async with await asyncio.start_unix_server(say, path):
        yield Address("fake", path, "http://localhost")
    path.unlink(missing_ok=True)


def http_answer(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


# -- the app ----------------------------------------------------------------------------------------------------------


async def test_snapshot_is_json_of_the_window_asked_for():
    async with served(Source()) as (_, http):
        response = await http.get("/v1/snapshot", params={"window": "15m"})
        assert response.headers["content-type"] == "application/json"
        assert parse(response.content).window == "15m"
        assert parse((await http.get("/v1/snapshot")).content).window == "5m"


@pytest.mark.parametrize("path", ["/v1/snapshot", "/v1/stream"])
async def test_a_bad_window_is_answered_with_400_and_why(path):
    async with served(Source()) as (_, http):
        response = await http.get(path, params={"window": "2h"})
        assert (response.status_code, response.json()) == (400, {"error": "no window '2h'"})


async def test_only_reading_is_possible():
    async with served(Source()) as (_, http):
        for path in ("/v1/snapshot", "/v1/stream", "/livez", "/readyz"):
            assert (await http.post(path)).status_code == 405
        assert (await http.get("/v1/control")).status_code == 404


async def test_liveness_and_readiness():
    source = Source()
    async with served(source) as (_, http):
        assert ((await http.get("/livez")).status_code, (await http.get("/readyz")).text) == (200, "ok\n")
        source.reason = "pool x is draining"
        response = await http.get("/readyz")
        assert (response.status_code, response.text) == (503, "pool x is draining\n")
        assert (await http.get("/livez")).status_code == 200


async def test_readiness_in_lines_and_as_json():
    source = Source()
    async with served(source) as (_, http):
        source.reason = "pool text is draining"
        lines = (await http.get("/readyz?verbose")).text.splitlines()
        assert lines[0] == "pool text is draining"
        assert lines[1].startswith("pool text: running, 3/4 slots used, ")
        assert lines[2:] == ["degraded: otlp: no", "mode: full"]
        for asked in ({"params": {"format": "json"}}, {"headers": {"accept": "application/json"}}):
            response = await http.get("/readyz", **asked)
            body = response.json()
            assert (response.status_code, body["ready"], body["live"]) == (503, False, True)
            assert (body["degraded"], body["mode"]) == (["otlp: no"], "full")
            slots = {"busy": 3, "idle": 1, "size": 4, "slots_used": 3, "slots_limit": 4}
            assert body["pools"]["text"]["workers"] == slots
        live = (await http.get("/livez", params={"format": "json"})).json()
        assert live == {"live": True, "since": 1_700_000_000.0}
        assert (await http.get("/livez?verbose")).text == "ok\nsince 2023-11-14T22:13:20+00:00\n"
        refused = await http.get("/readyz", params={"format": "xml"})
        assert (refused.status_code, refused.json()) == (400, {"error": "format='xml': choose json or text"})


async def test_a_stream_is_server_sent_events_one_per_tick():
    source = Source()
    async with served(source) as (_, http), http.stream("GET", "/v1/stream", params={"window": "1m"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        source.tick()
        source.tick(going_on=False)
        text = (await response.aread()).decode()
    events = text.removesuffix("\n\n").split("\n\n")
    for seq, event in enumerate(events, 1):
        name, number, data = event.split("\n")
        assert (name, number) == ("event: snapshot", f"id: {seq}")
        assert data.startswith("data: ")
        assert (parse(data[6:]).seq, parse(data[6:]).window) == (seq, "1m")
    assert len(events) == 2


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_head_request_is_answered_with_headers_and_over(version):
    source = Source()
    async with served(source) as (address, http):
        for path in ("v1/snapshot", "v1/stream", "livez", "readyz"):
            reader, writer = await asyncio.open_unix_connection(address.socket)
            writer.write(f"HEAD /{path} HTTP/{version}\r\nhost: x\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("HTTP/1.1 200 OK"), path
            assert ("text/event-stream" in head) is (path == "v1/stream")
            if version == "1.1":
                writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 200 OK"), f"after {path}"
            else:
                assert await reader.read() == b""
            writer.close()
        for _ in range(VIEWERS_MAX + 1):
            assert (await http.head("/v1/stream")).status_code == 200
        assert (await http.head("/v1/stream", params={"window": "2h"})).status_code == 400
        assert source.viewers == 0


async def test_comments_keep_a_stream_alive_that_has_no_ticks(monkeypatch):
    monkeypatch.setattr(app_module, "HEARTBEAT", 0.02)
    source = Source()
    async with served(source) as (_, http), http.stream("GET", "/v1/stream") as response:
        seen = ""
        async for text in response.aiter_text():
            seen += text
            if seen.count("\n\n") >= 3:
                break
        assert seen.split("\n\n")[1:3] == [": heartbeat", ": heartbeat"]
    await eventually(lambda: source.viewers == 0)


async def test_more_viewers_than_there_may_be_get_503_and_the_place_of_one_that_left(monkeypatch):
    source = Source()
    async with served(source) as (address, http):
        viewers = [aclosing(follow(address, "5m")) for _ in range(VIEWERS_MAX)]
        streams = [await viewer.__aenter__() for viewer in viewers]
        await asyncio.gather(*(anext(stream) for stream in streams))
        assert source.viewers == VIEWERS_MAX
        async with http.stream("GET", "/v1/stream") as response:
            assert response.status_code == 503
            assert await response.aread() == b'{"error":"%d viewers are already attached"}' % VIEWERS_MAX
        assert (await http.get("/v1/snapshot")).status_code == 200
        await viewers.pop().__aexit__(None, None, None)
        await eventually(lambda: source.viewers < VIEWERS_MAX)
        async with aclosing(follow(address, "5m")) as stream:
            assert await anext(stream)
        for viewer in viewers:
            await viewer.__aexit__(None, None, None)
        await eventually(lambda: source.viewers == 0)


async def test_a_crowd_that_comes_at_once_is_limited_too():
    source = Source()
    async with served(source) as (address, _):

        async def look() -> str:
            async with aclosing(follow(address, "5m")) as stream:
                try:
                    await anext(stream)
                except ConnectError as error:
                    return re.search(r"\d{3}", str(error))[0]
                await eventually(lambda: len(ended) >= 30 - VIEWERS_MAX)
                return "200"

        ended: list[asyncio.Task[str]] = []
        looks = [asyncio.create_task(look()) for _ in range(30)]
        for one in looks:
            one.add_done_callback(ended.append)
        answers = await asyncio.gather(*looks)
        assert sorted(set(answers)) == ["200", "503"]
        assert answers.count("200") == VIEWERS_MAX


async def test_readiness_follows_the_pool():
    pool = ops_pool()
    async with Monitor(pool) as monitor, connected(Address("it", monitor.address, "http://localhost")) as http:

        async def ready() -> tuple[int, str]:
            response = await http.get("/readyz")
            return response.status_code, response.text.strip()

        assert await ready() == (503, "pool ops is new")
        async with pool:
            assert await ready() == (200, "ok")
            await pool.resize(1)
            pool._calls().roster.counts["idle"] -= 1  # as while its only worker is being replaced
            assert await ready() == (503, "pool ops has no worker that can take a call")
            pool._calls().roster.counts["idle"] += 1
            task = await running(pool, "later", 1, 30)
            assert await ready() == (200, "ok"), "busy is no reason"
            draining = asyncio.create_task(pool.drain(timeout=30))
            await eventually(lambda: pool.status().state == "draining")
            assert await ready() == (503, "pool ops is draining")
            task.cancel()
            await draining
        assert await ready() == (503, "pool ops is closed")


async def test_mounted_in_an_app_of_ones_own():
    async with ops_pool() as pool, Monitor(pool) as monitor:
        whole = Starlette(routes=[Mount("/monitor", monitor.asgi())])
        path = socket_path("whole")
        address = Address("whole", path, "http://localhost/monitor")
        async with serve(whole, path):
            await pool.run("echo", 1)
            assert (await fetch(address, "1m")).pools["ops"].total.calls == 1
            async with aclosing(follow(address, "1m")) as snapshots:
                first = await anext(snapshots)
                assert (await anext(snapshots)).seq > first.seq
            async with connected(address) as http:
                assert (await http.get("/readyz")).text == "ok\n"


# -- the end of a server that is not ours -----------------------------------------------------------------------------


def bound(family: int, place: Path) -> socket.socket:
    sock = socket.socket(family)
    sock.bind(str(place / "l.sock") if family == socket.AF_UNIX else ("127.0.0.1", 0))
    sock.listen()
    return sock


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["TCP", "Unix"])
def test_a_listener_is_closed_when_its_socket_is(family, runtime_dir):
    with bound(family, runtime_dir) as sock, bound(socket.AF_INET, runtime_dir) as other:
        name = sock.getsockname()
        server = (name, None) if family == socket.AF_UNIX else name
        stringly = (server[0], str(server[1])) if server[1] else server  # as some servers have it
        seen = [Listener(server), Listener(stringly), Listener(None)]
        assert [(one.known, one.closed()) for one in seen] == [(True, False)] * 3
        os.dup2(other.fileno(), sock.fileno())
        assert [one.closed() for one in seen] == [True] * 3, "its number is another's now"
        sock.close()
        assert [one.closed() for one in seen] == [True] * 3
        assert not Listener(server).known


def test_a_listener_is_closed_when_one_of_its_copies_is(runtime_dir):
    with bound(socket.AF_INET, runtime_dir) as inherited:
        used = socket.fromfd(inherited.fileno(), inherited.family, inherited.type)
        seen = Listener(inherited.getsockname())
        assert not seen.closed()
        used.close()
        assert seen.closed()


def test_without_descriptors_left_nothing_is_taken_for_closed(runtime_dir, monkeypatch):
    def none_left(_descriptor: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with bound(socket.AF_INET, runtime_dir) as sock:
        seen = Listener(sock.getsockname())
        monkeypatch.setattr(os, "dup", none_left)
        assert not seen.closed()
        assert not Listener(sock.getsockname()).known


async def test_where_the_end_of_the_server_cannot_be_seen_viewers_attach_again_and_again(monkeypatch):
    monkeypatch.setattr(app_module, "LIFE", 0.05)
    source = Source()
    app = make_app(source)

    async def elsewhere(scope, receive, send):
        await app({**scope, "server": ("192.0.2.1", 1)}, receive, send)

    path = socket_path("test")
    async with serve(elsewhere, path), aclosing(RemoteFeed(str(path)).frames("5m")) as frames:
        seen = [await anext(frames) for _ in range(3)]  # one of each stream: there are no ticks
    assert [frame.seq for frame in seen] == [1, 2, 3]
    await eventually(lambda: source.viewers == 0)


# -- the socket -------------------------------------------------------------------------------------------------------


async def test_the_socket_is_ours_alone(runtime_dir, monkeypatch):
    monkeypatch.setenv("POOL_MONITOR_RUNTIME_DIR", str(runtime_dir / "made" / "here"))
    async with served(Source()) as (address, _):
        assert stat.S_IMODE(address.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(address.socket.parent.stat().st_mode) == 0o700
    assert not address.socket.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_another_user_cannot_connect_even_where_the_directory_is_open(runtime_dir):
    # Becomes somebody else on its way: they may not be allowed to start this interpreter.
    program = "import os, socket, sys; os.setuid({}); socket.socket(socket.AF_UNIX).connect({!r})"

    async def connects(user: int) -> str:
        arguments = ("-I", "-S", "-c", program.format(user, str(address.socket)))
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=subprocess.PIPE)
        _, said = await process.communicate()
        return said.decode().strip().rpartition("\n")[2].partition(":")[0]

    async with served(Source()) as (address, _):
        assert await connects(0) == ""
        assert await connects(65534) == "PermissionError"
        runtime_dir.chmod(0o755)
        assert await connects(65534) == "PermissionError"
        address.socket.chmod(0o666)
        assert await connects(65534) == "", "or else nothing above was tested"


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /livez HT",
        b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\nGET /live",
    ],
    ids=["nothing", "half a request", "no body", "half of a second one"],
)
async def test_a_connection_that_asks_for_nothing_is_closed(monkeypatch, begun):
    monkeypatch.setattr(server_module, "_IDLE", 0.05)
    source = Source()
    async with served(source) as (address, http), http.stream("GET", "/v1/stream") as stream:
        lines = stream.aiter_lines()
        await anext(lines)
        reader, writer = await asyncio.open_unix_connection(address.socket)
        writer.write(begun)
        answer = await reader.read()  # up to its end
        assert answer.startswith(b"HTTP/1.1 200" if b"\r\n\r\n" in begun else b"")
        writer.close()
        await asyncio.sleep(0.15)  # three times as long as that one had
        source.tick()
        assert [line async for line in some(lines, 4)].count("event: snapshot") == 1, "the stream goes on"


async def some(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    for _ in range(count):
        yield await anext(lines)


# -- discovery --------------------------------------------------------------------------------------------------------


def left_behind(path: Path) -> Path:
    """A socket whose process has gone without removing it."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    return path


@contextmanager
def listening(path: Path, backlog: int = 8) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        bound.listen(backlog)
        yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_sockets_of_dead_processes_are_cleared_away(runtime_dir, dead_pid):
    stale = left_behind(runtime_dir / f"gone-{dead_pid}.sock")
    again = left_behind(runtime_dir / f"gone-{dead_pid}.2.sock")
    mine = left_behind(runtime_dir / f"gone-{os.getpid()}.sock")
    stranger = left_behind(runtime_dir / "stranger.sock")
    with listening(runtime_dir / f"here-{os.getpid()}.sock") as live:
        assert [(one.name, one.pid, one.path) for one in services()] == [("here", os.getpid(), live)]
    assert [path.exists() for path in (stale, again, mine)] == [False] * 3
    assert stranger.exists(), "whatever that is, it is not ours"


def test_a_socket_nobody_listens_on_is_not_a_service_though_its_pid_is_in_use_again(runtime_dir):
    reused = left_behind(runtime_dir / f"old-{os.getppid()}.sock")
    assert services() == []
    assert reused.exists(), "it may be about to listen"


def test_a_service_of_another_container_is_found_though_its_pid_means_nothing_here(runtime_dir, dead_pid):
    with listening(runtime_dir / f"far-{dead_pid}.sock") as path:
        assert [one.path for one in services()] == [path]


def test_a_service_too_busy_to_accept_is_found(runtime_dir):
    with listening(runtime_dir / f"busy-{os.getpid()}.sock", backlog=1) as path:
        queued = []
        for _ in range(4):
            queued.append(socket.socket(socket.AF_UNIX))
            queued[-1].setblocking(False)
            queued[-1].connect_ex(str(path))
        assert [one.name for one in services()] == ["busy"]
        for one in queued:
            one.close()


def test_what_lies_in_the_directory_and_is_no_service_is_left_alone(runtime_dir, dead_pid):
    elsewhere = runtime_dir / "sub"
    elsewhere.mkdir()
    with listening(runtime_dir / f"here-{os.getpid()}.sock") as live, listening(elsewhere / "far") as linked:
        (runtime_dir / f"directory-{dead_pid}.sock").mkdir()
        (runtime_dir / f"file-{dead_pid}.sock").write_text("mine")
        os.mkfifo(runtime_dir / f"fifo-{dead_pid}.sock")
        (runtime_dir / f"link-{os.getpid()}.sock").symlink_to(linked)
        (runtime_dir / f"dangling-{dead_pid}.sock").symlink_to(runtime_dir / "nothing")
        left_behind(runtime_dir / f"far-{10**20}.sock")
        left_behind(runtime_dir / f"two\nlines\x1b[2J-{dead_pid}.sock")
        with suppress(OSError):
            Path(os.fsdecode(os.fsencode(runtime_dir) + b"/caf\xe9-%d.sock" % dead_pid)).touch()
        before = sorted(runtime_dir.iterdir())
        assert [one.path for one in services()] == [live]
        assert resolve(None).socket == live
        assert socket_path("directory").parent == runtime_dir
        assert sorted(runtime_dir.iterdir()) == before


def test_a_stale_socket_that_cannot_be_removed_hinders_nobody(runtime_dir, dead_pid, monkeypatch):
    def refused(_path: Path, **_options: bool) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    left_behind(runtime_dir / f"gone-{dead_pid}.sock")
    with listening(runtime_dir / f"here-{os.getpid()}.sock") as live, monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refused)
        assert [one.path for one in services()] == [live]


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_runtime_directory_that_is_a_file_is_named(runtime_dir, monkeypatch, below):
    (runtime_dir / "file").touch()
    monkeypatch.setenv("POOL_MONITOR_RUNTIME_DIR", str(runtime_dir / "file" / below))
    for look in (services, lambda: resolve(None), lambda: resolve("x"), lambda: socket_path("x")):
        with pytest.raises(ConfigError, match=r"/file.*POOL_MONITOR_RUNTIME_DIR"):
            look()


@pytest.mark.skipif(os.getuid() == 0, reason="root may look everywhere")
def test_a_directory_of_another_user_is_explained(runtime_dir, monkeypatch):
    locked = runtime_dir / "locked"
    (locked / "sub").mkdir(parents=True)
    locked.chmod(0)
    try:
        with pytest.raises(ConnectError, match="cannot be accessed: Permission denied"):
            resolve(str(locked / "x.sock"))
        for place in (locked, locked / "sub"):
            monkeypatch.setenv("POOL_MONITOR_RUNTIME_DIR", str(place))
            with pytest.raises(ConfigError, match=f"{place}: "):
                services()
            with pytest.raises(ConfigError, match=f"{place}: "):
                socket_path("x")
    finally:
        locked.chmod(0o700)


@pytest.mark.parametrize("address", ["./" + "x" * 300, "x" * 300 + ".sock", "/dev/null/x.sock", "/", "./."])
def test_an_address_that_is_no_socket_is_explained(runtime_dir, address):
    with pytest.raises(ConnectError, match=r"no socket there|cannot be accessed: File name too long"):
        resolve(address)


def test_directories_that_are_missing_are_made_for_their_user_alone(runtime_dir, monkeypatch):
    monkeypatch.setenv("POOL_MONITOR_RUNTIME_DIR", str(runtime_dir / "a" / "b" / ".." / "c"))
    before = os.umask(0)
    try:
        path = socket_path("x")
    finally:
        os.umask(before)
    assert path.parent.is_dir()
    for place in ("a", "a/b", "a/c"):
        assert stat.S_IMODE((runtime_dir / place).stat().st_mode) == 0o700, place


def test_a_directory_others_can_write_to_is_not_trusted(runtime_dir):
    with listening(runtime_dir / f"here-{os.getpid()}.sock"):
        runtime_dir.chmod(0o777)
        with pytest.raises(ConfigError, match="must be a directory of user"):
            resolve(None)


def test_names_become_file_names(runtime_dir):
    path = socket_path("my pool, ä" + "x" * 50)
    assert path.name == f"my_pool___{'x' * 30}-{os.getpid()}.sock"
    with listening(path):
        assert socket_path("my pool, ä" + "x" * 50).name.endswith(f"-{os.getpid()}.2.sock")
        assert resolve("my pool, ä" + "x" * 50).socket == resolve(services()[0].name).socket == path


def test_an_address_is_a_name_a_pid_a_path_or_a_url(runtime_dir):
    name = f"a.b-c-{os.getpid()}"
    with listening(runtime_dir / f"{name}.sock") as path:
        for address in (None, "a.b-c", str(os.getpid()), name, str(path)):
            assert resolve(address).socket == path, address
    assert resolve("http://127.0.0.1:8000/monitor/") == (
        "http://127.0.0.1:8000/monitor/",
        None,
        "http://127.0.0.1:8000/monitor",
    )


def test_a_name_with_spaces_is_found_by_it(runtime_dir):
    with listening(socket_path("my pool")) as path:
        assert resolve("my pool").socket == path


def test_without_any_service_the_error_says_where_and_what_to_do(runtime_dir, monkeypatch):
    for place in (runtime_dir, runtime_dir / "missing"):
        monkeypatch.setenv("POOL_MONITOR_RUNTIME_DIR", str(place))
        with pytest.raises(ConnectError, match=f"no running service found in {place}; start one"):
            resolve(None)
        with pytest.raises(ConnectError, match="no running service"):
            resolve("demo")
    with pytest.raises(ConnectError, match="no socket there"):
        resolve(str(runtime_dir / "x.sock"))


def test_where_there_are_several_the_error_lists_them(runtime_dir):
    pid = os.getpid()
    with (
        listening(runtime_dir / f"a-{pid}.sock"),
        listening(runtime_dir / f"b-{pid}.sock"),
        listening(runtime_dir / f"b-{pid}.2.sock") as second,
    ):
        with pytest.raises(ConnectError, match=rf"several.*\n  a-{pid}\n  b-{pid}\.2\n  b-{pid}$"):
            resolve(None)
        with pytest.raises(ConnectError, match=rf"several.*\n  b-{pid}\.2\n  b-{pid}$"):
            resolve("b")
        with pytest.raises(ConnectError, match=rf"no service 'c'; running:\n  a-{pid}"):
            resolve("c")
        assert resolve("a").name == "a"
        assert resolve(f"b-{pid}.2").socket == second


# -- the client -------------------------------------------------------------------------------------------------------


async def last_words(address: Address) -> str:
    async with aclosing(follow(address, "5m")) as snapshots:
        with pytest.raises(ConnectError) as raised:
            async for _ in snapshots:
                pass
    return str(raised.value)


async def words(address: Address) -> str:
    with pytest.raises(ConnectError) as raised:
        await fetch(address, "5m")
    return str(raised.value)


NEWER = msgspec.json.encode({"version": SCHEMA_VERSION + 1, "pools": ["all new"]})


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"<html>hello</html>", "the answer is not a Snapshot"),
        (b"{}", "the answer is not a Snapshot"),
        (b'{"version": 1}', "the answer is not a Snapshot"),
        (b"\xff\xfe", "the answer is not a Snapshot"),
        (NEWER, rf"schema {SCHEMA_VERSION + 1}, but this program reads {SCHEMA_VERSION}: update this"),
    ],
)
async def test_an_answer_that_is_no_snapshot_of_ours_is_explained(body, complaint):
    async with answering(http_answer(body)) as address:
        assert re.search(complaint, await words(address))
    if b"\xff" not in body:
        async with answering(http_answer(b"event: snapshot\ndata: " + body + b"\n\n", "text/event-stream")) as address:
            assert re.search(complaint, await last_words(address))


async def test_fields_not_known_yet_are_ignored():
    newer = msgspec.json.decode(msgspec.json.encode(samples.snapshot())) | {"mood": "fine"}
    assert parse(msgspec.json.encode(newer)) == samples.snapshot()


async def test_a_service_that_dies_in_the_middle_of_a_stream_is_said_to_have_gone():
    body = b"event: snapshot\ndata: " + msgspec.json.encode(samples.snapshot()) + b"\n\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    async with answering(head + b"%x\r\n%b\r\n" % (len(body), body)) as address:
        assert "fake: the service is gone" in await last_words(address)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", b"SSH-2.0-x\r\n\r\n"])
async def test_half_an_answer_is_explained(answer):
    async with answering(answer) as address:
        assert (await words(address)).startswith("fake: ")
        assert (await last_words(address)).startswith("fake: ")


async def test_a_stream_of_the_wrong_kind_is_explained():
    async with answering(http_answer(b"hello", "text/plain")) as address:
        assert "text/event-stream" in await last_words(address)


async def test_a_service_that_says_no_is_quoted():
    async with served(Source()) as (address, _):
        async with aclosing(follow(address, "2h")) as snapshots:
            with pytest.raises(ConnectError, match=r"400.*no window '2h'"):
                await anext(snapshots)
        with pytest.raises(ConnectError, match=r"400.*no window '2h'"):
            await fetch(address, "2h")


async def test_a_service_that_hangs_is_given_up_with_words(monkeypatch, runtime_dir):
    monkeypatch.setattr(client_module, "_TIMEOUT", 0.05)
    with listening(runtime_dir / f"hung-{os.getpid()}.sock"):
        address = resolve("hung")
        assert (await words(address)).startswith("hung: no answer in 0.05 s; its event loop is blocked, or")
        assert await last_words(address) == await words(address)


async def test_a_service_that_hangs_while_it_samples_was_waited_for_longer(monkeypatch, runtime_dir):
    monkeypatch.setattr(client_module, "_TIMEOUT", 0.05)
    silent = listening(runtime_dir / f"hung-{os.getpid()}.sock")
    with silent, pytest.raises(ConnectError, match=r"hung: no answer in 0\.2 s; "):
        async with open_client(resolve("hung")) as service:
            await service.stack_samples("demo", "demo-0", 0.1)


LISTENS = """
import socket, sys
bound = socket.socket(socket.AF_UNIX)
bound.bind(sys.argv[1])
bound.listen()
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_silent_service_that_was_stopped_is_told_from_one_that_hangs(runtime_dir):
    path = runtime_dir / "silent-1.sock"
    command = [sys.executable, "-S", "-c", LISTENS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            assert why_silent(path).startswith("its event loop is blocked")
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            assert f"`kill -CONT {process.pid}`" in why_silent(path)
        finally:
            process.kill()
    assert why_silent(path).startswith("its event loop is blocked")  # nothing is known
    assert why_silent(None) == "the service hangs or is stopped"


async def test_a_socket_nobody_listens_on_is_explained(runtime_dir):
    path = left_behind(runtime_dir / "x.sock")
    assert (await words(resolve(str(path)))).startswith(f"{path}: ")


@pytest.mark.parametrize("url", ["http://", "http://[", "http://127.0.0.1:1", "http://a b/", "http://127.0.0.1:999999"])
async def test_a_url_that_leads_nowhere_is_explained(url):
    with pytest.raises(ConnectError) as raised:
        await fetch(resolve(url), "5m")
    assert str(raised.value).startswith(url)


def test_the_callable_used_by_tests_is_the_apps(runtime_dir):
    check: Callable[[Source], object] = make_app
    assert isinstance(check(Source()), Starlette)
