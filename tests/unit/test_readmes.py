"""Pages about the source: what they name exists, and no room is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("gofer", "guest_stubs", "kvm", "runsc", "sentry")
PLACES = (*PACKAGES, "benchmarks", "ci", "docs", "tests")
PAGES = sorted(
    page
    for page in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *(page for place in PLACES for page in (ROOT / place).rglob("README.md")),
    )
)
FILE = re.compile(r"[\w./*{},-]*\w\.(?:py|pyi|c|h|S|lds|md|sh|toml)\b")
FOLDER = re.compile(r"(?<![\w/.])(?:[\w.-]+/)+(?![\w*{<])")
MODULE = re.compile(rf"\b(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
LINUX = ("fs/", "include/", "kernel/", "mm/", "net/", "security/")
"""Where a file of Linux's own source lies."""
UNNAMED = 3
"""A package with more modules than this needs words about it."""


def _code(page: Path) -> Iterator[str]:
    """What stands between backticks, outside of blocks."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for code in re.findall(r"`([^`\n]+)`", text):
        yield re.sub(r"<\S*>|\S*[A-Z]{4}\S*", "", code) if "README" not in code else code


def _is_there(page: Path, name: str) -> bool:
    """As a path from here or from the root, a file below the page, or the end of a path."""
    pattern = re.sub(r"\{[^}]*\}", "*", name)
    everywhere = "/" in name or page.parent in (ROOT, ROOT / "docs")
    below = PLACES if everywhere else (page.parent.relative_to(ROOT),)
    return (
        (page.parent / name).exists()
        or (ROOT / name).exists()
        or any(ROOT.glob(pattern))
        or any(any((ROOT / place).rglob(pattern)) for place in below if ".." not in pattern)
    )


def _is_name(dotted: str) -> bool:
    """A module, or a name that a module or a package's `__init__` has."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if path.is_dir() and length == len(parts):
            return True
        if path.with_suffix(".pyi").exists():
            return True
        for source in (path.with_suffix(".py"), path / "__init__.py"):
            if source.exists():
                words = set(re.findall(r"\w+", source.read_text()))
                return words.issuperset(parts[length:])
    return False


def _missing(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path = target.partition("#")[0]
        if path and "://" not in path and not (page.parent / path).exists():
            yield target
    for code in _code(page):
        for name in FILE.findall(code):
            if not name.startswith((*LINUX, ".")) and not _is_there(page, name):
                yield name
        for name in FOLDER.findall(code):
            if not _is_there(page, name.rstrip("/")):
                yield name
        for name in MODULE.findall(code):
            if not FILE.search(code) and not _is_name(name):
                yield name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    assert not list(_missing(page))


def test_every_room_is_named_by_a_readme() -> None:
    readmes = {page.parent: page.read_text() for page in PAGES if page.name == "README.md"}
    unnamed = []
    for place in PACKAGES:
        for init in (ROOT / place).rglob("__init__.py"):
            room = init.parent
            names = {other: room.relative_to(other) for other in readmes if other in room.parents}
            said = any(
                re.search(rf"[`\[]{re.escape(str(name))}[/`\]]", readmes[other])
                for other, name in names.items()
            )
            if len(list(room.glob("*.py"))) - 1 > UNNAMED and room not in readmes and not said:
                unnamed.append(str(room.relative_to(ROOT)))

    assert not unnamed
