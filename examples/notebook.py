"""A notebook's kernel in a sandbox: the code cells of a notebook run in one interpreter there.

    python3 examples/notebook.py --root ROOT notebook.ipynb -o done.ipynb

What a cell prints, what its last expression is and how it fails are its outputs, as Jupyter has
them. A cell that takes too long is interrupted, and the next one goes on; the files that it makes
stay in the sandbox.
"""

from __future__ import annotations

import argparse
import base64
import json
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from runsc import Sandbox, SandboxError

KERNEL = r"""
import ast, base64, contextlib, io, json, signal, sys, traceback
names, out = {'__name__': '__main__'}, sys.stdout
signal.signal(signal.SIGINT, signal.SIG_IGN)
def say(**message):
    data = base64.b64encode(json.dumps(message).encode())
    out.write(data.decode() + '\n')
    out.flush()
class Stream(io.TextIOBase):
    def __init__(self, name): self.name_ = name
    def write(self, text):
        if text: say(output_type='stream', name=self.name_, text=text)
        return len(text)
say(ready=True)
for line in sys.stdin:
    count, source = json.loads(base64.b64decode(line))
    with contextlib.redirect_stdout(Stream('stdout')), contextlib.redirect_stderr(Stream('stderr')):
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            tree = ast.parse(source)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, '<cell>', 'exec'), names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), '<cell>', 'eval'), names)
                if value is not None:
                    say(output_type='execute_result', execution_count=count, metadata={},
                        data={'text/plain': repr(value)})
        except BaseException as error:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            say(output_type='error', ename=type(error).__name__, evalue=str(error),
                traceback=traceback.format_exc().splitlines())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    say(done=True)
"""
MOST = 4 << 20
"""Bytes of outputs of one cell."""
OUTPUTS = {"stream": ("name", "text"), "error": ("ename", "evalue", "traceback"),
           "execute_result": ("execution_count", "metadata", "data")}  # fmt: skip
START_S = 60.0
PATIENCE_S = 5.0
"""After the interrupt; then the kernel is ended."""


class KernelDied(Exception):
    """The interpreter has ended, or has been, and what it knew is gone."""


class Notebook:
    """A sandbox with an interpreter in it."""

    def __init__(self, *, seconds: float = 60.0, **options: Any) -> None:
        """`seconds`: for a cell; `options`: of `Sandbox.create`."""
        self._seconds = seconds
        self.sandbox = Sandbox.create(**options)
        self._count = 0
        try:
            self._begin()
        except BaseException:
            self.sandbox.kill()
            raise

    def _begin(self) -> None:
        self._kernel = self.sandbox.commands.run(["python3", "-u", "-c", KERNEL], background=True)
        self._rest = b""
        if not self._next(time.monotonic() + START_S).get("ready"):
            raise SandboxError("python3 does not start in the sandbox")

    def __enter__(self) -> Notebook:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kernel.close()
        self.sandbox.kill()

    def run(self, source: str) -> list[dict[str, Any]]:
        """The outputs of a cell. Raises: KernelDied; the next cell has another interpreter."""
        self._count += 1
        line = base64.b64encode(json.dumps([self._count, source]).encode()) + b"\n"
        try:
            self._kernel.send_stdin(line)
            return self._outputs()
        except (BrokenPipeError, EOFError, TimeoutError, ValueError) as error:
            self._kernel.close()
            self._begin()
            raise KernelDied(type(error).__name__) from None

    def _outputs(self) -> list[dict[str, Any]]:
        until, interrupted, size = time.monotonic() + self._seconds, False, 0
        found: list[dict[str, Any]] = []
        while True:
            try:
                message = self._next(until)
            except TimeoutError:
                if interrupted:
                    raise
                self._kernel.kill(signal.SIGINT)
                until, interrupted = time.monotonic() + PATIENCE_S, True
                continue
            if message.get("done"):
                return found
            kind = message.get("output_type")
            if kind not in OUTPUTS:
                raise ValueError("no output of a notebook")  # what runs inside may say anything
            size += len(json.dumps(message))
            if size > MOST:
                continue
            made = {"output_type": kind} | {name: message.get(name) for name in OUTPUTS[kind]}
            if kind == "stream" and found and found[-1].get("name") == made["name"]:
                found[-1]["text"] = f"{found[-1]['text']}{made['text']}"
            else:
                found.append(made)

    def _next(self, until: float) -> dict[str, Any]:
        while b"\n" not in self._rest:
            try:
                left = max(0.001, until - time.monotonic())
                piece = self._kernel.stdout.read(patience_s=left)
            except SandboxError:
                raise TimeoutError from None
            if not piece:
                raise EOFError
            self._rest += piece
            if len(self._rest) > 2 * MOST:
                raise ValueError("a line without an end")
        line, _, self._rest = self._rest.partition(b"\n")
        message = json.loads(base64.b64decode(line))
        if not isinstance(message, dict):
            raise ValueError("no message")
        return message


def run_all(document: dict[str, Any], notebook: Notebook) -> None:
    """The code cells of a document of nbformat 4, whose outputs become what they are now."""
    for number, cell in enumerate(document.get("cells", []), 1):
        if cell.get("cell_type") != "code":
            continue
        source = cell.get("source", "")
        text = source if isinstance(source, str) else "".join(source)
        try:
            cell["outputs"] = notebook.run(text)
        except KernelDied:
            cell["outputs"] = [{"output_type": "error", "ename": "KernelDied", "evalue": "",
                                "traceback": ["the interpreter has ended"]}]  # fmt: skip
        cell["execution_count"] = number


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="a folder with Python in it; the host's own files else")
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("notebook", type=Path)
    given = parser.parse_args()
    document = json.loads(given.notebook.read_text())
    with Notebook(root=given.root, memory=1 << 30) as notebook:
        run_all(document, notebook)
    given.output.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
