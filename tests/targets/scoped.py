"""Operations that tell what context variables they see."""

import asyncio
import contextvars
import os

request_id = contextvars.ContextVar("request_id", default="none")
tenant = contextvars.ContextVar("tenant")
number = 5


def seen():
    return [request_id.get(), tenant.get(None)]


async def seen_later():
    await asyncio.sleep(0.001)
    return seen()


def each():
    yield seen()
    yield seen()


async def each_later():
    yield seen()
    await asyncio.sleep(0.001)
    yield seen()


def size_of(value):
    return [len(value), len(request_id.get())]


def change(value):
    request_id.set(value)
    return seen()


def after(path):
    while not os.path.exists(path):  # noqa: PTH110 - as plain as a target is
        pass
    return seen()


def die_once(path):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return seen()
    os._exit(3)


def fail():
    raise ValueError(request_id.get())


def remember(session):
    return seen()
