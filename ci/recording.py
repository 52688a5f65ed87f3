#!/usr/bin/env python3
"""Record a terminal: `python ci/recording.py [FILE]` types what is below into a shell, for real,
and draws what that shows as docs/pictures/recording.svg: an animation by CSS alone, for README.md.

Ours, for what drew such pictures from Python (termtosvg) is kept by nobody since 2020, and the
others are programs of Go, Rust and Node. A line of text with times is all that is needed: what is
recorded here moves no cursor. Needs root, /dev/kvm, and `ci/rootfs debian`.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from html import escape, unescape
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PICTURE = REPOSITORY / "docs/pictures/recording.svg"
TYPED = (
    "runsc do sh -c 'uname -r; rm -rf /etc; ls /etc'; ls -d /etc    # mine is there",
    "runsc --network=none run -d --forkable warm",
    "runsc exec warm sh -c 'echo 42 > /tmp/answer'",
    "runsc fork warm one two    # copies: processes, memory, files",
    "runsc exec two cat /tmp/answer",
    "runsc --egress=allowed.toml run -d -b web agent",
    "runsc exec agent bash -c '</dev/tcp/198.51.100.7/443'",
    "runsc egress log agent",
)
NETWORK = (
    "-n {0} link add eth0 type veth peer name far",
    "-n {0} link set far up",
    "-n {0} link set eth0 up",
    "-n {0} addr add 10.9.0.2/24 dev eth0",
    "-n {0} route add default via 10.9.0.1",
)
"""Of the last container: it leads nowhere."""
EGRESS = 'default = "deny"\n[[rule]]\naction = "allow"\nnames = ["api.example.org"]\n'
PROMPT = "$ "
KEY_S, READ_S, MOST_S = 0.008, 0.3, 0.4
"""Between keys; to read what was shown; what takes longer is shown so short."""
PATIENCE_S = 60.0
STAY_S = 3.0
"""The last picture, before it begins again."""
COLUMNS = 88
CHAR, LINE, EDGE = 8.4, 19, 16
STYLE = """
svg { color-scheme: light dark }
rect { fill: #f6f8fa; stroke: #d0d7de }
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2328;
  white-space: pre }
.typed { fill: #0550ae; font-weight: 600 }
@media (prefers-color-scheme: dark) {
rect { fill: #0d1117; stroke: #30363d } text { fill: #e6edf3 } .typed { fill: #79c0ff }
}
@media (prefers-reduced-motion: reduce) { tspan { animation: none !important } }
"""
Piece = tuple[float, str, bool]
"""When, in seconds; a text; whether it was typed."""


class Shell:
    """bash at a terminal of its own, which is typed into."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._pid, self._terminal = pty.fork()
        if not self._pid:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting"], environment)
        os.set_blocking(self._terminal, False)
        self._clock = 0.0
        self._seen = time.monotonic()
        self.pieces: list[Piece] = []

    def until(self, mark: str) -> None:
        """What comes until then is shown. Raises: TimeoutError."""
        shown = ""
        while not shown.endswith(mark):
            shown += self._heard(PATIENCE_S, typed=False)

    def run(self, line: str) -> None:
        """Type it, as somebody would, and wait for its end."""
        for key in line:
            self._clock += KEY_S
            os.write(self._terminal, key.encode())
            self._heard(PATIENCE_S, typed=True)
        self.wait(READ_S / 3)
        os.write(self._terminal, b"\n")
        self.until("\n" + PROMPT)
        self.wait(READ_S)

    def wait(self, seconds: float) -> None:
        """Nothing happens."""
        self._clock += seconds
        self._seen = time.monotonic()

    def _heard(self, patience_s: float, *, typed: bool) -> str:
        if not select.select([self._terminal], [], [], patience_s)[0]:
            raise TimeoutError("the shell says nothing")
        text = os.read(self._terminal, 1 << 16).decode(errors="replace").replace("\r", "")
        now = time.monotonic()
        if not typed:
            self._clock += min(now - self._seen, MOST_S)
        self._seen = now
        self.pieces.append((self._clock, text, typed))
        return text

    def close(self) -> None:
        """It ends with its terminal."""
        os.close(self._terminal)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def lines_of(pieces: list[Piece]) -> list[list[Piece]]:
    """What each line of the screen is made of."""
    lines: list[list[Piece]] = [[]]
    for at, text, typed in pieces:
        for n, part in enumerate(text.split("\n")):
            if n:
                lines.append([])
            if part:
                lines[-1].append((at, part, typed))
    while lines and not "".join(part for _, part, _ in lines[-1]).strip(PROMPT):
        lines.pop()
    return lines


def svg(lines: list[list[Piece]]) -> str:
    """An animation that begins again when it has been seen, or its last picture where pictures
    shall not move."""
    whole = max((line[-1][0] for line in lines if line), default=0.0) + STAY_S
    steps: dict[str, str] = {}
    shown = []
    for row, line in enumerate(lines):
        spans = []
        for at, part, typed in line:
            share = f"{100 * at / whole:.2f}%"
            name = steps.setdefault(share, f"t{len(steps)}")
            kind = f"{name} typed" if typed else name
            spans.append(f'<tspan class="{kind}">{escape(part)}</tspan>')
        y = EDGE + LINE * row + 14
        shown.append(f'<text x="{EDGE}" y="{y}" xml:space="preserve">{"".join(spans)}</text>')
    width, height = round(COLUMNS * CHAR + 2 * EDGE), 2 * EDGE + LINE * len(lines)
    moves = "".join(
        f"@keyframes {name}{{0%{{visibility:hidden}}{share}{{visibility:visible}}}}"
        f".{name}{{animation:{name} {whole:.2f}s step-end infinite}}\n"
        for share, name in steps.items()
    )
    title = "A terminal: a program in a sandbox, copies of a warm one, a connection that is refused"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" aria-label="{title}">',
        f"<style>{STYLE}{moves}</style>",
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        *shown, "</svg>\n",
    ])  # fmt: skip


def text_of(picture: str) -> list[str]:
    """The lines that it shows in the end."""
    rows = re.findall(r"<text .*?>(.*?)</text>", picture)
    return [unescape(re.sub(r"<[^>]*>", "", row)) for row in rows]


def record(folder: Path, rootfs: Path) -> list[Piece]:
    """All of it, in containers of its own, which are gone then."""
    (folder / "bin").mkdir()
    (folder / "allowed.toml").write_text(EGRESS)
    program = folder / "bin/runsc"
    words = [sys.executable, "-m", "runsc", "--zygote=off", "--root", str(folder / "state")]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    environment = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY),
        "PS1": PROMPT, "TERM": "dumb", "LC_ALL": "C",
        "HOME": str(folder),
    }  # fmt: skip
    run = partial(subprocess.run, check=True, cwd=folder, env=environment)
    run([program, "spec"])
    config = json.loads((folder / "config.json").read_text())
    config["process"] |= {"args": ["sleep", "1000"], "terminal": False}
    config["root"] = {"path": str(rootfs), "readonly": True}
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    (folder / "config.json").write_text(json.dumps(config))
    [network] = (each for each in config["linux"]["namespaces"] if each["type"] == "network")
    network["path"] = f"/run/netns/{folder.name}"
    (folder / "web").mkdir()
    (folder / "web/config.json").write_text(json.dumps(config))
    shell = Shell(folder, environment)
    with ExitStack() as after:
        run(["ip", "netns", "add", folder.name])
        after.callback(run, ["ip", "netns", "delete", folder.name])
        for name in ("warm", "two", "one", "agent"):
            after.callback(run, [program, "delete", "--force", name])
        after.callback(shell.close)
        for line in NETWORK:
            run(["ip", *line.format(folder.name).split()])
        shell.until(PROMPT)
        for line in TYPED:
            shell.run(line)
    return shell.pieces


def main(words: list[str]) -> None:
    """Of the command line."""
    made = subprocess.run(
        [REPOSITORY / "ci/rootfs", "debian"], check=True, capture_output=True, text=True
    )
    with tempfile.TemporaryDirectory(prefix="recording-") as folder:
        pieces = record(Path(folder), Path(made.stdout.strip()))
    Path(*words[:1] or [PICTURE]).write_text(svg(lines_of(pieces)))


if __name__ == "__main__":
    main(sys.argv[1:])
