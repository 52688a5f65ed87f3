"""systemd as the first process of a container, as `podman run --systemd=always` sets it up."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, RUNSC, Bundle, Document, kvm_is_usable

pytestmark = [
    pytest.mark.full,
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
    pytest.mark.timeout(900),
]
CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    )
]  # fmt: skip
IN_MEMORY = {"/run": "mode=755", "/run/lock": "mode=755", "/tmp": "mode=1777",
             "/var/log/journal": "mode=755"}  # fmt: skip

FORKS = """
for (1..3) {
    my $child = fork;
    print "$!\\n" unless defined $child;
    if (defined $child && !$child) { sleep 1000; exit }
}
"""


def as_podman_does(document: Document) -> None:
    """Directories in memory, cgroups that can be written, `container` in the environment."""
    process = document["process"]
    process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
    process["env"] += ["container=podman"]
    process["noNewPrivileges"] = False
    process["rlimits"] = []
    document["root"]["readonly"] = False
    document["linux"]["namespaces"].append({"type": "cgroup"})
    replaced = {*IN_MEMORY, "/sys/fs/cgroup"}
    document["mounts"] = [m for m in document["mounts"] if m["destination"] not in replaced]
    for place, mode in IN_MEMORY.items():
        options = ["rw", "nosuid", "nodev", mode]
        document["mounts"].append(
            {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options}
        )
    document["mounts"].append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": ["rw", "nosuid", "nodev", "noexec"]}
    )  # fmt: skip


class Machine:
    """A container whose first process is systemd."""

    def __init__(self, folder: Path, rootfs: Path) -> None:
        self._bundle = Bundle(folder / "bundle", rootfs).args("/lib/systemd/systemd")
        self._bundle.configure(as_podman_does)
        self._state = f"--root={self._bundle.path / 'state'}"
        self.process = subprocess.Popen(
            self._bundle.command(), cwd=REPOSITORY, stdin=subprocess.DEVNULL
        )

    def runsc(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A command of ours about it."""
        return subprocess.run(
            [*RUNSC, self._state, *args],
            cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    def run(self, command: str) -> str:
        """What a command of its bash says."""
        done = self.runsc("exec", "test", "/bin/bash", "-c", command)
        return done.stdout + done.stderr

    def wait_until_up(self) -> str:
        """Its state once it has started what belongs to the default target."""
        for _ in range(600):
            up = self.run(
                "until [ -e /run/systemd/private ]; do read -rt 0.1 <> <(:) || :; done;"
                "until [ -e /run/dbus/system_bus_socket ]; do read -rt 0.1 <> <(:) || :; done;"
                "systemctl is-system-running --wait"
            )
            if "exec failed" not in up:  # it is there
                break
        return up.strip()


@pytest.fixture
def machine(tmp_path: Path, services: Path) -> Iterator[Machine]:
    made = Machine(tmp_path, services)
    yield made
    if made.process.poll() is None:
        made.runsc("kill", "test", "KILL")
    made.process.wait(60)


def test_systemd_starts_everything_and_ends(machine: Machine) -> None:
    assert machine.wait_until_up() == "running", machine.run("systemctl --failed; journalctl -b")
    assert machine.run("systemctl is-active multi-user.target ssh cron dbus systemd-logind") == (
        "active\n" * 5
    )
    assert machine.run("systemctl --failed --no-legend") == ""
    places = machine.run("cat /proc/{1,$(pgrep -x cron),self}/cgroup")
    assert places == "0::/init.scope\n0::/system.slice/cron.service\n0::/init.scope\n"

    machine.run(f"echo '{FORKS}' >/tmp/forks.pl")
    said = machine.run(
        "systemd-run --wait --pipe --quiet -p TasksMax=3 -p User=nobody bash -c '"
        "cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/pids.max; id -un;"
        "exec perl /tmp/forks.pl'"
    )
    assert said == "3\nnobody\nResource temporarily unavailable\n"
    said = machine.run(
        "systemd-run --quiet --unit=long bash -c 'sleep 1000 & sleep 1000';"
        "systemctl is-active long; systemctl freeze long; systemctl show -P FreezerState long;"
        "systemctl thaw long; systemctl stop long; systemctl is-active long;"
        "systemctl restart cron ssh; systemctl is-active cron ssh;"
        "ls -d /sys/fs/cgroup/system.slice/long.service"
    )
    assert said.splitlines() == [
        "active", "frozen", "inactive", "active", "active",
        "ls: cannot access '/sys/fs/cgroup/system.slice/long.service': No such file or directory",
    ]  # fmt: skip
    machine.run("systemctl poweroff")
    assert machine.process.wait(300) == 0


def test_stop_signal_of_engines_ends_it(machine: Machine) -> None:
    assert machine.wait_until_up() == "running"
    assert machine.runsc("kill", "test", f"{signal.SIGRTMIN + 3}").returncode == 0
    assert machine.process.wait(300) == 0
