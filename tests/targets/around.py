"""Asynchronous generators that open something around a ``yield``, and close it after."""

import asyncio
import contextvars

word = contextvars.ContextVar("word", default="none")
closed = []


async def limited(seconds):
    async with asyncio.timeout(seconds):
        for number in range(1000):
            yield number
            await asyncio.sleep(0.01)


async def beside(count):
    async def add():
        added.append(1)

    added = []
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(add())
            yield len(added)


async def bound(text):
    token = word.set(text)
    try:
        yield word.get()
        yield word.get()
    finally:
        word.reset(token)


async def deaf():
    number = 0
    while True:
        try:
            await asyncio.sleep(0.001)
            number += 1
            yield number
        except asyncio.CancelledError:
            pass


async def closing(size=1):
    try:
        while True:
            yield b"x" * size
    finally:
        await asyncio.sleep(0.001)
        closed.append(size)


async def chunks(size):
    while True:
        yield b"x" * size


def what_was_closed():
    there = list(closed)
    closed.clear()
    return there
