"""Iterates over what a streamed operation returns."""

from __future__ import annotations

from .codec import PayloadError

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Tuple

END = object()


def iterator_of(result: Any) -> Tuple[Any, bool]:
    """Return the result of a streamed operation as an iterator, and whether it is asynchronous. Raises PayloadError for
    anything else, also for a container: it holds its values already.
    """
    kind = type(result)
    if hasattr(kind, "__aiter__"):
        return kind.__aiter__(result), True
    if hasattr(kind, "__next__"):
        return result, False
    if hasattr(kind, "__iter__") and not hasattr(kind, "__len__"):
        return iter(result), False
    raise PayloadError("it returned a %s, which is not a generator: call it with run()" % kind.__name__)


def next_item(generator: Any) -> Any:
    return next(generator, END)


def close_iterator(generator: Any) -> None:
    if hasattr(generator, "close"):  # not every iterator has it
        generator.close()


async def next_async_item(generator: Any) -> Any:
    try:
        return await generator.__anext__()
    except StopAsyncIteration:
        return END


async def close_async_iterator(generator: Any) -> None:
    if hasattr(generator, "aclose"):
        await generator.aclose()
