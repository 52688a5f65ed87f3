"""Pods of one test: what the kubelet would ask of the CRI, and what its logs say."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.full import cri
from tests.full.containerd import IMAGE, PLUGINS, Containerd, is_clean, programs_of, until
from tests.full.runtimes import RUNTIME, is_there
from tests.full.streaming import Stream

HANDLER = "runsc" if RUNTIME.is_ours else "other"
NEEDS = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("containerd"), reason="needs containerd"),
    is_there,
    pytest.mark.skipif(not importlib.util.find_spec("grpc"), reason="needs grpcio"),
    pytest.mark.skipif(
        not (PLUGINS / "bridge").exists(), reason="needs containernetworking-plugins"
    ),
]
BRIDGE = f"rt{os.getpid()}"
SUBNET = "10.213.8."
PARENT = f"/{BRIDGE}"
"""A cgroup, as the kubelet has one for each pod."""
NETWORK = (
    {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "subnet": f"{SUBNET}0/24"},
    },
    {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
)
SLEEP = ("sleep", "1000")


@contextmanager
def networked(folder: Path, busybox: Path, version: str) -> Iterator[Containerd]:
    """A containerd, "installed" or "next", whose pods are behind a bridge."""
    for each in (folder, *folder.parents):  # a user namespace's root has to get in
        if not (mode := each.stat().st_mode) & 1:
            each.chmod(mode | 0o111)
    made = Containerd(folder, busybox, programs_of(version), NETWORK)
    yield made
    for pid in made.shims():
        os.kill(pid, signal.SIGKILL)
    made.stop()
    made.unmount()
    subprocess.run(["ip", "link", "del", BRIDGE], check=False)  # no pod may have needed it
    for path in (*Path("/sys/fs/cgroup").glob(f"*/{BRIDGE}"), Path("/sys/fs/cgroup", BRIDGE)):
        if path.is_dir():
            path.rmdir()


class Pods:
    """What one test makes."""

    def __init__(self, containerd: Containerd, logs: Path) -> None:
        self.containerd = containerd
        self.client = cri.Cri(f"{containerd.folder}/c.sock", HANDLER)
        self.logs = logs
        self._count = 0

    def run(
        self,
        security: cri.PodSecurity | None = None,
        sysctls: dict[str, str] | None = None,
        handler: str = HANDLER,
        **fields: Any,
    ) -> str:
        """A pod; its id."""
        self._count += 1
        name = f"pod{self._count}"
        linux = cri.LinuxPod(PARENT, security or cri.PodSecurity(cri.Namespaces()), sysctls or {})
        who = cri.Metadata(name, str(uuid.uuid4()), "default")
        fields.setdefault("hostname", name)
        pod = cri.Pod(who, log_directory=str(self.logs), linux=linux, **fields)
        return self.client.run_pod(pod, handler)

    def create(
        self,
        pod: str,
        *command: str,
        security: cri.Security | None = None,
        resources: cri.Resources | None = None,
        **fields: Any,
    ) -> str:
        """A container; its id."""
        self._count += 1
        name = f"c{self._count}"
        security = security or cri.Security()
        security.namespaces = security.namespaces or cri.Namespaces()
        linux = cri.LinuxContainer(resources, security)
        fields.setdefault("log_path", f"{name}.log")
        config = cri.Container(
            cri.Name(name), cri.Image(IMAGE), list(command), linux=linux, **fields
        )
        made = self.client.create(pod, config)
        self.log = self.logs / fields["log_path"]
        """Of the last one."""
        return made

    def start(self, pod: str, *command: str, **fields: Any) -> str:
        """The same, started."""
        made = self.create(pod, *(command or SLEEP), **fields)
        self.client.start(made)
        return made

    def serving(self, pod: str, script: str, **fields: Any) -> str:
        """A container that runs this for each connection to port 8080, and listens."""
        made = self.start(pod, "nc", "-ll", "-p", "8080", "-e", "sh", "-c", script, **fields)
        until(lambda: self.client.exec(made, "nc", "127.0.0.1", "8080").exit_code == 0)
        return made

    def output(self, pod: str, script: str, **fields: Any) -> str:
        """What a container of its own writes that ends well."""
        made = self.start(pod, "sh", "-c", script, **fields)
        self.ended(made)
        assert self.client.status(made).exit_code == 0, logged(self.log, "stderr")
        return logged(self.log)

    def ended(self, container: str) -> cri.Status:
        """Until it has."""
        until(lambda: self.client.status(container).state == cri.EXITED)
        return self.client.status(container)

    def shell(self, container: str, script: str) -> str:
        """What exec gives, which must end well."""
        execed = self.client.exec(container, "sh", "-c", script)
        assert execed.exit_code == 0, execed
        return execed.stdout.decode()

    def state(self, container: str) -> dict[str, Any]:
        """What this runtime has noted of it."""
        path = self.containerd.folder / "runsc" / "k8s.io" / container / "state.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def exec_stream(self, container: str, *command: str, **which: bool) -> Stream:
        """What runs in it, at our end of its streams."""
        request = cri.Exec(container, list(command), **which)
        return Stream(self.client.call("Exec", request, cri.Url).url)

    def end(self) -> None:
        """Nothing of them is left."""
        for pod in self.client.pods():
            self.client.remove_pod(pod)
        until(lambda: self.containerd.shims() == [])
        assert is_clean(self.containerd.folder / "runsc")
        self.client.close()


def logged(path: Path, stream: str = "stdout") -> str:
    """What a log of the CRI has of a stream: lines of "TIME STREAM F|P TEXT"."""
    text = ""
    for line in path.read_text().splitlines() if path.exists() else ():
        _, which, tag, said = line.split(" ", 3)
        if which == stream:
            text += said + ("\n" if tag == "F" else "")
    return text


def secured(**fields: Any) -> cri.PodSecurity:
    """Of a pod."""
    return cri.PodSecurity(cri.Namespaces(), **fields)


def in_namespaces(**modes: Any) -> dict[str, Any]:
    """Of a pod, and of its containers."""
    return {"security": cri.PodSecurity(cri.Namespaces(**modes))}
