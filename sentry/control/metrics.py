"""Figures of a sandbox for Prometheus, with gVisor's names where it has one for the same.

`METRICS` says what there is; `of` gives the values, by name, with labels where there are some. What
is counted costs nothing more than it does anyhow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.fs.pseudo.memory import memory_of
from sentry.syscalls.registry import NUMBERS

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel


MAX_NUMBER: Final = 1024
"""System calls of higher numbers are one figure: a program may make up 65,536, and each figure of
its own is a series for whoever keeps them."""


class Metric(Struct, frozen=True):
    """One of them."""

    name: str
    help: str
    kind: str = "counter"
    network: str = ""
    """Where it is counted: a row of /proc/net/snmp or netstat of the first network namespace."""


def _gauge(name: str, says: str, network: str = "") -> Metric:
    return Metric(name, says, "gauge", network)


METRICS: Final = (
    Metric("unimplemented_syscalls", "System calls of programs that there are not, by number."),
    Metric("trace_sessions_created", "Trace sessions that were begun."),
    Metric("netstack_ip_packets_received", "Packets of IPv4 that came.", network="Ip.InReceives"),
    Metric("netstack_ip_packets_delivered", "Those that were for the sandbox.",
           network="Ip.InDelivers"),
    Metric("netstack_ip_packets_sent", "Packets of IPv4 that were sent.",
           network="Ip.OutRequests"),
    Metric("netstack_tcp_active_connection_openings", "Connections that were begun.",
           network="Tcp.ActiveOpens"),
    Metric("netstack_tcp_passive_connection_openings", "Connections that were taken.",
           network="Tcp.PassiveOpens"),
    _gauge("netstack_tcp_current_established", "Connections that there are.", "Tcp.CurrEstab"),
    Metric("netstack_tcp_failed_connection_attempts", "Connections that did not come about.",
           network="Tcp.AttemptFails"),
    Metric("netstack_tcp_established_resets", "Connections that a reset has ended.",
           network="Tcp.EstabResets"),
    Metric("netstack_tcp_valid_segments_received", "Segments that came.", network="Tcp.InSegs"),
    Metric("netstack_tcp_segments_sent", "Segments that were sent.", network="Tcp.OutSegs"),
    Metric("netstack_tcp_resets_sent", "Resets that were sent.", network="Tcp.OutRsts"),
    Metric("netstack_tcp_retransmits", "Segments that were sent again.",
           network="Tcp.RetransSegs"),
    Metric("netstack_tcp_checksum_errors", "Segments whose checksum was wrong.",
           network="Tcp.InCsumErrors"),
    Metric("netstack_udp_packets_received", "Datagrams that came.", network="Udp.InDatagrams"),
    Metric("netstack_udp_packets_sent", "Datagrams that were sent.", network="Udp.OutDatagrams"),
    Metric("netstack_udp_unknown_port_errors", "Datagrams for ports where nobody was.",
           network="Udp.NoPorts"),
    Metric("netstack_udp_receive_buffer_errors", "Datagrams that there was no room for.",
           network="Udp.RcvbufErrors"),
    Metric("kernel_bugs", "Exceptions of the Sentry itself: each has cost a program its life."),
    Metric("page_faults", "Page faults of programs that came to the Sentry."),
    Metric("oom_kills", "Processes that were killed because memory had run out, by container."),
    Metric("cpu_user_ns", "CPU time of programs, by container."),
    Metric("cpu_system_ns", "CPU time of the Sentry for programs, by container."),
    _gauge("memory_bytes", "Memory that there is less for others, by container."),
    _gauge("memory_limit_bytes", "Memory that there may be, by container."),
    _gauge("tasks", "Threads of programs, by container."),
    Metric("trace_records", "Records that were made, by session and sink."),
    Metric("trace_records_dropped", "Those that were lost, by session and sink."),
    Metric("egress_judged", "Flows and questions that an egress policy has judged."),
    Metric("egress_denied", "Those that it has denied."),
)  # fmt: skip


def of(kernel: Kernel) -> dict[str, int]:
    """The values. Labels are `{name="text"}`, as Prometheus writes them."""
    counters: Any = kernel.first.net.stack.counters
    found = {
        metric.name: int(counters.get(metric.network, 0)) for metric in METRICS if metric.network
    }
    others = 0
    for number, count in kernel.counters.unknown_calls.items():
        if number >= MAX_NUMBER:
            others += count
            continue
        name = NUMBERS.get(number, "")
        found["unimplemented_syscalls" + labels(sysno=str(number), name=name)] = count
    if others:
        found["unimplemented_syscalls" + labels(sysno="other", name="")] = others
    found["kernel_bugs"] = kernel.log.bugs
    found["page_faults"] = kernel.counters.faults
    for container in (kernel.container, *kernel.further):
        which = labels(container=container.id)
        user_ns, system_ns = container.cgroup.gone_user_ns, container.cgroup.gone_sys_ns
        tasks = 0
        for group in container.processes():
            more_user_ns, more_system_ns = group.cpu_ns()
            user_ns, system_ns = user_ns + more_user_ns, system_ns + more_system_ns
            tasks += len(group.tasks)
        memory = memory_of(kernel, container)
        found |= {
            f"oom_kills{which}": container.oom_kills,
            f"cpu_user_ns{which}": user_ns,
            f"cpu_system_ns{which}": system_ns,
            f"memory_bytes{which}": memory.total - memory.free,
            f"memory_limit_bytes{which}": memory.total,
            f"tasks{which}": tasks,
        }
    return found | _traces(kernel) | _egress(kernel)


def _traces(kernel: Kernel) -> dict[str, int]:
    watch: Any = kernel.watch
    if watch is None:
        return {"trace_sessions_created": 0}
    found = {"trace_sessions_created": watch.created}
    for session in watch.sessions.values():
        for number, sink in enumerate(session.sinks):
            which = labels(session=session.name, sink=sink.name, number=str(number))
            found[f"trace_records{which}"] = sink.taken
            found[f"trace_records_dropped{which}"] = sink.dropped
    return found


def _egress(kernel: Kernel) -> dict[str, int]:
    egress: Any = kernel.first.net.stack.egress
    if egress is None:
        return {}
    counters = egress.flows.counters
    return {"egress_judged": counters.judged, "egress_denied": counters.denied}


def labels(**texts: str) -> str:
    """`{a="text",b="text"}`."""
    shown = (f'{name}="{_escaped(value)}"' for name, value in texts.items())
    return "{" + ",".join(shown) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
