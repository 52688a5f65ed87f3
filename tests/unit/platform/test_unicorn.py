"""libunicorn: where it is found, and that our declarations of its interface are its own."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

import sentry.platform
from sentry.platform import unicorn

HEADER = Path(sentry.platform.__file__).parent / "unicorn_native/unicorn_api.h"


def shipped() -> Path:
    """The folder of the package."""
    try:
        return unicorn.find_library().parent.parent
    except unicorn.Unavailable as error:
        pytest.skip(str(error))


def test_find_library_without_the_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(unicorn.Unavailable, match=r"runsc\[unicorn\]"):
        unicorn.find_library()


def test_find_library_of_a_package_without_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_loader("unicorn", None, is_package=True)
    assert spec is not None and spec.submodule_search_locations is not None
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)

    with pytest.raises(unicorn.Unavailable, match=r"runsc\[unicorn\]"):
        unicorn.find_library()


def test_declarations_have_the_values_of_the_shipped_headers(tmp_path: Path) -> None:
    """Two programs, one with either header, print the same."""
    include = shipped() / "include"
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    values = re.findall(r"\b(UC_(?!API|CTL)[A-Z0-9_]+)\s*=", text)
    controls = re.findall(r"#define (UC_CTL_[A-Z_]+) UC_CTL\((\d+), (\d)\)", text)
    assert len(values) > 50 and len(controls) == 6
    fields = ("selector", "base", "limit", "flags")
    common = [f'printf("{name} %d\\n", (int){name});' for name in values]
    common += [
        f'printf("{field} %zu\\n", offsetof(struct uc_x86_mmr, {field}));' for field in fields
    ]
    common += [
        'printf("%zu %zu\\n", offsetof(struct uc_tlb_entry, perms), sizeof(struct uc_tlb_entry));'
    ]
    ours = [f'printf("%u\\n", {name});' for name, _, _ in controls]
    theirs = [f'printf("%u\\n", (unsigned)UC_CTL_WRITE({name}, {k}));' for name, _, k in controls]

    printed = [
        _print(tmp_path, f'#include "{HEADER}"', [*common, *ours]),
        _print(
            tmp_path,
            "#include <unicorn/unicorn.h>",
            [line.replace("struct uc_x86_mmr", "uc_x86_mmr") for line in [*common, *theirs]],
            f"-I{include}",
        ),
    ]

    assert printed[0] == printed[1]


def _print(folder: Path, head: str, statements: list[str], *flags: str) -> list[str]:
    source, program = folder / "print.c", folder / "print"
    body = "\n".join(statements)
    source.write_text(
        f"{head}\n#include <stdio.h>\n#include <stddef.h>\nint main(void)\n{{\n{body}\n}}\n"
    )
    subprocess.run(["gcc", "-w", *flags, "-o", program, source], check=True)
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
