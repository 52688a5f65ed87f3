"""Flags of runc and gVisor: with a meaning, without one, or refused with one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runsc import foreign
from runsc.cli import COMMANDS, main, main_group
from runsc.foreign import FLAGS, GLOBAL, Refused, Taken

ROOT = Path(__file__).resolve().parents[3]
RUNC = {
    GLOBAL: "debug log log-format root criu systemd-cgroup rootless",
    "create": "bundle console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds",
    "run": "bundle console-socket pidfd-socket detach keep pid-file no-subreaper no-pivot"
    " no-new-keyring preserve-fds",
    "exec": "console-socket pidfd-socket cwd env tty user additional-gids process detach pid-file"
    " process-label apparmor no-new-privs cap preserve-fds cgroup ignore-paused no-subreaper",
    "kill": "all",
    "delete": "force",
    "list": "format quiet",
    "ps": "format",
    "events": "interval stats",
    "spec": "bundle rootless",
    "update": "resources blkio-weight cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period"
    " cpu-rt-runtime cpuset-cpus cpuset-mems kernel-memory kernel-memory-tcp memory"
    " memory-reservation memory-swap pids-limit l3-cache-schema mem-bw-schema cpu-idle",
}
"""Of runc 1.1 to 1.3: its man pages."""
GVISOR = {
    GLOBAL: "root log log-format debug systemd-cgroup debug-log debug-command panic-log"
    " debug-log-format debug-to-user-log alsologtostderr allow-flag-override traceback strace"
    " strace-syscalls strace-log-size platform platform_device_path watchdog-action profile"
    " rootless ref-leak-mode cpu-num-from-quota oci-seccomp file-access file-access-mounts overlay"
    " overlay2 host-uds host-fifo ignore-cgroups fdlimit dcache directfs network net-raw gso"
    " software-gso tx-checksum-offload rx-checksum-offload qdisc num-network-channels nvproxy"
    " tpuproxy log-packets pcap-log metric-server",
    "create": "bundle console-socket pid-file user-log",
    "run": "bundle console-socket pid-file user-log detach pass-fd exec-fd",
    "exec": "cwd env user additional-gids cap detach process process-label no-new-privs pid-file"
    " internal-pid-file console-socket pass-fd exec-fd",
    "kill": "all pid",
    "wait": "rootpid pid",
    "do": "root cwd ip quiet overlay uid-map gid-map volume force-overlay",
    "debug": "pid stacks signal strace log-level log-packets profile-heap profile-cpu trace ps",
    "events": "interval stats",
    "install": "config_file runtime experimental userland-proxy clobber cgroupdriver",
    "uninstall": "config_file runtime",
    "spec": "bundle cwd netns",
}
"""Of gVisor: runsc/config/flags.go and runsc/cmd."""


def _main(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(args))
    return int(caught.value.code or 0)


def _own(command: str) -> set[str]:
    context = main_group.make_context("runsc", ["--root=/nowhere", "list"])
    found = main_group if command == GLOBAL else main_group.get_command(context, command)
    assert found is not None
    return {name for parameter in found.params for name in parameter.opts}


@pytest.mark.parametrize("others", [RUNC, GVISOR], ids=["runc", "gvisor"])
def test_every_flag_is_an_option_or_in_the_table(others: dict[str, str]) -> None:
    for command, names in others.items():
        known = _own(command) | FLAGS.get(command, {}).keys()
        missing = [name for name in names.split() if f"--{name}" not in known]
        assert not missing, (command, missing)


def test_the_table_is_of_commands_that_there_are_and_of_flags_that_they_lack() -> None:
    assert FLAGS.keys() - {GLOBAL} <= COMMANDS.keys()
    assert not foreign.COMMANDS.keys() & COMMANDS.keys()
    for command, flags in FLAGS.items():
        taken = {flag for flag, found in flags.items() if isinstance(found, Taken)}
        assert not (flags.keys() - taken) & _own(command)


@pytest.mark.parametrize(
    "args",
    [
        ["--directfs", "--file-access=exclusive", "--host-uds", "none"],
        ["-gso=false", "-dcache", "5", "-debug=false"],
        ["--qdisc=fifo", "--rx-checksum-offload=true", "--num-network-channels=4"],
        ["--rootless"],
        ["--rootless", "true"],
        ["--directfs=true", "--oci-seccomp=T"],
    ],
)
def test_flags_without_effect_are_taken(args: list[str], tmp_path: Path) -> None:
    assert _main(f"-root={tmp_path}/state", *args, "list", "-quiet=true") == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--nvproxy", "list"], "no device of the host"),
        (["--overlay", "list"], "--overlay2=all:memory"),
        (["-pcap-log=/x", "list"], "debug --packets"),
        (["--qdisc=tbf", "list"], "qdisc=tbf has no place here"),
        (["--qdisc-tbf-rate=1000", "list"], "--egress"),
        (["--reproduce-nat", "list"], "--network=host"),
        (["--character-device-policy=host", "list"], "policy=host has no place here"),
        (["--TESTONLY-afs-syscall-panic", "list"], "own tests"),
        (["run", "--pidfd-socket=/x", "y"], "--pid-file"),
        (["exec", "-internal-pid-file", "/x", "y", "true"], "runsc ps"),
        (["checkpoint", "--tcp-established", "x"], "docs/snapshots.md"),
        (["--nobody-knows", "list"], "No such option"),
        (["list", "-x"], "No such option"),
        (["ps", "x", "aux"], "options of ps"),
        (["do", "-d", "true"], "-d has no place here: use `runsc run --detach NAME`"),
        (["do", "-P", "true"], "-P has no place here: name the ports"),
        (["do", "--cap-drop=ALL", "true"], "use --user"),
        (["do", "--security-opt", "seccomp=x", "true"], "--policy"),
    ],
)
def test_what_is_refused_says_what_to_use_in_one_line(
    args: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _main(*args) == (125 if args[0] == "do" else 1)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if words in line]
    assert len(line) < 200


def test_no_refusal_is_longer_than_a_line() -> None:
    for flags in FLAGS.values():
        for found in flags.values():
            text = found.instead if isinstance(found, Refused) else found.why
            assert re.fullmatch(r"[^\n]{10,120}", text)


def test_page_is_what_the_table_says() -> None:
    page = (ROOT / "docs" / "flags.md").read_text()
    assert page == foreign.page(), "python -m runsc.foreign > docs/flags.md"
