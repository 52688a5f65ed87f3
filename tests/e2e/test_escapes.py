"""Classes of escapes from other runtimes: each is tried, and the host is looked at afterwards.

Which class a test belongs to: docs/attack-classes.md.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle, Result
from tests.e2e.client import Client

HERE = Path(__file__).parent
FAN_OPEN, FAN_ONDIR, FAN_EVENT_ON_CHILD, FAN_NONBLOCK, FAN_MARK_ADD = (
    0x20, 0x40000000, 0x08000000, 2, 1,
)  # fmt: skip


@pytest.fixture(scope="session")
def escapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that tries."""
    program = tmp_path_factory.mktemp("escapes") / "escapes"
    source = HERE / "escapes.c"
    subprocess.run(
        ["gcc", "-O1", "-w", "-static", "-pthread", "-o", program, source], check=True
    )
    return program


@pytest.fixture
def image(tmp_path: Path, bundle: Bundle) -> Path:
    """A root of its own, in which a test puts what an attacker puts into an image."""
    root = tmp_path / "image"
    for name in ("bin", "proc", "dev", "sys", "etc", "tmp", "mnt"):
        (root / name).mkdir(parents=True)
    shutil.copy(bundle.rootfs / "bin" / "busybox", root / "bin" / "busybox")
    for name in ("sh", "cat", "ls", "mount", "umount", "unshare", "stat", "ln", "sleep"):
        (root / "bin" / name).symlink_to("busybox")
    bundle.document["root"] = {"path": str(root)}
    return root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host of which the container has been told nothing."""
    made = tmp_path / "outside"
    made.mkdir()
    (made / "secret").write_text("secret of the host\n")
    return made


def shell(bundle: Bundle, script: str, *flags: str) -> Result:
    return bundle.args("/bin/sh", "-c", script).run(flags=flags)


def add_mount(bundle: Bundle, destination: str, source: Path | None = None, *more: str) -> None:
    entry = {"destination": destination, "type": "tmpfs", "source": "tmpfs"}
    if source is not None:
        entry = {"destination": destination, "type": "bind", "source": str(source)}
    bundle.document["mounts"].append({**entry, "options": ["bind", *more] if source else []})


def everything_below(folder: Path) -> dict[str, Any]:
    """Names, kinds, and what is in the files."""
    return {
        str(path): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_fifo()
    }


# --- mount targets


@pytest.mark.parametrize("overlay", ["root:memory", "none"])
@pytest.mark.parametrize("way", ["absolute", "relative", "dots", "last"])
def test_mount_target_through_a_link_stays_in_the_root(
    bundle: Bundle, image: Path, outside: Path, way: str, overlay: str
) -> None:
    inside = image / str(outside).lstrip("/")
    inside.mkdir(parents=True)
    up = "../" * 30 + str(outside).lstrip("/")
    links = {"absolute": str(outside), "relative": up}
    if way in links:
        (image / "link").symlink_to(links[way])
        destination = "/link/new"
    elif way == "last":
        (image / "link").symlink_to(outside)
        destination = "/link"
    else:
        destination = f"/{up}/new"
    before = everything_below(outside)
    add_mount(bundle, destination)
    add_mount(bundle, f"{destination}/file", bundle.rootfs / "etc" / "passwd", "ro")
    name = "/file" if way == "last" else "/new/file"

    done = shell(bundle, f"cat {outside}{name}; ls {outside}", f"--overlay2={overlay}")

    assert done.stdout.startswith("root:"), (done.stdout, done.stderr)
    assert "secret" not in done.stdout
    assert everything_below(outside) == before


def test_mount_target_that_is_exchanged_meanwhile_stays_in_its_volume(
    bundle: Bundle, image: Path, outside: Path, tmp_path: Path
) -> None:
    """Another container that has the same volume changes a directory for a link and back."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "d").mkdir()
    (volume / "link").symlink_to(outside)
    script = (
        'import ctypes, sys; rename = ctypes.CDLL(None).renameat2; a, b = sys.argv[1:]\n'
        "while True: rename(-100, a.encode(), -100, b.encode(), 2)"
    )
    paths = str(volume / "d"), str(volume / "link")
    racer = subprocess.Popen(["python3", "-c", script, *paths])
    add_mount(bundle, "/mnt", volume)
    for number in range(8):
        add_mount(bundle, f"/mnt/d/{number}/x")
    before = everything_below(outside)
    try:
        done = shell(bundle, "echo here")
    finally:
        racer.kill()
        racer.wait()

    assert done.stdout == "here\n" or "mount tmpfs to /mnt/d/" in done.stderr, done
    assert everything_below(outside) == before


# --- roots


FORMS = ["{}/", "{}/.", "{}//", "{}/../image", "{}/bin/..", "link", "link/"]


@pytest.mark.parametrize("form", FORMS)
def test_root_by_any_name_is_that_root(
    bundle: Bundle, image: Path, tmp_path: Path, form: str
) -> None:
    (tmp_path / "link").symlink_to(image)
    (tmp_path / "beside").write_text("beside the root\n")
    path = form.format(image) if "{" in form else f"{tmp_path}/{form}"
    bundle.document["root"] = {"path": path, "readonly": True}

    done = shell(
        bundle,
        "cat /../beside /bin/../../beside /proc/self/root/../beside 2>&1;"
        "stat -c %i / /.. /bin/../..; echo x 2>/dev/null >/x || echo read-only",
    )

    *refused, first, second, third, last = done.stdout.splitlines()
    assert len(refused) == 3 and all("No such file" in line for line in refused), done
    assert (first, second, last) == (second, third, "read-only")
    assert not (image / "x").exists()


# --- masked and read-only paths


def test_masked_path_is_masked_by_every_way(bundle: Bundle, image: Path) -> None:
    (image / "etc" / "secret").write_text("masked\n")
    (image / "etc" / "folder").mkdir()
    (image / "etc" / "folder" / "secret").write_text("masked\n")
    (image / "link").symlink_to("etc/secret")
    (image / "folders").symlink_to("/etc/folder")
    bundle.document["linux"]["maskedPaths"] = ["/etc/secret", "/tmp/../etc/folder/"]
    bundle.document["linux"]["readonlyPaths"] = ["/proc/sys"]
    script = """
    cat /etc/secret /link /etc/../etc/secret /proc/self/root/etc/secret /proc/1/root/etc/secret
    cat /etc/folder/secret folders/secret /proc/self/cwd/etc/folder/secret
    cd /etc/folder; cat secret ../secret
    ln /etc/secret /tmp/hard && cat /tmp/hard
    echo x >/proc/sys/kernel/hostname; echo x >/proc/self/root/proc/sys/kernel/hostname
    echo end"""

    done = shell(bundle, script)

    assert done.stdout == "end\n", (done.stdout, done.stderr)


def test_mask_holds_in_namespaces_that_the_program_makes(bundle: Bundle, image: Path) -> None:
    """With every capability there: what a more privileged namespace has mounted is locked."""
    (image / "etc" / "folder").mkdir()
    for path in (image / "etc" / "secret", image / "etc" / "folder" / "secret"):
        path.write_text("masked\n")
    bundle.document["process"]["user"] = {"uid": 1000, "gid": 1000}
    bundle.document["linux"]["maskedPaths"] = ["/etc/secret", "/etc/folder", "/proc/keys"]
    bundle.document["linux"]["readonlyPaths"] = ["/proc/sys"]
    script = """
    exec 2>/dev/null
    unshare -r -m sh -c '
        mount -t tmpfs none /tmp && echo may mount
        umount /etc/secret; umount /etc/folder; umount -l /etc/folder
        mount --bind / /mnt; mount --bind /etc /mnt
        cat /etc/secret /etc/folder/secret /mnt/etc/secret /mnt/secret /mnt/folder/secret
        mount -o remount,rw /proc/sys && echo can be written'
    unshare -r -m -p -f sh -c '
        mount -t tmpfs none /tmp && echo may mount
        mount -t proc proc /mnt && echo another /proc'
    echo end"""

    done = shell(bundle, script)

    assert done.stdout == "may mount\nmay mount\nend\n", (done.stdout, done.stderr)


def test_mask_is_the_null_device_and_not_what_an_image_calls_so(
    bundle: Bundle, image: Path
) -> None:
    bundle.document["mounts"] = [
        one for one in bundle.document["mounts"] if not one["destination"].startswith("/dev")
    ]
    (image / "etc" / "secret").write_text("masked\n")
    (image / "dev" / "null").symlink_to("/etc/secret")
    bundle.document["linux"]["maskedPaths"] = ["/etc/secret"]

    done = shell(bundle, "cat /etc/secret")

    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot mask /etc/secret: /dev/null is not that device" in done.stderr


# --- descriptors of the caller, and its program


def test_directory_that_the_caller_leaves_open_reaches_nobody(
    bundle: Bundle, outside: Path, tmp_path: Path
) -> None:
    folder = os.open(outside, os.O_RDONLY)
    leaked = [fcntl.fcntl(folder, fcntl.F_DUPFD, 20) for _ in range(6)]
    script = (
        "exec 2>&1; echo /proc/self/fd/*; read x; cat /proc/self/fd/*/secret /proc/1/fd/*/secret"
    )
    command = bundle.args("/bin/sh", "-c", script).command()
    command.insert(command.index("run") + 1, f"--pid-file={tmp_path}/pid")
    try:
        run = subprocess.Popen(
            command, pass_fds=leaked, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
        )  # fmt: skip
    finally:
        for fd in {folder, *leaked}:
            os.close(fd)
    assert run.stdout is not None
    seen = run.stdout.readline().split()
    pid = int((tmp_path / "pid").read_text())
    held = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    output, errors = run.communicate("\n", timeout=TIMEOUT_S)

    assert seen == [f"/proc/self/fd/{n}" for n in range(4)]  # 3 reads the directory
    assert "secret of" not in output + errors
    assert str(outside) not in held


def test_working_directory_through_a_descriptor_is_no_directory(bundle: Bundle) -> None:
    client = Client(bundle)
    bundle.args("/bin/sh", "-c", "sleep 1000")
    client.create("c")
    client.ok("start", "c")
    try:
        for number in range(12):
            done = client.call("exec", f"--cwd=/proc/self/fd/{number}", "c", "ls")
            assert done.returncode and "chdir to cwd" in done.stderr
    finally:
        client.ok("delete", "--force", "c")
    for number in (3, 7):
        bundle.document["process"]["cwd"] = f"/proc/self/fd/{number}"
        done = bundle.args("ls").run()
        assert (done.returncode, done.stdout) == (1, "")


def test_proc_self_exe_is_never_the_runtime(bundle: Bundle, image: Path) -> None:
    busybox = (image / "bin" / "busybox").read_bytes()
    (image / "script").write_text("#!/proc/self/exe\n")
    (image / "script").chmod(0o755)
    bundle.document["process"]["args"] = ["/proc/self/exe", "--version"]
    first = bundle.run(flags=["--overlay2=none"])
    scripted = bundle.args("/script", "--version").run(flags=["--overlay2=none"])
    client = Client(bundle)
    bundle.args("/bin/sh", "-c", "sleep 1000")
    client.create("c")
    client.ok("start", "c")
    try:
        executed = client.call("exec", "c", "/proc/self/exe", "--version")
        inside = client.call(
            "exec", "c", "sh", "-c",
            "for n in /proc/[0-9]*/exe /proc/self/exe; do ls -l $n; (echo >$n) 2>&1; done",
        )  # fmt: skip
    finally:
        client.ok("delete", "--force", "c")

    assert {one.returncode for one in (first, scripted)} == {1}
    assert executed.returncode != 0
    assert "python" not in inside.stdout and "runsc" not in inside.stdout
    assert inside.stdout.count("/bin/busybox") == inside.stdout.count("Text file busy") == 3
    assert (image / "bin" / "busybox").read_bytes() == busybox


# --- capabilities


def test_capabilities_are_not_inherited_unless_the_bundle_says_so(bundle: Bundle) -> None:
    client = Client(bundle)
    script = "cat /proc/self/status"
    bundle.args("/bin/sh", "-c", f"{script}; sleep 1000")
    client.create("c")
    client.ok("start", "c")
    try:
        texts = [
            client.ok("exec", "c", "sh", "-c", script),
            client.ok("exec", "--cap", "CAP_NET_RAW", "c", "sh", "-c", script),
            client.ok("exec", "--user", "1000", "--cap", "CAP_NET_RAW", "c", "sh", "-c", script),
        ]
        texts.append(client.output("c"))
    finally:
        client.ok("delete", "--force", "c")
    for text in texts:
        sets = dict(line.split(":\t") for line in text.splitlines() if line.startswith("Cap"))
        assert int(sets["CapInh"], 16) == 0, text
        assert int(sets["CapAmb"], 16) == 0, text


def test_ambient_capability_that_is_not_inheritable_is_none(bundle: Bundle) -> None:
    """As PR_CAP_AMBIENT_RAISE has it: an ordinary user would keep it over execve(2)."""
    sets = ("bounding", "effective", "permitted", "ambient")
    bundle.document["process"]["capabilities"] = {name: ["CAP_KILL"] for name in sets}
    bundle.document["process"]["user"] = {"uid": 1000, "gid": 1000}

    done = bundle.args("sh", "-c", "cat /proc/self/status").run()

    found = dict(line.split(":\t") for line in done.stdout.splitlines() if line[:3] == "Cap")
    assert {int(found[name], 16) for name in ("CapAmb", "CapEff", "CapPrm")} == {0}


# --- the host's sockets and files


@pytest.mark.parametrize("network", ["none", "host"])
def test_abstract_socket_of_the_host_is_not_there(
    bundle: Bundle, escapes: Path, network: str
) -> None:
    name = f"runsc-test-{os.getpid()}"
    add_mount(bundle, "/escapes", escapes, "ro")
    listeners = []
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        listeners.append(socket.socket(socket.AF_UNIX, kind))
        listeners[-1].bind(f"\0{name}-{kind}" if kind != socket.SOCK_STREAM else f"\0{name}")
        if kind != socket.SOCK_DGRAM:
            listeners[-1].listen()
    names = [name, f"{name}-{socket.SOCK_DGRAM}", f"{name}-{socket.SOCK_SEQPACKET}"]
    script = ";".join(f"/escapes abstract {one}" for one in names)
    try:
        done = shell(bundle, script, f"--network={network}")
    finally:
        for one in listeners:
            one.close()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("size", [100, 300_000, 20 << 20])
def test_file_that_may_only_be_read_stays_as_it_is(
    bundle: Bundle, escapes: Path, tmp_path: Path, size: int
) -> None:
    """Copy on write, pipes that hold pages, and all that is refused at once."""
    data = bytes(range(32, 127)) * (size // 95 + 1)
    file = tmp_path / "file"
    file.write_bytes(data[:size])
    before = os.stat(file)
    add_mount(bundle, "/escapes", escapes, "ro")
    add_mount(bundle, "/file", file, "ro")
    add_mount(bundle, "/tmp")
    sets = ("bounding", "effective", "permitted")
    rights = ["CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_CHOWN", "CAP_SYS_PTRACE"]
    bundle.document["process"]["capabilities"] = dict.fromkeys(sets, rights)

    done = shell(bundle, "/escapes dirty /file")

    after = os.stat(file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert file.read_bytes() == data[:size]
    assert (before.st_mtime_ns, before.st_mode, before.st_uid) == (
        after.st_mtime_ns, after.st_mode, after.st_uid,
    )  # fmt: skip


# --- what the command line opens


class Opened:
    """Who opens what in some directories: fanotify(7)."""

    def __init__(self, folders: list[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.fanotify_init(FAN_NONBLOCK, os.O_RDONLY)
        if self.fd < 0:
            pytest.skip(f"fanotify_init: {os.strerror(ctypes.get_errno())}")
        mask = ctypes.c_uint64(FAN_OPEN | FAN_ONDIR | FAN_EVENT_ON_CHILD)
        for folder in folders:
            if libc.fanotify_mark(self.fd, FAN_MARK_ADD, mask, -100, os.fsencode(folder)):
                pytest.skip(f"fanotify_mark: {os.strerror(ctypes.get_errno())}")

    def events(self) -> Iterator[tuple[int, str]]:
        """(process, path) since the last time."""
        while True:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                return
            while data:
                length, _, _, _, _, fd, pid = struct.unpack_from("<IBBHQii", data)
                yield pid, os.readlink(f"/proc/self/fd/{fd}")
                os.close(fd)
                data = data[length:]


@pytest.mark.root
def test_command_line_opens_no_file_of_the_container(bundle: Bundle, image: Path) -> None:
    """Names of users, the working directory, programs, terminals: the Sentry looks them up."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    (image / "etc" / "passwd").write_text("root:x:0:0:root:/tmp:/bin/sh\n")
    opened = Opened([image, *(path for path in image.rglob("*") if path.is_dir())])
    pids = set()

    def call(*args: str) -> None:
        command = subprocess.Popen(
            client.command(*args), cwd=REPOSITORY, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        pids.add(command.pid)
        command.wait(TIMEOUT_S)

    client = Client(bundle)
    bundle.args("sh", "-c", "cat /etc/passwd; sleep 1000").write()
    call("create", f"--bundle={bundle.path}", "c")
    call("start", "c")
    for arguments in (("--cwd=/tmp", "c", "ls"), ("--user=0:0", "c", "cat", "/etc/passwd")):
        call("exec", *arguments)
    call("ps", "c")
    call("kill", "c", "KILL")
    call("delete", "--force", "c")

    events = list(opened.events())
    os.close(opened.fd)
    assert any(path.endswith("/etc/passwd") for _, path in events), "the Gofer opens it"
    assert not [(pid, path) for pid, path in events if pid in pids]


def test_fifo_where_the_runtime_reads_holds_nothing_up(bundle: Bundle, image: Path) -> None:
    for name in ("passwd", "group"):
        os.mkfifo(image / "etc" / name)

    done = bundle.args("/bin/sh", "-c", "echo $HOME").run()

    assert (done.stdout, done.returncode) == ("/\n", 0), done
