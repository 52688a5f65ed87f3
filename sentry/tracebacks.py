"""Tracebacks as text, of a process that reads no file: without lines of source.

As `traceback` would print them there. That module, with what it needs, is 0.4 MiB of each process.
"""

from __future__ import annotations

from itertools import groupby
from types import TracebackType

MOST_ALIKE = 3
"""Frames beside each other that are told one by one."""
MOST_FRAMES = 1000
BETWEEN = {
    True: "\nThe above exception was the direct cause of the following exception:\n\n",
    False: "\nDuring handling of the above exception, another exception occurred:\n\n",
}
"""Whether one is the cause of the next."""


def text_of(error: BaseException) -> str:
    """All of it, with what it came of."""
    return text_from(error, error.__traceback__)


def text_from(error: BaseException, trace: TracebackType | None) -> str:
    """The same; of the last one's frames those from here on."""
    parts, seen, one = [_one(error, trace)], {id(error)}, error
    while True:
        is_cause = one.__cause__ is not None
        before = one.__cause__ if is_cause or one.__suppress_context__ else one.__context__
        if before is None or id(before) in seen:
            return "".join(reversed(parts))
        parts += BETWEEN[is_cause], _one(before, before.__traceback__)
        seen.add(id(before))
        one = before


def _one(error: BaseException, trace: TracebackType | None) -> str:
    head = "Traceback (most recent call last):\n" if trace is not None else ""
    return f"{head}{''.join(_frames(trace))}{_words(error)}"


def _frames(trace: TracebackType | None) -> list[str]:
    told: list[str] = []
    while trace is not None and len(told) < MOST_FRAMES:
        code = trace.tb_frame.f_code
        told.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}\n')
        trace = trace.tb_next
    shown: list[str] = []
    for line, alike in groupby(told):
        count = len(list(alike))
        shown += [line] * min(count, MOST_ALIKE)
        if count > MOST_ALIKE:
            shown.append(f"  [Previous line repeated {count - MOST_ALIKE} more times]\n")
    return shown


def _words(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("__main__", "builtins"):
        name = f"{kind.__module__}.{name}"
    try:
        text = str(error)
    except Exception:
        text = "<exception str() failed>"
    notes = "".join(f"{note}\n" for note in getattr(error, "__notes__", ()))
    return f"{name}: {text}\n{notes}" if text else f"{name}\n{notes}"
