"""A tool for an agent: it runs Python that a model has written, each time in a sandbox of its own.

A sandbox with a warm interpreter stands still; calls go to forks of it, of which some are ready
before they are needed. Nothing of one call is there in the next one.

    python3 examples/agent_tool.py --root ROOT 'print(6 * 7)' 'import os; os.abort()'
"""

from __future__ import annotations

import argparse
import base64
import queue
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any

from runsc import CommandHandle, Sandbox, SandboxError, Template

PREPARED = "import collections, datetime, decimal, itertools, json, math, random, re, statistics"
LOOP = f"""
import base64, os, sys
{PREPARED}
names = {{'__name__': '__main__'}}
exec({PREPARED!r}, names)
print('ready', flush=True)
os.dup2(1, 2)
exec(compile(base64.b64decode(sys.stdin.readline()), '<tool>', 'exec'), names)
"""
MOST = 100_000
"""Bytes of an answer: what a model has to read."""
SCHEMA: dict[str, Any] = {
    "name": "python",
    "description": "Run a Python program, and read what it prints. Nothing is kept between calls,"
    " and there is no network.",
    "parameters": {
        "type": "object",
        "properties": {"code": {"type": "string"}},
        "required": ["code"],
    },
}
"""As models are told of it."""


class CodeTool:
    """Calls may come from many threads."""

    def __init__(self, *, ready: int = 4, seconds: float = 20.0, **options: Any) -> None:
        """`ready`: so many forks wait; `options`: of `Sandbox.create`."""
        self._seconds = seconds
        self._sandbox = Sandbox.create(forkable=True, **options)
        try:
            self._warm = self._sandbox.commands.run(
                ["python3", "-u", "-c", LOOP], background=True
            )
            if not self._warm.stdout.read().startswith(b"ready"):
                raise SandboxError("python3 does not start in the sandbox")
            self._template = Template.of(self._sandbox)
        except BaseException:
            self._sandbox.kill()
            raise
        self._ready: queue.Queue[Sandbox] = queue.Queue()
        self._forking = threading.Lock()
        self._wanted = ready
        self._fill()

    def __enter__(self) -> CodeTool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._template.kill()
        self._warm.close()

    def _fill(self) -> None:
        with self._forking:
            missing = self._wanted - self._ready.qsize()
            if missing > 0:
                for fork in self._template.fork(missing):
                    self._ready.put(fork)

    def _fork(self) -> Sandbox:
        with suppress(queue.Empty):
            return self._ready.get_nowait()
        with self._forking:
            return self._template.fork()[0]

    def __call__(self, code: str) -> str:
        """What it has printed, and how it has ended if not well."""
        fork = self._fork()
        try:
            fork.set_timeout(self._seconds)
            with fork.commands.connect(self._warm.pid) as python:
                return self._answer(python, code)
        finally:
            fork.kill()
            self._fill()

    def _answer(self, python: CommandHandle, code: str) -> str:
        said = bytearray()
        with suppress(BrokenPipeError):
            python.send_stdin(base64.b64encode(code.encode()) + b"\n")
            python.close_stdin()
        for piece in python.stdout:
            said += piece
            if len(said) > MOST:
                return said[:MOST].decode(errors="replace") + "\n(there was more)"
        text = said.decode(errors="replace")
        try:
            status = python.wait().exit_code
        except SandboxError:
            return f"{text}\n(it took more than {self._seconds:g} s)"
        return text if not status else f"{text}\n(it ended with {status})"


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="a folder with Python in it; the host's own files else")
    parser.add_argument("code", nargs="+")
    given = parser.parse_args()
    with CodeTool(root=given.root, memory=512 << 20) as tool:
        for code in given.code:
            print(tool(code))


if __name__ == "__main__":
    main()
