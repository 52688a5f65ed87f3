"""/proc/meminfo, stat, uptime, version… of the whole sandbox."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from typing import Final

from sentry.fs.proc.process_status import allowed_cpus
from sentry.fs.proc.registry import View, root_file
from sentry.fs.proc.state import TICK_NS, offset_of, state
from sentry.fs.pseudo.cpu import cpu_of
from sentry.fs.pseudo.files import Pieces
from sentry.fs.pseudo.memory import memory_of

NODEV: Final = frozenset({b"ext4", b"ext3", b"ext2", b"xfs", b"btrfs", b"squashfs", b"erofs"})
"""File systems that have a device."""
CONTROLLERS: Final = ("cpuset", "cpu", "cpuacct", "memory", "pids")


@root_file("cpuinfo")
def cpuinfo(view: View) -> str:
    """One block for each CPU."""
    return cpu_of(view.kernel).text()


@root_file("meminfo")
def meminfo(view: View) -> str:
    """Sizes in kB. The page cache is the host's, so what is free is available."""
    memory = memory_of(view.kernel, view.caller.group.container)
    total, free = memory.total // 1024, memory.free // 1024
    shared, tables = memory.shared // 1024, memory.tables // 1024
    used = max(total - free - shared - tables, 0)
    rows = [
        ("MemTotal", total), ("MemFree", free), ("MemAvailable", free), ("Buffers", 0),
        ("Cached", shared), ("SwapCached", 0), ("Active", used), ("Inactive", shared),
        ("Active(anon)", used), ("Inactive(anon)", shared), ("Active(file)", 0),
        ("Inactive(file)", 0), ("Unevictable", 0), ("Mlocked", 0), ("SwapTotal", 0),
        ("SwapFree", 0), ("Zswap", 0), ("Zswapped", 0), ("Dirty", 0), ("Writeback", 0),
        ("AnonPages", used), ("Mapped", 0), ("Shmem", shared), ("KReclaimable", 0), ("Slab", 0),
        ("SReclaimable", 0), ("SUnreclaim", 0), ("KernelStack", 0), ("PageTables", tables),
        ("SecPageTables", 0), ("NFS_Unstable", 0), ("Bounce", 0), ("WritebackTmp", 0),
        ("CommitLimit", memory.promisable // 1024), ("Committed_AS", memory.promised // 1024),
        ("VmallocTotal", 34359738367), ("VmallocUsed", 0), ("VmallocChunk", 0), ("Percpu", 0),
        ("HardwareCorrupted", 0), ("AnonHugePages", 0), ("ShmemHugePages", 0),
        ("ShmemPmdMapped", 0), ("FileHugePages", 0), ("FilePmdMapped", 0),
    ]  # fmt: skip
    lines = [f"{name + ':':<16}{kib:8} kB\n" for name, kib in rows]
    for name in ("Total", "Free", "Rsvd", "Surp"):
        lines.append(f"{'HugePages_' + name + ':':<16}{0:8}\n")
    return "".join([*lines, "Hugepagesize:       2048 kB\n", "Hugetlb:               0 kB\n"])


def uptime_ns(view: View) -> int:
    """CLOCK_BOOTTIME, as programs see it."""
    shown_ns: int = view.kernel.clock.shown_ns(time.CLOCK_BOOTTIME)
    return shown_ns


def used_ns(view: View) -> Generator[str | bytes, None, tuple[int, int]]:
    """User and system time of all processes, and an empty piece for each."""
    user = system = 0
    for group in list(view.kernel.pids.groups.values()):
        u, s = group.cpu_ns()
        user, system = user + u, system + s
        yield ""
    return user, system


def idle_ns(view: View, used: int) -> int:
    """CPU time since the sandbox started that no process used."""
    boot: int = view.kernel.boot_ns
    now_ns: int = view.kernel.clock.now_ns()
    return max(0, (now_ns - boot) * allowed_cpus(view) - used)


def states(view: View) -> Generator[str, None, Counter[str]]:
    """How many tasks are in each state, and an empty piece for each task."""
    found: Counter[str] = Counter()
    for task in list(view.kernel.pids.tasks.values()):
        found[state(task)] += 1
        yield ""
    return found


@root_file("uptime")
def uptime(view: View) -> Pieces:
    """Seconds since boot, and idle."""
    idle_for_ns = idle_ns(view, sum((yield from used_ns(view))))
    now_ns = uptime_ns(view) + offset_of(view.caller)
    (up, up_cs), (idle, idle_cs) = (divmod(ns // 10**7, 100) for ns in (now_ns, idle_for_ns))
    yield f"{up}.{up_cs:02} {idle}.{idle_cs:02}\n"


@root_file("loadavg")
def loadavg(view: View) -> Pieces:
    """Loads are not kept; the last number given out is that of the reader's namespace."""
    pids = view.kernel.pids
    running = (yield from states(view))["R"]
    last = view.caller.pids.last
    yield f"0.00 0.00 0.00 {max(1, running)}/{len(pids.tasks)} {last}\n"


@root_file("stat")
def stat(view: View) -> Pieces:
    """show_stat(): ticks of user, nice, system, idle…; all CPUs share alike."""
    cpus, kernel = allowed_cpus(view), view.kernel
    user, system = yield from used_ns(view)
    idle = idle_ns(view, user + system)
    found = yield from states(view)
    boot = (view.kernel.clock.wall_ns() - uptime_ns(view) - offset_of(view.caller)) // 10**9
    lines = [f"cpu  {user // TICK_NS} 0 {system // TICK_NS} {idle // TICK_NS} 0 0 0 0 0 0\n"]
    for cpu in range(cpus):
        u, s, i = (value // TICK_NS // cpus for value in (user, system, idle))
        lines.append(f"cpu{cpu} {u} 0 {s} {i} 0 0 0 0 0 0\n")
    yield "".join([
        *lines, "intr 0\n", "ctxt 0\n", f"btime {boot}\n", f"processes {kernel.pids.last}\n",
        f"procs_running {max(1, found['R'])}\n", f"procs_blocked {found['D']}\n",
        "softirq 0 0 0 0 0 0 0 0 0 0 0\n",
    ])  # fmt: skip


@root_file("version")
def version(view: View) -> bytes:
    """uname(2) in one line."""
    uts = view.kernel.uts
    return b"%s version %s (runsc@sandbox) (Python) %s\n" % (uts.sysname, uts.release, uts.version)


@root_file("cmdline")
def cmdline(view: View) -> str:
    """The kernel's command line."""
    return "BOOT_IMAGE=/vmlinuz quiet\n"


@root_file("filesystems")
def filesystems(view: View) -> bytes:
    """What mount(2) knows."""
    types = sorted({*view.kernel.vfs.types, b"proc", b"sysfs", b"tmpfs"})
    return b"".join((b"\t" if name in NODEV else b"nodev\t") + name + b"\n" for name in types)


@root_file("devices")
def devices(view: View) -> str:
    """Major numbers in use."""
    return (
        "Character devices:\n  1 mem\n  4 tty\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n"
        " 10 misc\n136 pts\n\nBlock devices:\n"
    )


@root_file("misc")
def misc(view: View) -> str:
    """Devices of major 10."""
    return "200 tun\n229 fuse\n"


@root_file("partitions")
def partitions(view: View) -> str:
    """There are no disks."""
    return "major minor  #blocks  name\n\n"


@root_file("diskstats")
def diskstats(view: View) -> str:
    """There are no disks."""
    return ""


@root_file("swaps")
def swaps(view: View) -> str:
    """There is no swap."""
    return "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


@root_file("modules")
def modules(view: View) -> str:
    """There are no modules."""
    return ""


@root_file("consoles")
def consoles(view: View) -> str:
    """No console."""
    return ""


@root_file("crypto")
def crypto(view: View) -> str:
    """No algorithms."""
    return ""


@root_file("locks")
def locks(view: View) -> Pieces:
    """Who holds what and who waits for that, as far as the mount's PID namespace knows the holder:
    locks_show()."""
    pids, number, is_known = view.pids, 0, False
    for file in list(view.kernel.vfs.budget.locked):
        major, minor = file.device >> 8 & 0xFFF, file.device & 0xFF | file.device >> 12 & ~0xFF
        for each in file.shown():
            if each is None:
                yield ""
                continue
            depth, what, whose, where = each
            pid = whose if whose == -1 else pids.of(whose)
            if not depth:
                is_known = bool(pid)
                number += is_known
            what = f"{'-> ':>{depth + 2}}{what}" if depth else what
            place = f"{major:02x}:{minor:02x}:{file.ino}"
            yield f"{number}: {what} {pid} {place} {where}\n" * is_known


@root_file("interrupts")
def interrupts(view: View) -> str:
    """There are none to count."""
    cpus = allowed_cpus(view)
    head = "           " + "".join(f"CPU{cpu:<8}" for cpu in range(cpus)) + "\n"
    return head + f"NMI: {' '.join(f'{0:10}' for _ in range(cpus))}   Non-maskable interrupts\n"


@root_file("softirqs")
def softirqs(view: View) -> str:
    """There are none to count."""
    cpus = allowed_cpus(view)
    head = " " * 20 + "".join(f"CPU{cpu:<8}" for cpu in range(cpus)) + "\n"
    kinds = ("HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED",
             "HRTIMER", "RCU")  # fmt: skip
    return head + "".join(f"{k + ':':>12}" + f"{0:11}" * cpus + "\n" for k in kinds)


@root_file("vmstat")
def vmstat(view: View) -> str:
    """Counts of pages."""
    container = view.caller.group.container
    memory = memory_of(view.kernel, container)
    free, used = memory.free // 4096, (memory.total - memory.free) // 4096
    rows = {
        "nr_free_pages": free, "nr_zone_inactive_anon": 0, "nr_zone_active_anon": used,
        "nr_inactive_anon": 0, "nr_active_anon": used, "nr_inactive_file": 0, "nr_active_file": 0,
        "nr_unevictable": 0, "nr_mlock": 0, "nr_anon_pages": used, "nr_mapped": 0,
        "nr_file_pages": memory.shared // 4096, "nr_dirty": 0, "nr_writeback": 0,
        "nr_shmem": memory.shared // 4096, "nr_page_table_pages": memory.tables // 4096,
        "nr_kernel_stack": 0, "pgpgin": 0, "pgpgout": 0, "pswpin": 0, "pswpout": 0,
        "pgfault": view.kernel.counters.faults, "pgmajfault": 0,
        "oom_kill": container.oom_kills, "pgsteal_kswapd": 0, "pgscan_kswapd": 0,
        "allocstall_normal": 0, "thp_fault_alloc": 0,
    }  # fmt: skip
    return "".join(f"{name} {value}\n" for name, value in rows.items())


@root_file("zoneinfo")
def zoneinfo(view: View) -> str:
    """One zone."""
    memory = memory_of(view.kernel, view.caller.group.container)
    free, total = memory.free // 4096, memory.total // 4096
    return (
        f"Node 0, zone   Normal\n  pages free     {free}\n        min      0\n"
        f"        low      0\n        high     0\n        spanned  {total}\n"
        f"        present  {total}\n        managed  {total}\n"
    )


@root_file("buddyinfo")
def buddyinfo(view: View) -> str:
    """All free memory in pages."""
    free = memory_of(view.kernel, view.caller.group.container).free // 4096
    return f"Node 0, zone   Normal {free:6}" + f" {0:6}" * 10 + "\n"


@root_file("cgroups")
def cgroups(view: View) -> str:
    """Controllers that count for a container, none in a hierarchy of version 1. Java looks here,
    `cpuacct` too, for whether there are any: else it knows no limit.
    """
    count = view.caller.group.container.cgroup.descendants + 1
    rows = (f"{name}\t0\t{count}\t1\n" for name in CONTROLLERS)
    return "#subsys_name\thierarchy\tnum_cgroups\tenabled\n" + "".join(rows)


@root_file("key-users")
def key_users(view: View) -> Pieces:
    """What keys each user has, and may have."""
    found = view.kernel.services.keys
    yield from () if found is None else found.show_users(view.caller)


@root_file("keys")
def keys(view: View) -> Pieces:
    """What the reader may view of them."""
    show = view.kernel.services.keys_text
    yield from () if show is None else show(view.caller)


def _pressure(view: View) -> str:
    averages = "avg10=0.00 avg60=0.00 avg300=0.00 total=0"
    return f"some {averages}\nfull {averages}\n"


for _resource in ("cpu", "io", "memory"):
    root_file(f"pressure/{_resource}")(_pressure)


@root_file("tty/drivers")
def tty_drivers(view: View) -> str:
    """What ps(1) makes names of terminals from."""
    return (
        "/dev/tty             /dev/tty        5       0 system:/dev/tty\n"
        "/dev/console         /dev/console    5       1 system:console\n"
        "/dev/ptmx            /dev/ptmx       5       2 system\n"
        "pty_slave            /dev/pts      136 0-1048575 pty:slave\n"
        "pty_master           /dev/ptm      128 0-1048575 pty:master\n"
    )


@root_file("tty/ldiscs")
def tty_ldiscs(view: View) -> str:
    """Line disciplines."""
    return "n_tty       0\n"


def _services(name: str, head: str) -> None:
    """A table of System V IPC, of the reader's namespace."""

    @root_file(f"sysvipc/{name}")
    def table(view: View) -> Pieces:
        yield head
        made = view.caller.ns.ipc.made
        yield from () if made is None else made.table(name, view.caller)


_services("shm", (
    "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid"
    "      atime      dtime      ctime                   rss                  swap\n"
))  # fmt: skip
_services("sem", (
    "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"
))  # fmt: skip
_services("msg", (
    "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid"
    "      stime      rtime      ctime\n"
))  # fmt: skip
