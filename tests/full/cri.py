"""The CRI as the kubelet speaks it: requests over gRPC, with the fields that are needed here.

Source: k8s.io/cri-api, pkg/apis/runtime/v1/api.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from runsc.shim.codec import Message, Signed, decode, encode

M = TypeVar("M", bound=Message)
HOST_NETWORK = 2
"""NamespaceMode.NODE."""
RUNNING, EXITED = 1, 2
"""ContainerState."""
TIMEOUT_S = 60


class Metadata(Message):
    """Of a pod."""

    name: Annotated[str, 1] = ""
    uid: Annotated[str, 2] = ""
    namespace: Annotated[str, 3] = ""


class Namespaces(Message):
    network: Annotated[int, 1] = 0


class PodSecurity(Message):
    namespaces: Annotated[Namespaces | None, 1] = None


class LinuxPod(Message):
    cgroup_parent: Annotated[str, 1] = ""
    security: Annotated[PodSecurity | None, 2] = None


class Pod(Message):
    metadata: Annotated[Metadata | None, 1] = None
    hostname: Annotated[str, 2] = ""
    log_directory: Annotated[str, 3] = ""
    annotations: Annotated[dict[str, str], 7] = {}  # noqa: RUF012
    linux: Annotated[LinuxPod | None, 8] = None


class RunPod(Message):
    config: Annotated[Pod | None, 1] = None
    handler: Annotated[str, 2] = ""


class Id(Message):
    """A request about one thing, or the answer to one that made it."""

    id: Annotated[str, 1] = ""
    number: Annotated[int, 2, Signed] = 0
    """StopContainer: its patience in seconds."""


class Name(Message):
    name: Annotated[str, 1] = ""


class Image(Message):
    image: Annotated[str, 1] = ""


class Container(Message):
    metadata: Annotated[Name | None, 1] = None
    image: Annotated[Image | None, 2] = None
    command: Annotated[list[str], 3] = []  # noqa: RUF012
    log_path: Annotated[str, 11] = ""


class CreateContainer(Message):
    pod_id: Annotated[str, 1] = ""
    config: Annotated[Container | None, 2] = None
    pod: Annotated[Pod | None, 3] = None


class Exec(Message):
    id: Annotated[str, 1] = ""
    command: Annotated[list[str], 2] = []  # noqa: RUF012
    timeout_s: Annotated[int, 3, Signed] = 0


class Execed(Message):
    stdout: Annotated[bytes, 1] = b""
    stderr: Annotated[bytes, 2] = b""
    exit_code: Annotated[int, 3, Signed] = 0


class Status(Message):
    id: Annotated[str, 1] = ""
    state: Annotated[int, 3] = 0
    exit_code: Annotated[int, 7, Signed] = 0
    reason: Annotated[str, 10] = ""


class ContainerStatus(Message):
    status: Annotated[Status | None, 1] = None


class Empty(Message):
    """Nothing that is looked at."""


class Cri:
    """A client of containerd's CRI plugin."""

    def __init__(self, address: str, handler: str) -> None:
        import grpc  # noqa: PLC0415  an environment may be without it

        self._channel = grpc.insecure_channel(f"unix://{address}")
        self._handler = handler
        self._pods: dict[str, Pod] = {}

    def call(self, method: str, request: Message, kind: type[M]) -> M:
        """Raises: grpc.RpcError."""
        call: Any = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=encode,
            response_deserializer=lambda data: decode(kind, data),
        )
        answer: M = call(request, timeout=TIMEOUT_S, wait_for_ready=True)
        return answer

    def run_pod(
        self, name: str, log_directory: str, annotations: dict[str, str] | None = None
    ) -> str:
        """Its id. The network is the host's. With annotations it is the pod's, and the handler is
        containerd's choice, as without a RuntimeClass."""
        network = 0 if annotations else HOST_NETWORK
        linux = LinuxPod("", PodSecurity(Namespaces(network)))
        who = Metadata(name, name, "default")
        pod = Pod(who, name, log_directory, annotations or {}, linux)
        handler = "" if annotations else self._handler
        made = self.call("RunPodSandbox", RunPod(pod, handler), Id).id
        self._pods[made] = pod
        return made

    def create(self, pod_id: str, name: str, image: str, command: Sequence[str]) -> str:
        config = Container(Name(name), Image(image), list(command), f"{name}.log")
        request = CreateContainer(pod_id, config, self._pods[pod_id])
        return self.call("CreateContainer", request, Id).id

    def start(self, container_id: str) -> None:
        self.call("StartContainer", Id(container_id), Empty)

    def exec(self, container_id: str, *command: str) -> Execed:
        return self.call("ExecSync", Exec(container_id, list(command), TIMEOUT_S), Execed)

    def status(self, container_id: str) -> Status:
        found = self.call("ContainerStatus", Id(container_id), ContainerStatus).status
        assert found is not None
        return found

    def remove_container(self, container_id: str) -> None:
        self.call("StopContainer", Id(container_id, 1), Empty)
        self.call("RemoveContainer", Id(container_id), Empty)

    def remove_pod(self, pod_id: str) -> None:
        self.call("StopPodSandbox", Id(pod_id), Empty)
        self.call("RemovePodSandbox", Id(pod_id), Empty)

    def close(self) -> None:
        self._channel.close()
