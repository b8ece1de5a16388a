"""The form in which a block is stored in the file: encoded and compressed."""

from __future__ import annotations

import zlib

from pool_monitor.metrics.block import ROOM_LIMIT, Block


class TooLarge(ValueError):
    """A body expands to more than `ROOM_LIMIT` bytes, so it is not a block."""


def packed(block: Block) -> bytes:
    """A block as it is stored in the file."""
    # Level 1: higher levels save a tenth of the size for three times the time.
    return zlib.compress(block.encode(), 1)


def unpacked(body: object) -> Block:
    """The block that `packed` made *body* of. Raises `TooLarge` for a body that is too long, ValueError for any other.

    Raises MemoryError when there is no memory for it.
    """
    inflating = zlib.decompressobj()
    try:
        # A body of a few bytes can expand to gigabytes, so expanding stops at the limit.
        whole = inflating.decompress(body, ROOM_LIMIT)  # type: ignore[arg-type]
        if inflating.eof:
            return Block.decode(whole)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"not a valid block: {error}") from error
    if len(whole) == ROOM_LIMIT:
        raise TooLarge("not a valid block: it is too large")
    raise ValueError("not a valid block: it is truncated")
