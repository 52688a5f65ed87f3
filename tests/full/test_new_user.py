"""What README.md and docs/start.md say, done word by word on a Debian on which nothing is yet: from
the clone to a program in a sandbox, to `podman run`, to a fork in Python."""

from __future__ import annotations

import doctest
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.bundle import REPOSITORY, kvm_is_usable
from tests.e2e.test_pages import LOOKS, commands
from tests.e2e.test_python_docs import PRINTS
from tests.full.packages import BUILD_S, CODENAMES, Debian, ok

pytestmark = [
    pytest.mark.full,
    pytest.mark.alike,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
    pytest.mark.timeout(BUILD_S),
]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$|^((?: {4}[^\n]*\n)+)", re.M | re.S)
MARK = "-- behind a command --"
AT_A_TERMINAL = "echo 'echo $((6 * 7)); exit 0' | script -qec '{}' /dev/null"
IMAGE = "tar -C rootfs/ -c . | podman import -q - docker.io/library/debian:latest >/dev/null"
"""Nobody fetches one from a registry here."""


class Step(NamedTuple):
    """A block of a page: a script of bash, and what has to be shown by each command, if that is
    known."""

    script: str
    shown: list[tuple[str, str]]


def _steps(text: str, *, user: str) -> list[Step]:
    """Those of a part of a page, in their order."""
    made = []
    for kind, fenced, indented in BLOCK.findall(text):
        if kind == "console":
            shown = commands(f"```console\n{fenced}```\n")
            script = "".join(f"{command}\necho '{MARK}'\n" for command, _ in shown)
            made.append(Step(script, shown))
        elif kind == "python":
            prints = "".join(f"{line}\n" for line in PRINTS.findall(fenced))
            made.append(Step(f"cd\npython3 - <<'END'\n{fenced}END\n", [("python3", prints)]))
        else:
            lines = [_typed(line.strip(), user) for line in indented.splitlines()]
            for part in re.split(r"(?<=log in again).*\n", "\n".join(lines)):
                made.append(Step(f"set -e\n{part}\n", []))
    return made


def _typed(line: str, user: str) -> str:
    """As this user types it, here."""
    if user == "root":
        line = line.removeprefix("sudo ")
    if line.startswith("runsc run "):
        return AT_A_TERMINAL.format(line.partition("  #")[0].strip())
    if line.startswith("podman run "):
        network = "unshare --net " if user == "root" else ""  # the engine changes the machine's
        return f"{IMAGE}\n{network}{line}"
    return line


def _readme(user: str) -> list[Step]:
    text = (REPOSITORY / "README.md").read_text().partition("\n## Try it\n")[2]
    demo, _, by_hand = text.partition("\n## ")[0].partition("\nBy hand")
    as_root = _steps(demo.partition("To run all checks")[0], user=user) if user == "root" else []
    return [*as_root, *_steps(by_hand, user=user)]


def _start(user: str) -> list[Step]:
    return _steps((REPOSITORY / "docs/start.md").read_text(), user=user)


@pytest.mark.parametrize("codename", CODENAMES)
@pytest.mark.parametrize("user", ["guest", "root"])
@pytest.mark.parametrize(
    ("page", "has"),
    [(_readme, ("runsc do ", "runsc run ")), (_start, ("runsc do ", "podman run ", ".fork("))],
    ids=["readme", "start"],
)
def test_page_is_done_word_by_word(
    page: Callable[[str], list[Step]],
    has: tuple[str, ...],
    user: str,
    codename: str,
    tmp_path: Path,
) -> None:
    steps = page(user)
    assert all(any(words in step.script for step in steps) for words in has)
    clone, work = tmp_path / "clone", tmp_path / "steps"
    clone.mkdir()
    work.mkdir()
    ok("bash", "-c", 'git archive HEAD | tar -C "$1" -x', "bash", clone)
    for number, step in enumerate(steps):
        name = re.sub(r"\W+", "-", step.script.removeprefix("set -e"))[:24].strip("-")
        (work / f"{number:02}-{name}.sh").write_text(step.script)

    done = Debian(codename).call("new_user.sh", user, folders={"/clone": clone, "/steps": work})

    said = [path.read_text() for path in sorted(work.glob("*.said"))]
    print(*said, done.stdout, done.stderr, sep="\n")
    assert done.stdout.count("exit code 0") == len(steps)
    for step, text in zip(steps, said, strict=True):
        for (command, wanted), got in zip(step.shown, text.split(f"{MARK}\n"), strict=False):
            assert _looks(wanted, got), (command, wanted, got)
        if "ci/demo" in step.script:
            assert "exit code of the container: 42" in text
        if "script -qec" in step.script:
            assert " 6.12.0 " in text and text.endswith("# 42\n")
        if "podman run" in step.script:
            assert text.endswith("\n6.12.0\n")


def _looks(wanted: str, got: str) -> bool:
    return doctest.OutputChecker().check_output(wanted, got, LOOKS)
