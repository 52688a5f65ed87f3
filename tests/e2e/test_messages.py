"""What a person at a terminal is told who does something wrong: every word of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.bundle import RUNSC, Bundle, execute, kvm_is_usable
from tests.e2e.client import Client, wait_for_end
from tests.e2e.screens import screen

NONE = """\
runsc: container "none" does not exist
hint: `runsc list` shows those that there are; others may be below another --root
"""
AWAY = """\
runsc: container not running: "{name}"
hint: it has stopped, or is paused, or not started: see `runsc state {name}`
"""
USES = {
    "list": """\
There is no container in {here}/state, which is what --root says.
`runsc do COMMAND` runs a program, `runsc run NAME` a bundle.
""",
    "state none": NONE,
    "kill none": NONE,
    "delete none": NONE,
    "exec none ls": NONE.replace("runsc: ", "runsc: exec failed: ", 1),
    "ps none": NONE,
    "checkpoint none": NONE,
    "lst": "runsc: No such command 'lst'. Did you mean 'list'?\nTry 'runsc --help'.\n",
    "sh": "runsc: No such command 'sh'. To run the program in a sandbox: runsc do sh\n"
    "Try 'runsc --help'.\n",
    "flags": "runsc: There is no command 'flags': use `runsc --help`.\nTry 'runsc --help'.\n",
    "help rnu": "runsc: No such command or topic 'rnu'. Did you mean 'run'?\n"
    "Try 'runsc help --help'.\n",
    "run": "runsc: Missing argument 'CONTAINER-ID'.\nTry 'runsc run --help'.\n",
    "run --platfrm=kvm x": "runsc: No such option '--platfrm'. Did you mean --platform, which"
    " stands before the command?\nTry 'runsc run --help'.\n",
    "run --platform=kvm x": "runsc: --platform is a global flag: put it before the command: runsc"
    " --platform=kvm run ...\nTry 'runsc run --help'.\n",
    "run --bundle {here} x": """\
runsc: run failed: JSON specification file config.json not found
hint: `runsc spec` writes one to start from; --bundle DIR names another folder
""",
    "run --bundle /nowhere x": "runsc: run failed: chdir /nowhere: no such file or directory\n",
    "run a/b": """\
runsc: run failed: invalid container ID format: 'a/b'
hint: a name has letters, digits and _ + - . only, and 255 of them at most
""",
    "do": "runsc: Missing argument 'COMMAND [ARG]...'.\nTry 'runsc do --help'.\n",
    "do --root /nowhere ls": "runsc: do failed: --root /nowhere: no such directory\n",
    "do --image nothing ls": """\
runsc: do failed: image nothing is no file, and no image that podman or docker has
hint: nothing is fetched here: `podman pull` or `docker pull` it first
""",
    "do --user who ls": "runsc: do failed: /etc/passwd has no user 'who'\n",
    "do --memory 1k ls": "runsc: do failed: --memory: 1k is less than 64M\n",
    "do -p 80 ls": "runsc: do failed: --publish '80': [IP:]PORT:PORT, with a port of the host and"
    " one inside\n",
    "do --hostnam x ls": "runsc: No such option '--hostnam'. Did you mean '--hostname'?\n"
    "Try 'runsc do --help'.\n",
    "--overlay2=x do ls": "runsc: Invalid value: --overlay2 'x': none, or root: or all: with"
    " memory, self or dir=/PATH, then perhaps ,size=SIZE\nTry 'runsc --help'.\n",
    "--memory=x do ls": "runsc: do failed: --memory: x is not a size, such as 512M or 2G\n",
    "--log=/nowhere/x list": "runsc: open /nowhere/x: no such file or directory\n",
    "--root=/dev/null/x list": "runsc: state directory (--root) /dev/null/x: not a directory\n",
    "--inject=nowhere do true": """\
runsc: do failed: open nowhere: no such file or directory
hint: what has no colon is a file, a rule has one: see docs/faults.md
""",
    "list -f xml": "runsc: invalid format option: 'xml'; table or json\n",
    "restore --image-path {here} x": """\
runsc: {here} is no snapshot: it has no manifest.json
hint: `runsc checkpoint --image-path DIR NAME` writes one
""",
    "events --interval x none": "runsc: 'x' is no duration above 0, such as 500ms, 5s, 1m30s\n",
    "clock set none soon": "runsc: 'soon' is no date such as 2030-01-01 12:00:00\n",
    "port-forward none x": "runsc: invalid port string 'x': LOCAL:REMOTE\n",
    "debug none": "runsc: nothing was asked for, or two things: see runsc debug --help\n",
}
"""What is done → all that is on the screen then."""


@pytest.mark.parametrize("line", USES)
def test_person_is_told_what_is_wrong_and_what_to_do(line: str, tmp_path: Path) -> None:
    state, told = tmp_path / "state", USES[line].replace("{here}", str(tmp_path))
    assert screen(state, line.replace("{here}", str(tmp_path))) == told


def test_person_is_told_what_a_container_is_not_fit_for(bundle: Bundle, platform: str) -> None:
    client = Client(bundle.args("sleep", "1000"), platform)
    pidfd = os.pidfd_open(client.create("c", "--detach", command="run"))
    state, path = client.root, bundle.write()
    for line, told in {
        f"run --bundle {path} c": """\
runsc: run failed: container with given ID already exists: "c"
hint: use another name, or remove that one: `runsc delete c`
""",
        "start c": 'runsc: cannot start an already running container: "c"\n',
        "resume c": 'runsc: container not paused: "c"\n',
        "delete c": """\
runsc: cannot delete container "c" that is not stopped: running
hint: end it first: `runsc kill c`, or `runsc delete --force c`
""",
        "kill c FOO": 'runsc: unknown signal "FOO"\n',
        "exec c nothing": """\
runsc: exec failed: unable to start container process: exec: "nothing": executable file not found\
 in $PATH
hint: it is looked for in the PATH and the files of the container; a path, as ./NAME, is not
""",
        "exec -u root c id": """\
runsc: exec failed: parsing root as int for uid failed: names are not looked up
hint: give numbers, as in `-u 1000:1000`; /etc/passwd of the container has them
""",
        "fork c d": """\
runsc: the sandbox was not started with --forkable
hint: a flag of its start, as in `runsc run --forkable NAME`
""",
        "read c /none": "runsc: read /none: no such file or directory (ENOENT)\n",
        "egress show c": """\
runsc: it was started without --egress: nobody judges what leaves
hint: a flag before the command, as in `runsc --egress=FILE run NAME`: docs/egress.md
""",
        "kill c KILL": "",
    }.items():
        assert screen(state, line) == told
    wait_for_end(pidfd)
    for line in ("kill c", "pause c"):
        assert screen(state, line) == AWAY.format(name="c")
    assert screen(state, "delete c") == ""


def test_colours_are_for_a_terminal_that_has_some(tmp_path: Path) -> None:
    state = tmp_path / "state"
    shown = screen(state, "state none", environment=("TERM=xterm",))
    assert shown.startswith('\x1b[31mrunsc:\x1b[0m container "none" does not exist\n')
    assert screen(state, "state none", environment=("TERM=xterm", "CLICOLOR=0")) == NONE


def test_engines_are_told_in_one_line_without_a_hint(tmp_path: Path) -> None:
    for form in ("text", "json"):
        flags = (f"--root={tmp_path}/state", f"--log-format={form}")
        done = execute([*RUNSC, *flags, "state", "none"])
        assert done.stderr.count("\n") == 1
        assert "hint" not in done.stderr and "does not exist" in done.stderr


@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")
def test_program_that_is_not_there_has_a_hint(tmp_path: Path) -> None:
    assert screen(tmp_path / "state", "do nothing-here") == """\
runsc: do failed: unable to start container process: exec: "nothing-here": executable file not\
 found in $PATH
hint: it is looked for in the PATH and the files of the container; a path, as ./NAME, is not
"""
