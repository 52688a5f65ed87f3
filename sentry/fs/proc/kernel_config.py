"""/proc/config.gz: which features this kernel has, as zcat(1) shows those of a built Linux.

What asks whether a feature is there before it uses it looks here (CONFIG_IKCONFIG_PROC). Only
features with something behind them say `y`; drivers and file systems of devices are left out.
"""

from __future__ import annotations

import zlib
from typing import Final

from sentry.fs.proc.registry import View, root_file

YES: Final = (
    "64BIT", "X86", "X86_64", "X86_VSYSCALL_EMULATION", "MMU", "SMP", "NUMA", "SYSCTL",
    "SYSVIPC", "SYSVIPC_SYSCTL", "POSIX_MQUEUE", "POSIX_MQUEUE_SYSCTL", "CROSS_MEMORY_ATTACH",
    "HIGH_RES_TIMERS", "POSIX_TIMERS", "PRINTK", "MULTIUSER", "FHANDLE", "KCMP",
    "CHECKPOINT_RESTORE", "NAMESPACES", "UTS_NS", "TIME_NS", "IPC_NS", "USER_NS", "PID_NS",
    "NET_NS", "FUTEX", "FUTEX_PI", "EPOLL", "SIGNALFD", "TIMERFD", "EVENTFD", "AIO", "SHMEM",
    "ADVISE_SYSCALLS", "MEMBARRIER", "SECCOMP", "SECCOMP_FILTER", "KEYS", "PERSISTENT_KEYRINGS",
    "SECURITY_YAMA", "TRANSPARENT_HUGEPAGE", "SECRETMEM", "ANON_VMA_NAME", "CGROUPS",
    "BINFMT_ELF", "BINFMT_SCRIPT", "ELF_CORE", "COREDUMP", "NET", "UNIX", "INET", "IPV6",
    "FILE_LOCKING", "INOTIFY_USER", "FANOTIFY", "OVERLAY_FS", "PROC_FS", "PROC_SYSCTL",
    "PROC_PAGE_MONITOR", "PROC_CHILDREN", "SYSFS", "KERNFS", "TMPFS", "TMPFS_XATTR",
    "TMPFS_POSIX_ACL", "FS_POSIX_ACL", "QUOTACTL", "TTY", "UNIX98_PTYS", "IKCONFIG",
    "IKCONFIG_PROC", "BSD_PROCESS_ACCT", "BSD_PROCESS_ACCT_V3", "TASK_XACCT",
    "TASK_IO_ACCOUNTING", "PACKET", "NETFILTER", "NF_CONNTRACK", "NF_NAT", "NF_TABLES",
    "NF_TABLES_INET", "NF_TABLES_IPV4", "NF_TABLES_IPV6", "NFT_CT", "NFT_NAT", "NFT_MASQ",
    "NFT_REDIR", "NFT_REJECT", "NFT_LIMIT", "NFT_LOG", "NFT_FIB", "NFT_COMPAT",
)  # fmt: skip
NO: Final = (
    "ASYMMETRIC_KEY_TYPE", "AUDIT", "BIG_KEYS", "BLK_DEV_LOOP", "BLK_DEV_RAM", "BPF_SYSCALL",
    "ENCRYPTED_KEYS", "FANOTIFY_ACCESS_PERMISSIONS", "IO_URING", "KALLSYMS", "KEXEC",
    "KEY_DH_OPERATIONS", "KPROBES", "KSM", "LATENCYTOP", "MEMORY_FAILURE", "MEM_SOFT_DIRTY",
    "MODIFY_LDT_SYSCALL", "MODULES", "PERF_EVENTS", "PROFILING", "QUOTA", "RSEQ",
    "RT_GROUP_SCHED", "SECURITY", "SECURITY_LANDLOCK", "SWAP", "TRUSTED_KEYS", "TUN",
    "USERFAULTFD", "USELIB", "X86_USER_SHADOW_STACK",
)  # fmt: skip
HEAD: Final = """\
#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 {} Kernel Configuration
#
"""


@root_file("config.gz")
def config(view: View) -> bytes:
    """CONFIG_*, compressed as gzip(1) does it."""
    lines = [f"CONFIG_{name}=y\n" for name in YES]
    lines += [f"# CONFIG_{name} is not set\n" for name in NO]
    text = HEAD.format(view.kernel.uts.release.decode()) + "".join(lines)
    packer = zlib.compressobj(wbits=31)
    return packer.compress(text.encode()) + packer.flush()
