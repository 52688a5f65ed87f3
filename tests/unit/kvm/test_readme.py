"""The examples of the package run as they stand: the README's, and those of the docstrings."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
from pathlib import Path

import pytest

import kvm

MODULES = [f"kvm.{module.name}" for module in pkgutil.iter_modules(kvm.__path__)]
OF_MODULES = [name for name in MODULES if not name.rsplit(".", 1)[1].startswith("_")]

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="needs /dev/kvm"),
]


def test_readme_example_prints_the_byte_written_to_the_port(
    capsys: pytest.CaptureFixture[str],
) -> None:
    readme = Path(next(iter(kvm.__path__))) / "README.md"
    (example,) = re.findall(r"```python\n(.*?)```", readme.read_text(), re.S)

    exec(compile(example, str(readme), "exec"), {})

    assert capsys.readouterr().out == "port 0x80: 2a\n"


@pytest.mark.parametrize("name", OF_MODULES)
def test_docstring_examples_print_what_they_say(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))

    assert result.attempted
    assert not result.failed
