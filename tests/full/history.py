"""A random history of changes to files, and what a folder is after each of them.

`history.c` carries it out. Its lines are known before it begins, so what is found after a crash can
be compared with the folder after each number of lines.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FOLDERS, FILES, LINKS = 4, 40, 6
"""So many of each at a time, or nearly."""
WEIGHTS = {
    "c": 20, "w": 16, "f": 2, "y": 0.2, "r": 16, "l": 8, "u": 16, "m": 3, "d": 2, "s": 4, "p": 8,
}  # fmt: skip

Tree = dict[str, tuple[object, ...]]
"""By path: kind, mode, and the least path of the same file, or where a link leads."""


@dataclass(eq=False)
class Inode:
    """A file, folder or link."""

    born: int
    """The line that made it."""
    kind: int
    mode: int
    link: str = ""
    writes: list[tuple[int, str | None]] = field(default_factory=list)
    """Line, and what was in the file after it; None: nobody knows."""
    synced: list[int] = field(default_factory=list)
    """Lines that made it last."""


class Folder:
    """What is there after some lines."""

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}

    def do(self, number: int, line: str, *, failed: bool = False) -> None:
        """A line has been done; or not, but for what it may have done to what is in the file."""
        what, *words = line.split()
        names = self.names
        if what == "w" and (not failed or words[0] in names):
            names[words[0]].writes.append((number, None if failed else words[1]))
        if failed:
            return
        match what:
            case "c":
                names[words[0]] = Inode(number, stat.S_IFREG, 0o644, writes=[(number, "")])
            case "m":
                names[words[0]] = Inode(number, stat.S_IFDIR, 0o755)
            case "s":
                names[words[0]] = Inode(number, stat.S_IFLNK, 0o777, words[1])
            case "l":
                names[words[1]] = names[words[0]]
            case "u" | "d":
                del names[words[0]]
            case "p":
                names[words[0]].mode = int(words[1], 8)
            case "f":
                names[words[0]].synced.append(number)
            case "y":
                for node in set(names.values()):
                    node.synced.append(number)
            case "r":
                self._rename(*words)

    def _rename(self, old: str, new: str) -> None:
        names = self.names
        if names.get(new) is names[old]:
            return
        names[new] = names.pop(old)
        for path in [each for each in names if each.startswith(f"{old}/")]:
            names[new + path[len(old) :]] = names.pop(path)

    def tree(self) -> Tree:
        """As `tree_of` finds it."""
        least: dict[Inode, str] = {}
        for name in sorted(self.names):
            least.setdefault(self.names[name], name)
        return {
            name: (node.kind, node.mode, node.link or least[node])
            for name, node in self.names.items()
        }


def tree_of(folder: Path) -> Tree:
    """What is there."""
    found: dict[str, os.stat_result] = {}
    for place, directories, files in os.walk(folder):
        for name in directories + files:
            path = os.path.join(place, name)
            found[os.path.relpath(path, folder)] = os.lstat(path)
    least: dict[int, str] = {}
    for name in sorted(found):
        least.setdefault(found[name].st_ino, name)
    return {
        name: (
            stat.S_IFMT(status.st_mode),
            stat.S_IMODE(status.st_mode),
            os.readlink(folder / name) if stat.S_ISLNK(status.st_mode) else least[status.st_ino],
        )
        for name, status in found.items()
    }


def script(chance: random.Random, count: int) -> list[str]:
    """So many lines, of which each can be done after those before."""
    folder = Folder()
    lines: list[str] = []
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    while len(lines) < count:
        line = _line(chance, folder.names, chance.choices(kinds, weights)[0], len(lines))
        if line:
            folder.do(len(lines), line)
            lines.append(line)
    return lines


def _line(chance: random.Random, names: Mapping[str, Inode], what: str, number: int) -> str:
    """One of this kind; "": there is none now."""

    def some(*kinds: int) -> str:
        found = [name for name, node in names.items() if node.kind in kinds]
        return chance.choice(found) if found else ""

    def fresh(letter: str) -> str:
        place = some(stat.S_IFDIR) if chance.random() < 0.7 else ""
        return f"{place}/{letter}{number}".lstrip("/")

    def count(kind: int) -> int:
        return sum(node.kind == kind for node in names.values())

    file = some(stat.S_IFREG)
    match what:
        case "c":
            return f"c {fresh('f')}" if count(stat.S_IFREG) < FILES else ""
        case "s":
            return f"s {fresh('s')} to{number}" if count(stat.S_IFLNK) < LINKS else ""
        case "m":
            return f"m d{number}" if count(stat.S_IFDIR) < FOLDERS else ""
        case "d":
            place = some(stat.S_IFDIR)
            full = any(name.startswith(f"{place}/") for name in names)
            return f"d {place}" if place and not full else ""
        case "u":
            gone = some(stat.S_IFREG, stat.S_IFLNK)
            return f"u {gone}" if gone else ""
        case "y":
            return "y"
        case "r" if chance.random() < 0.1:
            place = some(stat.S_IFDIR)
            return f"r {place} d{number}" if place else ""
        case "r":
            new = some(stat.S_IFREG) if chance.random() < 0.3 else fresh("f")
            return f"r {file} {new}" if file and new != file else ""
        case "l":
            return f"l {file} {fresh('l')}" if file and count(stat.S_IFREG) < FILES else ""
        case "p":
            return f"p {file} {chance.choice((600, 640, 644, 711, 755))}" if file else ""
        case "w":
            return f"w {file} {str(number) * chance.randint(1, 20)}" if file else ""
    return f"f {file}" if file else ""


@dataclass
class Look:
    """What was found by somebody who knows that lines `first` to `last` may be the last one."""

    tree: Tree
    texts: dict[str, str]
    first: int
    last: int
    """Numbers of lines that are done."""
    told: int
    """How many were done for certain."""
    files: dict[str, Inode] | None = None
    """What the names are, once it is known after which line this is the folder."""


def look(folder: Path, first: int, last: int, told: int) -> Look:
    """At a folder."""
    tree = tree_of(folder)
    texts = {
        name: (folder / name).read_bytes().decode("latin-1")
        for name, (kind, *_) in tree.items()
        if kind == stat.S_IFREG
    }
    return Look(tree, texts, first, last, told)


def lasting(lines: list[str]) -> list[int]:
    """How many lines last for certain, by how many are done.

    syncfs(2) makes all last; fsync(2) a file and its names, and so whatever was done before it
    got these: what was done later to others may take longer.
    """
    folder, found = Folder(), [0]
    named: dict[Inode, int] = {}
    for number, line in enumerate(lines):
        what, *words = line.split()
        least = found[-1]
        if what == "y":
            least = number + 1
        elif what == "f":
            least = max(least, named[folder.names[words[0]]] + 1)
        before = folder.names.get(words[0]) if words else None
        folder.do(number, line)
        if what in "clrpu":
            changed = before or folder.names[words[0]]
            named[changed] = number
        found.append(least)
    return found


def _ends(lines: list[str]) -> dict[int, int]:
    """When a file, by the line that made it, has lost its last name."""
    folder, there, ends = Folder(), set[int](), dict[int, int]()
    for number, line in enumerate(lines):
        folder.do(number, line)
        if line[0] in "urd":
            left = {node.born for node in folder.names.values()}
            ends |= dict.fromkeys(there - left, number)
            there = left
        elif line[0] in "cms":
            there.add(number)
    return ends


def walk(lines: list[str], looks: list[Look]) -> Iterator[str]:
    """Go through the history, and say of each what it is unlike.

    A file that has vanished again by the last line that may have been done need not have been made.
    """
    folder, ends = Folder(), _ends(lines[: max(each.last for each in looks)])
    nearest: dict[int, tuple[int, Tree]] = {}
    for done in range(max(each.last for each in looks) + 1):
        for number, each in enumerate(looks):
            if each.files is not None or not each.first <= done <= each.last:
                continue
            tree = folder.tree()
            for name in tree.keys() - each.tree.keys():
                if ends.get(folder.names[name].born, each.last) < each.last:
                    del tree[name]
            if tree == each.tree:
                each.files = {name: folder.names[name] for name in tree}
            unlike = dict(tree.items() ^ each.tree.items())
            if number not in nearest or len(unlike) < len(nearest[number][1]):
                nearest[number] = done, unlike
        if done < len(lines):
            folder.do(done, lines[done])
    for number, each in enumerate(looks):
        if each.files is None:
            done, unlike = nearest[number]
            yield f"lines {each.first} to {each.last}, told {each.told}: after {done} but {unlike}"


def lost_texts(look: Look, *, synced: bool) -> list[str]:
    """Names of files in which is not what was written; `synced`: and made last."""
    lost: list[str] = []
    for name, node in (look.files or {}).items():
        if node.kind != stat.S_IFREG:
            continue
        told = [(line, text) for line, text in node.writes if line < look.told]
        if not told or any(look.told <= line <= look.last for line, _ in node.writes):
            continue
        line, text = told[-1]
        if synced and not any(line < each < look.told for each in node.synced):
            continue
        if text is not None and look.texts[name] != text:
            lost.append(f"{name}: {look.texts[name]!r}, not {text!r} of line {line}")
    return lost
