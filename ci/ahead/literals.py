"""Literals of the compiled modules, made with the first module that has them.

mypyc makes those of all modules with the first one, and interns what is text. A sandbox imports
half of the modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mypyc.codegen.cstring import c_string_initializer

ARRAY = re.compile(r"const [\w *]+ CPyLit_(\w+)\[\] = \{((?:.|\n)*?)\};\n")
LINE = re.compile(r'^    "(.*)",$', re.M)
ESCAPED = re.compile(rb"\\([0-7]{3}|.)")
SIMPLE = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v", strict=True))
BEGUN = re.compile(r"_impl\(PyObject \*module\)\n\{\n    PyObject\* modname = NULL;\n")
USED = re.compile(r"(?<!PyObject \*)CPyStatics\[(\d+)\]")
KINDS = ["Str", "Bytes", "Int", "Float", "Complex", "Tuple", "FrozenSet"]
ALL = ", ".join(["CPyStatics", *(f"CPyLit_{kind}" for kind in KINDS)])
NONE = ", ".join(["CPyStatics", *("NULL" for _ in KINDS)])
FIRST = 3
"""Before them are None, False and True, which are always there."""


class Literals:
    """Those of a library, as mypyc has written them for all of its modules.

    Raises: ValueError, where it has in another way.
    """

    def __init__(self, group: str) -> None:
        arrays = dict(ARRAY.findall(group))
        if list(arrays) != KINDS or ALL not in group or arrays["Complex"] != "0":
            raise ValueError("mypyc has written literals in another way")
        self._each = [
            *(b"s" + text for text in _counted(arrays["Str"])),
            *(b"b" + text for text in _counted(arrays["Bytes"])),
            *(b"i" + text for text in _ended(arrays["Int"])),
            *(b"f" + text.strip().encode() for text in arrays["Float"].split(",")[1:]),
            *(b"t" + items for items in _collected(arrays["Tuple"])),
            *(b"z" + items for items in _collected(arrays["FrozenSet"])),
        ]
        if len(self._each) > 0xFFFF - FIRST:
            raise ValueError("more literals than fit into two bytes")

    def table(self) -> str:
        """C: what each of them is, for `ahead_literals` in start.c."""
        at, text = [0], []
        for each in self._each:
            text.append(f'    {c_string_initializer(each)} "\\0"\n')
            at.append(at[-1] + len(each) + 1)
        return (
            f"const char ahead_text[] =\n{''.join(text)};\n"
            f"const unsigned ahead_at[] = {{{', '.join(map(str, at))}}};\n"
        )

    def own(self, text: str) -> str:
        """The C of a module, or of the group, which makes its own alone."""
        text = ARRAY.sub("", text.replace(ALL, NONE))
        used = sorted({int(index) for index in USED.findall(text)} - set(range(FIRST)))
        begun = BEGUN.search(text)
        if used and begun is None:
            raise ValueError("mypyc has begun a module in another way")
        if not used or begun is None:
            return text
        return (
            f"{text[: begun.end()]}"
            f"    static const unsigned short literals[] = {{{', '.join(map(str, used))}, 0}};\n"
            "    if (!ahead_literals(literals))\n"
            "        goto fail;\n"
            f"{text[begun.end() :]}"
        )


def _lines(array: str) -> Iterator[bytes]:
    for line in LINE.findall(array):
        yield ESCAPED.sub(_byte, line.encode())


def _byte(escaped: re.Match[bytes]) -> bytes:
    what = escaped[1]
    return bytes([int(what, 8) if len(what) == 3 else SIMPLE.get(what[0], what[0])])


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Of seven bits a byte, the highest first, and where the next thing is."""
    value = 0
    while data[at] >= 0x80:
        value = value << 7 | data[at] & 0x7F
        at += 1
    return value << 7 | data[at], at + 1


def _counted(array: str) -> Iterator[bytes]:
    for data in _lines(array):
        count, at = _number(data, 0) if data else (0, 0)
        for _ in range(count):
            size, at = _number(data, at)
            yield data[at : at + size]
            at += size


def _ended(array: str) -> Iterator[bytes]:
    for data in _lines(array):
        count, at = _number(data, 0) if data else (0, 0)
        yield from data[at:].split(b"\0", count - 1)[:count]


def _collected(array: str) -> Iterator[bytes]:
    """Numbers of other literals, in two bytes each."""
    numbers = map(int, array.split(","))
    for _ in range(next(numbers)):
        yield b"".join(next(numbers).to_bytes(2, "little") for _ in range(next(numbers)))
