"""A service with calls under way, as told on its command line: target, fields of the pool, then one call an argument.

Fields and calls are JSON; a call is a list, the operation and its arguments.
"""

import asyncio
import json
import sys

from pool_monitor import Pool


async def main(target: str, fields: str, *calls: str) -> None:
    async with Pool(target, size=len(calls), max_size=8, **json.loads(fields)) as pool:
        tasks = [asyncio.ensure_future(pool.run(*json.loads(call))) for call in calls]
        await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
