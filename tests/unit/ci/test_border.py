"""The reader of headers and the two texts made of them: what Python sees, and how it is typed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

CI = Path(__file__).resolve().parents[3] / "ci"
HEADER = """
#ifndef GUARD_H
#define GUARD_H
#define SIZE 16 /* bytes */
#define TWICE(x) (2 * (x))
enum kind { FIRST, SECOND = 5 };
struct inner { uint32_t low, high; };
struct outer {
    uint64_t regs[COUNT];
    struct inner pair, *more;
    struct hidden *unknown;
    _Atomic uint32_t shared;
    pthread_t thread;
    uint8_t data[];
};
extern struct outer outer;
extern void (*observer)(uint64_t at, struct inner *seen);
static inline int twice(int value) { if (value) { return TWICE(value); } return 0; }
int take(const uint8_t *data, size_t from, uint64_t *counts, struct outer *to);
const char *name(void);
#endif
"""


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(CI))
    return importlib.import_module("border.reading")


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(CI))
    return importlib.import_module("border.writing")


def test_cdef_has_what_python_can_see_and_nothing_else(reading: Any, writing: Any) -> None:
    text = writing.cdef(writing.visible(reading.header(HEADER), {}))

    lines = [line.strip() for line in text.splitlines()[1:]]
    assert lines == [
        *("#define SIZE ...", "#define FIRST ...", "#define SECOND ..."),
        *("struct inner;", "struct outer;"),
        *("struct inner {", "uint32_t low;", "uint32_t high;", "...;", "};"),
        *("struct outer {", "uint64_t regs[...];", "struct inner pair;", "struct inner *more;"),
        *("uint8_t data[];", "...;", "};"),
        "extern struct outer outer;",
        "extern void (*observer)(uint64_t, struct inner *);",
        "int twice(int value);",
        "int take(const uint8_t *data, size_t from, uint64_t *counts, struct outer *to);",
        "const char *name(void);",
    ]


def test_stub_types_every_call(reading: Any, writing: Any) -> None:
    text = writing.stub(writing.visible(reading.header(HEADER), {}))

    lib = text[text.index("class Lib") :]
    assert "    SECOND: int\n    outer: Outer\n    observer: Callback\n" in lib
    assert (
        "def take(self, data: Uint8 | bytes, from_: int, counts: Uint64, to: Outer, /) -> int: ..."
        in lib
    )
    assert "def name(self) -> Char: ..." in lib
    assert "class Outer(Struct):\n    regs: Uint64\n    pair: Inner\n    more: Inner\n" in text


def test_of_a_source_static_functions_and_prototypes_are_left_out(reading: Any) -> None:
    text = "extern void before(void);\nstatic int own(int a) { return a; }\nint shown(void)\n{\n}\n"

    assert list(reading.source(text).functions) == ["shown"]


def test_struct_of_another_header_comes_where_it_is_mentioned(reading: Any, writing: Any) -> None:
    own = reading.header("struct state *state_new(void);\n")
    beside = reading.structs("struct state { int number; }; struct other { int number; };")

    found = writing.visible(own, beside)

    assert [field.name for field in found.structs["struct state"]] == ["number"]
    assert "struct other" not in found.structs
