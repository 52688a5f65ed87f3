"""A host with SELinux that enforces a policy which knows containers: whose label has what.

Debian's policy, with what runsc adds to it (runsc/launch/runsc_kvm.cil), in the machine of
`ci/svm/run --selinux`; and any other host that has such a policy.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runsc.launch import label
from tests.e2e.bundle import REPOSITORY, STEPS, TIMEOUT_S, Bundle
from tests.e2e.client import Client

PROCESS = "system_u:system_r:container_kvm_t:s0:c1,c2"
FORBIDDEN = "system_u:system_r:init_t:s0"
FILES = "system_u:object_r:container_file_t:s0:c1,c2"
INIT = "unable to start container process: error during container init: "


def _is_known(context: str) -> bool:
    """Whether the policy has it, and enforces."""
    try:
        Path(label.SELINUX, "context").write_text(context)
        return Path(label.SELINUX, "enforce").read_text() == "1"
    except OSError:
        return False


pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not _is_known(PROCESS), reason="no SELinux that knows containers"),
]


@pytest.fixture
def client(bundle: Bundle) -> Iterator[Client]:
    """Of a bundle that has both labels."""
    for path in (STEPS, bundle.path):  # which the Sentry writes to, and what lies in it
        _label(path, "system_u:object_r:container_file_t:s0")
    bundle.document["process"]["selinuxLabel"] = PROCESS
    bundle.document["linux"]["mountLabel"] = FILES
    made = Client(bundle)
    yield made
    made.call("delete", "--force", "c")


def _label(path: Path, context: str) -> None:
    os.setxattr(path, "security.selinux", f"{context}\0".encode())


def _folder(path: Path, context: str) -> Path:
    """With a file that says what it is."""
    path.mkdir()
    path.chmod(0o777)
    (path / "file").write_text("read")
    for each in (path, path / "file"):
        _label(each, context)
    return path


def _start(client: Client, *args: str) -> None:
    client.bundle.args(*args)
    client.create("c")
    client.ok("start", "c")


def test_label_is_on_all_that_carries_a_container(client: Client) -> None:
    _start(client, "sleep", "1000")

    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            title = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
            if title.startswith("runsc"):
                found[title] = (process / "attr/current").read_text().rstrip("\0")
    carriers = {f"runsc{name}: c" for name in ("", "-sentry", "-gofer", "-network")}
    assert found == dict.fromkeys(carriers, PROCESS)
    assert client.ok("exec", "c", "echo", "fine") == "fine\n"


def test_what_is_mounted_for_a_container_has_its_label(client: Client) -> None:
    _start(client, "sleep", "1000")

    state = json.loads((client.root / "c" / "state.json").read_text())
    for name in ("sentryPid", "goferPid"):
        (line,) = Path(f"/proc/{state[name]}/mountinfo").read_text().splitlines()
        assert f'runsc-empty ro,context="{FILES}"' in line


def test_file_that_holds_what_is_written_has_its_label(client: Client, tmp_path: Path) -> None:
    bundle = client.bundle.args("sh", "-c", "echo written >/new; cat /new")

    done = bundle.run(flags=[f"--overlay2=root:dir={tmp_path}"])

    assert (done.returncode, done.stdout) == (0, "written\n"), done.stderr


def test_policy_decides_about_files_of_the_host(client: Client, tmp_path: Path) -> None:
    """By type, and by the categories that tell containers apart."""
    kind = "system_u:object_r:container_file_t"
    folders = {
        "own": FILES, "everybody": f"{kind}:s0", "other": f"{kind}:s0:c3,c4",
        "secret": "system_u:object_r:shadow_t:s0",
    }  # fmt: skip
    for name, context in folders.items():
        source = str(_folder(tmp_path / name, context))
        mount = {"destination": f"/{name}", "source": source, "options": ["bind", "rw"]}
        client.bundle.document["mounts"].append(mount)
    script = f"for n in {' '.join(folders)}; do cat /$n/file && echo >/$n/new; echo; done 2>&1"

    said = client.bundle.args("sh", "-c", script).run().stdout.split("\n")

    assert [line for line in said if line] == [
        "read", "read", "cat: can't open '/other/file': Permission denied",
        "cat: can't open '/secret/file': Permission denied",
    ]  # fmt: skip
    new = {name: tmp_path / name / "new" for name in folders}
    assert [name for name, path in new.items() if path.exists()] == ["own", "everybody"]
    assert os.getxattr(new["everybody"], "security.selinux").decode().rstrip("\0") == FILES


@pytest.mark.parametrize(
    ("label", "what"),
    [
        ("system_u:system_r:no_such_t:s0", "label: write /proc/self/attr/exec: invalid argument"),
        (FORBIDDEN, f"label {FORBIDDEN}: execve: permission denied"),
    ],
)
def test_label_that_cannot_be_had_is_refused(client: Client, label: str, what: str) -> None:
    client.bundle.document["process"]["selinuxLabel"] = label

    done = client.bundle.args("true").run()

    assert done.returncode == 1
    assert f"{INIT}unable to apply selinux {what}" in done.stderr


def test_stream_that_the_policy_forbids_is_named(client: Client, tmp_path: Path) -> None:
    output = tmp_path / "output"
    command = client.bundle.args("true").command()

    with output.open("w") as file:
        _label(output, "system_u:object_r:shadow_t:s0")
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE, text=True,
            timeout=TIMEOUT_S, check=False, cwd=REPOSITORY,
        )  # fmt: skip

    assert done.returncode == 1
    assert "the caller's descriptor 1: permission denied" in done.stderr


def test_mount_label_that_does_not_exist_is_refused(client: Client) -> None:
    client.bundle.document["linux"]["mountLabel"] = "system_u:object_r:no_such_t:s0"

    done = client.bundle.args("true").run()

    assert done.returncode == 1
    assert "mountLabel system_u:object_r:no_such_t:s0: invalid argument" in done.stderr
