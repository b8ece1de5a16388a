"""A worker with one call at a time, whose calls bring context variables."""

from __future__ import annotations

import contextvars

from .messenger import CALL_LENGTH
from .worker import Worker

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, List

    from .handshake import Connection, Init
    from .payloads import Body


class ContextWorker(Worker):
    """Runs each call in its own context. A `ConcurrentWorker` does not need this: its calls are tasks."""

    def __init__(self, connection: Connection, init: Init) -> None:
        super().__init__(connection, init)
        self.options: Any = None  # of the call under way

    def call(self, number: int, message: List[Any]) -> None:
        self.options = message[CALL_LENGTH] if len(message) > CALL_LENGTH else None
        contextvars.copy_context().run(super().call, number, message[:CALL_LENGTH])

    def answer(self, *call: Any) -> Body:
        if self.options is not None:
            self.set_context(self.options)
        return super().answer(*call)
