"""Operations that take as long as they are asked to, or a little longer."""

import asyncio
import time


class Naps:
    def nap(self, seconds):
        time.sleep(seconds)

    async def nap_later(self, seconds):
        await asyncio.sleep(seconds)

    def naps(self, count, seconds):
        for number in range(count):
            time.sleep(seconds)
            yield number

    def nap_and_fail(self, seconds):
        time.sleep(seconds)
        raise ValueError("as asked")

    def nap_in_session(self, seconds, session):
        time.sleep(seconds)
