"""A small asyncio service that embeds a pool: a line of text in, its keywords out, over TCP on loopback.

    python examples/service.py            # then, in other terminals:
    pool-monitor dashboard
    printf 'the quick brown fox jumps over the quick dog\\n' | nc -q1 127.0.0.1 8765

With --load N it also calls its own pool N times a second, so that the dashboard has something to show.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from pathlib import Path

from pool_monitor import Monitor, Pool, PoolError

HERE = Path(__file__).parent
LINE_LIMIT = 1 << 20


async def serve(port: int, load: float) -> None:
    target = f"{HERE / 'text_tools.py'}:TextTools"
    async with Pool(target, name="text", size=2, timeout=5) as pool, Monitor(pool) as monitor:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        clients: set[asyncio.StreamWriter] = set()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if stop.is_set():  # the client connected while the service stops
                writer.close()
                return
            clients.add(writer)
            try:
                async for line in reader:
                    try:
                        reply = await pool.run("keywords", line.decode(errors="replace"))
                    except PoolError as error:  # a call can fail; the service goes on
                        reply = {"error": str(error)}
                    writer.write(json.dumps(reply).encode() + b"\n")
                    await writer.drain()
            except ConnectionError:
                pass  # the client has gone
            except ValueError:
                writer.write(b'{"error": "the line is too long"}\n')
            finally:
                clients.discard(writer)
                writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", port, limit=LINE_LIMIT) as server:
            where = server.sockets[0].getsockname()[1]  # with --port 0, the system chose it
            print(f"listening on 127.0.0.1:{where}; dashboards find it at {monitor.address}", flush=True)
            callers = asyncio.create_task(call_repeatedly(pool, load)) if load else None
            await stop.wait()
            if callers:
                callers.cancel()
            server.close()
            for client in clients:  # from Python 3.12 on, the server waits for them
                client.close()
        total = monitor.snapshot("15m").pools["text"].total
        print(f"{total.calls} calls, p95 {total.latency.p95} s, {total.errors} failed", flush=True)


async def call_repeatedly(pool: Pool, per_second: float) -> None:
    documents = (HERE / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    while True:
        for document in documents:
            with contextlib.suppress(PoolError):
                await pool.run("summary", document)
            await asyncio.sleep(1 / per_second)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--load", type=float, default=0.0, metavar="N", help="calls per second to its own pool")
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.load))
