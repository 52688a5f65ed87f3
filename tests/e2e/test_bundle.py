"""What the fields of config.json do, seen from inside a container."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from runsc import host
from sentry.abi.mount import MNT_DETACH, MS_BIND, MS_RDONLY, MS_REMOUNT
from tests.e2e.bundle import (
    KEPT,
    REPOSITORY,
    RUNSC,
    TIMEOUT_S,
    Bundle,
    Document,
    execute,
    kvm_is_usable,
)

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]


def _sh(bundle: Bundle, script: str) -> str:
    """What a script prints; it must end well."""
    result = bundle.args("/bin/sh", "-c", script).run()
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


def test_user_groups_umask_and_cwd_are_taken(bundle: Bundle) -> None:
    bundle.document["process"]["user"] = {
        "uid": 1000,
        "gid": 1001,
        "umask": 0o27,
        "additionalGids": [5, 6],
    }
    bundle.document["process"]["cwd"] = "/tmp"

    assert _sh(bundle, "id -u; id -g; id -G; umask; pwd").split("\n") == [
        "1000",
        "1001",
        "1001 5 6",
        "0027",
        "/tmp",
        "",
    ]


def test_environment_is_the_bundles_and_home(bundle: Bundle) -> None:
    bundle.document["process"]["env"] = ["PATH=/bin", "A=b c", "E="]

    result = bundle.args("env").run()

    # HOME is from /etc/passwd, as runc sets it
    assert sorted(result.stdout.splitlines()) == ["A=b c", "E=", "HOME=/root", "PATH=/bin"]


def test_hostname_is_taken(bundle: Bundle) -> None:
    bundle.document["hostname"] = "inside"

    assert _sh(bundle, "hostname; uname -n") == "inside\ninside\n"


def test_names_that_nobody_has_set_are_none(bundle: Bundle) -> None:
    bundle.document.pop("hostname", None)
    script = "uname -n; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname"
    assert _sh(bundle, script) == "(none)\n" * 3
    bundle.document["domainname"] = "example.org"
    assert _sh(bundle, "cat /proc/sys/kernel/domainname") == "example.org\n"


def test_capabilities_are_the_bundles(bundle: Bundle) -> None:
    bundle.document["process"]["user"]["uid"] = 1000
    bundle.document["process"]["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_CHOWN"],
        **{name: ["CAP_KILL"] for name in ("effective", "permitted", "inheritable", "ambient")},
    }

    shown = _sh(bundle, "grep -E 'Cap|NoNewPrivs' /proc/self/status")

    values = dict(line.split(":\t") for line in shown.splitlines())
    assert {int(values[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {1 << 5}
    assert int(values["CapBnd"], 16) == 1 << 5 | 1
    assert values["NoNewPrivs"] == "1"


def test_rlimits_are_the_bundles(bundle: Bundle) -> None:
    bundle.document["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]

    assert _sh(bundle, "ulimit -n; ulimit -Hn; ulimit -c") == "77\n99\n0\n"


def test_readonly_root_cannot_be_written(bundle: Bundle) -> None:
    bundle.document["root"]["readonly"] = True

    assert "Read-only file system" in _sh(bundle, "touch /etc/x 2>&1; true")


def test_readonly_root_is_not_changed_where_mounts_need_a_place(
    bundle: Bundle, tmp_path: Path
) -> None:
    root = tmp_path / "rootfs"
    (root / "bin").mkdir(parents=True)
    shutil.copy(bundle.rootfs / "bin" / "busybox", root / "bin" / "busybox")
    (tmp_path / "hosts").write_text("of the host\n")
    document = bundle.document
    document["root"] = {"path": str(root), "readonly": True}
    bind = {"type": "bind", "source": str(tmp_path / "hosts"), "options": ["bind"]}
    document["mounts"].append({"destination": "/etc/hosts", **bind})
    document["process"]["cwd"] = "/made"
    look = "b=/bin/busybox; $b cat /etc/hosts; pwd; $b ls /; $b touch /made/x"
    bundle.args("/bin/busybox", "sh", "-c", look)

    done = bundle.run(flags=[KEPT])

    assert done.stdout == "of the host\n/made\nbin\ndev\netc\nmade\nproc\nsys\n"
    assert "Read-only file system" in done.stderr
    assert sorted(path.name for path in root.rglob("*")) == ["bin", "busybox"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_that_the_host_lets_nobody_write_is_read_only(bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "rootfs"
    shutil.copytree(bundle.rootfs, root, symlinks=True)
    (root / "proc").rmdir()
    host.mount(str(root), str(root), "", MS_BIND)
    host.mount("", str(root), "", MS_BIND | MS_REMOUNT | MS_RDONLY)
    bundle.document["root"] = {"path": str(root)}
    try:
        done = bundle.args("sh", "-c", "ls -d /proc/self; touch /etc/x").run(flags=[KEPT])
    finally:
        host.umount(str(root), MNT_DETACH)

    assert done.stdout == "/proc/self\n"
    assert "Read-only file system" in done.stderr


def test_what_is_written_stays_in_the_sandbox(bundle: Bundle) -> None:
    before = sorted(os.listdir(bundle.rootfs / "etc"))

    assert _sh(bundle, "echo new >/etc/new; rm /etc/hosts; cat /etc/new; ls /etc").startswith(
        "new\n"
    )

    assert sorted(os.listdir(bundle.rootfs / "etc")) == before
    assert _sh(bundle, "ls /etc/hosts") == "/etc/hosts\n"


def test_overlay_none_writes_through(tmp_path: Path, busybox: Path) -> None:
    root = tmp_path / "rootfs"
    subprocess.run(["cp", "-a", busybox, root], check=True)
    bundle = Bundle(tmp_path / "bundle", root).args("/bin/sh", "-c", "echo x >/etc/new")

    result = bundle.run(flags=["--overlay2=none"])

    assert (result.returncode, result.stderr) == (0, "")
    assert (root / "etc" / "new").read_text() == "x\n"


def _mount(document: Document, **mount: object) -> None:
    document["mounts"].append(mount)


def test_bind_mount_shows_the_hosts_files_both_ways(bundle: Bundle, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "in").write_text("from the host\n")
    _mount(bundle.document, destination="/mnt", type="bind", source=str(data), options=["rbind"])

    assert _sh(bundle, "cat /mnt/in; echo from inside >/mnt/out") == "from the host\n"
    assert (data / "out").read_text() == "from inside\n"


def test_read_only_bind_mount_of_a_file_cannot_be_written(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("fixed\n")
    _mount(
        bundle.document,
        destination="/etc/hosts",
        type="bind",
        source=str(tmp_path / "file"),
        options=["bind", "ro"],
    )

    shown = _sh(bundle, "cat /etc/hosts; echo x 2>&1 >/etc/hosts; true")

    assert shown.startswith("fixed\n")
    assert "Read-only file system" in shown
    assert (tmp_path / "file").read_text() == "fixed\n"


def test_tmpfs_takes_its_options(bundle: Bundle) -> None:
    _mount(
        bundle.document,
        destination="/scratch",
        type="tmpfs",
        source="tmpfs",
        options=["nosuid", "noexec", "size=1m", "mode=700"],
    )

    shown = _sh(
        bundle,
        "stat -c %a /scratch; grep ' /scratch ' /proc/mounts;"
        "dd if=/dev/zero of=/scratch/f bs=64k count=32 2>&1 | grep -o 'No space left on device'",
    ).split("\n")

    assert shown[0] == "700"
    assert "noexec" in shown[1] and "nosuid" in shown[1]
    assert shown[2] == "No space left on device"


def test_masked_and_readonly_paths(bundle: Bundle) -> None:
    bundle.document["linux"]["maskedPaths"] = ["/etc/passwd", "/home", "/none"]
    bundle.document["linux"]["readonlyPaths"] = ["/var"]

    shown = _sh(bundle, "wc -c </etc/passwd; ls -A /home; touch /var/x 2>&1; true")

    assert shown.startswith("0\n")
    assert "Read-only file system" in shown


def test_masked_path_through_a_link_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "root" / "bin").mkdir(parents=True)
    shutil.copy(bundle.rootfs / "bin" / "busybox", tmp_path / "root" / "bin" / "busybox")
    (tmp_path / "root" / "etc").symlink_to("bin")
    bundle.document["root"]["path"] = str(tmp_path / "root")
    bundle.document["linux"]["maskedPaths"] = ["/etc/busybox"]

    result = bundle.args("/bin/busybox", "true").run()

    assert result.returncode == 1
    assert "cannot mask /etc/busybox: a symbolic link is on the way" in result.stderr


def test_working_directory_is_made(bundle: Bundle) -> None:
    bundle.document["root"]["readonly"] = True
    bundle.document["process"]["cwd"] = "/made/for/it"
    bundle.document["process"]["user"] = {"uid": 1000, "gid": 1000}

    assert _sh(bundle, "pwd; stat -c '%u %a' .") == "/made/for/it\n0 755\n"


def test_standard_devices_are_there(bundle: Bundle) -> None:
    script = (
        "head -c 3 /dev/zero | wc -c; echo x >/dev/null; head -c 4 /dev/urandom | wc -c;"
        "readlink /dev/fd; readlink /dev/stdin; ls /dev/tty /dev/full"
    )

    assert _sh(bundle, script).split("\n") == [
        "3",
        "4",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/dev/full",
        "/dev/tty",
        "",
    ]


@pytest.mark.parametrize("readonly", [False, True])
def test_without_a_mount_on_dev_standard_devices_are_in_the_root(
    tmp_path: Path, busybox: Path, readonly: bool
) -> None:
    """runc 1.1, which also leaves what it has made in a root that can be written."""
    root = tmp_path / "rootfs"
    shutil.copytree(busybox, root, symlinks=True)
    (root / "etc" / "secret").write_text("secret")
    bundle = Bundle(tmp_path / "bundle", root)
    bundle.document["root"]["readonly"] = readonly
    bundle.document["linux"]["maskedPaths"] = ["/etc/secret"]
    bundle.document["mounts"] = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    bundle.args(
        "sh", "-c", "cat /etc/secret; echo x >/dev/null; head -c 3 /dev/zero | wc -c; ls /dev"
    )

    for _ in range(2):  # the second time finds what the first one has left
        done = bundle.run(flags=[KEPT])

        names = "fd full null ptmx random stderr stdin stdout tty urandom zero"
        assert (done.stdout.split(), done.stderr) == (["3", *names.split()], "")
    left = {path.name for path in (root / "dev").iterdir()}
    assert left == (set() if readonly else set(names.split()))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["/nope"], 'exec: "/nope": stat /nope: no such file or directory'),
        (["nope"], 'exec: "nope": executable file not found in $PATH'),
        (["/bin"], 'exec: "/bin": '),
    ],
)
def test_program_that_cannot_be_run_is_reported_as_by_runc(
    bundle: Bundle, args: list[str], message: str
) -> None:
    result = bundle.args(*args).run()

    assert result.returncode == 1
    assert message.replace('"', '\\"') in result.stderr


def test_signals_reach_the_first_process(bundle: Bundle) -> None:
    script = "trap 'echo got; exit 6' TERM; echo ready; while :; do sleep 0.05; done"
    container = subprocess.Popen(
        bundle.args("/bin/sh", "-c", script).command(),
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert container.stdout is not None
    assert container.stdout.readline() == "ready\n"

    container.send_signal(signal.SIGTERM)

    output, _ = container.communicate(timeout=TIMEOUT_S)
    assert (output, container.returncode) == ("got\n", 6)


def test_do_runs_over_the_hosts_files_without_changing_them(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before\n")
    command = [*RUNSC, f"--root={tmp_path}/state", "do", f"--cwd={tmp_path}", "/bin/sh", "-c"]

    result = execute([*command, "cat file; echo after >file; cat file; exit 4"])

    assert (result.stdout, result.returncode) == ("before\nafter\n", 4)
    assert (tmp_path / "file").read_text() == "before\n"


def test_pid_file_names_the_sandbox(bundle: Bundle, tmp_path: Path) -> None:
    bundle.args("/bin/sh", "-c", "read x")
    command = bundle.command()
    command[command.index("run") + 1 : 0] = []
    command.insert(command.index("run") + 1, f"--pid-file={tmp_path}/pid")
    container = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=REPOSITORY)
    while not (tmp_path / "pid").exists():
        assert container.poll() is None

    pid = int((tmp_path / "pid").read_text())

    assert f"PPid:\t{container.pid}\n" in Path(f"/proc/{pid}/status").read_text()
    container.communicate("\n", timeout=TIMEOUT_S)


def test_seccomp_profile_holds_from_the_first_process_on(bundle: Bundle) -> None:
    bundle.document["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["sync"], "action": "SCMP_ACT_KILL_PROCESS"},
            {
                "names": ["kill"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }
    script = """
        grep ^Seccomp: /proc/self/status; mkdir /tmp/a 2>&1
        kill -USR1 $$ 2>&1; kill -0 $$; { (sync); echo $?; } 2>&1
    """

    status, mkdir, kill, *rest = _sh(bundle, script).splitlines()

    assert status == "Seccomp:\t2"
    assert mkdir.endswith("No space left on device")
    assert "not permitted" in kill
    assert rest[-1] == "159"
