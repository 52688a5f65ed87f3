"""C declarations that are for Python, read with pycparser (which cffi itself reads with).

No preprocessor: these headers have no conditional parts, so directives and function bodies are
cut out, and an array's dimension that is no literal is left to the C compiler (`[...]`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pycparser import CParser, c_ast

NUMBERS = {
    name: name
    for name in (
        *("char", "int", "unsigned int", "long", "unsigned long", "unsigned short", "double"),
        *("uint8_t", "uint16_t", "uint32_t", "uint64_t", "int32_t", "int64_t"),
        *("size_t", "uintptr_t"),
    )
} | {"unsigned": "unsigned int"}
FOREIGN = (
    *("bool", "pid_t", "clockid_t", "pthread_t", "ssize_t", "sig_atomic_t", "greg_t"),
    *("uc_engine", "uc_context", "siginfo_t", "cpu_set_t"),
)
"""Types that only what Python does not see is of."""
_PRELUDE = "".join(
    f"typedef int {name};\n"
    for name in (*FOREIGN, *(name for name in NUMBERS if name.endswith("_t")))
)


class Type(NamedTuple):
    """A type that Python knows: a number or struct, one of it, or some behind a pointer."""

    name: str
    """`uint64_t`, `struct ctx`, `void`, or `callback` for a pointer to a function."""
    pointer: bool = False
    const: bool = False
    dimension: str | None = None
    """Of an array: a literal, `...`, or nothing."""

    @property
    def is_struct(self) -> bool:
        return self.name.startswith("struct ")


class Variable(NamedTuple):
    """A field, parameter or global variable; `text` is how C declares it."""

    name: str
    type: Type
    text: str


class Function(NamedTuple):
    """A function; `text` is how C declares it, without the parameters."""

    name: str
    result: Type
    text: str
    parameters: tuple[Variable, ...]


class Declarations(NamedTuple):
    """What a group of files declares."""

    structs: dict[str, tuple[Variable, ...]]
    functions: dict[str, Function]
    variables: dict[str, Variable]
    constants: list[str]


class Unreadable(Exception):
    """Python has no such type."""


def _without_bodies(text: str) -> str:
    """Function bodies become semicolons."""
    out, at = [], 0
    for opening in re.finditer(r"\)\s*\{", text):
        if opening.start() < at:
            continue
        out.append(text[at : opening.start()] + ");")
        at, depth = opening.end(), 1
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
    return "".join(out) + text[at:]


def _type(node: c_ast.Node) -> Type:
    match node:
        case c_ast.ArrayDecl(type=element, dim=dim):
            literal = isinstance(dim, c_ast.Constant)
            inner = _type(element)
            if inner.pointer:
                raise Unreadable("an array of pointers")
            dimension = "" if dim is None else dim.value if literal else "..."
            return inner._replace(pointer=True, dimension=dimension)
        case c_ast.PtrDecl(type=c_ast.FuncDecl()):
            return Type("callback", True)
        case c_ast.PtrDecl(type=target):
            inner = _type(target)
            if inner.pointer:
                raise Unreadable("a pointer to a pointer")
            return inner._replace(pointer=True)
        case c_ast.TypeDecl(type=c_ast.Struct(name=name), quals=quals):
            return Type(f"struct {name}", const="const" in quals)
        case c_ast.TypeDecl(type=c_ast.IdentifierType(names=names), quals=quals):
            name = " ".join(names)
            if "_Atomic" in quals or (name != "void" and name not in NUMBERS):
                raise Unreadable(name)
            return Type(NUMBERS.get(name, name), const="const" in quals)
    raise Unreadable(type(node).__name__)


def _text(name: str, of: Type, node: c_ast.Node) -> str:
    if of.name == "callback":
        function = node.type
        arguments = ", ".join(
            _text("", _type(p.type), p.type).strip() for p in function.args.params
        )
        return f"void (*{name})({arguments})"
    star = "*" if of.pointer and of.dimension is None else ""
    array = "" if of.dimension is None else f"[{of.dimension}]"
    return f"{'const ' if of.const else ''}{of.name} {star}{name}{array}"


def _variable(declaration: c_ast.Decl) -> Variable:
    of = _type(declaration.type)
    name = declaration.name or ""
    return Variable(name, of, _text(name, of, declaration.type))


def _fields(struct: c_ast.Struct) -> Iterator[Variable]:
    for field in struct.decls:
        try:
            yield _variable(field)
        except Unreadable:
            continue


def _function(declaration: c_ast.Decl) -> Function:
    node = declaration.type
    given = node.args.params if node.args else []
    parameters = tuple(_variable(p) for p in given if isinstance(p, c_ast.Decl))
    result, name = _type(node.type), declaration.name
    return Function(name, result, _text(name, result, node.type), parameters)


def _parsed(text: str) -> Iterator[c_ast.Decl]:
    text = _without_bodies(re.sub(r"^\s*#.*$", "", text, flags=re.M))
    for node in CParser().parse(_PRELUDE + text).ext:
        if isinstance(node, c_ast.Decl):
            yield node


def _without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S).replace("\\\n", " ")


def structs(text: str) -> dict[str, tuple[Variable, ...]]:
    """The structs that a text defines, with the fields that Python can see."""
    return {
        f"struct {node.type.name}": tuple(_fields(node.type))
        for node in _parsed(_without_comments(text))
        if isinstance(node.type, c_ast.Struct) and node.type.decls
    }


def header(text: str) -> Declarations:
    """All that a header declares."""
    text = _without_comments(text)
    found = Declarations(structs(text), {}, {}, re.findall(r"^#define (\w+) [^\n]", text, re.M))
    for node in _parsed(text):
        if isinstance(node.type, c_ast.Enum):
            found.constants.extend(each.name for each in node.type.values.enumerators)
        elif isinstance(node.type, c_ast.FuncDecl):
            found.functions[node.name] = _function(node)
        elif "extern" in node.storage:
            found.variables[node.name] = _variable(node)
    return found


def source(text: str) -> Declarations:
    """The functions that a C file without a header defines, but for the static ones."""
    functions = {
        node.name: _function(node)
        for node in _parsed(_without_comments(text))
        if isinstance(node.type, c_ast.FuncDecl) and not node.storage
    }
    return Declarations({}, functions, {}, [])


def read_files(paths: list[Path]) -> Declarations:
    """What all of these declare for Python."""
    all_of = Declarations({}, {}, {}, [])
    for path in paths:
        found = (source if path.suffix == ".c" else header)(path.read_text())
        all_of.structs.update(found.structs)
        all_of.functions.update(found.functions)
        all_of.variables.update(found.variables)
        all_of.constants.extend(found.constants)
    return all_of
