"""The example in kvm/README.md runs as it stands."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import kvm


@pytest.mark.kvm
@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="needs /dev/kvm")
def test_readme_example_prints_the_byte_written_to_the_port(
    capsys: pytest.CaptureFixture[str],
) -> None:
    readme = Path(next(iter(kvm.__path__))) / "README.md"
    (example,) = re.findall(r"```python\n(.*?)```", readme.read_text(), re.S)

    exec(compile(example, str(readme), "exec"), {})

    assert capsys.readouterr().out == "port 0x80: 2a\n"
