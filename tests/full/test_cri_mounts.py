"""Mounts, image volumes and devices of a pod's containers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.full import cri
from tests.full.containerd import IMAGE
from tests.full.pods import NEEDS, Pods, secured
from tests.full.runtimes import RUNTIME, only_ours

pytestmark = NEEDS


@pytest.mark.row("volumes: shared, read-only, a file, an image")
def test_mounts_are_shared_between_containers(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("before\n")
    pod = pods.run()
    mount = cri.Mount("/data", str(tmp_path))
    first, second = (pods.start(pod, mounts=[mount]) for _ in range(2))

    assert pods.shell(first, "cat /data/there; echo new >/data/made") == "before\n"

    assert pods.shell(second, "cat /data/made") == "new\n"
    assert (tmp_path / "made").read_text() == "new\n"


@pytest.mark.row("volumes: shared, read-only, a file, an image")
def test_readonly_mount_cannot_be_written(pods: Pods, tmp_path: Path) -> None:
    pod = pods.run()
    mounts = [cri.Mount("/data", str(tmp_path), read_only=True)]

    assert pods.output(pod, "touch /data/x || echo refused", mounts=mounts) == "refused\n"


@pytest.fixture
def shared_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of the host, a shared mount, with a file system mounted below it."""
    made = tmp_path / "shared"
    made.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", made], check=True)
    subprocess.run(["mount", "--make-shared", made], check=True)
    (made / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", made / "below"], check=True)
    yield made
    subprocess.run(["umount", "--recursive", made], check=True)


WRITES = "touch /data/x || echo refused; touch /data/below/x || echo refused below"


@pytest.mark.row("mountPropagation, recursiveReadOnly")
@pytest.mark.parametrize(
    ("recursive", "text"), [(False, "refused\n"), (True, "refused\nrefused below\n")]
)
def test_recursive_read_only_mount(
    pods: Pods, shared_folder: Path, recursive: bool, text: str
) -> None:
    if recursive and (RUNTIME.is_ours or "1.7." in pods.containerd.ok("version")):
        pytest.skip("containerd knows of them since 2.0, and of runc alone that it can do them")
    pod = pods.run()
    mount = cri.Mount("/data", str(shared_folder), read_only=True, recursive_read_only=recursive)

    assert pods.output(pod, f"{WRITES}; true", mounts=[mount]) == text


@pytest.mark.row("mountPropagation, recursiveReadOnly")
@pytest.mark.parametrize("propagation", [cri.PRIVATE, cri.HOST_TO_CONTAINER, cri.BIDIRECTIONAL])
def test_what_the_host_mounts_later_comes_if_it_is_to(
    pods: Pods, shared_folder: Path, propagation: int
) -> None:
    pod = pods.run(security=secured(privileged=True))  # containerd wants it for the last one
    mount = cri.Mount("/data", str(shared_folder), propagation=propagation)
    container = pods.start(pod, mounts=[mount], security=cri.Security(privileged=True))

    (shared_folder / "later").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", shared_folder / "later"], check=True)
    (shared_folder / "later" / "file").touch()

    come = "file\n" if propagation else ""
    assert pods.shell(container, "ls /data/later") == come
    pods.client.remove_container(container)


@pytest.mark.row("volumes: shared, read-only, a file, an image")
def test_mount_of_a_file(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 here\n")
    pod = pods.run()
    mounts = [cri.Mount("/etc/hosts", str(tmp_path / "hosts"))]

    assert pods.output(pod, "cat /etc/hosts", mounts=mounts) == "127.0.0.1 here\n"


@pytest.mark.row("volumes: shared, read-only, a file, an image")
def test_image_volume_shows_the_image(pods: Pods) -> None:
    if "1.7." in pods.containerd.ok("version"):
        pytest.skip("containerd 1.7 knows no image volumes")
    pod = pods.run()
    mounts = [cri.Mount("/image", read_only=True, image=cri.Image(IMAGE))]

    text = pods.output(pod, "ls /image/bin/sh; touch /image/x || echo refused", mounts=mounts)

    assert text == "/image/bin/sh\nrefused\n"


def _cdi(pods: Pods, tmp_path: Path, **edits: Any) -> None:
    """Devices of CDI: cncf.io/test=one has these edits."""
    spec = {
        "cdiVersion": "0.5.0",
        "kind": "cncf.io/test",
        "devices": [{"name": "one", "containerEdits": edits}],
    }
    (pods.containerd.folder / "cdi" / "test.json").write_text(json.dumps(spec))


@pytest.mark.row("CDI devices")
def test_cdi_device_brings_what_its_vendor_says(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "library").write_text("of the driver\n")
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat >{tmp_path}/told\n")
    hook.chmod(0o755)
    mount: dict[str, Any] = {"hostPath": f"{tmp_path}/library", "containerPath": "/lib/driver"}
    mount["options"] = ["ro", "bind"]
    hooks = [{"hookName": "createContainer", "path": str(hook)}]
    nodes = [{"path": "/dev/one", "hostPath": "/dev/null"}]
    _cdi(pods, tmp_path, env=["DRIVER=1"], mounts=[mount], hooks=hooks, deviceNodes=nodes)
    pod = pods.run()

    text = pods.output(
        pod,
        "echo $DRIVER; cat /lib/driver; stat -c '%t %T' /dev/one",
        cdi_devices=[cri.CdiDevice("cncf.io/test=one")],
    )

    assert text == "1\nof the driver\n1 3\n"
    assert json.loads((tmp_path / "told").read_text())["status"] == "creating"


@only_ours
def test_cdi_device_of_the_host_is_refused_by_its_name(pods: Pods, tmp_path: Path) -> None:
    import grpc  # noqa: PLC0415  an environment may be without it

    _cdi(pods, tmp_path, deviceNodes=[{"path": "/dev/kvm"}])
    pod = pods.run()
    bad = pods.create(pod, "true", cdi_devices=[cri.CdiDevice("cncf.io/test=one")])

    with pytest.raises(grpc.RpcError, match=r"/dev/kvm .c 10:232. is a device of the host"):
        pods.client.start(bad)


@pytest.mark.row("a device of the host (/dev/null)")
def test_device_of_the_host(pods: Pods) -> None:
    pod = pods.run()
    devices = [cri.Device("/dev/none", "/dev/null", "rwm")]

    text = pods.output(pod, "echo x >/dev/none; stat -c '%F %t %T' /dev/none", devices=devices)

    assert text == "character special file 1 3\n"
