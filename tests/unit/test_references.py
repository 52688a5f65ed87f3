"""Weak references: tables that find what somebody else holds, and nothing else.

What is made of them is slow, and a class that is compiled has them only by way of a base of its own
(`sentry.ahead.Referable`). So there is one kind, `ref`, in few tables, each of whose objects takes
itself out in `__del__`. It is that of `_weakref`, for `weakref` is 0.1 MiB
of each process.
"""

from __future__ import annotations

import ast
from pathlib import Path

SENTRY = Path(__file__).parents[2] / "sentry"
TABLES = {
    "fs/erofs/filesystem.py": "inodes by their numbers in the image",
    "fs/fanotify_event.py": "what handles in events mean, that nobody has read yet",
    "fs/fuse/directory.py": "a directory's names, and where it is",
    "fs/fuse/filesystem.py": "inodes by the numbers of their server",
    "fs/gofer/directory_cache.py": "a directory's names",
    "fs/gofer/inodes.py": "inodes by the numbers of the host",
    "fs/gofer/journal.py": "inodes that records are about, until these are done",
    "fs/gofer/watched.py": "a directory's names",
    "fs/layers/directory.py": "a directory's names",
    "fs/layers/filesystem.py": "merged inodes by those of layers",
    "fs/overlay/filesystem.py": "overlay inodes by the lower ones",
    "fs/pseudo/nodes.py": "children of a directory",
    "net/stack.py": "who holds a network namespace",
    "vfs/dentry.py": "children of a dentry",
    "vfs/handles.py": "files without a name by their handles",
}
NAMES = {"weakref", "_weakref"}
REFERENCED = {"ahead.py", "net/stack.py", "vfs/dentry.py", "vfs/interface.py"}
"""Where the classes are that these tables find."""


def imported(path: Path) -> list[str]:
    """What a module takes of them; `weakref` as such nobody does."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += ["*" for alias in node.names if alias.name in NAMES]
        elif isinstance(node, ast.ImportFrom) and node.module == "weakref":
            found += ["*"]
        elif isinstance(node, ast.ImportFrom) and node.module == "_weakref":
            found += [alias.name for alias in node.names]
    return found


def test_weak_references_are_those_of_the_tables() -> None:
    modules = {str(path.relative_to(SENTRY)): imported(path) for path in SENTRY.rglob("*.py")}
    found = {name: names for name, names in modules.items() if names}
    assert found == {name: ["ref"] for name in TABLES}


def test_slots_for_weak_references_are_those_of_what_the_tables_find() -> None:
    found = {
        str(path.relative_to(SENTRY))
        for path in SENTRY.rglob("*.py")
        if '"__weakref__"' in path.read_text() or "(Referable):" in path.read_text()
    }
    assert found == REFERENCED
