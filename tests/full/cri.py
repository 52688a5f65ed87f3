"""The CRI as the kubelet speaks it: requests over gRPC, with the fields that are needed here.

Source: k8s.io/cri-api, pkg/apis/runtime/v1/api.proto (Debian's
golang-github-kubernetes-cri-api-dev).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from sentry.protobuf import Message, Signed, decode, encode

M = TypeVar("M", bound=Message)
POD, CONTAINER, NODE, TARGET = range(4)
"""NamespaceMode."""
CREATED, RUNNING, EXITED = range(3)
"""ContainerState."""
READY, NOT_READY = range(2)
"""PodSandboxState."""
RUNTIME_DEFAULT, UNCONFINED, LOCALHOST = range(3)
"""SecurityProfile.ProfileType."""
PRIVATE, HOST_TO_CONTAINER, BIDIRECTIONAL = range(3)
"""MountPropagation."""
TIMEOUT_S = 60


class Empty(Message):
    """Nothing that is looked at."""


class Number(Message):
    """Int64Value and UInt64Value."""

    value: Annotated[int, 1, Signed] = 0


# pods


class Metadata(Message):
    """Of a pod."""

    name: Annotated[str, 1] = ""
    uid: Annotated[str, 2] = ""
    namespace: Annotated[str, 3] = ""


class Mapping(Message):
    """IDMapping."""

    host_id: Annotated[int, 1] = 0
    container_id: Annotated[int, 2] = 0
    length: Annotated[int, 3] = 0


class Users(Message):
    """UserNamespace."""

    mode: Annotated[int, 1] = 0
    uids: Annotated[list[Mapping], 2] = []  # noqa: RUF012
    gids: Annotated[list[Mapping], 3] = []  # noqa: RUF012


class Namespaces(Message):
    """NamespaceOption."""

    network: Annotated[int, 1] = POD
    pid: Annotated[int, 2] = CONTAINER
    ipc: Annotated[int, 3] = POD
    target_id: Annotated[str, 4] = ""
    users: Annotated[Users | None, 5] = None


class Profile(Message):
    """SecurityProfile."""

    kind: Annotated[int, 1] = 0
    localhost_ref: Annotated[str, 2] = ""


class PodSecurity(Message):
    """LinuxSandboxSecurityContext."""

    namespaces: Annotated[Namespaces | None, 1] = None
    groups: Annotated[list[int], 5, Signed] = []  # noqa: RUF012
    privileged: Annotated[bool, 6] = False
    seccomp: Annotated[Profile | None, 9] = None


class LinuxPod(Message):
    cgroup_parent: Annotated[str, 1] = ""
    security: Annotated[PodSecurity | None, 2] = None
    sysctls: Annotated[dict[str, str], 3] = {}  # noqa: RUF012


class Dns(Message):
    servers: Annotated[list[str], 1] = []  # noqa: RUF012
    searches: Annotated[list[str], 2] = []  # noqa: RUF012
    options: Annotated[list[str], 3] = []  # noqa: RUF012


class Port(Message):
    """PortMapping; protocol 0 is TCP."""

    protocol: Annotated[int, 1] = 0
    container_port: Annotated[int, 2] = 0
    host_port: Annotated[int, 3] = 0


class Pod(Message):
    """PodSandboxConfig."""

    metadata: Annotated[Metadata | None, 1] = None
    hostname: Annotated[str, 2] = ""
    log_directory: Annotated[str, 3] = ""
    dns: Annotated[Dns | None, 4] = None
    ports: Annotated[list[Port], 5] = []  # noqa: RUF012
    labels: Annotated[dict[str, str], 6] = {}  # noqa: RUF012
    annotations: Annotated[dict[str, str], 7] = {}  # noqa: RUF012
    linux: Annotated[LinuxPod | None, 8] = None


class RunPod(Message):
    config: Annotated[Pod | None, 1] = None
    handler: Annotated[str, 2] = ""


class Network(Message):
    ip: Annotated[str, 1] = ""


class PodState(Message):
    id: Annotated[str, 1] = ""
    state: Annotated[int, 3] = 0
    network: Annotated[Network | None, 5] = None
    labels: Annotated[dict[str, str], 7] = {}  # noqa: RUF012
    annotations: Annotated[dict[str, str], 8] = {}  # noqa: RUF012
    handler: Annotated[str, 9] = ""


class PodStatus(Message):
    status: Annotated[PodState | None, 1] = None


class Id(Message):
    """A request about one thing, or the answer to one that made it."""

    id: Annotated[str, 1] = ""
    number: Annotated[int, 2, Signed] = 0
    """StopContainer: its patience in seconds."""


# containers


class Name(Message):
    """ContainerMetadata."""

    name: Annotated[str, 1] = ""
    attempt: Annotated[int, 2] = 0


class Image(Message):
    """ImageSpec."""

    image: Annotated[str, 1] = ""


class Variable(Message):
    """KeyValue."""

    key: Annotated[str, 1] = ""
    value: Annotated[str, 2] = ""


class Mount(Message):
    inside: Annotated[str, 1] = ""
    outside: Annotated[str, 2] = ""
    read_only: Annotated[bool, 3] = False
    propagation: Annotated[int, 5] = 0
    recursive_read_only: Annotated[bool, 8] = False
    image: Annotated[Image | None, 9] = None


class Device(Message):
    inside: Annotated[str, 1] = ""
    outside: Annotated[str, 2] = ""
    permissions: Annotated[str, 3] = ""


class Resources(Message):
    """LinuxContainerResources."""

    cpu_period: Annotated[int, 1, Signed] = 0
    cpu_quota: Annotated[int, 2, Signed] = 0
    cpu_shares: Annotated[int, 3, Signed] = 0
    memory_limit: Annotated[int, 4, Signed] = 0
    oom_score_adj: Annotated[int, 5, Signed] = 0


class Capabilities(Message):
    add: Annotated[list[str], 1] = []  # noqa: RUF012
    drop: Annotated[list[str], 2] = []  # noqa: RUF012


class Security(Message):
    """LinuxContainerSecurityContext."""

    capabilities: Annotated[Capabilities | None, 1] = None
    privileged: Annotated[bool, 2] = False
    namespaces: Annotated[Namespaces | None, 3] = None
    user: Annotated[Number | None, 5] = None
    username: Annotated[str, 6] = ""
    read_only_root: Annotated[bool, 7] = False
    groups: Annotated[list[int], 8, Signed] = []  # noqa: RUF012
    no_new_privs: Annotated[bool, 11] = False
    group: Annotated[Number | None, 12] = None
    masked_paths: Annotated[list[str], 13] = []  # noqa: RUF012
    readonly_paths: Annotated[list[str], 14] = []  # noqa: RUF012
    seccomp: Annotated[Profile | None, 15] = None


class LinuxContainer(Message):
    resources: Annotated[Resources | None, 1] = None
    security: Annotated[Security | None, 2] = None


class CdiDevice(Message):
    """What a device plugin names: VENDOR/CLASS=NAME."""

    name: Annotated[str, 1] = ""


class Container(Message):
    """ContainerConfig."""

    metadata: Annotated[Name | None, 1] = None
    image: Annotated[Image | None, 2] = None
    command: Annotated[list[str], 3] = []  # noqa: RUF012
    args: Annotated[list[str], 4] = []  # noqa: RUF012
    working_dir: Annotated[str, 5] = ""
    envs: Annotated[list[Variable], 6] = []  # noqa: RUF012
    mounts: Annotated[list[Mount], 7] = []  # noqa: RUF012
    devices: Annotated[list[Device], 8] = []  # noqa: RUF012
    labels: Annotated[dict[str, str], 9] = {}  # noqa: RUF012
    annotations: Annotated[dict[str, str], 10] = {}  # noqa: RUF012
    log_path: Annotated[str, 11] = ""
    stdin: Annotated[bool, 12] = False
    stdin_once: Annotated[bool, 13] = False
    tty: Annotated[bool, 14] = False
    linux: Annotated[LinuxContainer | None, 15] = None
    cdi_devices: Annotated[list[CdiDevice], 17] = []  # noqa: RUF012


class CreateContainer(Message):
    pod_id: Annotated[str, 1] = ""
    config: Annotated[Container | None, 2] = None
    pod: Annotated[Pod | None, 3] = None


class Status(Message):
    """ContainerStatus."""

    id: Annotated[str, 1] = ""
    state: Annotated[int, 3] = 0
    exit_code: Annotated[int, 7, Signed] = 0
    reason: Annotated[str, 10] = ""
    message: Annotated[str, 11] = ""


class ContainerStatus(Message):
    status: Annotated[Status | None, 1] = None


class Listed(Message):
    id: Annotated[str, 1] = ""
    pod_id: Annotated[str, 2] = ""
    state: Annotated[int, 6] = 0


class Containers(Message):
    containers: Annotated[list[Listed], 1] = []  # noqa: RUF012


class Filter(Message):
    id: Annotated[str, 1] = ""
    pod_id: Annotated[str, 3] = ""
    labels: Annotated[dict[str, str], 4] = {}  # noqa: RUF012


class ListContainers(Message):
    filter: Annotated[Filter | None, 1] = None


class Update(Message):
    """UpdateContainerResourcesRequest."""

    id: Annotated[str, 1] = ""
    linux: Annotated[Resources | None, 2] = None


# what is measured


class Cpu(Message):
    at_ns: Annotated[int, 1, Signed] = 0
    usage_ns: Annotated[Number | None, 2] = None


class Memory(Message):
    at_ns: Annotated[int, 1, Signed] = 0
    working_set: Annotated[Number | None, 2] = None
    usage: Annotated[Number | None, 4] = None


class Attributes(Message):
    id: Annotated[str, 1] = ""


class Stats(Message):
    """ContainerStats."""

    attributes: Annotated[Attributes | None, 1] = None
    cpu: Annotated[Cpu | None, 2] = None
    memory: Annotated[Memory | None, 3] = None


class ContainerStats(Message):
    stats: Annotated[Stats | None, 1] = None


class Processes(Message):
    at_ns: Annotated[int, 1, Signed] = 0
    count: Annotated[Number | None, 2] = None


class LinuxPodStats(Message):
    cpu: Annotated[Cpu | None, 1] = None
    memory: Annotated[Memory | None, 2] = None
    processes: Annotated[Processes | None, 4] = None
    containers: Annotated[list[Stats], 5] = []  # noqa: RUF012


class OfPod(Message):
    attributes: Annotated[Attributes | None, 1] = None
    linux: Annotated[LinuxPodStats | None, 2] = None


class PodStats(Message):
    stats: Annotated[OfPod | None, 1] = None


class Event(Message):
    """ContainerEventResponse; kinds 0 to 3 are created, started, stopped, deleted."""

    id: Annotated[str, 1] = ""
    kind: Annotated[int, 2] = 0


# streams


class ExecSync(Message):
    id: Annotated[str, 1] = ""
    command: Annotated[list[str], 2] = []  # noqa: RUF012
    timeout_s: Annotated[int, 3, Signed] = 0


class Execed(Message):
    stdout: Annotated[bytes, 1] = b""
    stderr: Annotated[bytes, 2] = b""
    exit_code: Annotated[int, 3, Signed] = 0


class Exec(Message):
    id: Annotated[str, 1] = ""
    command: Annotated[list[str], 2] = []  # noqa: RUF012
    tty: Annotated[bool, 3] = False
    stdin: Annotated[bool, 4] = False
    stdout: Annotated[bool, 5] = False
    stderr: Annotated[bool, 6] = False


class Attach(Message):
    id: Annotated[str, 1] = ""
    stdin: Annotated[bool, 2] = False
    tty: Annotated[bool, 3] = False
    stdout: Annotated[bool, 4] = False
    stderr: Annotated[bool, 5] = False


class PortForward(Message):
    pod_id: Annotated[str, 1] = ""
    ports: Annotated[list[int], 2] = []  # noqa: RUF012


class Url(Message):
    url: Annotated[str, 1] = ""


class Cri:
    """A client of containerd's CRI plugin."""

    def __init__(self, address: str, handler: str, patience_s: int = TIMEOUT_S) -> None:
        import grpc  # noqa: PLC0415  an environment may be without it

        self._channel = grpc.insecure_channel(f"unix://{address}")
        self._handler = handler
        self._patience_s = patience_s
        self._pods: dict[str, Pod] = {}

    def call(self, method: str, request: Message, kind: type[M]) -> M:
        """Raises: grpc.RpcError."""
        call: Any = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=encode,
            response_deserializer=lambda data: decode(kind, data),
        )
        answer: M = call(request, timeout=self._patience_s, wait_for_ready=True)
        return answer

    def is_ready(self) -> bool:
        """Whether it has looked at what there is, as it does first after its start."""
        import grpc  # noqa: PLC0415

        try:
            self.call("ListPodSandbox", Empty(), Empty)
        except grpc.RpcError as error:
            if "not initialized yet" not in str(error):
                raise
            return False
        return True

    def events(self) -> Iterator[Event]:
        """What happens to containers from now on."""
        call: Any = self._channel.unary_stream(
            "/runtime.v1.RuntimeService/GetContainerEvents",
            request_serializer=encode,
            response_deserializer=lambda data: decode(Event, data),
        )
        heard: Iterator[Event] = call(Empty(), timeout=self._patience_s, wait_for_ready=True)
        return heard

    def run_pod(self, pod: Pod, handler: str | None = None) -> str:
        """Its id."""
        handler = self._handler if handler is None else handler
        made = self.call("RunPodSandbox", RunPod(pod, handler), Id).id
        self._pods[made] = pod
        return made

    def create(self, pod_id: str, container: Container) -> str:
        """Its id."""
        request = CreateContainer(pod_id, container, self._pods[pod_id])
        return self.call("CreateContainer", request, Id).id

    def start(self, container_id: str) -> None:
        self.call("StartContainer", Id(container_id), Empty)

    def exec(self, container_id: str, *command: str) -> Execed:
        request = ExecSync(container_id, list(command), self._patience_s)
        return self.call("ExecSync", request, Execed)

    def status(self, container_id: str) -> Status:
        found = self.call("ContainerStatus", Id(container_id), ContainerStatus).status
        assert found is not None
        return found

    def pod_status(self, pod_id: str) -> PodState:
        found = self.call("PodSandboxStatus", Id(pod_id), PodStatus).status
        assert found is not None
        return found

    def stop(self, container_id: str, patience_s: int = 1) -> None:
        self.call("StopContainer", Id(container_id, patience_s), Empty)

    def remove_container(self, container_id: str) -> None:
        self.stop(container_id)
        self.call("RemoveContainer", Id(container_id), Empty)

    def remove_pod(self, pod_id: str) -> None:
        while not self._is_stopped(pod_id):
            pass
        self.call("RemovePodSandbox", Id(pod_id), Empty)

    def _is_stopped(self, pod_id: str) -> bool:
        """False: to be asked again, as the kubelet does. Of a container that has just ended by
        itself containerd 2 closes its connection to the shim, and then kills it over that."""
        import grpc  # noqa: PLC0415

        try:
            self.call("StopPodSandbox", Id(pod_id), Empty)
        except grpc.RpcError as error:
            if "ttrpc: closed" not in str(error):
                raise
            return False
        return True

    def pods(self) -> list[str]:
        """Those that this client has made."""
        return list(self._pods)

    def close(self) -> None:
        self._channel.close()
