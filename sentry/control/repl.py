"""Python statements of a developer, run on the kernel's objects: `runsc debug --repl`.

Only in a sandbox that was started with `--repl`. Nothing about it is read-only, and nothing could
make it so. A statement runs on the kernel thread, and all programs wait for it: how long that was
is told, and a statement whose own lines take more CPU time than LONGEST_S is ended. What it has
called is not, for the kernel's objects would stay as they are in the middle; nor what C does.
"""

from __future__ import annotations

import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from sentry.control.answers import Said
from sentry.tracebacks import text_from

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task

FILE: Final = "<repl>"
LONGEST_S: Final = 2.0
MAX_OUTPUT: Final = 1 << 18
"""Characters that one statement may say."""
SHOWN: Final = 20_000
"""Of one value."""


class Overdue(BaseException):
    """The lines of a statement took too long."""


class Output:
    """A file of text with an end. Beyond it nothing is kept."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._left = MAX_OUTPUT
        self.is_cut = False

    def write(self, text: str) -> int:
        """As much as there is room for."""
        self.is_cut = self.is_cut or len(text) > self._left
        self._parts.append(text[: self._left])
        self._left = max(0, self._left - len(text))
        return len(text)

    def flush(self) -> None:
        """It is there."""

    def text(self) -> str:
        """All of it; what is no UTF-8 is escaped."""
        return "".join(self._parts).encode(errors="backslashreplace").decode()


class Repl:
    """The names that statements have, from one to the next."""

    def __init__(self, kernel: Kernel, longest_s: float = LONGEST_S) -> None:
        self._kernel = kernel
        self._longest_s = longest_s
        self.names: dict[str, Any] = {
            "__name__": "repl", "__builtins__": __builtins__, "kernel": kernel,
            "container": kernel.container, "task": self._task, "tasks": kernel.pids.tasks,
        }  # fmt: skip

    def _task(self, number: int) -> Task:
        return self._kernel.pids.tasks[number]

    def run(self, source: str) -> Said:
        """One statement, as at Python's prompt: the value of an expression is shown, and is `_`."""
        output = Output()
        began_ns = time.perf_counter_ns()
        with redirect_stdout(output), redirect_stderr(output):
            before = sys.displayhook, sys.gettrace()
            sys.displayhook = self._show
            try:
                code = compile(source, FILE, "single")
                sys.settrace(self._watch(time.thread_time() + self._longest_s))
                exec(code, self.names)
            except BaseException as error:  # it is told, whatever it is
                sys.settrace(before[1])
                output.write(self._told(error))
            finally:
                sys.settrace(before[1])
                sys.displayhook = before[0]
        return Said(output.text(), time.perf_counter_ns() - began_ns, output.is_cut)

    def _show(self, value: object) -> None:
        if value is None:
            return
        self.names["_"] = value
        text = repr(value)
        print(text if len(text) <= SHOWN else text[:SHOWN] + " …")

    def _watch(self, until: float) -> Any:
        def look(frame: FrameType, _event: str, _arg: object) -> Any:
            if frame.f_code.co_filename != FILE:
                return None
            frame.f_trace_opcodes = True  # a loop may be one line
            if time.thread_time() > until:
                raise Overdue(f"its own lines took more than {self._longest_s} s of CPU time")
            return look

        return look

    @staticmethod
    def _told(error: BaseException) -> str:
        """As Python's prompt does, without the lines of this module."""
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != FILE:
            trace = trace.tb_next
        try:
            return text_from(error, trace)
        except Exception as another:  # a __str__ of its own
            return f"{type(error).__name__}, which cannot be shown: {type(another).__name__}\n"
