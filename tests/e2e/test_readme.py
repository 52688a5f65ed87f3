"""The commands of README.md, as somebody types them."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, kvm_is_usable
from tests.e2e.test_terminal import Person

pytestmark = pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")


def _by_hand() -> list[str]:
    """The lines below "By hand", but for what installs it."""
    text = (REPOSITORY / "README.md").read_text()
    block = text.partition("\nBy hand")[2].split("\n\n")[1]
    lines = [line.strip() for line in block.splitlines()]
    return [line for line in lines if line.startswith(("runsc ", "ln "))]


def test_commands_by_hand_work_word_by_word(tmp_path: Path, debian: Path) -> None:
    lines = _by_hand()
    (tmp_path / "ci").symlink_to(REPOSITORY / "ci")
    program = tmp_path / "bin" / "runsc"
    program.parent.mkdir()
    ours = f"{shlex.quote(sys.executable)} -m runsc --zygote=off"
    program.write_text(f'#!/bin/sh\nexec {ours} "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    clean = ["env", "--default-signal=INT,QUIT", f"PATH={path}", f"PYTHONPATH={REPOSITORY}"]
    person = Person([*clean, f"HOME={Path.home()}", "PS1=host> ", "TERM=dumb", "sh"])
    person.see(b"host> ")
    person.type(b"cd %b\n" % os.fsencode(tmp_path))
    person.see(b"host> ")

    for line in lines[:-1]:
        person.type(line.encode() + b"\n")
        shown = person.see(b"host> ")
        person.type(b"echo code $?\n")
        person.see(b"code 0\r\n")
        person.see(b"host> ")
        if line.startswith("runsc do"):
            assert re.search(rb"Linux \S+ .*x86_64", shown)
            assert re.search(rb" 1 .*sh -c uname", shown)
    person.type(lines[-1].encode() + b"\n")
    person.see(b"\n# ")
    person.type(b"echo $((6 * 7)); cat /etc/hostname; exit 3\n")
    person.see(b"42\r\n")
    person.see(b"host> ")
    person.type(b"exit 5\n")
    assert person.leave() == 5
