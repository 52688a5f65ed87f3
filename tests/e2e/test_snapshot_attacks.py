"""Images that claim more than a program of their bundle can have: it is refused, or not given."""

from __future__ import annotations

import base64
import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runsc import Sandbox, SandboxError
from runsc.containers import snapshots
from sentry.abi.fcntl import O_RDWR, O_TRUNC
from tests.e2e import sandboxes
from tests.e2e.bundle import TIMEOUT_S, Result
from tests.e2e.test_snapshots import Machine, wait_for
from tests.full.hostile_images import Image

SCRIPT = """
exec 3</given/file 4</given/file; echo ready
while [ ! -e /given/go ]; do sleep 0.01; done
"""
Claim = Callable[[Any], object]


class Attack:
    """A snapshot of a container to which a folder of the host was given, as /given."""

    def __init__(self, machine: Machine, script: str = "", **process: Any) -> None:
        self._machine = machine
        self.given = machine.folder / "given"
        self.given.mkdir()
        (self.given / "file").write_text("as it was\n")
        (self.given / "hidden").mkdir()
        (self.given / "hidden" / "secret").write_text("secret\n")
        os.chown(self.given, 1000, 1000)
        self.bundle = machine.bundle(SCRIPT + script)
        document = self.bundle.document
        document["process"].update(process)
        document["mounts"].append(
            {"destination": "/given", "source": str(self.given), "options": ["bind"]}
        )

    def configure(self, change: Callable[[Any], object]) -> Attack:
        """Of the bundle."""
        self.bundle.configure(change)
        return self

    def claims(self, claim: Claim) -> Result:
        """Restore an image that says something else; what came of it, once it may go on."""
        self.bundle.write()
        out = self._machine.begin("run", f"--bundle={self.bundle.path}", "a")
        wait_for(out, 1)
        done = self._machine.checkpoint("a")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        image = Image(self._machine.image)
        objects = copy.deepcopy(image.objects)
        claim(objects)
        self._machine.image = image.with_objects(self._machine.folder / "hostile", objects)
        (self.given / "go").touch()
        return self._machine.restore(self.bundle, "b")


@pytest.fixture
def machine(tmp_path: Path, busybox: Path, platform: str) -> Iterator[Machine]:
    made = Machine(tmp_path, busybox, platform)
    yield made
    made.close()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def of_file(objects: Any) -> Any:
    """The record of an open file that the script has."""
    wanted = encoded(b"file")
    return next(each for each in objects["files"] if each.get("place", {}).get("path") == wanted)


def refused(done: Result, why: str) -> None:
    assert done.returncode == 1 and "cannot restore" in done.stderr, done
    assert why in done.stderr, done.stderr


def test_a_sysctl_is_no_path_out_of_proc(machine: Machine) -> None:
    attack = Attack(machine)
    done = attack.claims(lambda objects: objects["sysctls"].update({"../../given/file": "broken"}))
    refused(done, "no value below /proc/sys")
    assert (attack.given / "file").read_text() == "as it was\n"


def hold_sysctls(document: Any) -> None:
    document["linux"]["readonlyPaths"] = ["/proc/sys"]
    document["linux"]["sysctl"] = {"kernel.shm_rmid_forced": "1"}


def open_sysctls(document: Any) -> None:
    document["linux"]["readonlyPaths"] = []


def give_sys_admin(document: Any) -> None:
    hold_sysctls(document)
    for names in document["process"]["capabilities"].values():
        names.append("CAP_SYS_ADMIN")


@pytest.mark.parametrize(
    ("configure", "user", "swappiness"),
    [
        (hold_sysctls, 0, "60"), (give_sys_admin, 0, "7"),
        (open_sysctls, 0, "7"), (open_sysctls, 1000, "60"),
    ],
)  # fmt: skip
def test_a_sysctl_is_as_some_program_can_have_set_it(
    machine: Machine, configure: Callable[[Any], object], user: int, swappiness: str
) -> None:
    attack = Attack(
        machine, "cat /proc/sys/vm/swappiness /proc/sys/kernel/shm_rmid_forced",
        user={"uid": user, "gid": user},
    ).configure(configure)  # fmt: skip
    forced = "0" if configure is open_sysctls else "1"
    done = attack.claims(lambda objects: objects["sysctls"].update({"vm/swappiness": "7"}))
    assert (done.returncode, done.stdout.split()) == (0, [swappiness, forced]), done


def test_a_file_of_a_mount_that_is_read_only_is_not_written(machine: Machine) -> None:
    attack = Attack(machine, "echo broken >&3")
    attack.configure(lambda document: document["mounts"][-1]["options"].append("ro"))

    def claim(objects: Any) -> None:
        of_file(objects)["flags"] |= O_RDWR

    refused(attack.claims(claim), "/file cannot be opened")
    assert (attack.given / "file").read_text() == "as it was\n"


def test_an_open_file_is_not_truncated(machine: Machine) -> None:
    attack = Attack(machine)

    def claim(objects: Any) -> None:
        of_file(objects)["flags"] |= O_RDWR | O_TRUNC

    assert attack.claims(claim).returncode == 0
    assert (attack.given / "file").read_text() == "as it was\n"


def test_a_file_below_another_mount_stays_hidden(machine: Machine) -> None:
    attack = Attack(machine, "cat <&3")
    attack.configure(
        lambda document: document["mounts"].append(
            {"destination": "/given/hidden", "type": "tmpfs", "source": "tmpfs"}
        )
    )

    def claim(objects: Any) -> None:
        of_file(objects)["place"]["path"] = encoded(b"hidden/secret")

    refused(attack.claims(claim), "a mount hides")


def test_a_directory_of_the_root_below_a_mount_stays_hidden(machine: Machine) -> None:
    attack = Attack(machine, "ls /seen")
    attack.configure(
        lambda document: document["mounts"].append(
            {"destination": "/usr", "type": "tmpfs", "source": "tmpfs"}
        )
    )

    def claim(objects: Any) -> None:
        tree = next(each for each in objects["trees"] if each.get("differences"))
        tree["differences"].append({"ino": 1 << 33, "lower": encoded(b"usr")})
        root = tree["differences"][0]
        root.setdefault("changed", []).append([encoded(b"seen"), len(tree["differences"]) - 1])

    refused(attack.claims(claim), "what a mount sits on has moved")


def test_a_directory_with_a_mount_has_not_lost_its_name(machine: Machine) -> None:
    """Through a name of its own what the mount hides would be seen."""
    attack = Attack(machine)
    attack.bundle.document["process"]["args"][-1] = "exec 5</var;" + SCRIPT + "ls /proc/$$/fd/5/tmp"
    attack.configure(
        lambda document: document["mounts"].append(
            {"destination": "/var/tmp", "type": "tmpfs", "source": "tmpfs"}
        )
    )

    def claim(objects: Any) -> None:
        trees = objects["trees"]
        number = next(at for at, each in enumerate(trees) if each.get("differences"))
        found = trees[number]["differences"]
        var = encoded(b"var")
        known = [at for at, each in enumerate(found) if each.get("lower") == var]
        if not known:
            found.append({"ino": 1 << 33, "lower": var})
        place = next(
            each["place"] for each in objects["files"] if each.get("place", {}).get("path") == var
        )
        place.update(tree=number, inode=known[0] if known else len(found) - 1)

    refused(attack.claims(claim), "a directory on which a mount lies")


def test_an_unreadable_file_is_not_opened_for_a_user_who_may_not(machine: Machine) -> None:
    attack = Attack(machine, "cat <&3", user={"uid": 1000, "gid": 1000})
    (attack.given / "other").write_text("secret\n")
    (attack.given / "other").chmod(0o600)

    def claim(objects: Any) -> None:
        of_file(objects)["place"]["path"] = encoded(b"other")

    refused(attack.claims(claim), "/other cannot be opened")


def test_a_process_is_no_user_that_no_program_can_be(machine: Machine) -> None:
    attack = Attack(machine, user={"uid": 1000, "gid": 1000})

    def claim(objects: Any) -> None:
        for creds in objects["creds"]:
            creds["ids"] = [0] * 8

    refused(attack.claims(claim), "a process of user 0")


def test_capabilities_and_limits_are_the_bundles(machine: Machine) -> None:
    attack = Attack(machine, "grep ^Cap /proc/$$/status; ulimit -n; cat /proc/$$/oom_score_adj")
    attack.configure(lambda document: document["process"].update(oomScoreAdj=100))

    def claim(objects: Any) -> None:
        every = (1 << 64) - 1
        for creds in objects["creds"]:
            for name in ("effective", "permitted", "inheritable", "bounding", "ambient"):
                creds[name] = every
        for limits in objects["limits"]:
            limits[7] = [9999, 9999]
        for process in objects["processes"]:
            process["oom_score_adj"] = -1000

    done = attack.claims(claim)
    assert done.returncode == 0, done
    bundles = 0x20000420  # CAP_KILL, CAP_NET_BIND_SERVICE, CAP_AUDIT_WRITE
    found = [line.split() for line in done.stdout.splitlines()]
    assert {int(words[1], 16) for words in found[:5]} <= {0, bundles}, done.stdout
    assert found[5:] == [["1024"], ["100"]]


def test_a_profile_and_no_new_privs_are_put_back(machine: Machine) -> None:
    attack = Attack(machine, "mkdir /mem/made; ls /mem; grep NoNewPrivs /proc/$$/status")

    def seal(document: Any) -> None:
        document["process"]["noNewPrivileges"] = True
        rule = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
        document["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}

    def claim(objects: Any) -> None:
        for process in objects["processes"]:
            for thread in process["threads"]:
                if not thread.get("dead"):  # a zombie has none
                    assert thread.pop("filters") and thread.pop("no_new_privs")

    done = attack.configure(seal).claims(claim)
    assert done.stdout.split() == ["NoNewPrivs:", "1"], done


def test_a_device_needs_the_right_to_make_one(machine: Machine) -> None:
    attack = Attack(machine)

    def claim(objects: Any) -> None:
        tree = next(each for each in objects["trees"] if len(each.get("entries", ())) == 1)
        node = {**tree["entries"][0]["node"], "mode": 0o020666, "rdev": 0x103, "ino": 999}
        tree["entries"].append({"node": node})
        tree["entries"][0]["children"] = [[encoded(b"null"), 1]]

    refused(attack.claims(claim), "a device that no program")


def test_a_process_that_blocks_sigkill_dies_of_it(machine: Machine) -> None:
    attack = Attack(machine, "kill -9 $$; echo lives")

    def claim(objects: Any) -> None:
        for process in objects["processes"]:
            for thread in process["threads"]:
                thread["blocked"] = (1 << 64) - 1

    attack.configure(lambda document: document["process"].update(args=[
        "sh", "-c", f"({SCRIPT} kill -9 $(sh -c 'echo $PPID'); echo lives); echo $?"
    ]))  # fmt: skip
    assert attack.claims(claim).stdout.split() == ["137"]


def test_a_fifo_in_place_of_a_file_is_told_at_once(machine: Machine) -> None:
    attack = Attack(machine)
    attack.claims(lambda _: None)
    for name in (snapshots.MANIFEST, snapshots.OBJECTS, snapshots.PAGES):
        path = machine.image / name
        data = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        done = machine.restore(attack.bundle, "c")
        assert done.returncode == 1 and "this is no file" in done.stderr, done
        path.unlink()
        path.write_bytes(data)


def test_a_snapshot_from_elsewhere_asks_nothing_of_the_host(tmp_path: Path, busybox: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with sandboxes.made(tmp_path, busybox) as sandbox:
        sandbox.create_snapshot(tmp_path / "image")
    state = tmp_path / "state"
    Sandbox.restore(tmp_path / "image", state=state).kill()
    manifest = snapshots.read(str(tmp_path / "image"))
    order = json.loads(manifest.annotations["dev.runsc.order"])
    order["mounts"] = [["/given", str(folder), False]]
    changed = {**manifest.annotations, "dev.runsc.order": json.dumps(order)}
    hostile = msgspec.structs.replace(manifest, annotations=changed)
    hostile = msgspec.structs.replace(hostile, check=snapshots._check(hostile))
    (tmp_path / "image" / snapshots.MANIFEST).write_bytes(msgspec.json.encode(hostile))
    began = time.monotonic()
    with pytest.raises(SandboxError, match="was not made by this user"):
        Sandbox.restore(tmp_path / "image", state=state)
    assert time.monotonic() - began < TIMEOUT_S
