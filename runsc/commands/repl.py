"""`runsc debug --repl`: a Python prompt whose statements run in the Sentry."""

from __future__ import annotations

import code
import sys
from typing import TYPE_CHECKING

from runsc.containers import lifecycle
from runsc.errors import RuntimeFailure
from runsc.log import printable
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from runsc.containers.container import Store
    from runsc.containers.state import State

HELD_NS = 50_000_000
"""If a statement has held all programs up for longer, it is said."""
BANNER = """Python in the kernel of {id}. All its programs stand still while a statement runs; what
you change is changed, and a call that the filter of this process forbids, such as open(), ends it.
Names: kernel, container, tasks (by number), task(NUMBER). Ctrl-D ends."""


class Prompt(code.InteractiveConsole):
    """Reads whole statements here, and has them run there."""

    def __init__(self, store: Store, state: State) -> None:
        super().__init__(filename="<repl>")
        self._store = store
        self._state = state

    def runsource(
        self, source: str, filename: str = "<input>", symbol: str = "single"
    ) -> bool:
        """Whether more lines are needed. Raises: RuntimeFailure."""
        try:
            if self.compile(source, filename, symbol) is None:
                return True
        except (OverflowError, SyntaxError, ValueError):
            pass  # it is told there
        if source.strip():
            self._run(source)
        return False

    def _run(self, source: str) -> None:
        reply = lifecycle.ask(self._store, self._state, Request("repl", source=source + "\n"))
        if reply.error or reply.said is None:
            why = reply.error or "the sandbox says nothing"
            raise RuntimeFailure(f'{why}: "{self._state.id}"')
        sys.stdout.write(printable(reply.said.output))
        sys.stdout.flush()
        if reply.said.is_cut:
            print("(there was more)", file=sys.stderr)
        if reply.said.held_ns > HELD_NS:
            ms = reply.said.held_ns // 1_000_000
            print(f"(all programs stood still for {ms} ms)", file=sys.stderr)


def run(store: Store, state: State) -> None:
    """To the end of standard input. Raises: RuntimeFailure."""
    prompt = Prompt(store, state)
    prompt.push("None")  # whether it may be
    on_terminal = sys.stdin.isatty()
    if on_terminal:
        import readline  # noqa: F401, PLC0415  lines that can be edited
    else:
        sys.ps1 = sys.ps2 = ""
    prompt.interact(BANNER.format(id=state.id) if on_terminal else "", "")
