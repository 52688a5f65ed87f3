"""The container that a pod has where containerd gives none."""

from __future__ import annotations

import msgspec
import pytest

from runsc.oci import spec
from runsc.shim import messages as m
from runsc.shim import sandbox
from runsc.shim.ttrpc import Refused

POD = m.Pod("name", {"a": "b"}, m.LinuxPod("/kubepods/x", {"net.ipv4.ip_forward": "1"}))


def test_a_pod_is_made_as_the_kubelet_says() -> None:
    options = m.packed("runtime.v1.PodSandboxConfig", POD)
    request = m.CreateSandbox("id", "/b", options=options, netns_path="/run/netns/x")

    document = sandbox.pause_document(request)

    assert document["hostname"] == "name"
    assert document["annotations"] == {
        "a": "b",
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-id": "id",
    }
    assert document["linux"]["cgroupsPath"] == "/kubepods/x/id"
    assert document["linux"]["sysctl"] == {"net.ipv4.ip_forward": "1"}
    assert {"type": "network", "path": "/run/netns/x"} in document["linux"]["namespaces"]
    assert spec.decode(msgspec.json.encode(document), spec.Spec).hostname == "name"


def test_a_slice_is_systemds() -> None:
    pod = m.Pod(linux=m.LinuxPod("/kubepods.slice/pod1.slice"))
    options = m.packed("runtime.v1.PodSandboxConfig", pod)

    document = sandbox.pause_document(m.CreateSandbox("id", options=options))

    assert document["linux"]["cgroupsPath"] == "pod1.slice:cri-containerd:id"


def test_without_a_configuration_it_is_plain() -> None:
    document = sandbox.pause_document(m.CreateSandbox("id"))

    assert "hostname" not in document
    assert "cgroupsPath" not in document["linux"]


def test_a_configuration_that_is_none_is_refused() -> None:
    with pytest.raises(Refused, match="configuration of the pod"):
        sandbox.pause_document(m.CreateSandbox("id", options=m.Any("x.PodSandboxConfig", b"\x12")))
