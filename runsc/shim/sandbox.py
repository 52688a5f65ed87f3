"""The sandbox service: a pod as containerd's sandbox API has it (`sandboxer = "shim"`).

There is no container for the pod then, and no image of a pause program: the shim makes one of its
own, whose program waits (`runsc/launch/pause.c`). Where containerd gives a bundle with a program,
that is the pod's. Source: containerd's api/runtime/sandbox/v1/sandbox.proto.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from runsc.shim import messages as m
from runsc.shim.messages import TaskStatus
from runsc.shim.server import Method
from runsc.shim.service import EMPTY, TaskService
from runsc.shim.tasks import Task
from runsc.shim.ttrpc import Code, Refused
from sentry.protobuf import Message, decode

READY, NOT_READY = "SANDBOX_READY", "SANDBOX_NOTREADY"
PAUSE = Path(__file__).parent.parent / "launch" / "built" / "pause"
KIND, NAME = "io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"
STOP_S = 10


class SandboxService:
    """All methods."""

    def __init__(self, tasks: TaskService) -> None:
        self._tasks = tasks
        self._created_ns = 0

    def methods(self) -> Mapping[str, Method]:
        """By name."""
        return {
            "CreateSandbox": Method(m.CreateSandbox, self.create),
            "StartSandbox": Method(m.OfSandbox, self.start),
            "Platform": Method(m.OfSandbox, self.platform),
            "StopSandbox": Method(m.OfSandbox, self.stop),
            "WaitSandbox": Method(m.OfSandbox, self.wait),
            "SandboxStatus": Method(m.OfSandbox, self.status),
            "PingSandbox": Method(m.OfSandbox, self.ping),
            "ShutdownSandbox": Method(m.OfSandbox, self.shutdown),
            "SandboxMetrics": Method(m.OfSandbox, self.metrics),
        }

    def _task(self, sandbox_id: str) -> Task:
        found = self._tasks.tasks.by_id.get(sandbox_id)
        if found is None:
            raise Refused(Code.NOT_FOUND, f"sandbox {sandbox_id} not found")
        return found

    async def create(self, request: m.CreateSandbox) -> Message:
        """Make the container that is the pod's."""
        if not _has_program(request.bundle_path):
            _write_pause(request)
        await self._tasks.create(
            m.CreateTask(request.sandbox_id, request.bundle_path, request.rootfs)
        )
        return EMPTY

    async def start(self, request: m.OfSandbox) -> m.SandboxStarted:
        """Let it run."""
        started = await self._tasks.start(m.Named(request.sandbox_id))
        self._created_ns = time.time_ns()
        return m.SandboxStarted(started.pid, m.timestamp(self._created_ns))

    async def platform(self, request: m.OfSandbox) -> m.SandboxPlatform:
        """Of programs."""
        return m.SandboxPlatform(m.Platform("linux", "amd64"))

    async def stop(self, request: m.OfSandbox) -> Message:
        """End it, after so many seconds in which it may do that by itself."""
        task = self._task(request.sandbox_id)
        if task.init.status == TaskStatus.STOPPED:
            return EMPTY
        with suppress(Refused):
            await self._tasks.kill(m.Kill(task.id, signal=signal.SIGTERM))
        timer = self._tasks.kill_later(task, request.number or STOP_S)
        await task.init.exited
        timer.cancel()
        return EMPTY

    async def wait(self, request: m.OfSandbox) -> m.Exited:
        """Its end."""
        return await self._tasks.wait(m.Named(request.sandbox_id))

    async def status(self, request: m.OfSandbox) -> m.SandboxStatus:
        """How it is."""
        task = self._task(request.sandbox_id)
        running = task.init.status == TaskStatus.RUNNING
        return m.SandboxStatus(
            task.id,
            task.init.pid,
            READY if running else NOT_READY,
            {},
            m.timestamp(self._created_ns),
            m.timestamp(task.init.exited_at_ns),
        )

    async def ping(self, request: m.OfSandbox) -> Message:
        """It answers."""
        self._task(request.sandbox_id)
        return EMPTY

    async def shutdown(self, request: m.OfSandbox) -> Message:
        """Forget it, and end the shim."""
        task = self._tasks.tasks.by_id.get(request.sandbox_id)
        if task is not None:
            if task.init.alive:
                timer = self._tasks.kill_later(task, 0)
                await task.init.exited
                timer.cancel()
            if task.id in self._tasks.tasks.by_id:  # else it could not be made
                await self._tasks.delete(m.Named(task.id))
            shutil.rmtree(os.path.join(task.bundle, PAUSE_ROOT), ignore_errors=True)
        await self._tasks.shutdown(m.Shutdown(request.sandbox_id))
        return EMPTY

    async def metrics(self, request: m.OfSandbox) -> m.SandboxMetrics:
        """What it uses."""
        self._task(request.sandbox_id)
        stats = await self._tasks.stats(m.Named(request.sandbox_id))
        at = m.timestamp(time.time_ns())
        return m.SandboxMetrics(m.Metric(at, request.sandbox_id, stats.stats))


PAUSE_ROOT = "pause"
"""The folder in the bundle with its one program."""


def _has_program(bundle: str) -> bool:
    try:
        with open(os.path.join(bundle, "config.json"), "rb") as file:
            document = msgspec.json.decode(file.read())
    except (OSError, msgspec.DecodeError):
        return False
    return bool(isinstance(document, dict) and (document.get("process") or {}).get("args"))


def _write_pause(request: m.CreateSandbox) -> None:
    """A bundle that waits: its program, and a config.json."""
    root = os.path.join(request.bundle_path, PAUSE_ROOT)
    os.makedirs(root, mode=0o711, exist_ok=True)
    program = os.path.join(root, PAUSE.name)
    shutil.copyfile(PAUSE, program)
    os.chmod(program, 0o555)
    document = msgspec.json.encode(pause_document(request))
    with open(os.path.join(request.bundle_path, "config.json"), "wb") as file:
        file.write(document)


def pause_document(request: m.CreateSandbox) -> dict[str, Any]:
    """Its config.json. Raises: Refused."""
    pod = _pod(request.options)
    linux = pod.linux or m.LinuxPod()
    kinds = ["pid", "ipc", "uts", "mount"]
    namespaces = [{"type": kind} for kind in kinds]
    if request.netns_path:
        namespaces.append({"type": "network", "path": request.netns_path})
    document: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 65535, "gid": 65535},
            "args": [f"/{PAUSE.name}"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": PAUSE_ROOT, "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "annotations": {
            **pod.annotations, **request.annotations, KIND: "sandbox", NAME: request.sandbox_id,
        },
        "linux": {"namespaces": namespaces, "sysctl": linux.sysctls},
    }  # fmt: skip
    if pod.hostname:
        document["hostname"] = pod.hostname
    if linux.cgroup_parent:
        parent = linux.cgroup_parent
        separated = parent.endswith(".slice")
        document["linux"]["cgroupsPath"] = (
            f"{os.path.basename(parent)}:cri-containerd:{request.sandbox_id}"
            if separated
            else os.path.join(parent, request.sandbox_id)
        )
    return document


def _pod(options: m.Any | None) -> m.Pod:
    if options is None or not options.type_url.endswith("PodSandboxConfig"):
        return m.Pod()
    try:
        return decode(m.Pod, options.value)
    except ValueError as error:
        raise Refused(Code.INVALID_ARGUMENT, f"configuration of the pod: {error}") from None
