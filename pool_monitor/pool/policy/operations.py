"""Decides which operations a pool offers when its workers disagree. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

_OPERATIONS_MAX = 10_000  # of one pool


def merge_offers(known: Mapping[str, str], offers: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """The operations of *known*, unchanged, and those that workers offer besides. *known* is what the pool has offered
    so far; *offers* holds what each worker that is ready offers. Where workers disagree on the kind of a new operation,
    the majority decides.

    So a worker that lies, or has loaded another version of the target, can neither take an operation from the others
    nor change its kind, not even if all ready workers do. A call of an operation that no worker has any more fails. At
    most 10,000 operations are kept, the oldest first.
    """
    if all(offer == known for offer in offers):
        return known
    votes = Counter(item for offer in offers for item in offer.items())
    found = dict(known)
    for (name, kind), _ in votes.most_common():
        if name not in found and len(found) < _OPERATIONS_MAX:
            found[name] = kind
    return found
