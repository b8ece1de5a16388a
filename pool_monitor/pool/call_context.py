"""The part of a caller's context that travels with its calls, to the worker and to the handlers of their events."""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from typing import Any

from pool_monitor.errors import ConfigError
from pool_monitor.pool.call import Call
from pool_monitor.pool.transport.child.target import find_variable
from pool_monitor.pool.transport.interface import Transport


class ContextPropagator:
    """The context variables that a pool's configuration names. Raises ConfigError for a variable that this process
    cannot find.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._variables = {}
        for name in names:
            try:
                self._variables[name] = find_variable(name)
            except LookupError as error:
                raise ConfigError(
                    f"Pool(context={name!r}): {error}; needs 'module:variable', such as 'my_service.log:request_id', "
                    "which can be imported here and by the workers"
                ) from error
        self.new_call = self._in_context if names else Call

    def _in_context(self, *call: Any) -> Call:
        """Make a call that keeps a copy of the current context."""
        made = Call(*call)
        made.context = contextvars.copy_context()
        return made

    def hand_over(self, transport: Transport, call: Call, session: tuple[str, dict[str, Any]] | None) -> None:
        """Hand over the call with the variables that its caller had set. Raises PayloadError."""
        context = call.context
        assert context is not None
        values = {name: context[variable] for name, variable in self._variables.items() if variable in context}
        stream = call.items is not None
        transport.call(call.id, call.operation, call.args, call.kwargs, stream, session, values)
