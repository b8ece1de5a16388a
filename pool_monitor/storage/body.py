"""The form in which a block is stored in the file: encoded and compressed."""

from __future__ import annotations

import zlib

from pool_monitor.metrics.block import ROOM_LIMIT, Block


class TooLarge(ValueError):
    """As much as `ROOM_LIMIT` had to be looked at to see that it is no block."""


def packed(block: Block) -> bytes:
    """A block as it stands in the file."""
    # Level 1: the higher ones save a tenth of the size for three times the time.
    return zlib.compress(block.encode(), 1)


def unpacked(body: object) -> Block:
    """The block that `packed` made a *body* of. Raises ValueError for anything else: `TooLarge` if it is too long."""
    inflating = zlib.decompressobj()
    try:
        # A body of a few bytes can expand to gigabytes: it is cut off.
        whole = inflating.decompress(body, ROOM_LIMIT)  # type: ignore[arg-type]
        if inflating.eof:
            return Block.decode(whole)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"no block: {error}") from error
    if len(whole) == ROOM_LIMIT:
        raise TooLarge("no block: it is too large")
    raise ValueError("no block: it is cut off")
