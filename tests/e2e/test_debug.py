"""What --debug and --strace tell somebody who has never read the source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.test_show import compiled, of_debian

ASKS = r"""
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    for (int i = 0; i < 3; i++) open("/proc/not/there", O_RDONLY);
    open("/proc/4194303/stat", O_RDONLY);
    open("/proc/4194302/stat", O_RDONLY);
    open("/nowhere", O_RDONLY);
    setsockopt(s, SOL_SOCKET, 9999, &on, sizeof on);
    ioctl(s, 0x1234);
    ioctl(s, 0x5401);
    syscall(SYS_landlock_create_ruleset, 0, 0, 0);
    syscall(5000);
    return 0;
}
"""
TOLD = {
    'open "/proc/not/there"  ENOENT': 3,
    'open "/proc/N/stat"  ENOENT': 2,
    "setsockopt level 1, 9999  ENOPROTOOPT": 1,
    "ioctl 0x1234  ENOTTY": 1,
    "landlock_create_ruleset (no security modules)  ENOSYS": 1,
    "syscall_0x1388  ENOSYS": 1,
}


def _refused(text: str) -> dict[str, int]:
    return {
        match[2]: int(match[1]) for match in re.finditer(r"^debug: +(\d+)  (.*)$", text, re.M)
    }


def test_debug_counts_what_a_program_did_not_get(
    tmp_path: Path, busybox: Path, platform: str
) -> None:
    source = ASKS.replace('open("', 'syscall(SYS_open, "')
    program = compiled(source, tmp_path, "-static")
    bundle = of_debian(tmp_path, busybox, "/program", program=program)

    done = bundle.run(platform, flags=["--debug"])

    assert done.returncode == 0
    refused = _refused(done.stderr)
    assert {what: refused.get(what) for what in TOLD} == TOLD
    assert not any("nowhere" in what or "TCGETS" in what for what in refused)


def test_debug_says_what_is_decided(bundle: Bundle, platform: str, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    document = bundle.args("true").document
    bind = {"destination": "/mnt", "type": "bind", "source": str(shared), "options": ["ro"]}
    document["mounts"].append(bind)
    document["linux"]["rootfsPropagation"] = "private"
    document["linux"]["zoned"] = {}
    document["linux"]["namespaces"][0]["path"] = "/proc/self/ns/pid"

    done = bundle.run(platform, flags=["--debug", "--memory=512M"])

    assert done.returncode == 0
    for text in (
        f"platform: {platform}",
        "memory: 512 MiB for all programs (as --memory says)",
        "program: 'true' in /, as user 0, group 0",
        "capabilities: CAP_KILL CAP_NET_BIND_SERVICE CAP_AUDIT_WRITE; none can be gained",
        f"mount: /mnt: {shared} of the host, through the gofer (ro)",
        "mount: /proc: proc of the Sentry",
        f"gofer: serves {shared}, read-only, shared",
        "network: packets for the interfaces of a new network namespace (--network=sandbox, by"
        " default)",
        "seccomp: config.json has no profile",
        "config.json: linux.zoned is unknown",
        "config.json: linux.rootfsPropagation has no effect",
        "config.json: the pid namespace /proc/self/ns/pid is not joined",
        "debug:       1  rseq (",
    ):
        assert text in done.stderr, (text, done.stderr)


def test_nothing_of_it_without_the_flag(bundle: Bundle, platform: str) -> None:
    assert bundle.args("ls", "/proc/not/there").run(platform).stderr.startswith("ls: ")


CALL = r"\[pid +1\] \d\d:\d\d:\d\d\.\d{6} "


def test_strace_begins_with_the_first_program_and_has_times(bundle: Bundle, platform: str) -> None:
    done = bundle.args("echo", "hello").run(platform, flags=["--strace"])

    first, *rest = done.stderr.splitlines()
    assert re.fullmatch(
        CALL + r'execve\("\S+/echo", \["echo", "hello"\], \[/\* \d+ vars \*/\]\) += 0', first
    )
    calls = [line for line in rest if "+++" not in line and "unfinished" not in line]
    assert calls
    assert all(re.fullmatch(CALL + r".* = .* <\d+\.\d{6}>", line) for line in calls)


@pytest.mark.parametrize(
    ("wanted", "there", "absent"),
    [
        ("%file", {"execve", "openat"}, {"write", "mmap", "read"}),
        ("%desc", {"openat", "write", "read"}, {"execve", "rt_sigaction"}),
        ("%process,write", {"execve", "exit_group", "write"}, {"openat", "read"}),
        ("!%file,%memory", {"write", "read"}, {"execve", "openat", "mmap"}),
    ],
)
def test_strace_writes_what_the_filter_lets_through(
    bundle: Bundle, tmp_path: Path, wanted: str, there: set[str], absent: set[str]
) -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    log = tmp_path / "calls"
    script = "read -r line </etc/passwd; echo $line"
    bundle.args("sh", "-c", script)

    done = bundle.run(flags=[f"--strace-syscalls={wanted}", f"--strace-log={log}"])

    assert done.stderr == ""
    names = set(re.findall(r"^\[pid +\d+\] \S+ (\w+)\(", log.read_text(), re.M))
    assert there <= names
    assert not absent & names


def test_strace_shows_as_much_data_as_is_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    text = "0123456789" * 10
    log = tmp_path / "calls"
    bundle.args("echo", text)

    bundle.run(flags=["--strace-syscalls=write", f"--strace-log={log}", "--strace-log-size=100"])

    assert f'write(1, "{text}"..., 101) = 101' in log.read_text()


def test_filter_of_something_else_is_refused(bundle: Bundle) -> None:
    for wanted, why in (("opne", "no system call 'opne'"), ("%flie", "no family %flie")):
        done = bundle.args("true").run(flags=[f"--strace-syscalls={wanted}"])
        assert (done.returncode, why in done.stderr) == (1, True)
