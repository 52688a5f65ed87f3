"""Every class of open files has a record, or is refused by a name that its user knows."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import sentry
from sentry.state import open_files, records
from sentry.state.opening import LOADS
from sentry.vfs.file import FileDescription
from sentry.vfs.mount import Mount

BASES = {"MemoryDevice", "StreamFile", "RegularFile", "FileDescription"}
"""Nobody opens one of these; a plain description is a place (O_PATH)."""


def below(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from below(each)


def all_kinds() -> list[type]:
    for module in pkgutil.walk_packages(sentry.__path__, "sentry."):
        if not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)
    return [kind for kind in below(FileDescription) if kind.__module__.startswith("sentry.")]


def test_kinds_every_class_has_a_record_or_a_name() -> None:
    known = open_files.kinds()
    unknown = [
        kind for kind in all_kinds()
        if kind not in known and kind.__name__ not in BASES
        and "new kind" in open_files.described(kind)
    ]  # fmt: skip
    assert unknown == []


def test_refused_names_are_of_classes_that_there_are_and_have_no_record() -> None:
    names = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in all_kinds()}
    known = open_files.kinds()
    assert [name for name in open_files.REFUSED if name not in names] == []
    assert [name for name in open_files.REFUSED if names[name] in known] == []


def test_loads_every_record_of_an_open_file_is_read() -> None:
    tagged: Any = records.AnyFile
    assert set(LOADS) == set(tagged.__args__)


def test_described_names_what_a_program_has() -> None:
    assert "new kind" in open_files.described(Mount)
