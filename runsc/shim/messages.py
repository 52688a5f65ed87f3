"""The messages between containerd and a shim, with their numbers.

Sources: containerd's api/runtime/task/v2 and v3 (which are the same), api/runtime/sandbox/v1,
api/events/task.proto, api/types, api/services/ttrpc/events/v1, pkg/runtimeoptions/v1 and
runtime/v2/runc/options; ttrpc's request.proto; google.rpc.Status.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from sentry.protobuf import Message, Signed, encode


class Empty(Message):
    """google.protobuf.Empty."""


class Any(Message):
    """google.protobuf.Any: a message with its name."""

    type_url: Annotated[str, 1] = ""
    value: Annotated[bytes, 2] = b""


class Timestamp(Message):
    """google.protobuf.Timestamp."""

    seconds: Annotated[int, 1, Signed] = 0
    nanos: Annotated[int, 2, Signed] = 0


def timestamp(at_ns: int) -> Timestamp | None:
    """Of nanoseconds since 1970; 0: never."""
    return Timestamp(at_ns // 10**9, at_ns % 10**9) if at_ns else None


def packed(name: str, message: Message) -> Any:
    """An Any as containerd's typeurl reads it: without a host before the name."""
    return Any(name, encode(message))


# ttrpc


class KeyValue(Message):
    key: Annotated[str, 1] = ""
    value: Annotated[str, 2] = ""


class Request(Message):
    service: Annotated[str, 1] = ""
    method: Annotated[str, 2] = ""
    payload: Annotated[bytes, 3] = b""
    timeout_nano: Annotated[int, 4, Signed] = 0
    metadata: Annotated[list[KeyValue], 5] = []


class Status(Message):
    code: Annotated[int, 1, Signed] = 0
    message: Annotated[str, 2] = ""


class Response(Message):
    status: Annotated[Status | None, 1] = None
    payload: Annotated[bytes, 2] = b""


# the task service


class Mount(Message):
    type: Annotated[str, 1] = ""
    source: Annotated[str, 2] = ""
    target: Annotated[str, 3] = ""
    options: Annotated[list[str], 4] = []


class TaskStatus(IntEnum):
    """containerd.v1.types.Status."""

    UNKNOWN = 0
    CREATED = 1
    RUNNING = 2
    STOPPED = 3
    PAUSED = 4


class Named(Message):
    """Requests that have nothing but these: Delete, Pids, Pause, Resume, Start, State, Stats,
    Wait, Connect."""

    id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""


class CreateTask(Message):
    id: Annotated[str, 1] = ""
    bundle: Annotated[str, 2] = ""
    rootfs: Annotated[list[Mount], 3] = []
    terminal: Annotated[bool, 4] = False
    stdin: Annotated[str, 5] = ""
    stdout: Annotated[str, 6] = ""
    stderr: Annotated[str, 7] = ""
    checkpoint: Annotated[str, 8] = ""
    parent_checkpoint: Annotated[str, 9] = ""
    options: Annotated[Any | None, 10] = None


class CheckpointTask(Message):
    id: Annotated[str, 1] = ""
    path: Annotated[str, 2] = ""
    options: Annotated[Any | None, 3] = None


class CheckpointOptions(Message):
    """containerd.runc.v1.CheckpointOptions, of which this is what means something here."""

    exit: Annotated[bool, 1] = False
    """The container ends then."""


class Pid(Message):
    """The answers to Create and Start."""

    pid: Annotated[int, 1] = 0


class Deleted(Message):
    pid: Annotated[int, 1] = 0
    exit_status: Annotated[int, 2] = 0
    exited_at: Annotated[Timestamp | None, 3] = None


class ExecProcess(Message):
    id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""
    terminal: Annotated[bool, 3] = False
    stdin: Annotated[str, 4] = ""
    stdout: Annotated[str, 5] = ""
    stderr: Annotated[str, 6] = ""
    spec: Annotated[Any | None, 7] = None


class ResizePty(Message):
    id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""
    width: Annotated[int, 3] = 0
    height: Annotated[int, 4] = 0


class State(Message):
    """The answer to State."""

    id: Annotated[str, 1] = ""
    bundle: Annotated[str, 2] = ""
    pid: Annotated[int, 3] = 0
    status: Annotated[int, 4] = 0
    stdin: Annotated[str, 5] = ""
    stdout: Annotated[str, 6] = ""
    stderr: Annotated[str, 7] = ""
    terminal: Annotated[bool, 8] = False
    exit_status: Annotated[int, 9] = 0
    exited_at: Annotated[Timestamp | None, 10] = None
    exec_id: Annotated[str, 11] = ""


class Kill(Message):
    id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""
    signal: Annotated[int, 3] = 0
    all: Annotated[bool, 4] = False


class CloseIO(Message):
    id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""
    stdin: Annotated[bool, 3] = False


class ProcessInfo(Message):
    pid: Annotated[int, 1] = 0
    info: Annotated[Any | None, 2] = None


class Pids(Message):
    processes: Annotated[list[ProcessInfo], 1] = []


class ProcessDetails(Message):
    """containerd.runc.v1.ProcessDetails: which exec a pid is."""

    exec_id: Annotated[str, 1] = ""


class Update(Message):
    id: Annotated[str, 1] = ""
    resources: Annotated[Any | None, 2] = None
    annotations: Annotated[dict[str, str], 3] = {}


class Exited(Message):
    """The answer to Wait."""

    exit_status: Annotated[int, 1] = 0
    exited_at: Annotated[Timestamp | None, 2] = None


class Stats(Message):
    stats: Annotated[Any | None, 1] = None


class Connected(Message):
    shim_pid: Annotated[int, 1] = 0
    task_pid: Annotated[int, 2] = 0
    version: Annotated[str, 3] = ""


class Shutdown(Message):
    id: Annotated[str, 1] = ""
    now: Annotated[bool, 2] = False


# events


class TaskIO(Message):
    stdin: Annotated[str, 1] = ""
    stdout: Annotated[str, 2] = ""
    stderr: Annotated[str, 3] = ""
    terminal: Annotated[bool, 4] = False


class TaskCreate(Message):
    container_id: Annotated[str, 1] = ""
    bundle: Annotated[str, 2] = ""
    rootfs: Annotated[list[Mount], 3] = []
    io: Annotated[TaskIO | None, 4] = None
    checkpoint: Annotated[str, 5] = ""
    pid: Annotated[int, 6] = 0


class TaskStart(Message):
    container_id: Annotated[str, 1] = ""
    pid: Annotated[int, 2] = 0


class TaskDelete(Message):
    container_id: Annotated[str, 1] = ""
    pid: Annotated[int, 2] = 0
    exit_status: Annotated[int, 3] = 0
    exited_at: Annotated[Timestamp | None, 4] = None
    id: Annotated[str, 5] = ""


class TaskExit(Message):
    container_id: Annotated[str, 1] = ""
    id: Annotated[str, 2] = ""
    pid: Annotated[int, 3] = 0
    exit_status: Annotated[int, 4] = 0
    exited_at: Annotated[Timestamp | None, 5] = None


class TaskOOM(Message):
    container_id: Annotated[str, 1] = ""


class TaskExecAdded(Message):
    container_id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""


class TaskExecStarted(Message):
    container_id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""
    pid: Annotated[int, 3] = 0


class TaskCheckpointed(Message):
    container_id: Annotated[str, 1] = ""
    checkpoint: Annotated[str, 2] = ""


class TaskPaused(Message):
    container_id: Annotated[str, 1] = ""


class TaskResumed(Message):
    container_id: Annotated[str, 1] = ""


class Envelope(Message):
    timestamp: Annotated[Timestamp | None, 1] = None
    namespace: Annotated[str, 2] = ""
    topic: Annotated[str, 3] = ""
    event: Annotated[Any | None, 4] = None


class Forward(Message):
    envelope: Annotated[Envelope | None, 1] = None


TOPICS: dict[type[Message], str] = {
    TaskCheckpointed: "/tasks/checkpointed",
    TaskCreate: "/tasks/create",
    TaskDelete: "/tasks/delete",
    TaskExecAdded: "/tasks/exec-added",
    TaskExecStarted: "/tasks/exec-started",
    TaskExit: "/tasks/exit",
    TaskOOM: "/tasks/oom",
    TaskPaused: "/tasks/paused",
    TaskResumed: "/tasks/resumed",
    TaskStart: "/tasks/start",
}
"""containerd's runtime/events.go."""


# the sandbox service


class CreateSandbox(Message):
    sandbox_id: Annotated[str, 1] = ""
    bundle_path: Annotated[str, 2] = ""
    rootfs: Annotated[list[Mount], 3] = []
    options: Annotated[Any | None, 4] = None
    netns_path: Annotated[str, 5] = ""
    annotations: Annotated[dict[str, str], 6] = {}


class OfSandbox(Message):
    """Requests about a sandbox that is there; SandboxStatus has `verbose` where StopSandbox has
    its seconds."""

    sandbox_id: Annotated[str, 1] = ""
    number: Annotated[int, 2] = 0


class SandboxStarted(Message):
    pid: Annotated[int, 1] = 0
    created_at: Annotated[Timestamp | None, 2] = None


class Platform(Message):
    os: Annotated[str, 1] = ""
    architecture: Annotated[str, 2] = ""
    variant: Annotated[str, 3] = ""


class SandboxPlatform(Message):
    platform: Annotated[Platform | None, 1] = None


class SandboxStatus(Message):
    sandbox_id: Annotated[str, 1] = ""
    pid: Annotated[int, 2] = 0
    state: Annotated[str, 3] = ""
    info: Annotated[dict[str, str], 4] = {}
    created_at: Annotated[Timestamp | None, 5] = None
    exited_at: Annotated[Timestamp | None, 6] = None
    extra: Annotated[Any | None, 7] = None


class Metric(Message):
    timestamp: Annotated[Timestamp | None, 1] = None
    id: Annotated[str, 2] = ""
    data: Annotated[Any | None, 3] = None


class SandboxMetrics(Message):
    metrics: Annotated[Metric | None, 1] = None


# what the CRI says of a pod


class LinuxPod(Message):
    """runtime.v1.LinuxPodSandboxConfig of the CRI, as far as it is looked at."""

    cgroup_parent: Annotated[str, 1] = ""
    sysctls: Annotated[dict[str, str], 3] = {}


class Pod(Message):
    """runtime.v1.PodSandboxConfig."""

    hostname: Annotated[str, 2] = ""
    annotations: Annotated[dict[str, str], 7] = {}
    linux: Annotated[LinuxPod | None, 8] = None


# options


class RuntimeOptions(Message):
    """runtimeoptions.v1.Options: what containerd passes to a runtime that it does not know."""

    type_url: Annotated[str, 1] = ""
    config_path: Annotated[str, 2] = ""
    config_body: Annotated[bytes, 3] = b""


class RuncOptions(Message):
    """containerd.runc.v1.Options: what Docker passes to every runtime."""

    no_pivot_root: Annotated[bool, 1] = False
    no_new_keyring: Annotated[bool, 2] = False
    shim_cgroup: Annotated[str, 3] = ""
    io_uid: Annotated[int, 4] = 0
    io_gid: Annotated[int, 5] = 0
    binary_name: Annotated[str, 6] = ""
    root: Annotated[str, 7] = ""
    systemd_cgroup: Annotated[bool, 9] = False


class RuntimeVersion(Message):
    version: Annotated[str, 1] = ""
    revision: Annotated[str, 2] = ""


class RuntimeInfo(Message):
    """The answer to `-info`."""

    name: Annotated[str, 1] = ""
    version: Annotated[RuntimeVersion | None, 2] = None
    options: Annotated[Any | None, 3] = None
    features: Annotated[Any | None, 4] = None
    annotations: Annotated[dict[str, str], 5] = {}
