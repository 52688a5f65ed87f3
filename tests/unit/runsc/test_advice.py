from __future__ import annotations

import pytest

from runsc import advice

CANNOT = "run failed: unable to start container process: "


@pytest.mark.parametrize(
    ("message", "begins"),
    [
        (f'{CANNOT}exec: "ls": executable file not found in $PATH', "it is looked for in the PATH"),
        (f'{CANNOT}exec: "/x": stat /x: no such file or directory', "it is a path in the files"),
        (f'{CANNOT}exec: "/x": permission denied', "the user of the container may not execute it"),
        (f'{CANNOT}exec: "/etc": is a directory', "name a program"),
        (f"{CANNOT}exec /x: exec format error", "it is no program for x86-64"),
        (f"{CANNOT}exec /x: no such file or directory", "it is there; what it names as its interp"),
        (f"{CANNOT}mount ext4 to /mnt: no such device", "a sandbox has no disks"),
        (f"{CANNOT}mount tmpfs to /mnt: invalid argument", "one of its options"),
        ("mount /etc to /etc/passwd: not a directory", "what is mounted over a file"),
        (f"{CANNOT}mount overlay (lowerdir=/x): no such file or directory", "it needs lowerdir="),
        (f"{CANNOT}mount devpts to /dev/pts: no space left on device", "its limit of memory"),
        (f'{CANNOT}chdir to cwd ("/x") set in config.json failed: not a directory', "the working"),
        (f"{CANNOT}mount bind to /mnt/x: read-only file system", "the folder that it is to be"),
        ("do failed: /dev/kvm is not there; --platform=unicorn needs no KVM, but is slow and no"
         " security boundary", "`runsc check`"),
        ("do failed: state directory (--root) /x: no space left on device", "`df -h`"),
        ("image x cannot be used: disk quota exceeded ('/x')", "`df -h`"),
        ("/x/policy.toml: line 1: Object contains unknown field `ports`", "docs/egress.md and"),
        ("sysctl net.ipv4.ip_forward: invalid argument", "/proc/sys inside"),
        ("do failed: --network=sandbox: an ordinary user needs passt(1) for it", "it is a package"),
        ("a network of a fork's own needs passt(1)", "it is a package"),
        ("do failed: --publish: port 80 of 127.0.0.1: permission denied", "ports below 1024"),
        ("do failed: --publish: port 8080 of ::1: address already in use", "a program of this"),
        ('another command is changing the container "c"', "wait until it has ended"),
        ("compression zstd needs Python 3.14 or runsc[images]", "`pip install"),
        ("/x has a snapshot already, or other files", "name a folder"),
        ("/x is no snapshot: it has no manifest.json", "`runsc checkpoint"),
        ("network namespace /etc/passwd: invalid argument", "the path has to be that of such a"),
        ("exec failed: the sandbox process was killed by signal 9", "somebody has killed it"),
        ("the gofer process was killed by signal 31 (a system call that its filter forbids): the"
         " sandbox has ended", "this is a fault of runsc"),
        ("something else", ""),
        ("mount: no such device or so", ""),
    ],
)  # fmt: skip
def test_hint_is_found_by_how_a_message_ends(message: str, begins: str) -> None:
    found = advice.hint(message)
    assert found.startswith(begins)
    assert bool(found) is bool(begins)
    assert found[-1:] != "."
