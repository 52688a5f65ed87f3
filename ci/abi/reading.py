"""What the installed kernel headers say: constants by the compiler, structs from DWARF."""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from typing import Any

from abi.areas import ENUMS, Area
from elftools.elf.elffile import ELFFile

PRELUDE = "#define _GNU_SOURCE 1\n#include <stddef.h>\n#include <linux/types.h>\ntypedef int __abi_dummy;\n"


def cc(source: str, *args: str, **kw: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["gcc", "-x", "c", "-w", *args, "-"],
        input=source,
        text=True,
        check=True,
        capture_output=True,
        **kw,
    )


def usable(text: str, names: list[str]) -> set[str]:
    """Those that are integer constant expressions: a line each, without those of which the compiler
    says something until it says nothing."""
    while names:
        body = f'{text}# 1 "names"\n' + "".join(
            f'static const long long c{i} = (long long)({n}); _Static_assert(sizeof(char[1 + ((({n}) == ({n})))]), "");\n'
            for i, n in enumerate(names)
        )
        try:
            cc(body, "-fsyntax-only", "-fmax-errors=0")
            break
        except subprocess.CalledProcessError as error:
            wrong = {int(line) for line in re.findall(r"^names:(\d+):", error.stderr, re.MULTILINE)}
            if not wrong:
                raise
            names = [n for number, n in enumerate(names, 1) if number not in wrong]
    return set(names)


def constants(area: Area, name: str) -> list[tuple[str, int]]:
    """Macros of the area that are integer constants, in the order of their definition."""
    text = PRELUDE + "".join(f"#include <{h}>\n" for h in area.headers) + area.extra + "\n"
    names = []
    for line in cc(text, "-E", "-dM").stdout.splitlines():
        m = re.match(r"#define (\w+) \S", line)
        if m and re.match(area.macros, m[1]):
            names.append(m[1])
    names = sorted(set(names) | set(ENUMS.get(name, ())))
    # one probe a name: what is not an integer constant expression is left out
    good: set[str] = set()
    while found := usable(text, [n for n in reversed(names) if n not in good]):
        good |= found
        names.reverse()  # one without its closing bracket hides those behind it
    names.sort()
    kept = [n for n in names if n in good]
    with tempfile.TemporaryDirectory() as tmp:
        body = (
            text
            + "int printf(const char*, ...);\nint main(void){"
            + "".join(
                f'printf("%d %lld\\n", (({n}) > 0 || ({n}) == 0), (long long)({n}));' for n in kept
            )
            + "return 0;}"
        )
        cc(body, "-o", f"{tmp}/a")
        out = subprocess.run(
            [f"{tmp}/a"], check=True, capture_output=True, text=True
        ).stdout.splitlines()
    result = []
    for n, line in zip(kept, out, strict=True):
        positive, value = (int(x) for x in line.split())
        result.append((n, value & (2**64 - 1) if positive else value))
    return result


def type_of(die: Any) -> Any:
    t = die.get_DIE_from_attribute("DW_AT_type")
    while t.tag in ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type"):
        t = t.get_DIE_from_attribute("DW_AT_type")
    return t


def fields_of(die: Any, base: int, prefix: str) -> list[tuple[str, int, str, str]]:
    """(name, offset, struct code, python type) of every scalar, nested structs flattened."""
    out: list[tuple[str, int, str, str]] = []
    for m in die.iter_children():
        if m.tag != "DW_TAG_member":
            continue
        raw = m.attributes["DW_AT_name"].value.decode() if "DW_AT_name" in m.attributes else ""
        name = (prefix + raw.strip("_")).strip("_")
        at = base + (
            m.attributes["DW_AT_data_member_location"].value
            if "DW_AT_data_member_location" in m.attributes
            else 0
        )
        t = type_of(m)
        size = t.attributes["DW_AT_byte_size"].value if "DW_AT_byte_size" in t.attributes else 0
        if t.tag == "DW_TAG_structure_type":
            out += fields_of(t, at, f"{name}_" if raw else prefix)
        elif t.tag == "DW_TAG_array_type":
            count = 1
            for sub in t.iter_children():
                if "DW_AT_upper_bound" in sub.attributes:
                    count *= sub.attributes["DW_AT_upper_bound"].value + 1
            element = type_of(t)
            out.append(
                (name, at, f"{count * element.attributes['DW_AT_byte_size'].value}s", "bytes")
            )
        elif t.tag == "DW_TAG_union_type":
            scalar = {8: "Q", 4: "I"}.get(size)
            out.append((name or f"u{at}", at, scalar or f"{size}s", "int" if scalar else "bytes"))
        else:
            size = size or 8
            encoding = (
                t.attributes["DW_AT_encoding"].value if "DW_AT_encoding" in t.attributes else 7
            )
            code = {1: "b", 2: "h", 4: "i", 8: "q"}[size]
            out.append((name, at, code if encoding in (5, 6) else code.upper(), "int"))
    return out


def layouts(area: Area) -> list[str]:
    if not area.structs:
        return []
    text = PRELUDE + "".join(f"#include <{h}>\n" for h in area.headers) + area.extra + "\n"
    text += "".join(f"{c} v_{alias};\n" for c, alias in area.structs.items())
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as tmp:
        cc(text, "-g", "-gdwarf-4", "-c", "-o", f"{tmp}/a.o")
        with open(f"{tmp}/a.o", "rb") as f:
            cu = next(iter(ELFFile(f).get_dwarf_info().iter_CUs()))
            for die in cu.iter_DIEs():
                if die.tag != "DW_TAG_variable" or "DW_AT_name" not in die.attributes:
                    continue
                alias = die.attributes["DW_AT_name"].value.decode()[2:]
                if alias not in area.structs.values():
                    continue
                t = type_of(die)
                total = t.attributes["DW_AT_byte_size"].value
                fmt, at = "<", 0
                names: list[tuple[str, str]] = []
                fields = fields_of(t, 0, "")
                for (name, offset, code, kind), after in zip(
                    fields, [*fields[1:], None], strict=True
                ):
                    if kind == "bytes" and after is not None and after[1] == offset:
                        continue  # an array without elements (padding that this CPU needs not)
                    if offset > at:
                        fmt += f"{offset - at}x"
                    at = offset + struct.calcsize("<" + code)
                    fmt += code
                    while (
                        name in [n for n, _ in names]
                        or not name
                        or name in ("from", "class", "index", "count")
                    ):
                        name = (name or "pad") + "_"
                    names.append((name, kind))
                if total > at:
                    fmt += f"{total - at}x"
                cls = "".join(p.capitalize() for p in alias.split("_"))
                c_name = next(c for c, a in area.structs.items() if a == alias)
                lines += [
                    "",
                    "",
                    f"class {cls}(Record):",
                    f'    """{c_name}: {total} bytes."""',
                    "",
                ]
                lines += [f"    {n}: {k}" for n, k in names]
                made = f'{alias.upper()} = Layout("{alias}", "{fmt}", {cls})'
                if len(made) > 100:
                    made = f'{alias.upper()} = Layout(\n    "{alias}", "{fmt}", {cls}\n)'
                lines += ["", "", made]
    return lines


def headers_version() -> str:
    """Of which Linux the installed headers are."""
    parts = dict(constants(Area("", ["linux/version.h"], r"LINUX_VERSION_"), "version"))
    return ".".join(str(parts[f"LINUX_VERSION_{p}"]) for p in ("MAJOR", "PATCHLEVEL", "SUBLEVEL"))
