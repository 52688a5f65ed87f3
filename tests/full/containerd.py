"""containerd with state of its own, a shim for the runtime of these tests, images made here.

This runtime has a shim of its own; runc and gVisor (Debian has none for it) are called by runc's.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runsc.engines.settings import SHIM
from tests.e2e.bundle import REPOSITORY, Result
from tests.full.runtimes import FOUND, RUNTIME

LOOP = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done"
TIMEOUT_S = 60
IMAGE, PAUSE = "localhost/bb:latest", "localhost/pause:latest"
CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/c.sock"
[ttrpc]
  address = "{folder}/c.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  stream_server_port = "0"
  enable_cdi = true
  cdi_spec_dirs = ["{folder}/cdi"]
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runsc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]
      runtime_type = "io.containerd.runsc.v1"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc.options]
        root = "{folder}/runsc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.untrusted]
      runtime_type = "io.containerd.runsc.v1"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.untrusted.options]
        root = "{folder}/runsc/untrusted"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc-host]
      runtime_type = "io.containerd.runsc.v1"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc-host.options]
        root = "{folder}/runsc"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc-host.options.runsc_config]
          network = "host"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc-plain]
      runtime_type = "io.containerd.runsc.v1"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.other]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.other.options]
        BinaryName = "{other}"
"""


PLUGINS = Path("/usr/lib/cni")
PTP = {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.213.7.0/24"}}


def archive(path: Path, name: str, folder: Path, command: str) -> Path:
    """An image of a folder: image-spec 1.0, and as `docker load` takes it."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        kind = f"application/vnd.oci.image.{kind}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(folder, ".")
    made = blob("layer.v1.tar", layer.getvalue())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": [command]},
        "rootfs": {"type": "layers", "diff_ids": [made["digest"]]},
    }
    document = {
        "schemaVersion": 2,
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": [made],
    }
    manifest = blob("manifest.v1+json", json.dumps(document).encode())
    manifest["annotations"] = {"io.containerd.image.name": name}
    index = {"schemaVersion": 2, "manifests": [manifest]}
    config_file, layer_file = (
        f"blobs/{str(each['digest']).replace(':', '/')}" for each in (document["config"], made)
    )
    for_docker = [{"Config": config_file, "RepoTags": [name], "Layers": [layer_file]}]
    files = {
        "manifest.json": json.dumps(for_docker).encode(),
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **{f"blobs/sha256/{digest}": data for digest, data in blobs.items()},
    }
    with tarfile.open(path, "w") as tar:
        for each, data in files.items():
            info = tarfile.TarInfo(each)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def _with_addresses(plugin: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A CNI plugin that notes there which addresses it has given."""
    if "ipam" not in plugin:
        return plugin
    return {**plugin, "ipam": {**plugin["ipam"], "dataDir": f"{folder}/addresses"}}


class Containerd:
    """containerd with state of its own, two images, and our shim on its PATH."""

    def __init__(
        self,
        folder: Path,
        rootfs: Path,
        programs: Path,
        network: Sequence[dict[str, Any]] = (PTP,),
    ) -> None:
        self.folder = folder
        self._programs = programs
        self._count = 0
        self.namespace = "default"
        path = folder / "bin"
        path.mkdir()
        shim = path / SHIM
        shim.write_text(
            f'#!/bin/sh\n{FOUND} exec "{sys.executable}" -m runsc.shim.program'
            ' "$@"\n'
        )
        shim.chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        self._other = RUNTIME.script(folder / "other")
        config = CONFIG.format(folder=folder, pause=PAUSE, plugins=PLUGINS, other=self._other)
        (folder / "config.toml").write_text(config)
        (folder / "cni").mkdir()
        (folder / "cdi").mkdir()
        (folder / "cni" / "net.conflist").write_text(
            json.dumps(
                {
                    "cniVersion": "0.4.0",
                    "name": f"runsc-test-{os.getpid()}",
                    "plugins": [_with_addresses(each, folder) for each in network],
                }
            )
        )
        self.start()
        pause = folder / "pause"
        pause.mkdir()
        shutil.copy(REPOSITORY / "runsc" / "launch" / "built" / "pause", pause)
        for name, tree, command in ((IMAGE, rootfs, "sh"), (PAUSE, pause, "/pause")):
            image = archive(folder / "image.tar", name, tree, command)
            for self.namespace in ("k8s.io", "default"):
                self.ok("image", "import", "--snapshotter=native", "--local", str(image))
                self.ok("image", "label", name, "io.cri-containerd.image=managed")

    def start(self) -> None:
        """Until it answers."""
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [self._programs / "containerd", "--config", self.folder / "config.toml"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        until(lambda: self.call("version").returncode == 0)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(TIMEOUT_S)

    def command(self, *args: str) -> list[str]:
        flags = [f"--address={self.folder}/c.sock", f"--namespace={self.namespace}"]
        return [str(self._programs / "ctr"), *flags, *args]

    def call(self, *args: str, stdin: str = "") -> Result:
        return subprocess.run(
            self.command(*args),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def ok(self, *args: str, stdin: str = "") -> str:
        """A command that must succeed."""
        result = self.call(*args, stdin=stdin)
        assert result.returncode == 0, (args, result.stdout, result.stderr)
        return result.stdout

    def run_flags(self, *flags: str) -> list[str]:
        if not RUNTIME.is_ours:
            runc = ("--runtime=io.containerd.runc.v2", f"--runc-binary={self._other}")
            return ["run", *runc, "--snapshotter=native", *flags, IMAGE]
        runtime = self.folder / "runsc.toml"
        runtime.write_text(f'root = "{self.folder}/runsc"\n')
        return [
            "run", "--runtime=io.containerd.runsc.v1", "--snapshotter=native",
            f"--runtime-config-path={runtime}", *flags, IMAGE,
        ]  # fmt: skip

    def detached(self, *flags: str) -> str:
        """A container that loops; its name."""
        self._count += 1
        name = f"c{self._count}"
        log = self.folder / f"{name}.log"
        self.ok(*self.run_flags("-d", f"--log-uri=file://{log}", *flags), name, "sh", "-c", LOOP)
        until(lambda: "up" in log.read_text())
        return name

    def status(self, name: str) -> str:
        """Of a task; "" if there is none."""
        lines = [line.split() for line in self.ok("task", "ls").splitlines()]
        return next((words[2] for words in lines if words[0] == name), "")

    def remove(self, name: str) -> None:
        self.call("task", "kill", "-s", "KILL", name)
        until(lambda: self.status(name) in ("STOPPED", ""))
        self.call("task", "rm", name)
        self.ok("container", "rm", name)

    def unmount(self) -> None:
        """What pods have left that a failed test did not remove."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        mounts = [line.split(" ")[4] for line in lines]
        for path in reversed(mounts):
            if path.startswith(f"{self.folder}/"):
                subprocess.run(["umount", path], check=True)

    def shims(self) -> list[int]:
        """Pids of the shims of this containerd."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"{self.folder}/c.sock".encode() in words and b"start" in words:
                found.append(int(entry.name))
        return found


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that another process brings about."""
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_clean(root: Path) -> bool:
    """No container is noted there."""
    return not list(root.rglob("state.json"))


def programs_of(version: str) -> Path:
    if version == "installed":
        return Path(shutil.which("containerd") or "").parent
    known = os.environ.get("RUNSC_ROOTFS_CONTAINERD")
    if not known:
        pytest.skip("no root file system with containerd: RUNSC_ROOTFS_CONTAINERD")
    return Path(known) / "usr" / "bin"
