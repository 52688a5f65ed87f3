"""An ordinary user who may open /dev/kvm needs no root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.launch import passt
from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle, Result, execute, kvm_is_usable
from tests.e2e.client import held_port
from tests.e2e.test_do_flags import first_words
from tests.unit.runsc.images.making import archive, device, file, layout, packed

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
UID = 54321
AS_USER = Path(__file__).with_name("as_user.py")
API_AS_USER = Path(__file__).with_name("api_as_user.py")
OPEN_TO_ALL = """
mount -t tmpfs tmpfs /mnt && cp -a /dev/kvm /mnt && chmod 666 /mnt/kvm &&
mount --bind /mnt/kvm /dev/kvm && umount -l /mnt && exec "$@"
"""
"""Whatever the machine's rule for /dev/kvm, here the user may open it."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of that user, reachable by everybody (pytest's own are not)."""
    path = Path(tempfile.mkdtemp(prefix="runsc-test-"))
    path.chmod(0o755)
    os.chown(path, UID, UID)
    yield path
    shutil.rmtree(path)


def _command(folder: Path, *args: str) -> list[str | Path]:
    flags = (f"--root={folder}/state", "--network=none")
    command = [sys.executable, AS_USER, str(UID), *flags, *args]
    return ["unshare", "--mount", "sh", "-c", OPEN_TO_ALL, "sh", *command]


def _as_user(folder: Path, *args: str) -> Result:
    return execute(_command(folder, *args))


def test_do_runs_as_root_of_its_own_kernel(folder: Path) -> None:
    result = _as_user(folder, "do", "--cwd=/", "/bin/sh", "-c", "id -u; echo x >/etc/x; cat /etc/x")

    assert (result.stdout, result.stderr, result.returncode) == ("0\nx\n", "", 0)
    assert not os.path.exists("/etc/x")


def test_do_does_not_show_what_the_user_may_not_read(folder: Path) -> None:
    (folder / "secret").write_text("root's\n")
    (folder / "secret").chmod(0o600)

    result = _as_user(folder, "do", "--cwd=/", "/bin/cat", str(folder / "secret"))

    assert (result.stdout, result.returncode) == ("", 1)
    assert "Permission denied" in result.stderr


def test_do_takes_the_flags_of_docker_run(folder: Path) -> None:
    for name, mode in (("out", 0o777), ("in", 0o755)):
        (folder / name).mkdir()
        (folder / name).chmod(mode)
        os.chown(folder / name, UID, UID)
    volumes = ["-v", f"{folder}/out:/new/out", "-v", f"{folder}/in:/in:ro"]
    flags = ["-m", "96m", "--hostname", "box", "--cpus", "0.5", "-e", "A=b", "-w", "/new/out"]
    script = "hostname; echo $A; pwd; echo kept > made; touch /in/made; grep MemT /proc/meminfo"

    done = _as_user(folder, "do", *volumes, *flags, "/bin/sh", "-c", script)

    *said, memory = done.stdout.splitlines()
    assert said == ["box", "b", "/new/out"]
    assert memory.split()[1] == str(96 << 10)
    assert "cannot set cpu limit: container could not join or create cgroup" in done.stderr
    assert "/in/made" in done.stderr
    assert (folder / "out" / "made").read_text() == "kept\n"
    assert (folder / "out" / "made").stat().st_uid == UID
    assert not list((folder / "in").iterdir())
    other = _as_user(folder, "do", *volumes, "-u", "nobody", "/bin/sh", "-c",
                     "id -un; cat /new/out/made; touch /new/out/other")  # fmt: skip
    assert other.stdout == "nobody\nkept\n"
    assert "cannot touch '/new/out/other': Invalid argument" in other.stderr  # it has no such user


ANSWERS = """
import os, socket, sys
with socket.create_server(("", int(sys.argv[1]))) as listening:
    connection, _ = listening.accept()
try:
    open("/out/made", "w").close()
    made = "made"
except OSError as error:
    made = os.strerror(error.errno)
home = os.environ["HOME"]
connection.sendall(f"{os.environ['A']} {os.getuid()} {home} {made}".encode())
connection.close()
"""


@pytest.mark.parametrize("network", ["none", "host", "sandbox"])
@pytest.mark.parametrize(
    ("user", "who"), [("root", "0 /root made"), ("nobody", "65534 /nonexistent Invalid argument")]
)
def test_do_takes_volume_port_variable_user_and_network_together(
    folder: Path, network: str, user: str, who: str
) -> None:
    if network == "sandbox" and not (passt.find() and passt.ways().leads):
        pytest.skip("there is no passt, or no way out")
    (folder / "out").mkdir(mode=0o777)
    (folder / "out").chmod(0o777)
    with held_port() as port, held_port() as inside:
        flags = ["-v", f"{folder}/out:/out", "-p", f"{port}:{inside}", "-e", "A=b", "-u", user]
        program = ["/usr/bin/python3", "-c", ANSWERS, str(inside)]
        words = [f"--root={folder}/state", "do", "-w", "/", *flags, "--net", network, *program]
        command = [sys.executable, AS_USER, str(UID), *words]
        with subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", OPEN_TO_ALL, "sh", *command],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
        ) as process:  # fmt: skip
            said = first_words(port, process)
            assert process.stderr is not None
            assert (process.stderr.read(), process.wait(TIMEOUT_S)) == ("", 0)
    assert said == f"b {who}".encode()
    assert [path.stat().st_uid for path in (folder / "out").iterdir()] == [UID] * (user == "root")


def test_files_of_an_image_have_their_owners(
    folder: Path, busybox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    tar = ["tar", "-C", busybox, "-cf", "-", "."]
    lower = subprocess.run(tar, check=True, capture_output=True).stdout
    upper = archive(file("owned", b"x", mode=0o4750, uid=1234, gid=5), device("zero", 1, 5))
    (folder / "image.tar").write_bytes(packed(layout(lower, upper)))
    script = "stat -c '%u %g %a' /owned; cat /owned; echo; ls -l /zero | cut -c 1; id -u"

    done = _as_user(folder, "do", "--image", f"{folder}/image.tar", "sh", "-c", script)

    assert (done.stdout, done.stderr) == ("1234 5 4750\nx\nc\n0\n", "")
    (root,) = (folder / "cache" / "runsc" / "images" / "roots").iterdir()
    assert (root / "root.erofs").stat().st_uid == UID


def test_run_takes_a_bundle(folder: Path, busybox: Path) -> None:
    shutil.copytree(busybox, folder / "rootfs", symlinks=True)
    bundle = Bundle(folder / "bundle", folder / "rootfs").args("/bin/echo", "from a bundle")

    result = _as_user(folder, "run", f"--bundle={bundle.write()}", "c")

    assert (result.stdout, result.stderr, result.returncode) == ("from a bundle\n", "", 0)
    assert [name for name in os.listdir(folder / "state") if name != ".lock"] == []


def test_fork_copies_a_container(folder: Path, busybox: Path) -> None:
    shutil.copytree(busybox, folder / "rootfs", symlinks=True)
    bundle = Bundle(folder / "bundle", folder / "rootfs").args("/bin/sleep", "1000")
    memory = "--overlay2=root:memory"
    start = [memory, "run", "--detach", "--forkable", f"--bundle={bundle.write()}", "c"]
    try:
        subprocess.run(_command(folder, *start), stdout=subprocess.DEVNULL, check=True)
        made = _as_user(folder, memory, "fork", "c", "d", "e")
        assert (made.stderr, made.returncode) == ("", 0)
        assert _as_user(folder, "exec", "d", "id", "-u").stdout == "0\n"
    finally:
        for name in ("d", "e", "c"):
            _as_user(folder, "delete", "--force", name)
    assert [name for name in os.listdir(folder / "state") if name != ".lock"] == []


def test_root_of_somebody_else_is_read_and_not_written(folder: Path, busybox: Path) -> None:
    """As in a container of runc's: what the host refuses is an error at once, also a removal."""
    shutil.copytree(busybox, folder / "rootfs", symlinks=True)
    (folder / "rootfs" / "own").mkdir()
    os.chown(folder / "rootfs" / "own", UID, UID)
    script = (
        "ls /etc; rm -f /etc/hosts; mkdir /etc/d; mv /etc/hosts /own; cd /own && echo x >a && "
        "mv a b && mkdir d && rmdir d && ls; test -s /etc/hosts && echo there"
    )
    bundle = Bundle(folder / "bundle", folder / "rootfs").args("sh", "-c", f"({script}) 2>&1")
    sets = bundle.document["process"]["capabilities"]
    for kind in ("bounding", "effective", "permitted"):
        sets[kind] = [*sets[kind], "CAP_DAC_OVERRIDE"]

    done = _as_user(folder, "run", f"--bundle={bundle.write()}", "c")

    assert done.stdout.count("Permission denied") == 3, done.stdout
    assert done.stdout.endswith("\nb\nthere\n")
    assert (folder / "rootfs" / "own" / "b").read_text() == "x\n"


def test_root_in_which_no_place_for_a_mount_can_be_made(folder: Path, busybox: Path) -> None:
    shutil.copytree(busybox, folder / "rootfs", symlinks=True)
    (folder / "rootfs" / "proc").rmdir()
    bundle = Bundle(folder / "bundle", folder / "rootfs").args("ls", "-d", "/proc/self")
    run = ("run", f"--bundle={bundle.write()}", "c")

    refused = _as_user(folder, *run)
    bundle.document["root"]["readonly"] = True
    bundle.write()
    done = _as_user(folder, *run)

    assert "mount proc to /proc: permission denied" in refused.stderr
    assert (done.stdout, done.stderr) == ("/proc/self\n", "")


def test_changes_of_the_host_are_seen(folder: Path, busybox: Path) -> None:
    """What the Gofer hears by is an ordinary user's in any case."""
    shutil.copytree(busybox, folder / "rootfs", symlinks=True)
    look = "test ! -e /new && echo looked; until test -e /new; do :; done; cat /new"
    bundle = Bundle(folder / "bundle", folder / "rootfs").args("sh", "-c", look)
    run = _command(folder, "--overlay2=none", "run", f"--bundle={bundle.write()}", "c")
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "looked\n"
        (folder / "rootfs" / "written").write_text("by the host\n")
        (folder / "rootfs" / "written").rename(folder / "rootfs" / "new")
        assert process.stdout.read() == "by the host\n"


def test_run_with_limits_where_no_cgroup_may_be_made(folder: Path, busybox: Path) -> None:
    shutil.copytree(busybox, folder / "rootfs", symlinks=True)
    bundle = Bundle(folder / "bundle", folder / "rootfs")
    bundle.args("sh", "-c", "grep -c MemTotal /proc/meminfo; cat /sys/fs/cgroup/pids.max")
    linux = bundle.document["linux"]
    linux["cgroupsPath"] = f"/runsc-test-user-{os.getpid()}"

    quiet = _as_user(folder, "run", f"--bundle={bundle.write()}", "c")
    linux["resources"] = {"memory": {"limit": 256 << 20}, "pids": {"limit": 9}}
    warned = _as_user(folder, "run", f"--bundle={bundle.write()}", "c")

    assert (quiet.stdout, quiet.stderr, quiet.returncode) == ("1\nmax\n", "", 0)
    assert (warned.stdout, warned.returncode) == ("1\n9\n", 0)
    text = "cannot set memory limit: container could not join or create cgroup"
    assert warned.stderr.count("\n") == 1
    assert text in warned.stderr


def test_sandboxes_of_the_python_api_need_no_root(folder: Path) -> None:
    if not all(path.stat().st_mode & 0o001 for path in REPOSITORY.parents):
        pytest.skip("an ordinary user cannot read the program that waits in each sandbox")
    command = [sys.executable, API_AS_USER, str(UID), folder / "state"]
    result = execute(["unshare", "--mount", "sh", "-c", OPEN_TO_ALL, "sh", *command])

    assert (result.stdout, result.stderr) == ("0 0 data\n/f\n.lock\n", "")
