"""What `sitecustomize` counts: the layout of the file before, the report after.

    python ci/measured/lines.py layout FILE
    python ci/measured/lines.py report FILE
    python ci/measured/lines.py write FILE DOCUMENT     the report in the document's section
    python ci/measured/lines.py missing FILE [WORD…]   lines that nothing reached, of these modules
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import CodeType

REPOSITORY = Path(__file__).resolve().parent.parent.parent
ROOMS = ("sentry", "gofer", "runsc", "kvm")
HEAD = """## Coverage

Lines that the tests without `--full` reach, in all processes of ours: the kernel of the guest
programs is one. Written by `ci/coverage`.
"""
LEAST = 25
"""So many of the least covered modules are shown."""
SMALL = 10
"""Modules with fewer lines are not among them."""


def sources() -> list[Path]:
    """The modules of the project, but for those that only build it."""
    found = (path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))
    return sorted(path for path in found if not path.name.startswith("_build"))


def lines_of(path: Path) -> set[int]:
    """The lines of a module that can run."""
    found: set[int] = set()
    codes = [compile(path.read_text(), str(path), "exec")]
    while codes:
        code = codes.pop()
        found.update(number for _, _, number in code.co_lines() if number)
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    return found


def layout(target: Path) -> None:
    """An empty file of counts, and where each module begins in it."""
    starts, end = {}, 0
    for path in sources():
        starts[str(path)] = end
        end += len(path.read_text().splitlines()) + 2
    target.write_bytes(bytes(end))
    Path(f"{target}.layout").write_text(json.dumps(starts))


class Module:
    """The lines of one module, and those that ran."""

    def __init__(self, path: Path, start: int, hits: bytes) -> None:
        self.name = str(path.relative_to(REPOSITORY))
        self.lines = lines_of(path)
        self.missing = sorted(number for number in self.lines if not hits[start + number])

    @property
    def share(self) -> float:
        """Covered, in per cent."""
        return percent(len(self.lines), len(self.missing))

    def gaps(self) -> str:
        """The missing lines, in ranges."""
        ranges: list[list[int]] = []
        for number in self.missing:
            if ranges and not self.lines.intersection(range(ranges[-1][1] + 1, number)):
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
        return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)


def percent(lines: int, missing: int) -> float:
    """What of so many lines has run."""
    return 100.0 if not lines else 100 * (lines - missing) / lines


def modules(target: Path) -> list[Module]:
    """What has been counted."""
    starts: dict[str, int] = json.loads(Path(f"{target}.layout").read_text())
    hits = target.read_bytes()
    return [Module(Path(path), start, hits) for path, start in starts.items()]


def report(target: Path) -> str:
    """Tables in Markdown: rooms, then the least covered modules."""
    found = modules(target)
    text = ["| room | lines | covered |", "|---|---:|---:|"]
    for room in ROOMS:
        own = [each for each in found if each.name.startswith(room + "/")]
        total, missing = sum(len(m.lines) for m in own), sum(len(m.missing) for m in own)
        text.append(f"| `{room}/` | {total:,} | {percent(total, missing):.1f} % |")
    text += ["", "| least covered modules | lines | covered |", "|---|---:|---:|"]
    large = [each for each in found if len(each.lines) >= SMALL]
    for each in sorted(large, key=lambda module: module.share)[:LEAST]:
        text.append(f"| `{each.name}` | {len(each.lines)} | {each.share:.0f} % |")
    return "\n".join(text) + "\n"


def write(target: Path, document: Path) -> None:
    """The report as the section of a document that begins at HEAD, up to the next one."""
    before, _, after = document.read_text().partition(HEAD)
    _, heading, following = after.partition("\n## ")
    document.write_text(f"{before.rstrip()}\n\n{HEAD}\n{report(target)}{heading}{following}")


def show_missing(target: Path, words: list[str]) -> None:
    """Lines that nothing has reached."""
    for each in modules(target):
        if each.missing and (not words or any(word in each.name for word in words)):
            print(f"{each.name}: {each.gaps()}")


if __name__ == "__main__":
    command, file, *rest = sys.argv[1:]
    if command == "layout":
        layout(Path(file))
    elif command == "report":
        print(report(Path(file)), end="")
    elif command == "write":
        write(Path(file), Path(rest[0]))
    else:
        show_missing(Path(file), rest)
