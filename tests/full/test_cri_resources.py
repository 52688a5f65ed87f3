"""Resources of pods and containers: what they use, and what they may."""

from __future__ import annotations

import pytest

from tests.full import cri
from tests.full.containerd import until
from tests.full.pods import NEEDS, Pods

pytestmark = NEEDS


@pytest.mark.row("metrics of containers and pods")
def test_container_stats_count_cpu_and_memory(pods: Pods) -> None:
    pod = pods.run()
    container = pods.start(pod)

    def stats() -> cri.Stats:
        request = cri.Id(container)
        found = pods.client.call("ContainerStats", request, cri.ContainerStats).stats
        assert found is not None
        return found

    until(lambda: stats().memory is not None)
    made = stats()
    assert made.attributes is not None
    assert made.attributes.id == container
    assert made.memory is not None
    assert made.memory.working_set is not None
    assert made.memory.working_set.value > 0
    assert made.cpu is not None
    assert made.cpu.usage_ns is not None
    before = made.cpu.usage_ns.value
    pods.shell(container, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")

    def used() -> int:
        cpu = stats().cpu
        assert cpu is not None
        assert cpu.usage_ns is not None
        return cpu.usage_ns.value

    until(lambda: used() > before)


@pytest.mark.row("metrics of containers and pods")
def test_pod_sandbox_stats_name_all_containers(pods: Pods) -> None:
    pod = pods.run()
    made = {pods.start(pod), pods.start(pod)}

    found = pods.client.call("PodSandboxStats", cri.Id(pod), cri.PodStats).stats

    assert found is not None
    assert found.linux is not None
    named = {each.attributes.id for each in found.linux.containers if each.attributes}
    assert named == made
    assert found.linux.memory is not None
    assert found.linux.processes is not None
    assert found.linux.processes.count is not None


@pytest.mark.row("limits, their change, OOMKilled")
def test_update_container_resources_changes_the_limit(pods: Pods) -> None:
    pod = pods.run()
    container = pods.start(pod, resources=cri.Resources(memory_limit=200 << 20))
    limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"
    assert pods.shell(container, f"{limit}; true").split() == [str(200 << 20)]

    update = cri.Update(container, cri.Resources(memory_limit=100 << 20, cpu_shares=512))
    pods.client.call("UpdateContainerResources", update, cri.Empty)

    assert pods.shell(container, f"{limit}; true").split() == [str(100 << 20)]


@pytest.mark.row("limits, their change, OOMKilled")
def test_memory_limit_kills_one_container(pods: Pods) -> None:
    pod = pods.run()
    other = pods.start(pod)

    greedy = pods.start(
        pod,
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=200M",
        resources=cri.Resources(memory_limit=50 << 20),
    )

    status = pods.ended(greedy)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")
    assert pods.shell(other, "echo there") == "there\n"
