"""A module of operations."""

from os.path import join  # noqa: F401 - to see that it is no operation


def triple(number):
    return number * 3


async def triple_later(number):
    return number * 3


class NotAnOperation:
    pass
