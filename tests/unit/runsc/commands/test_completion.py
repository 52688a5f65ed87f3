"""What a shell is told when Tab is pressed, asked by shells themselves."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_terminal import Person

REPOSITORY = Path(__file__).resolve().parents[4]
ASKED = {
    "bash": "source <(runsc completion bash); COMP_WORDS=({}); COMP_CWORD={};"
    ' _runsc_completion runsc; printf "%s\\n" "${{COMPREPLY[@]}}"',
    "fish": 'runsc completion fish | source; complete --do-complete "{}"',
}


@pytest.fixture(params=ASKED)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    program = tmp_path / "bin" / "runsc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m runsc "$@"\n')
    program.chmod(0o755)
    return name, tmp_path


def _offered(shell: tuple[str, Path], line: str) -> list[str]:
    name, place = shell
    environment = {
        "PATH": f"{place}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "XDG_RUNTIME_DIR": str(place),
        "HOME": str(place),
    }
    script = ASKED[name].format(line, len(line.split()) - (not line.endswith(" ")))
    done = subprocess.run(
        [name, "-c", script],
        env=environment, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.stderr == ""
    return [offered.split("\t")[0] for offered in done.stdout.split("\n") if offered]


def test_commands_and_their_flags_are_offered(shell: tuple[str, Path]) -> None:
    assert _offered(shell, "runsc exe") == ["exec"]
    assert "--detach" in _offered(shell, "runsc run --d")


def test_containers_are_offered_where_one_is_wanted(shell: tuple[str, Path]) -> None:
    _, place = shell
    for name in ("web", "worker", "base", "w$(touch made)", "w;id"):
        (place / "state" / name).mkdir(parents=True)

    assert _offered(shell, f"runsc --root {place}/state kill w") == ["web", "worker"]
    assert _offered(shell, f"runsc --root {place}/none kill ") == []


def test_nobody_is_answered_who_did_not_ask(shell: tuple[str, Path]) -> None:
    assert _offered(shell, "runsc nonsense ") == []


def test_values_of_flags_are_offered(shell: tuple[str, Path]) -> None:
    assert _offered(shell, "runsc --platform k") == ["kvm"]
    assert _offered(shell, "runsc list --format j") == ["json"]
    assert _offered(shell, "runsc kill web KI") == ["KILL"]
    assert sorted(_offered(shell, "runsc help check")) == ["check", "checkpoint"]


PROMPTS = {
    "bash": (
        ["--norc", "--noprofile", "-i"],
        "bind 'set bell-style none'; source <(runsc completion bash)",
    ),
    "zsh": (["-f", "-V"], "autoload -U compinit; compinit -u; source <(runsc completion zsh)"),
    "fish": (
        ["--no-config", "-i", "-C", "function fish_prompt; echo -n 'host> '; end"],
        "runsc completion fish | source",
    ),
}
"""How each is begun, and what its user has in its file."""
TYPED = {
    "checkp": "checkpoint",
    "--platform un": "--platform unicorn",
    "--root state delete work": "--root state delete worker",
    "do --policy poli": "do --policy policy.toml",
    "run --bundle bun": "run --bundle bundle",
}
"""What somebody types behind `runsc` → how it begins after Tab."""
SPY = """\
#!/bin/sh
[ -n "$_RUNSC_COMPLETE" ] || [ "$1" = completion ] || {{ echo "<$*>"; exit; }}
exec {} -m runsc "$@"
"""
"""Completes as runsc does, and else says what it was called with."""


@pytest.mark.parametrize("name", PROMPTS)
def test_shell_completes_at_its_prompt(name: str, tmp_path: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    program = tmp_path / "bin" / "runsc"
    program.parent.mkdir()
    program.write_text(SPY.format(shlex.quote(sys.executable)))
    program.chmod(0o755)
    (tmp_path / "policy.toml").touch()
    (tmp_path / "state" / "worker").mkdir(parents=True)
    (tmp_path / "bundle").mkdir()
    path = f"PATH={program.parent}:{os.environ['PATH']}"
    clean = [path, f"PYTHONPATH={REPOSITORY}", f"HOME={tmp_path}", "PS1=host> ", "TERM=dumb"]
    flags, begin = PROMPTS[name]
    person = Person(["env", "-C", str(tmp_path), "-i", *clean, name, *flags])
    person.see(b"host> ")
    person.type(f"{begin}\n".encode())
    for typed, meant in TYPED.items():
        person.type(f"runsc {typed}\t\n".encode())
        person.see(f"<{meant}".encode())
    person.type(b"exit\n")
    assert person.leave() == 0
