"""The commands of docs/: a page's `console` blocks, one after another in one shell, show what the
page shows. `...` stands for what differs from run to run, as in doctest; a line that begins with
`> ` goes on with the command above it."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, kvm_is_usable

DOCS = REPOSITORY / "docs"
FILES = sorted(DOCS.rglob("*.md"))
QUICK = ("start", "examples/honeypot")
"""Less than three seconds, or what people try first."""
BLOCK = re.compile(r"^```console\n(.*?)^```", re.M | re.S)
LOOKS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.root,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]


def commands(page: str) -> list[tuple[str, str]]:
    """Each command, with lines that go on, and what the page shows behind it."""
    found = []
    for block in BLOCK.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            first, *lines = part.splitlines(keepends=True)
            while lines and (first.endswith("\\\n") or lines[0].startswith((">\n", "> "))):
                first += lines.pop(0).removeprefix(">").removeprefix(" ")
            found.append((first.rstrip("\n"), "".join(lines)))
    return found


PAGES = {
    str(path.relative_to(DOCS).with_suffix("")): commands(path.read_text()) for path in FILES
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.full)
        for name, tried in PAGES.items()
        if tried
    ],
)
def test_commands_show_what_the_page_shows(
    name: str, tmp_path: Path, debian: Path, request: pytest.FixtureRequest
) -> None:
    tried = PAGES[name]
    (tmp_path / "bin").mkdir()
    ours = f"-m runsc --zygote=off --root={tmp_path}/state "
    for command, words in (("runsc", ours), ("python3", "")):
        program = tmp_path / "bin" / command
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words}"$@"\n')
        program.chmod(0o755)
    (tmp_path / "sitecustomize.py").write_text(  # where others look for a zygote none begins
        "from runsc import options\n"
        "from runsc.api import states\n"
        f"states.default_root = options.default_root = lambda: {str(tmp_path / 'state')!r}\n"
    )
    work = tmp_path / "work"
    for folder in ("work", "work/rootfs", "upper", "beside"):
        (tmp_path / folder).mkdir()
    (work / "examples").symlink_to(REPOSITORY / "examples")
    layers = f"lowerdir={debian},upperdir={tmp_path}/upper,workdir={tmp_path}/beside"
    mount = ["mount", "-t", "overlay", "-o", layers, "none", str(work / "rootfs")]
    subprocess.run(mount, check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", work / "rootfs"], check=True))
    mark = "-- behind a command --"
    script = "".join(f"{command}\necho '{mark}'\n" for command, _ in tried)
    environment = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPOSITORY}:{tmp_path}",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "HOME": str(tmp_path),
        "LC_ALL": "C",
    }

    done = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{script}"],
        cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip

    shown = done.stdout.split(f"{mark}\n")
    assert len(shown) == len(tried) + 1, done.stdout
    checker = doctest.OutputChecker()
    for (command, wanted), got in zip(tried, shown, strict=False):
        example = doctest.Example(command, wanted)
        assert checker.check_output(wanted, got, LOOKS), (
            command + "\n" + checker.output_difference(example, got, LOOKS)
        )
