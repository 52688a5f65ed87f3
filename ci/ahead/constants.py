"""The source as mypyc is to see it, line by line what stands in the tree, with three marks.

Names that are assigned once, with a constant, are `Final`: mypyc puts such a value where it is
used; another name of a module it looks up in a dictionary, each time. The tree does not say so, as
an annotation is one more statement to run at import, thousands of them in `sentry.abi`.

Types of fields of structs and named tuples are quoted: mypyc would read them as values while the
module runs, before there are those classes of it that come later. And what a struct is by a keyword
it is by a base, too, for mypyc leaves keywords out.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

FUTURE = "from __future__ import annotations"
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]+")
MADE = re.compile(r"(struct\.Struct|frozenset|object)\(")
RECORDS = {"NamedTuple", "Record", "Struct"}
BASES = {"frozen=True": "Frozen", "eq=False": "Unequal", "gc=False": "Untracked"}
"""Of `sentry.ahead`."""
BORDER = {"ffi", "lib"}
"""A function of these may have a name of its own: `_user_read = lib.user_read`."""


def mirror(root: Path, target: Path) -> None:
    """Copy the modules of the tree, those of the Sentry with marks; what is there stays."""
    wanted = {}
    for room in ("sentry", "kvm", "guest_stubs", "gofer", "runsc"):
        for path in sorted((root / room).rglob("*.py*")):
            if path.suffix in {".py", ".pyi"}:
                text = path.read_text()
                is_ours = path.suffix == ".py" and room == "sentry" and path.stem != "ahead"
                wanted[path.relative_to(root)] = marked(text) if is_ours else text
    for old in target.rglob("*.py*"):
        if old.relative_to(target) not in wanted:
            old.unlink()
    for name, text in wanted.items():
        path = target / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def marked(text: str) -> str:
    """The text of a module, with `Final` where it fits."""
    tree = ast.parse(text)
    lines = text.split("\n")
    try:
        first = lines.index(FUTURE)
    except ValueError:
        return text
    changed = Counter(_assigned(tree))
    for line in tree.body:
        if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Name):
            continue
        name = line.targets[0].id
        if len(line.targets) == 1 and changed[name] == 1 and _is_constant(name, line.value):
            at = line.lineno - 1
            lines[at] = lines[at].replace(f"{name} =", f"{name}: _Final =", 1)
            lines[first] = f"{FUTURE}; from typing import Final as _Final"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(b) in RECORDS for b in node.bases):
            _quote_types(node, lines)
            for word in node.keywords:
                if base := BASES.get(ast.unparse(word)):
                    at = node.lineno - 1
                    lines[at] = lines[at].replace("(Struct,", f"(_{base},")
                    lines[first] += f"; from sentry.ahead import {base} as _{base}"
    return "\n".join(lines)


def _quote_types(record: ast.ClassDef, lines: list[str]) -> None:
    for line in record.body:
        if isinstance(line, ast.AnnAssign) and not isinstance(line.annotation, ast.Constant):
            kind = line.annotation
            text = lines[kind.lineno - 1]
            if kind.lineno == kind.end_lineno and not ast.unparse(kind).startswith("ClassVar"):
                before, after = text[: kind.col_offset], text[kind.end_col_offset :]
                quoted = text[kind.col_offset : kind.end_col_offset].replace('"', "'")
                lines[kind.lineno - 1] = f'{before}"{quoted}"{after}'


def _assigned(tree: ast.Module) -> Iterator[str]:
    """Each name as often as anything in the module could give it a value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node.id
        elif isinstance(node, ast.Global):
            yield from node.names * 2


def _is_constant(name: str, value: ast.expr) -> bool:
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
        return value.value.id in BORDER or bool(CONSTANT.fullmatch(value.attr))
    if MADE.match(ast.unparse(value)):
        return True
    return name != "TYPE_CHECKING" and bool(CONSTANT.fullmatch(name)) and _is_known(value)


def _is_known(value: ast.expr) -> bool:
    """It is made of literals and of names of constants."""
    match value:
        case ast.Constant():
            return True
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(), attr=name):
            return bool(CONSTANT.fullmatch(name))
        case ast.UnaryOp(operand=operand):
            return _is_known(operand)
        case ast.BinOp(left=left, right=right):
            return _is_known(left) and _is_known(right)
    return False
