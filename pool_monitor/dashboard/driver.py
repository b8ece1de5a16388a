"""The input of the dashboard: a terminal driver that accepts any bytes.

Textual's own input thread decodes strictly and trusts its parser. One byte that is not UTF-8 (from a Latin-1 terminal,
or a paste that was cut), or a key sequence with an absurd number, would end the dashboard.
"""

from __future__ import annotations

import codecs
import os
import selectors
from collections.abc import Callable, Iterable

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

_CHUNK = 4096
_TICK = 0.1  # seconds until a lone Esc counts as the key


class Driver(LinuxDriver):
    """A driver that ignores input it cannot read."""

    def run_input_thread(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        parser = XTermParser(self._debug)
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                text = ""
                if selector.select(_TICK):
                    data = os.read(self.fileno, _CHUNK)
                    if not data:
                        return  # the terminal has hung up
                    text = decoder.decode(data)
                for char in text:  # one by one, so that one invalid sequence does not lose the rest
                    parser = self._forward(parser, parser.feed, char)
                parser = self._forward(parser, parser.tick)

    def _forward(self, parser: XTermParser, read: Callable[..., Iterable[Message]], *text: str) -> XTermParser:
        """Forward the keys that *read* yields. Return the parser for the next input: a new one if *read* raised."""
        try:
            for event in read(*text):
                self.process_message(event)
        except Exception:  # noqa: BLE001 - after any failure, the next key may be valid
            return XTermParser(self._debug)
        return parser
