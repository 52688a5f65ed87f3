"""/proc/sys: sysctl(8).

A line of `DEFAULTS` is a value that is kept: other rooms read it with `get_sysctl`. What is worked
out, or belongs to another object of the kernel, is a function in a module beside this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from msgspec import Struct

from sentry.abi.capability import CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_RAWIO
from sentry.abi.limits import INT_MAX
from sentry.auth.permissions import MAY_ALL, MAY_READ, MAY_WRITE
from sentry.auth.userns import NO_ID, kernel_id
from sentry.errors import EACCES, EINVAL, ENOENT, EPERM
from sentry.fs.pseudo.nodes import TextNode
from sentry.vfs.file import ALWAYS_READY
from sentry.vfs.interface import Attributes, Owner

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.auth.userns import UserNamespace
    from sentry.fs.kernel import Kernel
    from sentry.fs.pseudo.files import Store
    from sentry.fs.pseudo.table import TableFs
    from sentry.vfs.file import Caller
    from sentry.wait.queue import ChangeCount

OF_NETWORK: Final = (
    "net/ipv4/", "net/ipv6/", "net/core/somaxconn", "net/netfilter/", "net/unix/",
)  # fmt: skip
"""Values of a network namespace."""
OF_IPC: Final = (
    "kernel/auto_msgmni", "kernel/msg", "kernel/sem", "kernel/shm", "fs/mqueue/",
)  # fmt: skip
"""Values of an IPC namespace."""
OF_NAMESPACE: Final = (*OF_NETWORK, *OF_IPC)
MAX_VALUE: Final = 1024
"""Bytes of a value."""

DEFAULTS: Final = """
abi/vsyscall32 1
debug/exception-trace 1
dev/tty/legacy_tiocsti 0
fs/aio-max-nr 65536
fs/dentry-state 0	0	45	0	0	0
fs/dir-notify-enable 1
fs/epoll/max_user_watches 1000000
fs/fanotify/max_queued_events 16384
fs/fanotify/max_user_groups 128
fs/fanotify/max_user_marks 65536
fs/file-max 100000
fs/inode-nr 0	0
fs/inode-state 0	0	0	0	0	0	0
fs/inotify/max_queued_events 16384
fs/inotify/max_user_instances 128
fs/inotify/max_user_watches 65536
fs/lease-break-time 45
fs/leases-enable 1
fs/mqueue/msg_default 10
fs/mqueue/msg_max 10
fs/mqueue/msgsize_default 8192
fs/mqueue/msgsize_max 8192
fs/mqueue/queues_max 256
fs/overflowgid 65534
fs/overflowuid 65534
fs/suid_dumpable 0
kernel/auto_msgmni 0
kernel/bootloader_type 114
kernel/bootloader_version 2
kernel/cad_pid 1
kernel/core_pattern core
kernel/core_pipe_limit 0
kernel/core_uses_pid 0
kernel/ctrl-alt-del 0
kernel/dmesg_restrict 0
kernel/io_uring_disabled 2
kernel/keys/gc_delay 300
kernel/keys/maxbytes 20000
kernel/keys/maxkeys 200
kernel/keys/persistent_keyring_expiry 259200
kernel/keys/root_maxbytes 25000000
kernel/keys/root_maxkeys 1000000
kernel/kptr_restrict 0
kernel/msgmax 8192
kernel/msgmnb 16384
kernel/msgmni 32000
kernel/overflowgid 65534
kernel/overflowuid 65534
kernel/panic 0
kernel/panic_on_oops 0
kernel/perf_event_max_sample_rate 100000
kernel/perf_event_mlock_kb 516
kernel/perf_event_paranoid 2
kernel/print-fatal-signals 0
kernel/printk 4	4	1	7
kernel/pty/max 4096
kernel/pty/reserve 1024
kernel/randomize_va_space 2
kernel/sched_autogroup_enabled 1
kernel/sched_child_runs_first 0
kernel/sched_rr_timeslice_ms 100
kernel/sched_rt_period_us 1000000
kernel/sched_rt_runtime_us 950000
kernel/sem 32000	1024000000	500	32000
kernel/shm_rmid_forced 0
kernel/shmall 18446744073692774399
kernel/shmmax 18446744073692774399
kernel/shmmni 4096
kernel/sysctl_writes_strict 1
kernel/tainted 0
kernel/timer_migration 1
kernel/unprivileged_bpf_disabled 2
kernel/watchdog 0
net/core/bpf_jit_enable 1
net/core/default_qdisc pfifo_fast
net/core/netdev_max_backlog 1000
net/core/optmem_max 131072
net/core/rmem_default 212992
net/core/rmem_max 4194304
net/core/somaxconn 4096
net/core/wmem_default 212992
net/core/wmem_max 4194304
net/ipv4/icmp_errors_use_inbound_ifaddr 0
net/ipv4/icmp_ignore_bogus_error_responses 1
net/ipv4/igmp_max_memberships 20
net/ipv4/ip_early_demux 1
net/ipv4/ip_forward_use_pmtu 0
net/ipv4/ip_no_pmtu_disc 0
net/ipv4/ipfrag_high_thresh 4194304
net/ipv4/ipfrag_low_thresh 3145728
net/ipv4/ipfrag_time 30
net/ipv4/tcp_abort_on_overflow 0
net/ipv4/tcp_adv_win_scale 1
net/ipv4/tcp_allowed_congestion_control reno cubic
net/ipv4/tcp_app_win 31
net/ipv4/tcp_autocorking 1
net/ipv4/tcp_available_congestion_control reno cubic
net/ipv4/tcp_base_mss 1024
net/ipv4/tcp_challenge_ack_limit 2147483647
net/ipv4/tcp_congestion_control cubic
net/ipv4/tcp_dsack 1
net/ipv4/tcp_early_demux 1
net/ipv4/tcp_early_retrans 3
net/ipv4/tcp_ecn 2
net/ipv4/tcp_ecn_fallback 1
net/ipv4/tcp_fack 0
net/ipv4/tcp_fastopen 1
net/ipv4/tcp_fin_timeout 60
net/ipv4/tcp_frto 2
net/ipv4/tcp_invalid_ratelimit 500
net/ipv4/tcp_keepalive_intvl 75
net/ipv4/tcp_keepalive_probes 9
net/ipv4/tcp_keepalive_time 7200
net/ipv4/tcp_limit_output_bytes 4194304
net/ipv4/tcp_max_syn_backlog 512
net/ipv4/tcp_max_tw_buckets 8192
net/ipv4/tcp_mem 94053	125405	188106
net/ipv4/tcp_min_snd_mss 48
net/ipv4/tcp_moderate_rcvbuf 1
net/ipv4/tcp_mtu_probing 0
net/ipv4/tcp_no_metrics_save 0
net/ipv4/tcp_notsent_lowat 4294967295
net/ipv4/tcp_orphan_retries 0
net/ipv4/tcp_recovery 1
net/ipv4/tcp_reordering 3
net/ipv4/tcp_retries1 3
net/ipv4/tcp_retries2 15
net/ipv4/tcp_rfc1337 0
net/ipv4/tcp_rmem 4096	131072	6291456
net/ipv4/tcp_sack 1
net/ipv4/tcp_slow_start_after_idle 1
net/ipv4/tcp_syn_retries 6
net/ipv4/tcp_synack_retries 5
net/ipv4/tcp_syncookies 1
net/ipv4/tcp_thin_linear_timeouts 0
net/ipv4/tcp_timestamps 1
net/ipv4/tcp_tw_reuse 2
net/ipv4/tcp_window_scaling 1
net/ipv4/tcp_wmem 4096	16384	4194304
net/ipv4/udp_early_demux 1
net/ipv4/udp_mem 188106	250810	376212
net/ipv4/udp_rmem_min 4096
net/ipv4/udp_wmem_min 4096
net/unix/max_dgram_qlen 10
user/max_inotify_instances 128
user/max_inotify_watches 65536
vm/compact_memory 0
vm/dirty_background_bytes 0
vm/dirty_background_ratio 10
vm/dirty_bytes 0
vm/dirty_expire_centisecs 3000
vm/dirty_ratio 20
vm/dirty_writeback_centisecs 500
vm/drop_caches 0
vm/extfrag_threshold 500
vm/legacy_va_layout 0
vm/min_free_kbytes 67584
vm/mmap_min_addr 65536
vm/mmap_rnd_bits 28
vm/oom_dump_tasks 1
vm/oom_kill_allocating_task 0
vm/page-cluster 3
vm/panic_on_oom 0
vm/swappiness 60
vm/unprivileged_userfaultfd 0
vm/user_reserve_kbytes 131072
vm/vfs_cache_pressure 100
vm/zone_reclaim_mode 0
"""
"""Path, a blank, value."""
SIGNED: Final = frozenset({
    "kernel/cad_pid", "kernel/panic", "kernel/perf_event_paranoid", "kernel/sched_rr_timeslice_ms",
    "kernel/sched_rt_runtime_us", "kernel/sem", "kernel/sysctl_writes_strict",
})  # fmt: skip
"""Those that may become negative, with all of net/: no minimum in their ctl_table."""

LONG: Final = frozenset({
    "fs/aio-max-nr", "fs/epoll/max_user_watches", "fs/file-max", "kernel/shmall", "kernel/shmmax",
    "net/ipv4/ipfrag_high_thresh", "net/ipv4/ipfrag_low_thresh", "net/ipv4/tcp_mem",
    "net/ipv4/udp_mem", "vm/dirty_background_bytes", "vm/dirty_bytes", "vm/mmap_min_addr",
    "vm/user_reserve_kbytes",
})  # fmt: skip
"""Those of 64 bits: proc_doulongvec_minmax()."""
ULONG_MAX: Final = (1 << 64) - 1
_NUMBER: Final = re.compile(r"-?(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})")

BOUNDS: Final[dict[str, range]] = {
    "dev/tty/legacy_tiocsti": range(2),
    "fs/mqueue/msg_default": range(1, (1 << 16) + 1),
    "fs/mqueue/msg_max": range(1, (1 << 16) + 1),
    "fs/mqueue/msgsize_default": range(128, (16 << 20) + 1),
    "fs/mqueue/msgsize_max": range(128, (16 << 20) + 1),
    "fs/suid_dumpable": range(3),
    "kernel/sysctl_writes_strict": range(-1, 2),
}
"""What those may become: with which queues are made, ipc/mq_sysctl.c; sysctl_writes_mode."""
SIZES: Final = {
    "kernel/core_pattern": 128, "kernel/domainname": 65, "kernel/hostname": 65,
    "net/core/default_qdisc": 16, "net/ipv4/tcp_allowed_congestion_control": 2048,
    "net/ipv4/tcp_congestion_control": 16,
}  # fmt: skip
"""Strings, and the bytes that each may have, with its NUL: proc_dostring()."""
STRICT: Final = "kernel/sysctl_writes_strict"

MODES: Final = {
    "kernel/cad_pid": 0o600, "vm/compact_memory": 0o200, "vm/drop_caches": 0o200,
    "vm/mmap_rnd_bits": 0o600,
}  # fmt: skip
"""Others can be read by everybody."""
FIXED: Final = frozenset({
    "fs/dentry-state", "fs/inode-nr", "fs/inode-state", "kernel/bootloader_type",
    "kernel/bootloader_version", "net/ipv4/tcp_available_congestion_control",
})  # fmt: skip
"""Those that nobody writes."""
NEEDS: Final = {
    "kernel/dmesg_restrict": CAP_SYS_ADMIN, "kernel/kptr_restrict": CAP_SYS_ADMIN,
    "kernel/tainted": CAP_SYS_ADMIN, "kernel/unprivileged_bpf_disabled": CAP_SYS_ADMIN,
    "net/core/bpf_jit_enable": CAP_SYS_ADMIN, "net/core/default_qdisc": CAP_NET_ADMIN,
    "vm/mmap_min_addr": CAP_SYS_RAWIO,
}  # fmt: skip
"""What handlers ask of who writes, beside the uid of root: proc_dointvec_minmax_sysadmin()."""

Get = Callable[[Any], str]
Set = Callable[[Any, str], None]


class Sysctl(Struct, frozen=True):
    """One value: `get` and `put` take the kernel."""

    path: str
    get: Get
    put: Set | None
    of_reader: bool = False
    """It belongs to a namespace: `get` and `put` take the task."""
    writers: Callable[[Credentials, Any], bool] | None = None
    """Who may write it, and nobody else: by what somebody may do, and who has opened the file."""
    changes: Callable[[Any], ChangeCount] | None = None
    """What tells a poll(2) of another value."""
    checked: Callable[[str], str] | None = None
    """Of a value that is kept for each interface: one that is written, as it is kept."""
    noted: bool = False
    """It is an attribute of an object of the sandbox: what a program writes is in `values`, too, in
    the order in which it was written, for who makes a snapshot."""
    mode: int = 0
    """0: readable by all, and writable by root if there is a `put`."""
    needs: Callable[[Any], bool] | None = None
    """What the handler asks of the task that writes, before it looks what and where."""


_FIRST: Final[dict[str, str]] = {}
"""What is there before somebody writes: `DEFAULTS` by path."""
SYSCTLS: Final[dict[str, Sysctl]] = {}
"""Those of other modules are there when `sysctl_tree` is imported."""


def values(kernel: Kernel) -> dict[str, str]:
    """What was written, by path."""
    return kernel.services.sysctls


def values_of(who: Any, path: str) -> dict[str, str]:
    """The same; those of `OF_NAMESPACE` are a task's, others the kernel's."""
    if not path.startswith(OF_NAMESPACE):
        return values(who)
    found: dict[str, str] = (who.ns.ipc if path.startswith(OF_IPC) else who.ns.net).sysctls
    return found


def of_ipc(written: Mapping[str, str], path: str) -> str:
    """A value of an IPC namespace, where so much has been written."""
    return written.get(path, _FIRST[path])


def get_sysctl(kernel: Kernel, path: str) -> str:
    """A value by its path below /proc/sys. Raises: ENOENT."""
    sysctl = SYSCTLS.get(path)
    if sysctl is None:
        raise ENOENT(path)
    return sysctl.get(kernel)


def set_sysctl(kernel: Kernel, name: str, value: str) -> None:
    """By a name with dots or slashes, as sysctl(8) takes it. Raises: ENOENT, EPERM, EINVAL."""
    path = name if "/" in name else name.replace(".", "/")
    sysctl = SYSCTLS.get(path)
    if sysctl is None:
        raise ENOENT(name)
    if sysctl.put is None:
        raise EPERM(name)
    sysctl.put(kernel, value)


def narrows(who: Any, path: str, value: str) -> bool:
    """Whether what there is may exceed that value, as nothing new may. `who`: the task."""
    sysctl = SYSCTLS.get(path)
    if sysctl is None or not sysctl.noted or not (value.isdecimal() and len(value) < 20):
        return False
    if path.startswith("vm/overcommit_"):
        return True
    return int(value) < int(sysctl.get(who if sysctl.of_reader else who.kernel))


def numbers_in(value: str) -> list[int]:
    """The numbers of a value that is written: proc_get_long(). Raises: EINVAL."""
    words = value.split()
    if not value.isascii() or not all(_NUMBER.fullmatch(word) for word in words):
        raise EINVAL(f"{value!r}")
    try:
        return [_number(word) for word in words]
    except ValueError:
        raise EINVAL(f"{value!r}") from None


def _number(word: str) -> int:
    """Decimal, octal after 0, hexadecimal after 0x."""
    digits = word.removeprefix("-").lower()
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
    return int(word, base)


def having(capability: int) -> Callable[[Any], bool]:
    """Whether a task has it in the sandbox's first user namespace."""
    return lambda writer: bool(writer.creds.has(capability))


def _kept(line: str) -> None:
    path, default = line.split(" ", 1)
    _FIRST[path] = default
    numeric = default.replace("\t", "").isdecimal()
    signed = path in SIGNED or path.startswith("net/")
    width = len(default.split("\t"))
    least = -INT_MAX - 1 if signed else 0
    most = ULONG_MAX if path in LONG else max([INT_MAX, *numbers_in(default)] if numeric else [0])

    def put(who: Any, value: str) -> None:
        if numeric:
            numbers = numbers_in(value)
            if not 0 < len(numbers) <= width or not least <= min(numbers) <= max(numbers) <= most:
                raise EINVAL(f"{path}: {value!r}")
            if numbers[0] not in BOUNDS.get(path, numbers):
                raise EINVAL(f"{path}: {value!r}")
            rest = get(who).split("\t")[len(numbers) :]
            value = "\t".join([*map(str, numbers), *rest])
        values_of(who, path)[path] = value

    def get(who: Any) -> str:
        return values_of(who, path).get(path, default)

    is_of_ipc = path.startswith(OF_IPC)
    SYSCTLS[path] = Sysctl(
        path, get, None if path in FIXED else put, is_of_ipc or path.startswith(OF_NETWORK),
        _is_root_of_ipc if is_of_ipc else None, mode=MODES.get(path, 0),
        needs=having(NEEDS[path]) if path in NEEDS else None,
    )  # fmt: skip


def root_of(namespace: UserNamespace | None) -> Owner:
    """Whom it knows as root; the first one's, if there is none."""
    ids = (kernel_id(namespace, 0, kind) for kind in ("uid", "gid"))
    return Owner(*(0 if number == NO_ID else number for number in ids))


def _is_root_of_ipc(creds: Credentials, opener: Any) -> bool:
    """ipc_permissions(), mq_permissions()."""
    return creds.euid == root_of(opener.ns.ipc.owner).uid


for _line in DEFAULTS.strip("\n").splitlines():
    _kept(_line)


def computed(
    path: str,
    put: Set | None = None,
    *,
    of_reader: bool = False,
    **more: Any,
) -> Callable[[Get], Get]:
    """Declare a value that is worked out; `more`: of `Sysctl`."""

    def declare(get: Get) -> Get:
        of_kernel = not of_reader or ("writers" in more and not path.startswith(OF_IPC))
        noted = put is not None and of_kernel
        SYSCTLS[path] = Sysctl(path, get, put, of_reader, noted=noted, **more)
        return get

    return declare


def network_of(who: Any) -> Any:
    """The network namespace of a task, or the first one."""
    return who.ns.net


def granted(creds: Credentials, mode: int) -> int:
    """MAY_*, of a mode: test_perm(). Neither capabilities count nor root of a user namespace."""
    return mode >> (6 if creds.euid == 0 else 3 if creds.in_group(0) else 0) & MAY_ALL


class SysctlNode(TextNode):
    """A file below /proc/sys. Who has opened it has to be somebody who could at each call."""

    __slots__ = ("_kernel", "_sysctl")
    own_rights: ClassVar = True
    has_end = True
    stores_nothing = True
    ready = ALWAYS_READY

    def __init__(self, fs: TableFs, kernel: Kernel, sysctl: Sysctl) -> None:
        put = sysctl.put

        def store(caller: Any, data: bytes) -> None:
            assert put is not None
            text = data.split(b"\0", 1)[0].split(b"\n", 1)[0]
            if size := SIZES.get(sysctl.path):
                text = text[: size - 1]
            elif len(data) > MAX_VALUE:
                raise EINVAL(f"{len(data)} bytes")
            else:
                text = text.strip(b" \t")
            put(self._who(caller), text.decode("utf-8", "surrogateescape"))
            if sysctl.noted and not (sysctl.of_reader and caller.creds.user_ns):
                written = values(kernel)
                written.pop(sysctl.path, None)
                written[sysctl.path] = sysctl.get(self._who(caller))

        mode = sysctl.mode or (0o644 if put is not None else 0o444)
        super().__init__(fs, mode, None, store if put is not None else None)
        self._kernel = kernel
        self._sysctl = sysctl

    def _who(self, caller: Any) -> Any:
        """Whose value it is: the reader's, or the kernel's."""
        return caller if self._sysctl.of_reader else self._kernel

    def shown(self, caller: Caller) -> tuple[Callable[[Any], str | bytes], Any]:
        """The value and a newline."""
        sysctl = self._sysctl

        def show(reader: Any) -> bytes:
            return (sysctl.get(self._who(reader)) + "\n").encode("utf-8", "surrogateescape")

        return show, sysctl.changes(self._who(caller)) if sysctl.changes is not None else None

    def written(self, caller: Caller, offset: int, data: bytes) -> bytes:
        """A string goes on where it is written, up to its end; for a number that is nothing, so
        that a newline which comes by itself is no empty value. kernel.sysctl_writes_strict,
        _proc_do_string()."""
        sysctl = self._sysctl
        if not offset or get_sysctl(self._kernel, STRICT) != "1":
            return data
        if sysctl.path not in SIZES:
            return b""
        now = sysctl.get(self._who(caller)).encode("utf-8", "surrogateescape")
        return now[:offset] + data if offset <= len(now) else b""

    def belongs_to(self, caller: Caller) -> bool:
        """Of a namespace that the caller is privileged in: set_permissions() of kernel/ucount.c,
        net_ctl_permissions().
        """
        return self._is_privileged(caller.creds, caller)

    def _is_privileged(self, creds: Credentials, opener: Caller) -> bool:
        sysctl = self._sysctl
        if sysctl.writers is not None:
            return sysctl.writers(creds, opener)
        if sysctl.put is None or not sysctl.path.startswith(OF_NETWORK):
            return False
        return creds.has_in(network_of(opener).owner, CAP_NET_ADMIN)

    def _grants(self, creds: Credentials, mask: int) -> bool:
        mode = self.mode if self._sysctl.writers is None else self.mode & 0o444
        return not mask & MAY_ALL & ~granted(creds, mode)

    def check_rights(self, creds: Credentials, mask: int) -> None:
        """sysctl_perm(). Raises: EACCES."""
        if not self._grants(creds, mask):
            raise EACCES(self._sysctl.path)

    def check_reader(self, caller: Caller) -> None:
        """proc_sys_call_handler(). Raises: EPERM."""
        if not (self._grants(caller.creds, MAY_READ) or self._is_privileged(caller.creds, caller)):
            raise EPERM(self._sysctl.path)

    def stored(self, opener: Caller) -> Store | None:
        """As of any other, by who may write it then, also nothing: proc_sys_call_handler().

        Raises: EPERM.
        """
        rest, needs = super().stored(opener), self._sysctl.needs
        if rest is None:
            return None

        def store(writer: Caller, data: bytes) -> Any:
            creds = writer.creds
            if not (self._grants(creds, MAY_WRITE) or self._is_privileged(creds, opener)):
                raise EPERM(self._sysctl.path)
            if needs is not None and not needs(writer):
                raise EPERM(f"{self._sysctl.path}: a capability")
            return rest(writer, data) if data else None

        return store

    def owner_for(self, caller: Caller, attributes: Attributes) -> Owner:
        """Values of a network belong to root of its user namespace: net_ctl_set_ownership(); and
        so do those of IPC: ipc_set_ownership()."""
        if self._sysctl.path.startswith(OF_IPC):
            return root_of(caller.ns.ipc.owner)
        if not self._sysctl.path.startswith("net/"):
            return super().owner_for(caller, attributes)
        owner = network_of(caller).owner
        return Owner(kernel_id(owner, 0), kernel_id(owner, 0, "gid"))
