"""Rules that the compiled modules keep, seen in their source: what mypyc would not tell."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import Struct

from sentry import ahead

ROOT = Path(__file__).parents[3]
OTHERS = {"Enum", "IntEnum", "IntFlag", "NamedTuple", "Protocol", "Record", "Struct", "TypedDict"}
"""Bases of classes that are none of mypyc's."""
ITS_OWN = {"__slots__"}


def part(name: str) -> Any:
    """A module of ci/ahead."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"ci/ahead/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled() -> list[str]:
    """Their paths."""
    return list(part("modules").modules())


MARKS = {
    "XY = 5": "XY: _Final = 5",
    "XY = -5": "XY: _Final = -5",
    "XYZ = XY | fcntl.YZ": "XYZ: _Final = XY | fcntl.YZ",
    "_IDS = struct.Struct('<II')": "_IDS: _Final = struct.Struct('<II')",
    "_read = lib.user_read": "_read: _Final = lib.user_read",
    "TYPE_CHECKING = False": "TYPE_CHECKING = False",
    "Bytes = bytes | bytearray": "Bytes = bytes | bytearray",
    "TABLE = {}": "TABLE = {}",
    "XY = 5\nXY = 6": "XY = 5\nXY = 6",
    "XY = 5\ndef f():\n    global XY": "XY = 5\ndef f():\n    global XY",
    "XY: int = 5": "XY: int = 5", "T = TypeVar('T')": "T = TypeVar('T')",
    "class A(Struct):\n    x: list[B] = []": 'class A(Struct):\n    x: "list[B]" = []',
    "class A(NamedTuple):\n    x: B": 'class A(NamedTuple):\n    x: "B"',
    "class A(Record):\n    x: B = 0": 'class A(Record):\n    x: "B" = 0',
    "class A(Struct, frozen=True):\n    x: B": 'class A(_Frozen, frozen=True):\n    x: "B"',
    "class A:\n    x: B": "class A:\n    x: B",
}  # fmt: skip


@pytest.mark.parametrize("text", MARKS)
def test_what_mypyc_sees_is_the_source_with_marks(text: str) -> None:
    """Of constants, and of types of fields; each on its line."""
    future = "from __future__ import annotations"
    head, *rest = part("constants").marked(f"{future}\n{text}").split("\n")

    assert "\n".join(rest) == MARKS[text]
    assert head.startswith(future)


WRITTEN_BY_MYPYC = """
static PyMethodDef g_methods[] = {
    {"__iter__", (PyCFunction)CPyPy_g_____iter__, METH_NOARGS, NULL},
    {"close",
     (PyCFunction)CPyPy_g___close,
     METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("close()\\n--\\n\\n")},
    {"__setstate__", (PyCFunction)CPyPickle_SetState, METH_O, NULL},
    {NULL}  /* Sentinel */
};
static PyTypeObject CPyType_g_template_ = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "f_gen",
    .tp_methods = g_methods,
};
static PyTypeObject *CPyType_g_template = &CPyType_g_template_;
PyObject *CPyDef_g(void)
{
    PyObject *self = CPyDef_g_setup((PyObject *)CPyType_g);
    if (self == NULL)
        return NULL;
    return self;
}
PyObject *CPyPy_m___f(PyObject *self, PyObject *const *args, size_t nargs, PyObject *kwnames) {
    static const char * const kwlist[] = {"one", "other", 0};
    static CPyArg_Parser parser = {"OO:f", kwlist, 0};
    PyObject *obj_one;
}
static int CPyExec_m__impl(PyObject *module)
{
    modname = PyObject_GetAttrString((PyObject *)CPyModule_m__internal, "__name__");
    CPyType_g = (PyTypeObject *)CPyType_FromTemplate((PyObject *)CPyType_g_template, NULL, modname);
    if (unlikely(!CPyType_g))
        goto fail;
    CPyDef_g_trait_vtable_setup();
    char result = CPyDef_m_____top_level__();
}
"""
AS_IT_IS_COMPILED = """
static PyMethodDef g_methods[3];
static PyMethodDef *g_methods_made(void)
{
    g_methods[0] = (PyMethodDef){"__iter__", (PyCFunction)CPyPy_g_____iter__, METH_NOARGS, NULL};
    g_methods[1] = (PyMethodDef){"close",
     (PyCFunction)CPyPy_g___close,
     METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("close()\\n--\\n\\n")};
    return g_methods;
}
static PyTypeObject *CPyType_g_template(void)
{
    PyTypeObject *made = ahead_blank();
    made->tp_name = "f_gen";
    made->tp_methods = g_methods_made();
    return made;
}
static bool CPyType_g_made(void)
{
    CPyType_g = ahead_class(CPyType_g_template(), CPyModule_m__internal);
    if (CPyType_g == NULL)
        return false;
    CPyDef_g_trait_vtable_setup();
    return true;
}
PyObject *CPyDef_g(void)
{
    if (unlikely(CPyType_g == NULL) && !CPyType_g_made())
        return NULL;
    PyObject *self = CPyDef_g_setup((PyObject *)CPyType_g);
    if (self == NULL)
        return NULL;
    return self;
}
PyObject *CPyPy_m___f(PyObject *self, PyObject *const *args, size_t nargs, PyObject *kwnames) {
    static const char *kwlist[3];
    static CPyArg_Parser parser;
    if (unlikely(parser.format == NULL))
        ahead_arguments(&parser, kwlist, "one""\\0""other""\\0", "OO:f");
    PyObject *obj_one;
}
static int CPyExec_m__impl(PyObject *module)
{
    modname = PyObject_GetAttrString((PyObject *)CPyModule_m__internal, "__name__");
    char result = CPyDef_m_____top_level__();
}
"""


def test_what_nobody_wants_yet_is_no_data() -> None:
    assert part("later").lean(WRITTEN_BY_MYPYC) == AS_IT_IS_COMPILED


@pytest.mark.parametrize(
    "text", ["kwlist, 0};", ".tp_name", "parser", "Sentinel", "= CPyDef_g_setup"]
)
def test_c_that_mypyc_writes_in_another_way_is_not_compiled(text: str) -> None:
    with pytest.raises(ValueError, match="mypyc"):
        part("later").lean(WRITTEN_BY_MYPYC.replace(text, "another"))


GROUP = r"""
    if (CPyStatics_Initialize(CPyStatics, CPyLit_Str, CPyLit_Bytes, CPyLit_Int, CPyLit_Float, \
CPyLit_Complex, CPyLit_Tuple, CPyLit_FrozenSet) < 0) {
PyObject *CPyStatics[12];
const char * const CPyLit_Str[] = {
    "\002\004size\006why\?};",
    "",
};
const char * const CPyLit_Bytes[] = {
    "\001\002\000\n",
    "",
};
const char * const CPyLit_Int[] = {
    "\0027\00099999999999999999999",
    "",
};
const double CPyLit_Float[] = {1, 0.5};
const double CPyLit_Complex[] = {0};
const int CPyLit_Tuple[] = {
    2, 2, 3,
    4, 0
};
const int CPyLit_FrozenSet[] = {1, 1, 6};
""".replace("\\\n", "")


def test_literals_are_made_with_the_module_that_has_them() -> None:
    literals = part("literals").Literals(GROUP)
    head = "static int CPyExec_m__impl(PyObject *module)\n{\n    PyObject* modname = NULL;\n"

    table = literals.table()
    assert [line.strip() for line in table.splitlines()[1:10]] == [
        '"ssize" "\\0"', '"swhy\\?};" "\\0"', '"b\\000\\n" "\\0"', '"i7" "\\0"',
        '"i99999999999999999999" "\\0"', '"f0.5" "\\0"', '"t\\003\\000\\004\\000" "\\0"',
        '"t" "\\0"', '"z\\006\\000" "\\0"',
    ]  # fmt: skip
    assert "ahead_at[] = {0, 6, 14, 18, 21, 43, 48, 54, 56, 60};" in table
    assert literals.own(f"x = CPyStatics[9] + CPyStatics[1] + CPyStatics[4];\n{head}") == (
        "x = CPyStatics[9] + CPyStatics[1] + CPyStatics[4];\n"
        f"{head}"
        "    static const unsigned short literals[] = {4, 9, 0};\n"
        "    if (!ahead_literals(literals))\n"
        "        goto fail;\n"
    )
    assert "CPyLit_" not in literals.own(GROUP)


def test_literals_that_mypyc_writes_in_another_way_are_not_compiled() -> None:
    literals = part("literals").Literals
    for text in ("CPyLit_Str,", "const int CPyLit_Tuple", "Complex[] = {0"):
        with pytest.raises(ValueError, match="mypyc"):
            literals(GROUP.replace(text, "another"))
    with pytest.raises(ValueError, match="mypyc"):
        literals(GROUP).own("CPyStatics[9]")


def test_what_a_struct_is_by_a_keyword_its_subclasses_are() -> None:
    """mypyc leaves the keyword out; the base has it."""
    constants = part("constants")
    for text, name in constants.BASES.items():
        word, value = text.split("=")
        made = type(Struct)("Made", (getattr(ahead, name),), {"__annotations__": {"x": int}})
        assert getattr(made.__struct_config__, word) is (value == "True")


def test_each_module_that_is_left_out_is_there() -> None:
    left_out = part("modules").LEFT_OUT
    gone = [
        f"{room}/{name}"
        for room, names in left_out.items()
        for name in names.split() if not (ROOT / room / f"{name}.py").exists()
    ]  # fmt: skip
    assert gone == []


def classes(path: str) -> Iterator[ast.ClassDef]:
    """The native classes of a module."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
            if not bases & OTHERS:
                yield node


@pytest.mark.parametrize("path", compiled())
def test_class_attributes_say_that_they_are(path: str) -> None:
    """Others are of each object, and what a class that is not compiled overrides is not seen."""
    unsaid = [
        f"{node.name}.{target.id}"
        for node in classes(path)
        for line in node.body if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name) and target.id not in ITS_OWN
    ]  # fmt: skip
    assert unsaid == []


@pytest.mark.parametrize("path", compiled())
def test_keywords_of_classes_are_those_that_a_base_has(path: str) -> None:
    words = {
        ast.unparse(word)
        for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.ClassDef)
        for word in node.keywords
    }  # fmt: skip
    assert words <= part("constants").BASES.keys()


@pytest.mark.parametrize("path", compiled())
def test_no_slice_is_made_for_later(path: str) -> None:
    """`data[AT]` is an item of bytes, whatever AT is."""
    names = (node for node in ast.walk(ast.parse((ROOT / path).read_text())))
    assert not [node for node in names if isinstance(node, ast.Name) and node.id == "slice"]


@pytest.mark.parametrize("path", compiled())
def test_methods_have_one_name(path: str) -> None:
    """`other = method` in a class gives nothing."""
    aliases = []
    for node in classes(path):
        methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
        for line in node.body:
            value = line.value if isinstance(line, ast.Assign | ast.AnnAssign) else None
            if isinstance(value, ast.Name) and value.id in methods:
                aliases.append(f"{node.name}: {ast.unparse(line)}")
    assert aliases == []


class Made(NamedTuple):
    """A native class."""

    bases: list[str]
    begins: bool
    """It has an `__init__`."""
    is_marked: bool
    """It may have interpreted subclasses."""


def bases(path: str) -> dict[str, list[str]]:
    """Of the classes of a module, by their names; all by module and name."""
    module, tree = path.removesuffix(".py").replace("/", "."), ast.parse((ROOT / path).read_text())
    places = {
        each.asname or each.name: f"{node.module}.{each.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for each in node.names
    }

    def place(base: ast.expr) -> str:
        name, _, inner = ast.unparse(base).partition("[")[0].partition(".")
        found = places.get(name, f"{module}.{name}")
        return f"{found}.{inner}" if inner else found

    return {
        f"{module}.{node.name}": [place(base) for base in node.bases]
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def family() -> dict[str, Made]:
    """Those of all modules, by module and name."""
    found = {}
    for path in compiled():
        module = path.removesuffix(".py").replace("/", ".")
        above = bases(path)
        for node in classes(path):
            found[f"{module}.{node.name}"] = Made(
                above[f"{module}.{node.name}"],
                any(isinstance(each, ast.FunctionDef) and each.name == "__init__"
                    for each in node.body),
                any("allow_interpreted_subclasses" in ast.unparse(each)
                    for each in node.decorator_list),
            )  # fmt: skip
    return found


def beginning(name: str, found: dict[str, Made]) -> Made | None:
    """The class whose `__init__` it has."""
    made = found.get(name)
    if made is None or made.begins:
        return made
    above = (beginning(base, found) for base in made.bases)
    return next((each for each in above if each is not None), None)


def test_compiled_classes_with_interpreted_subclasses_say_so() -> None:
    """Else an object of the subclass is a TypeError, when the first one is made."""
    found, known = family(), set(compiled())
    unmarked = []
    for path in (ROOT / "sentry").rglob("*.py"):
        name = str(path.relative_to(ROOT))
        if name not in known:
            above = {base for each in bases(name).values() for base in each} & found.keys()
            unmarked += [(name, base) for base in above if not found[base].is_marked]
    assert unmarked == []


def test_no_object_begins_twice() -> None:
    """As it would, and keep for ever what it had the first time, if its class had neither an
    `__init__` nor a mark, and the one whose `__init__` it has had a mark: where it is made by a
    call of what is not known to be this class, mypyc runs that in tp_new and in tp_init."""
    found = family()
    twice = []
    for name, made in found.items():
        first = beginning(name, found)
        if not (made.begins or made.is_marked) and first is not None and first.is_marked:
            twice.append(name)
    assert twice == []
