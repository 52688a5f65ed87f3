"""docs/reference/snapshot-format.md: all records as a page, read out of their source.

`python -m sentry.state.listing > docs/reference/snapshot-format.md`
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

RECORDS: Final = Path(__file__).with_name("records")
PARTS: Final = (
    "__init__", "processes", "namespaces", "mounts", "memory", "names", "files", "sockets", "ipc",
)  # fmt: skip
HEAD: Final = """\
# Format of snapshots

What `objects.json` of a snapshot holds: [snapshots.md](../snapshots.md#the-image) says what lies
beside it, and who may be believed. Made by `python -m sentry.state.listing` from the records in
[sentry/state/records](../../sentry/state/records/README.md); do not edit.

The document is a `Snapshot`. A record is an object with its fields, or, where it says so, a list of
them in their order; a field with a default may be missing, one that is not named here is an error.
Where records of several kinds may stand in one place, `kind` says which it is. `bytes` are in
base64. A type beside a `Meta` has bounds: `ge` and `le` of a number, `max_length` of what is in a
list or a text.

## Shapes

| name | type | |
|---|---|---|"""


def page() -> Iterator[str]:
    """The lines."""
    yield HEAD
    for node, says in _described(_body("base")):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield f"| `{node.targets[0].id}` | `{_plain(node.value)}` | {says} |"
    for part in PARTS:
        for node in _body(part):
            if isinstance(node, ast.ClassDef):
                yield from _record(node)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
                yield f"\n`{ast.unparse(node.targets[0])}` is one of `{ast.unparse(node.value)}`."


def _record(node: ast.ClassDef) -> Iterator[str]:
    words = {each.arg: each.value for each in node.keywords}
    says = ast.get_docstring(node) or ""
    says += " A list." if "array_like" in words else ""
    says += f" `kind` is `{_plain(words['tag'])}`." if "tag" in words else ""
    for base in map(ast.unparse, node.bases):
        says += f" It has the fields of `{base}`, too." if base != "Record" else ""
    yield f"\n## {node.name}\n\n{says}\n"
    if not any(isinstance(each, ast.AnnAssign) for each in node.body):
        return
    yield "| field | type | default | |\n|---|---|---|---|"
    for field, says in _described(node.body):
        if isinstance(field, ast.AnnAssign):
            default = f"`{_plain(field.value)}`" if field.value is not None else ""
            name = ast.unparse(field.target)
            yield f"| `{name}` | `{_plain(field.annotation)}` | {default} | {says} |"


def _body(part: str) -> list[ast.stmt]:
    return ast.parse((RECORDS / f"{part}.py").read_text(encoding="utf-8")).body


def _described(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Each statement, with the text that stands behind it."""
    for node, behind in zip(body, [*body[1:], ast.Pass()], strict=True):
        says = ""
        if isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant):
            says = " ".join(str(behind.value.value).split())
        yield node, says


def _plain(node: ast.expr) -> str:
    """As source, in a cell of a table."""
    return ast.unparse(node).replace("msgspec.", "").replace("|", "\\|")


if __name__ == "__main__":
    print("\n".join(page()))
