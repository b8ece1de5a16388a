"""A service that is about to end without closing its pool. Says on stdout which processes there are."""

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import time

from pool_monitor import Pool
from pool_monitor.pool.transport import lifeline

BUSY = [("spin",), ("sleep", 600), ("stuck_in_c",), ("stubborn", 600, 0)]


async def main(ops: str, how: str) -> None:
    pool = Pool(ops, name="orphans", size=len(BUSY) + 2, max_size=8)
    await pool.__aenter__()
    company = await pool.options(worker="orphans-0").run("company")  # and from now on it is idle
    tasks = [
        asyncio.ensure_future(pool.options(worker=f"orphans-{slot}").run(*call)) for slot, call in enumerate(BUSY, 1)
    ]
    while pool.status().busy < len(tasks):
        await asyncio.sleep(0.01)
    said = {"workers": [worker.pid for worker in pool.workers()], "company": company, "fork": None}
    if how == "fork":
        said["fork"] = os.fork()
        if not said["fork"]:
            time.sleep(600)
            os._exit(0)
    if how == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        process.start()
        said["fork"] = process.pid
    if how == "program":
        said["fork"] = subprocess.Popen(["sleep", "600"], close_fds=False).pid
    print(json.dumps(said), flush=True)
    if how == "leave":
        os._exit(0)
    if how != "return":
        await asyncio.sleep(600)


if __name__ == "__main__":
    if sys.argv[2] == "without /proc":
        lifeline._OWN = "/nowhere"
    if sys.argv[2] == "forget the loop":
        loop = asyncio.new_event_loop()
        kept = loop.create_task(main(*sys.argv[1:]))  # noqa: RUF006
        loop.add_reader(0, loop.stop)  # when our stdin is closed
        loop.run_forever()
        sys.exit(0)
    asyncio.run(main(*sys.argv[1:]))
