#!/usr/bin/env python3
"""Draw the pictures of README.md and docs/: `python ci/pictures.py [--check]`.

docs/pictures/walls.svg: the processes of a sandbox and what each may reach. docs/pictures/call.svg:
the way of a system call. Plain SVG, for light and for dark pages.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs/pictures"
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1b1f24 }
.title { font-weight: 600 }
.small { font-size: 11.5px; fill: #57606a }
.box { fill: #f6f8fa; stroke: #8c959f }
.guest { fill: #fff1e5; stroke: #bc4c00 }
.ours { fill: #ddf4ff; stroke: #0969da }
.host { fill: #eaeef2; stroke: #57606a }
.wall { stroke: #cf222e; stroke-width: 2.5; stroke-dasharray: 7 4; fill: none }
.red { fill: #a40e26; font-weight: 600 }
.way { stroke: #57606a; stroke-width: 1.4; fill: none; marker-end: url(#end) }
#end path { fill: #57606a }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 }
.box { fill: #161b22; stroke: #6e7681 }
.guest { fill: #3d1300; stroke: #db6d28 }
.ours { fill: #051d4d; stroke: #388bfd }
.host { fill: #21262d; stroke: #8b949e }
.red { fill: #ff7b72 } .way { stroke: #9198a1 } #end path { fill: #9198a1 }
}
"""


class Picture:
    """What is drawn on it, in pixels from the left and the top."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size = (width, height)
        self._title = title
        self._parts: list[str] = []

    def box(self, x: int, y: int, width: int, height: int, kind: str = "box") -> None:
        self._parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
        )

    def say(self, x: int, y: int, *lines: str, kind: str = "small", middle: bool = False) -> None:
        """Lines below each other; the first one's foot is at `y`."""
        anchor = ' text-anchor="middle"' if middle else ""
        for n, line in enumerate(lines):
            at = f'x="{x}" y="{y + 16 * n}"'
            self._parts.append(f'<text class="{kind}" {at}{anchor}>{escape(line)}</text>')

    def titled(self, x: int, y: int, width: int, height: int, kind: str, *lines: str) -> None:
        """A box with a name and lines below it."""
        self.box(x, y, width, height, kind)
        self.say(x + 12, y + 22, lines[0], kind="title")
        self.say(x + 12, y + 41, *lines[1:])

    def way(self, *points: tuple[int, int]) -> None:
        """An arrow from the first to the last point."""
        path = " L".join(f"{x} {y}" for x, y in points)
        self._parts.append(f'<path class="way" d="M{path}"/>')

    def wall(self, x: int, y: int, width: int, height: int) -> None:
        self._parts.append(
            f'<rect class="wall" x="{x}" y="{y}" width="{width}" height="{height}" rx="10"/>'
        )

    def svg(self) -> str:
        width, height = self._size
        end = (
            '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
            ' markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
        )
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}" role="img" aria-label="{escape(self._title)}">'
        )
        return "\n".join([head, f"<style>{STYLE}</style>", end, *self._parts, "</svg>\n"])


def walls() -> Picture:
    """The processes of a sandbox."""
    it = Picture(840, 430, "The processes of a sandbox, and the walls between them")
    it.wall(20, 40, 500, 300)
    it.say(34, 62, "second wall: no file system, no rights, some 50 system calls", kind="red")
    it.titled(40, 80, 460, 240, "ours", "Sentry: a Linux kernel in Python",
              "processes, memory, files, sockets, signals: all decisions", "one for each sandbox")
    it.wall(70, 165, 400, 130)
    it.say(84, 187, "first wall: a virtual CPU, no system call of the host", kind="red")
    it.titled(90, 200, 360, 80, "guest", "the program",
              "any Linux program, as root in there if it likes;",
              "computes at native speed, in ring 3")
    it.titled(600, 80, 220, 84, "ours", "Gofer",
              "opens files, below the folders", "of the container and nowhere else")
    it.titled(600, 184, 220, 68, "ours", "network process",
              "makes sockets to its interfaces")
    it.titled(600, 272, 220, 68, "ours", "runsc (command line)",
              "starts the others, then waits")
    it.way((500, 122), (598, 122))
    it.say(530, 115, "9P")
    it.way((598, 218), (502, 218))
    it.say(530, 211, "frames")
    it.way((598, 306), (502, 306))
    it.box(20, 366, 800, 44, "host")
    it.say(420, 393, "the host's kernel", kind="title", middle=True)
    it.way((250, 340), (250, 364))
    it.say(260, 358, "few calls, checked arguments")
    it.way((810, 340), (810, 364))
    return it


def call() -> Picture:
    """The way of a system call."""
    it = Picture(840, 330, "The way of a system call")
    it.titled(20, 30, 190, 84, "guest", "1. the program", "executes syscall", "in ring 3")
    it.titled(20, 190, 190, 110, "box", "2. entry code",
              "answers getpid and its kin;", "else writes the registers", "into a shared page")
    it.titled(300, 190, 230, 110, "ours", "3. dispatch",
              "copies the registers once,", "decodes the arguments,", "asks watch and policy")
    it.titled(300, 30, 230, 84, "ours", "4. handler",
              "one function of Python for each call:", "a result, an errno, or a sleep")
    it.titled(620, 30, 200, 84, "ours", "rooms of the kernel",
              "vfs, mm, net, kernel: files,", "memory, sockets, processes")
    it.titled(620, 190, 200, 110, "box", "somebody else",
              "Gofer, uplink, disk: only", "where an answer is not", "known already")
    it.way((115, 114), (115, 188))
    it.way((210, 245), (298, 245))
    it.say(217, 237, "mailbox")
    it.way((415, 190), (415, 116))
    it.way((530, 72), (618, 72))
    it.way((720, 114), (720, 188))
    it.way((300, 72), (212, 72))
    it.say(222, 64, "result")
    return it


PICTURES = {"walls": walls, "call": call}


def main(words: list[str]) -> int:
    wrong = 0
    for name, draw in PICTURES.items():
        path, svg = FOLDER / f"{name}.svg", draw().svg()
        if words != ["--check"]:
            path.write_text(svg)
        elif not path.exists() or path.read_text() != svg:
            print(f"{path} is not what ci/pictures.py draws", file=sys.stderr)
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
