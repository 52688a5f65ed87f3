"""Bundles that cannot be run: the whole of what a person at a terminal is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import Bundle
from tests.e2e.screens import screen

Change = Callable[[dict[str, Any]], object]
CANNOT = "unable to start container process: "
DISKS = (
    "a sandbox has no disks; /proc/filesystems inside lists its file systems, and `bind` shows"
    " files of the host"
)
KINDS = "what is mounted over a file has to be a file, over a directory a directory"
SPACE = "its limit of memory is too low: what a container has itself takes some MiB"
SETTINGS = "/proc/sys inside shows the settings that the kernel of a sandbox has, and their values"


def _process(**fields: Any) -> Change:
    return lambda document: document["process"].update(fields)


def _linux(**fields: Any) -> Change:
    return lambda document: document["linux"].update(fields)


def _mount(**fields: Any) -> Change:
    return lambda document: document["mounts"].append({"destination": "/mnt", **fields})


def _bind(source: str, destination: str) -> Change:
    return _mount(type="bind", source=source, destination=destination, options=["bind"])


BEFORE: dict[str, tuple[Change, str, str]] = {
    "args": (
        _process(args="ls -l"),
        "Expected `array | null`, got `str` - at `$.process.args`",
        '$.process.args: the program and its arguments, such as ["/bin/sh", "-c", "date"]',
    ),
    "cwd": (
        _process(cwd="tmp"),
        "Cwd must be an absolute path - at `$.process.cwd`",
        "$.process.cwd: a path inside the container, which begins with /",
    ),
    "env": (
        _process(env=["A=1", "B"]),
        "invalid environment variable: missing '=' - at `$.process.env[1]`",
        '$.process.env[1]: NAME=VALUE each, such as ["PATH=/usr/bin:/bin", "TERM=xterm"]',
    ),
    "user": (
        _process(user={"username": "me"}),
        "Object missing required field `uid` - at `$.process.user`",
        "$.process.user: numbers, such as 0 and 0: /etc/passwd of the container is not looked into",
    ),
    "root": (
        lambda document: document.update(root={"path": "/etc/passwd"}),
        "invalid rootfs: /etc/passwd is neither a directory nor an image - at `$.root.path`",
        "$.root.path: what the program sees as /: a directory, or an image; see docs/images.md",
    ),
    "source": (
        _bind("/none", "/mnt"),
        "bind mount source /none: no such file or directory - at `$.mounts[7].source`",
        "$.mounts[7].source: of a bind mount: a path of the host, from the bundle on if it has no /"
        " in front",
    ),
    "type": (
        _mount(source="/etc"),
        "a mount that is no bind mount needs a type - at `$.mounts[7].type`",
        '$.mounts[7].type: tmpfs, proc and others; for files of the host put "bind" among the'
        " options",
    ),
    "namespace": (
        _linux(namespaces=[{"type": "net"}]),
        'namespace {"net" ""} does not exist - at `$.linux.namespaces[0].type`',
        "$.linux.namespaces[0].type: each once, of the types pid, network, mount, ipc, uts, user,"
        " cgroup, time",
    ),
    "device": (
        _linux(devices=[{"type": "b", "path": "/dev/sda", "major": 8, "minor": 0}]),
        "/dev/sda (b 8:0) is a device of the host, which a container has none of - at"
        " `$.linux.devices[0]`",
        "$.linux.devices[0]: type c, b or p, and a path; of devices there are /dev/null, zero,"
        " full, random, urandom, tty, net/tun and fuse",
    ),
    "limit": (
        _linux(resources={"memory": {"limit": "1G"}}),
        "Expected `int | null`, got `str` - at `$.linux.resources.memory.limit`",
        "$.linux.resources.memory.limit: numbers of bytes, -1 for no limit",
    ),
    "hook": (
        lambda document: document.update(hooks={"prestart": [{"path": "prepare"}]}),
        "the path of a hook must be absolute - at `$.hooks.prestart[0].path`",
        '$.hooks.prestart[0].path: lists of programs of the host, such as {"path": "/bin/true",'
        ' "timeout": 10}',
    ),
    "time": (
        _linux(timeOffsets={"monotonic": {"secs": 1}}),
        "timeOffsets is not supported - at `$.linux.timeOffsets`",
        "$.linux.timeOffsets: leave it out; `runsc clock` sets the time that programs see",
    ),
}  # fmt: skip
"""What is wrong → message and hint, before there is a sandbox."""
WITHIN: dict[str, tuple[Change, str, str]] = {
    "kind": (_mount(type="ext4"), f"{CANNOT}mount ext4 to /mnt: no such device", DISKS),
    "option": (
        _mount(type="tmpfs", options=["size=many"]),
        f"{CANNOT}mount tmpfs to /mnt: invalid argument",
        "one of its options is unknown, or has a value that is none",
    ),
    "below": (
        _mount(type="tmpfs", destination="/etc/passwd/x"),
        f"{CANNOT}mount tmpfs to /etc/passwd/x: not a directory",
        KINDS,
    ),
    "room": (
        _linux(resources={"memory": {"limit": 1000}}),
        f"{CANNOT}mount devpts to /dev/pts: no space left on device",
        SPACE,
    ),
    "sysctl": (
        _linux(sysctl={"kernel.none": "1"}),
        f"{CANNOT}sysctl kernel.none: no such file or directory",
        SETTINGS,
    ),
    "execute": (
        _process(args=["/etc/passwd"]),
        f'{CANNOT}exec: "/etc/passwd": permission denied',
        "the user of the container may not execute it: see its mode (`chmod +x`) and its folders",
    ),
    "folder": (
        _process(args=["/etc"]),
        f'{CANNOT}exec: "/etc": is a directory',
        "name a program that is in it",
    ),
}
"""The same of what the sandbox says."""


def _told(bundle: Bundle, state: Path, platform: str) -> str:
    line = f"run --bundle {bundle.write()} c"
    return screen(state, line, f"--platform={platform}", "--zygote=off")


@pytest.mark.parametrize("name", BEFORE)
def test_field_that_is_wrong_is_told_with_what_is_right(
    name: str, bundle: Bundle, tmp_path: Path
) -> None:
    change, told, hint = BEFORE[name]
    shown = _told(bundle.args("true").configure(change), tmp_path / "state", "unicorn")
    assert shown == f"runsc: run failed: {told}\nhint: {hint}\n"


@pytest.mark.parametrize("name", WITHIN)
def test_container_that_does_not_start_says_why_and_what_to_do(
    name: str, bundle: Bundle, tmp_path: Path, platform: str
) -> None:
    change, told, hint = WITHIN[name]
    shown = _told(bundle.args("true").configure(change), tmp_path / "state", platform)
    assert shown == f"runsc: run failed: {told}\nhint: {hint}\n"


@pytest.mark.root
def test_folder_over_a_file_is_told(bundle: Bundle, tmp_path: Path, platform: str) -> None:
    source = tmp_path / "folder"
    source.mkdir()
    bundle.args("true").configure(_bind(str(source), "/etc/passwd"))
    bundle.configure(lambda document: document["root"].update(readonly=True))
    shown = _told(bundle, tmp_path / "state", platform)
    told = f"mount {source} to /etc/passwd: not a directory"
    assert shown == f"runsc: run failed: {told}\nhint: {KINDS}\n"


@pytest.mark.root
def test_overlay_that_the_host_refuses_is_told(
    bundle: Bundle, tmp_path: Path, platform: str
) -> None:
    bundle.args("true").configure(_mount(type="overlay", options=["lowerdir=/none"]))
    assert _told(bundle, tmp_path / "state", platform) == (
        f"runsc: run failed: {CANNOT}mount overlay (lowerdir=/none): no such file or directory\n"
        "hint: it needs lowerdir=, and perhaps upperdir=, workdir=: folders of the host; and root's"
        " rights\n"
    )


def test_document_that_is_no_json_is_told_by_line_and_column(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = bundle.write() / "config.json"
    path.write_text('{\n  "ociVersion": "1.2.0",\n  root: {}\n}\n')
    assert screen(tmp_path / "state", f"run --bundle {path.parent} c") == (
        "runsc: run failed: config.json is not JSON: line 3, column 3: object keys must be"
        " strings\n"
    )
