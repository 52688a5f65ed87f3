"""Which modules are compiled ahead: those that most system calls run through, and what a fork
begins with, which copies each page of code that is interpreted there.

A compiled class may have subclasses that are not, if it says so (`sentry.ahead.mypyc_attr`), but no
compiled one comes after an interpreted one again. What its class attributes are is seen of
interpreted subclasses only if they are a ClassVar.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = (
    "sentry/auth", "sentry/fs/epoll", "sentry/fs/gofer", "sentry/fs/host", "sentry/fs/overlay",
    "sentry/fs/pipe", "sentry/fs/tmpfs", "sentry/kernel", "sentry/loader", "sentry/mm",
    "sentry/net", "sentry/net/inet", "sentry/net/ip", "sentry/net/link", "sentry/net/tcp",
    "sentry/syscalls/clocks", "sentry/syscalls/credentials", "sentry/syscalls/files",
    "sentry/syscalls/memory", "sentry/syscalls/processes", "sentry/syscalls/signals",
    "sentry/syscalls/sockets", "sentry/vfs", "sentry/wait",
)  # fmt: skip
SINGLE = (
    "kvm/binding", "kvm/system", "kvm/vcpu", "kvm/vm", "sentry/clock",
    "sentry/control/connection", "sentry/control/descriptors", "sentry/control/execution",
    "sentry/control/operations", "sentry/control/oversight", "sentry/control/server",
    "sentry/control/watchdog", "sentry/fork/child", "sentry/fork/parent",
    "sentry/fs/dev/memory", "sentry/fs/eventfd", "sentry/fs/inotify", "sentry/fs/kernel",
    "sentry/fs/pidfd", "sentry/fs/signalfd", "sentry/fs/timerfd", "sentry/loop",
    "sentry/platform/constants", "sentry/platform/exchange", "sentry/platform/frames",
    "sentry/platform/host_io", "sentry/platform/kvm", "sentry/platform/memory",
    "sentry/platform/ticks", "sentry/platform/vdso", "sentry/syscalls/args",
    "sentry/syscalls/ipc/futex", "sentry/uuids",
)  # fmt: skip
LEFT_OUT = {
    # file systems: class attributes that some of them set on themselves
    "sentry/fs/gofer": "attachment filesystem pages",
    "sentry/fs/overlay": "filesystem",
    "sentry/fs/tmpfs": "filesystem",
    # there, too, and in locks structs with default factories and a dictionary with a type variable;
    # in location a named tuple whose fields are compiled classes that come later
    "sentry/vfs": "filesystem leases location locks rows",
    # exceptions
    "sentry/mm": "errors",
    # all below: seldom
    "sentry/kernel": "access accounting accounting_file aio cgroup collector container"
    " container_cpu container_memory core_dump core_file key_table keyrings keys own_memory"
    " services system_log sysv_ids sysv_ipc sysv_msg sysv_sem sysv_shm sysv_undo time_namespace",
    "sentry/net": "arp_ioctls devices ethtool fan_out filter_options given interfaces ioctls made"
    " options packet_options packet_socket packets route_changes rules short_dest socket_options"
    " tables unix_host unix_options unix_served",
    "sentry/net/inet": "addrform answering broker_stream brokers entrances entrant error_queue"
    " ip_options ipv6_options judged_seam last_words netfilter_options ping raw raw_filtered"
    " raw_header raw_options relay resolver resolver_behind resolver_door tcp_options udp_options"
    " udplite",
    "sentry/net/ip": "autoconf discovery fragments groups icmp icmp6 membership unanswered",
    "sentry/net/link": "ndp tags",
    "sentry/net/tcp": "info",
    "sentry/syscalls/clocks": "timer",
    "sentry/syscalls/credentials": "keys",
    "sentry/syscalls/files": "aio fanotify handles notices xattr",
    "sentry/syscalls/memory": "membarrier numa",
    "sentry/syscalls/processes": "job_control namespaces prctl prctl_arch prctl_dispatch prctl_mm"
    " ptrace ptrace_data sched seccomp",
}


def modules() -> list[str]:
    """Their paths below the root, in order."""
    found = {f"{name}.py" for name in SINGLE}
    for room in ROOMS:
        left_out = {"__init__", *LEFT_OUT.get(room, "").split()}
        found.update(
            f"{room}/{path.name}"
            for path in (ROOT / room).glob("*.py") if path.stem not in left_out
        )  # fmt: skip
    return sorted(found)
