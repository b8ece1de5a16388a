"""The operations of honest workers. A hostile one is among them from its constructor, or from a call, on."""

from __future__ import annotations

import asyncio

from tests.hostile import worker


class Target:
    """Every operation gets *n*, its call's number, and gives it back."""

    def __init__(self):
        worker.turn("constructor")

    def echo(self, n, data=None):
        worker.turn("operation")
        return ["honest", n]

    def items(self, n, count):
        worker.turn("operation")
        for index in range(count):
            yield ["honest", n, index]

    async def later(self, n, seconds=0.0):
        worker.turn("operation")
        await asyncio.sleep(seconds)
        return ["honest", n]

    def turn(self, n, *, session):
        worker.turn("operation")
        session.data = {"of": session.id, "turns": 1}
        return ["honest", n]
