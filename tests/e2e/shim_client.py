"""What containerd is to a shim: starts it, asks it over its socket, receives its events."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from runsc.shim import messages as m
from runsc.shim import ttrpc
from sentry.protobuf import Message, decode, encode
from tests.e2e.bundle import REPOSITORY, Bundle

NAMESPACE = "test"
TASK = "containerd.task.v2.Task"
SANDBOX = "containerd.runtime.sandbox.v1.Sandbox"
PATIENCE_S = 60
M = TypeVar("M", bound=Message)
EVENTS: dict[str, type[Message]] = {kind.__name__: kind for kind in m.TOPICS}
SETTINGS = 'root = "{root}"\n[runsc_config]\noverlay2 = "root:memory"\n'
"""The root file system is shared by all tests."""


class Failed(Exception):
    """An answer that is an error."""

    def __init__(self, status: m.Status) -> None:
        super().__init__(status.message)
        self.code = ttrpc.Code(status.code)


class Receiver:
    """Takes events, as containerd's ttrpc socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[Message] = []
        self.topics: list[str] = []
        self._connections: dict[int, tuple[socket.socket, ttrpc.Reader]] = {}
        self.open()

    def open(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen()

    def close(self) -> None:
        """containerd is away."""
        self._listener.close()
        for sock, _ in self._connections.values():
            sock.close()
        self._connections.clear()
        self.path.unlink()

    def until(self, *kinds: type[Message]) -> None:
        """Receive, until these have come in this order, whatever else has."""
        deadline = time.monotonic() + PATIENCE_S
        while not _in_order(self.heard, kinds):
            assert time.monotonic() < deadline, self.heard
            self._receive(1)

    def of(self, kind: type[M]) -> list[M]:
        return [each for each in self.heard if isinstance(each, kind)]

    def _receive(self, seconds: float) -> None:
        ready, _, _ = select.select([self._listener, *self._connections], [], [], seconds)
        for each in ready:
            if each is self._listener:
                sock, _ = self._listener.accept()
                self._connections[sock.fileno()] = (sock, ttrpc.Reader())
                continue
            sock, reader = self._connections[each]
            data = sock.recv(1 << 16)
            if not data:
                del self._connections[each]
                sock.close()
            for frame in reader.feed(data):
                self._take(decode(m.Request, frame.data))
                sock.sendall(ttrpc.answer(frame.stream, m.Empty()))

    def _take(self, request: m.Request) -> None:
        assert (request.service, request.method) == (
            "containerd.services.events.ttrpc.v1.Events", "Forward",
        )  # fmt: skip
        envelope = decode(m.Forward, request.payload).envelope
        assert envelope is not None and envelope.event is not None
        assert envelope.namespace == NAMESPACE
        kind = EVENTS[envelope.event.type_url.removeprefix("containerd.events.")]
        self.topics.append(envelope.topic)
        self.heard.append(decode(kind, envelope.event.value))


def _in_order(heard: Sequence[Message], kinds: Sequence[type[Message]]) -> bool:
    rest = iter(heard)
    return all(any(isinstance(each, kind) for each in rest) for kind in kinds)


class Shim:
    """A shim, and the bundles of its containers below one folder."""

    def __init__(self, folder: Path, rootfs: Path) -> None:
        self.folder = folder
        self.rootfs = rootfs
        self.receiver = Receiver(folder / "events")
        self.root = folder / "state"
        self.options = m.packed(
            "runtimeoptions.v1.Options",
            m.RuntimeOptions(config_body=SETTINGS.format(root=self.root).encode()),
        )
        self.address = ""
        self.pid = 0
        self._stream = -1
        self._reader = ttrpc.Reader()
        self._answers: dict[int, m.Response] = {}
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._pidfds: list[int] = []
        self.settings: dict[str, str] = {}
        """More variables of its environment."""

    def bundle(self, container_id: str, *args: str) -> Bundle:
        made = Bundle(self.folder / "bundles" / container_id, self.rootfs)
        return made.args(*args)

    def call(self, bundle: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
        """The program, as containerd calls it."""
        flags = ["-namespace", NAMESPACE, "-address", f"{self.folder}/c", "-publish-binary", "none"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "TTRPC_ADDRESS": str(self.receiver.path),
            **self.settings,
        }
        return subprocess.run(
            [sys.executable, "-m", "runsc.shim.program", *flags, *words],
            input=encode(self.options),
            capture_output=True,
            cwd=bundle,
            env=environment,
            timeout=PATIENCE_S,
            check=False,
        )

    def start(self, bundle: Bundle, container_id: str) -> str:
        """Start it for this bundle, and connect: what it prints."""
        done = self.call(bundle.write(), "-id", container_id, "start")
        assert done.returncode == 0, done.stderr
        said = done.stdout.decode()
        self._sock.close()
        self.address = json.loads(said)["address"] if said.startswith("{") else said
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(PATIENCE_S)
        self._sock.connect(self.address.removeprefix("unix://"))
        self._reader, self._stream = ttrpc.Reader(), -1
        self.pid = self.ask("Connect", m.Named(container_id), m.Connected).shim_pid
        self._pidfds.append(os.pidfd_open(self.pid))
        return said

    def send(self, method: str, request: Message, service: str = TASK) -> int:
        """A request; its stream."""
        self._stream += 2
        data = encode(m.Request(service, method, encode(request)))
        self._sock.sendall(ttrpc.frame(self._stream, ttrpc.REQUEST, data))
        return self._stream

    def answer(self, stream: int, kind: type[M]) -> M:
        """What comes of it. Raises: Failed."""
        while stream not in self._answers:
            data = self._sock.recv(1 << 16)
            assert data, "the shim has closed the connection"
            for frame in self._reader.feed(data):
                self._answers[frame.stream] = decode(m.Response, frame.data)
        response = self._answers.pop(stream)
        if response.status is not None and response.status.code:
            raise Failed(response.status)
        return decode(kind, response.payload)

    def ask(self, method: str, request: Message, kind: type[M], service: str = TASK) -> M:
        return self.answer(self.send(method, request, service), kind)

    def do(self, method: str, request: Message) -> None:
        self.ask(method, request, m.Empty)

    def raw(self, data: bytes) -> None:
        self._sock.sendall(data)

    def create(self, bundle: Bundle, container_id: str, **named: object) -> int:
        request = m.CreateTask(container_id, str(bundle.path), options=self.options)
        for name, value in named.items():
            setattr(request, name, value)
        return self.ask("Create", request, m.Pid).pid

    def exec(self, container_id: str, exec_id: str, *args: str, **named: object) -> None:
        """Remember a process."""
        terminal = bool(named.get("terminal", False))
        spec = {"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0}, "terminal": terminal,
                "env": ["PATH=/bin"]}  # fmt: skip
        request = m.ExecProcess(container_id, exec_id, spec=m.Any("", msgspec.json.encode(spec)))
        for name, value in named.items():
            setattr(request, name, value)
        self.do("Exec", request)

    def state(self, container_id: str, exec_id: str = "") -> m.State:
        return self.ask("State", m.Named(container_id, exec_id), m.State)

    def wait(self, container_id: str, exec_id: str = "") -> int:
        return self.ask("Wait", m.Named(container_id, exec_id), m.Exited).exit_status

    def end(self) -> None:
        """Whatever there is."""
        self._sock.close()
        for pidfd in self._pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], PATIENCE_S)
            os.close(pidfd)
        for path in sorted((self.folder / "bundles").glob("*")):
            self.call(path, "-id", path.name, "-bundle", str(path), "delete")
        self.receiver.close()

    def containers(self) -> list[str]:
        """What is noted to be there."""
        state = self.root / NAMESPACE
        return [each.name for each in state.glob("*") if each.name != ".lock"]
