"""The form in which a block is stored in the file: encoded and compressed."""

from __future__ import annotations

import zlib

from pool_monitor.metrics.block import ROOM_LIMIT, Block


class TooLarge(ValueError):
    """A body expands to more bytes than a block may have, so it is not a block."""


def packed(block: Block) -> bytes:
    """A block as it is stored in the file."""
    return deflated(block.encode())


def unpacked(body: object) -> Block:
    """The block that `packed` made *body* of. Raises `TooLarge` for a body that is too long, ValueError for any other.

    Raises MemoryError when there is no memory for it.
    """
    whole = inflated(body, ROOM_LIMIT)
    try:
        return Block.decode(whole)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"not a valid block: {error}") from error


def deflated(whole: bytes) -> bytes:
    """A body of *whole*."""
    # Level 1: higher levels save a tenth of the size for three times the time.
    return zlib.compress(whole, 1)


def inflated(body: object, limit: int) -> bytes:
    """What `deflated` made *body* of, at most *limit* bytes. Raises as `unpacked` does."""
    inflating = zlib.decompressobj()
    try:
        # A body of a few bytes can expand to gigabytes, so expanding stops at the limit.
        whole = inflating.decompress(body, limit)  # type: ignore[arg-type]
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"not a valid block: {error}") from error
    if inflating.eof:
        return whole
    if len(whole) == limit:
        raise TooLarge("not a valid block: it is too large")
    raise ValueError("not a valid block: it is truncated")
