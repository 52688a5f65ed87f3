"""Containers of one sandbox, as engines make them: by annotation, and by paths of namespaces."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.bundle import Bundle, Document
from tests.e2e.client import Client

CRI = "io.kubernetes.cri."
WAIT = "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done"


class Pod:
    """Containers of one state root, each with a bundle of its own."""

    def __init__(self, folder: Path, rootfs: Path, platform: str) -> None:
        self.folder = folder
        self.rootfs = rootfs
        self.platform = platform
        self.flags: list[str] = []
        """Global flags, for containers that come."""
        self.pids: dict[str, int] = {}
        self.clients: dict[str, Client] = {}

    def client(self, name: str) -> Client:
        """Where the container lies."""
        if name not in self.clients:
            made = Client(Bundle(self.folder / name, self.rootfs), self.platform)
            made.root = self.folder / "state"
            made.flags[0] = f"--root={made.root}"
            made.flags += [f"--debug-log={self.folder}/debug.log", *self.flags]
            self.clients[name] = made
        return self.clients[name]

    def create(
        self,
        name: str,
        script: str = WAIT,
        *,
        change: Callable[[Document], object] = lambda _: None,
        sandbox: str = "pause",
    ) -> Client:
        """A container of the pod whose sandbox is that of `sandbox`."""
        client = self.prepared(name, script, change=change, sandbox=sandbox)
        self.pids[name] = client.create(name)
        return client

    def prepared(
        self,
        name: str,
        script: str,
        *,
        change: Callable[[Document], object] = lambda _: None,
        sandbox: str = "pause",
    ) -> Client:
        """The bundle of one."""
        client = self.client(name)
        kind = "sandbox" if name == sandbox else "container"
        client.bundle.document["annotations"] = {
            f"{CRI}container-type": kind,
            f"{CRI}sandbox-id": sandbox,
        }
        client.bundle.args("sh", "-c", script)
        client.bundle.configure(change)
        return client

    def run(self, name: str, script: str = WAIT, **named: object) -> Client:
        """The same, started."""
        client = self.create(name, script, **named)  # type: ignore[arg-type]
        client.ok("start", name)
        return client

    def path(self, name: str, kind: str) -> str:
        """A namespace of a container, as engines name it."""
        return f"/proc/{self.pids[name]}/ns/{kind}"

    def end(self) -> None:
        for name, client in reversed(self.clients.items()):
            client.ok("delete", "--force", name)
        for client in self.clients.values():
            assert client.remains() == []
            break


def joins(**paths: str) -> Callable[[Document], None]:
    """Name namespaces by path; what is not named is new."""

    def change(document: Document) -> None:
        for namespace in document["linux"]["namespaces"]:
            if namespace["type"] in paths:
                namespace["path"] = paths[namespace["type"]]

    return change


def said(client: Client, name: str, text: str) -> None:
    """Until the container has written this."""
    while text not in client.output(name):
        time.sleep(0.001)
