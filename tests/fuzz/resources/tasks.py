"""Tasks, what they wait for, signals, timers, keys, queues, namespaces."""

from __future__ import annotations

import struct

from sentry.abi import bpf as abi_bpf
from sentry.abi.futex import FUTEX_REQUEUE, FUTEX_WAIT, FUTEX_WAKE
from sentry.abi.keyctl import (
    KEY_SPEC_SESSION_KEYRING,
    KEYCTL_CLEAR,
    KEYCTL_READ,
    KEYCTL_SEARCH,
    KEYCTL_UNLINK,
)
from sentry.abi.resource import PRIO_PGRP
from sentry.abi.signal import SIGCONT, SIGKILL, SIGSTOP
from sentry.config import JobLimits
from sentry.kernel.cgroup import MAX_DEPTH
from sentry.kernel.job import Job
from sentry.wait.steps import at_once
from tests.fuzz.scaling import Bench, Resource

IPC_CREAT, IPC_RMID = 0o1000, 0
SIGRT = 40


def threads(b: Bench) -> None:
    """Of one process."""
    made = b.threads()
    b.each("signal", lambda i: b.ok("tgkill", b.program.task.group.tgid, made[i].task.tid, 0))
    b.list_all("list /proc/self/task", b"/proc/self/task")
    room = b.program.buffer(256)
    b.each("getrusage", lambda _: b.ok("getrusage", 0, room))
    b.each("end", lambda i: made[i].begin("exit", 0))
    b.world.settle()


def crowd(b: Bench) -> None:
    """Threads that are stopped, go on and die together."""
    b.threads()
    other, number = b.world.program(), b.program.task.tid
    for name, signo in (("stop", SIGSTOP), ("continue", SIGCONT), ("kill", SIGKILL)):
        with b.measure(name):
            other.ok("kill", number, signo)
            b.world.settle()


def shoal(b: Bench) -> None:
    """A process group whose processes are stopped, go on and die together."""
    made = [b.program.fork() for _ in range(b.n)]
    for child in made:
        b.ok("setpgid", child.task.tid, made[0].task.tid)
    with b.measure("set priorities"):
        b.ok("setpriority", PRIO_PGRP, made[0].task.tid, 1)
    for name, signo in (("stop", SIGSTOP), ("continue", SIGCONT), ("kill", SIGKILL)):
        with b.measure(name):
            b.ok("kill", -made[0].task.tid, signo)
            b.world.settle()


def processes(b: Bench) -> None:
    """Children of one process."""
    made = b.each("fork", lambda _: b.program.fork())
    b.each("kill 0", lambda i: b.ok("kill", made[i].task.tid, 0))
    b.each("getpgid", lambda i: b.ok("getpgid", made[i].task.tid))
    b.list_all("list /proc", b"/proc")
    b.each("read stat", lambda i: b.ok("close", b.ok("open", b"/proc/%d/stat" % made[i].task.tid)))
    with b.measure("signal all"):
        b.ok("kill", -b.program.task.group.tgid, 0)
    b.each("setpgid", lambda i: b.ok("setpgid", made[i].task.tid, made[0].task.tid))
    b.each("exit", lambda i: made[i].begin("exit_group", 0))
    b.world.settle()
    b.each("wait for any", lambda _: b.ok("wait4", -1, 0, 0, 0))


def zombies(b: Bench) -> None:
    """Many that nobody waits for, beside one that lives."""
    made = b.each("fork and exit", lambda _: b.program.fork())
    for child in made:
        child.begin("exit_group", 0)
    b.world.settle()
    living = b.program.fork()
    b.each("wait for the other", lambda _: b.ok("wait4", living.task.tid, 0, 1, 0))
    b.list_all("list /proc", b"/proc")
    with b.measure("orphans"):
        b.program.begin("exit_group", 0)
        b.world.settle()


def sleepers(b: Bench) -> None:
    """Threads that sleep until a time."""
    made, long = b.threads(), b.program.place(struct.pack("<qq", 10_000, 0))
    b.each("sleep", lambda i: made[i].begin("nanosleep", long, 0))
    with b.measure("kill"):
        b.program.begin("exit_group", 0)
        b.world.settle()


def waiters(b: Bench) -> None:
    """Threads on one futex."""
    made, word, other = b.threads(), b.program.buffer(4), b.program.buffer(4)
    b.each("wait", lambda i: made[i].begin("futex", word, FUTEX_WAIT, 0, 0))
    with b.measure("requeue"):
        assert b.ok("futex", word, FUTEX_REQUEUE, 0, 1 << 20, other) == b.n
    b.each("wake one", lambda _: (b.ok("futex", other, FUTEX_WAKE, 1), b.world.settle()))


def words(b: Bench) -> None:
    """Threads, each on a futex of its own."""
    made, area = b.threads(), b.program.buffer(8 * b.n)
    b.each("wait", lambda i: made[i].begin("futex", area + 8 * i, FUTEX_WAIT, 0, 0))
    b.each("wake", lambda i: (b.ok("futex", area + 8 * i, FUTEX_WAKE, 1), b.world.settle()))


def readers(b: Bench) -> None:
    """Threads that read from one pipe."""
    made, (reader, writer) = b.threads(), b.pair("pipe2", 0)
    room = b.program.buffer(8)
    b.each("read", lambda i: made[i].begin("read", reader, room, 1))
    b.each("write", lambda _: (b.ok("write", writer, b"x", 1), b.world.settle()))


def queued_signals(b: Bench) -> None:
    """Of one number, then taken."""
    b.program.block(SIGRT)
    me = b.program.task.group.tgid
    info = b.program.place(struct.pack("<iii", SIGRT, 0, -1) + bytes(116))
    b.each("queue", lambda _: b.ok("rt_sigqueueinfo", me, SIGRT, info))
    room = b.program.buffer(128)
    b.each("pending", lambda _: b.ok("rt_sigpending", room, 8))
    b.read_all("read status", b"/proc/self/status")
    every = b.program.place(b"\xff" * 8)
    b.each("take", lambda _: b.ok("rt_sigtimedwait", every, 0, 0, 8))


def posix_timers(b: Bench) -> None:
    """Of one process."""
    event = b.program.place(struct.pack("<QiiQ", 0, SIGRT, 0, 0) + bytes(48))
    room = b.program.buffer(8)
    when = b.program.place(struct.pack("<4q", 0, 0, 10_000, 0))

    def create(_: int) -> int:
        b.ok("timer_create", 1, event, room)
        return int(struct.unpack("<i", b.program.read(room, 4))[0])

    made = b.each("create", create)
    b.each("set", lambda i: b.ok("timer_settime", made[i], 0, when, 0))
    b.each("set again", lambda i: b.ok("timer_settime", made[i], 0, when, 0))
    b.read_all("read /proc/self/timers", b"/proc/self/timers")
    b.each("delete", lambda i: b.ok("timer_delete", made[i]))


def cpu_timers(b: Bench) -> None:
    """Of one process, on its CPU time."""
    event = b.program.place(struct.pack("<QiiQ", 0, SIGRT, 0, 0) + bytes(48))
    room = b.program.buffer(8)
    when = b.program.place(struct.pack("<4q", 0, 0, 10_000, 0))
    other = b.program.place(struct.pack("<4q", 0, 0, 20_000, 0))
    made = []
    for _ in range(b.n):
        b.ok("timer_create", 2, event, room)
        made.append(struct.unpack("<i", b.program.read(room, 4))[0])
    b.each("set", lambda i: b.ok("timer_settime", made[i], 0, when, 0))
    b.each("set again", lambda i: b.ok("timer_settime", made[i], 0, other, 0))
    b.each("delete", lambda i: i % 2 or b.ok("timer_delete", made[i]))
    with b.measure("exit"):
        b.program.begin("exit_group", 0)
        b.world.settle()


def timerfds(b: Bench) -> None:
    """Armed, and armed again."""
    when = b.program.place(struct.pack("<4q", 0, 0, 10_000, 0))
    made = b.each("create", lambda _: b.ok("timerfd_create", 1, 0))
    b.each("set", lambda i: b.ok("timerfd_settime", made[i], 0, when, 0))
    b.each("set again", lambda i: b.ok("timerfd_settime", made[i], 0, when, 0))
    b.each("close", lambda i: b.ok("close", made[i]))


def keys(b: Bench) -> None:
    """In one keyring."""
    ring = KEY_SPEC_SESSION_KEYRING
    most = 190  # of a user
    made = b.each("add", lambda i: b.ok("add_key", b"user", b"k%d" % (i % most), b"v", 1, ring))
    b.each("search", lambda i: b.ok("keyctl", KEYCTL_SEARCH, ring, b"user", b"k%d" % (i % most), 0))
    room = b.program.buffer(4096)
    with b.measure("read the ring"):
        b.ok("keyctl", KEYCTL_READ, ring, room, 4096)
    b.read_all("read /proc/keys", b"/proc/keys")
    b.each("unlink", lambda i: i >= most or b.ok("keyctl", KEYCTL_UNLINK, made[i], ring))
    b.each("refill", lambda i: b.ok("add_key", b"user", b"k%d" % (i % most), b"v", 1, ring))
    with b.measure("clear"):
        b.ok("keyctl", KEYCTL_CLEAR, ring)


def supplementary_groups(b: Bench) -> None:
    """Of one process: 65,536 at most."""
    numbers = b.program.place(struct.pack(f"<{b.n}I", *range(b.n, 0, -1)))
    with b.measure("set"):
        b.ok("setgroups", b.n, numbers)
    with b.measure("get"):
        assert b.ok("getgroups", b.n, numbers) == b.n
    b.read_all("read status", b"/proc/self/status")
    b.ok("close", b.ok("open", b"/tmp/f", 0o102, 0o640))
    b.ok("chown", b"/tmp/f", 5, b.n)
    b.ok("setresuid", 1000, 1000, 1000)
    b.each("open", lambda _: b.ok("close", b.ok("open", b"/tmp/f", 0)))


def messages(b: Bench) -> None:
    """In a System V queue, each of its own type."""
    queue, room = b.ok("msgget", 1, IPC_CREAT | 0o600), b.program.buffer(64)
    send = [b.program.place(struct.pack("<q", i + 1)) for i in range(b.n)]
    b.each("send", lambda i: b.ok("msgsnd", queue, send[i], 0, 0))
    b.each("receive the last by type", lambda i: b.ok("msgrcv", queue, room, 8, b.n - i, 0))


def message_readers(b: Bench) -> None:
    """Threads that wait for a message of one System V queue, and then for room in it."""
    queue, into = b.ok("msgget", 1, IPC_CREAT | 0o600), b.program.buffer(16)
    message = b.program.place(struct.pack("<q", 1) + bytes(8192))
    room, made = b.program.buffer(8200), b.threads()
    b.each("wait", lambda i: made[i].begin("msgrcv", queue, into, 8, 0, 0))
    b.each("send", lambda _: (b.ok("msgsnd", queue, message, 1, 0), b.world.settle()))
    for _ in range(2):
        b.ok("msgsnd", queue, message, 8192, 0)
    b.each("wait for room", lambda i: made[i].begin("msgsnd", queue, message, 8192, 0))
    b.each("receive", lambda _: (b.ok("msgrcv", queue, room, 8192, 0, 0), b.world.settle()))


def posix_messages(b: Bench) -> None:
    """In a POSIX queue, with priorities."""
    size = min(b.n, 10)
    attributes = b.program.place(struct.pack("<8q", 0, size, 8, 0, 0, 0, 0, 0))
    made = b.each("open", lambda i: b.ok("mq_open", b"q%d" % i, 0o102, 0o600, attributes))
    b.each("send", lambda i: b.ok("mq_timedsend", made[i], b"x", 1, i % 100, 0))
    room = b.program.buffer(8)
    b.each("receive", lambda i: b.ok("mq_timedreceive", made[i], room, 8, 0, 0))
    b.each("unlink", lambda i: (b.ok("mq_unlink", b"q%d" % i), b.ok("close", made[i])))


def system_v_objects(b: Bench) -> None:
    """Queues, sets of semaphores, segments."""
    for kind, get, control, size in (
        ("queue", "msgget", "msgctl", ()),
        ("set", "semget", "semctl", (1,)),
        ("segment", "shmget", "shmctl", (4096,)),
    ):
        made = b.each(
            f"{kind} create", lambda i, g=get, s=size: b.ok(g, 1 + i, *s, IPC_CREAT | 0o600)
        )
        b.each(f"{kind} find", lambda i, g=get, s=size: b.ok(g, 1 + i, *s, 0))
        b.read_all(f"{kind} list", b"/proc/sysvipc/" + get[:3].encode())
        extra = (0,) if kind == "set" else ()
        b.each(
            f"{kind} remove",
            lambda i, c=control, m=made, e=extra: b.ok(c, m[i], *e, IPC_RMID, 0),
        )


def semaphores(b: Bench) -> None:
    """Of one set, with threads that wait for one of them, and undo lists."""
    made = b.threads()
    number = b.ok("semget", 1, b.n, IPC_CREAT | 0o600)
    down = [b.program.place(struct.pack("<Hhh", i, -1, 0)) for i in range(b.n)]
    up = [b.program.place(struct.pack("<Hhh", i, 1, 0x1000)) for i in range(b.n)]
    b.each("wait", lambda i: made[i].begin("semop", number, down[i], 1))
    b.each("up", lambda i: (b.ok("semop", number, up[i], 1), b.world.settle()))


def attachments(b: Bench) -> None:
    """Of one segment, many times."""
    number = b.ok("shmget", 1, 4096, IPC_CREAT | 0o600)
    made = b.each("attach", lambda _: b.ok("shmat", number, 0, 0))
    b.each("detach", lambda i: b.ok("shmdt", made[i]))


def namespaces(b: Bench) -> None:
    """Each with a name of its own, kept by a descriptor."""
    for name, flag, file in (
        ("uts", 0x04000000, b"uts"), ("ipc", 0x08000000, b"ipc"), ("net", 0x40000000, b"net"),
        ("mnt", 0x00020000, b"mnt"),
    ):  # fmt: skip
        path = b"/proc/self/ns/" + file
        made = b.each(
            f"{name} unshare", lambda _, f=flag, p=path: (b.ok("unshare", f), b.ok("open", p, 0))[1]
        )
        b.each(f"{name} setns", lambda i, m=made: b.ok("setns", m[i], 0))
        b.each(f"{name} close", lambda i, m=made: b.ok("close", m[i]))


def pidfds(b: Bench) -> None:
    """Of one process, polled when it ends."""
    child = b.program.fork()
    made = b.each("open", lambda _: b.ok("pidfd_open", child.task.tid, 0))
    ep = b.ok("epoll_create1", 0)
    b.each("watch", lambda i: b.ok("epoll_ctl", ep, 1, made[i], _epoll_event(b)))
    with b.measure("exit"):
        child.begin("exit_group", 0)
        b.world.settle()
    b.each("close", lambda i: b.ok("close", made[i]))


def _epoll_event(b: Bench) -> int:
    return b.program.place(struct.pack("<IQ", 1, 0))


def groups_of_control(b: Bench) -> None:
    """cgroups beside each other."""
    b.world.mount("cgroup2", b"/sys/fs/cgroup")
    top = b"/sys/fs/cgroup/g%d"
    b.each("create", lambda i: b.ok("mkdir", top % i, 0o755))
    b.list_all("list", b"/sys/fs/cgroup")
    b.each("remove", lambda i: b.ok("rmdir", top % i))


def frozen(b: Bench) -> None:
    """Processes of a cgroup."""
    b.world.mount("cgroup2", b"/sys/fs/cgroup")
    b.ok("mkdir", b"/sys/fs/cgroup/g", 0o755)
    other = b.world.program()
    fds = {
        name: other.ok("open", b"/sys/fs/cgroup/g/cgroup." + name, 1)
        for name in (b"procs", b"freeze", b"kill")
    }
    made = [b.program.fork() for _ in range(b.n)]
    ids = [b"%d" % one.task.tid for one in made]
    b.each("move", lambda i: other.ok("write", fds[b"procs"], ids[i], len(ids[i])))
    for name, file, text in (
        ("freeze", b"freeze", b"1"),
        ("thaw", b"freeze", b"0"),
        ("kill", b"kill", b"1"),
    ):
        with b.measure(name):
            other.ok("write", fds[file], text, 1)
            b.world.settle()


def device_programs(b: Bench) -> None:
    """Programs of extended BPF, and cgroups in each other that have some."""
    b.world.mount("cgroup2", b"/sys/fs/cgroup")
    room = b.program.buffer(64)
    yes = struct.pack("<BBhi", 0xB7, 0, 0, 1) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    code, text = b.program.place(yes), b.program.place(b"GPL\0")
    load = struct.pack("<IIQQ", 15, 2, code, text)
    made = b.each("load", lambda _: b.ok("bpf", 5, load, len(load)))
    b.each("next", lambda i: b.ok("bpf", 11, struct.pack("<III", i, 0, 0), 12))
    place, groups = b"", []
    for i in range(b.n):
        place = place + b"/g" if i % MAX_DEPTH else b"/sys/fs/cgroup/%d" % i
        b.ok("mkdir", place, 0o755)
        groups.append(b.ok("open", place, 0))
    several = abi_bpf.BPF_F_ALLOW_MULTI
    b.each("attach", lambda i: b.ok(
        "bpf", 8, struct.pack("<IIII", groups[i], made[i], 6, several), 16
    ))  # fmt: skip
    told = struct.Struct("<IIIIQI")
    b.each("ask", lambda i: b.ok("bpf", 16, told.pack(groups[i], 6, 0, 0, room, 1), 28))
    with b.measure("judge"):
        b.ok("mknod", b"/null", 0o20600, 0x103)
    b.each("detach", lambda i: b.ok("bpf", 9, struct.pack("<III", groups[i], made[i], 6), 12))
    b.each("close", lambda i: b.ok("close", made[i]))


def job(b: Bench) -> None:
    """Processes of a job."""
    made = Job(b.world.kernel, JobLimits())
    first = b.world.program()
    first.task.group.job = made
    made.born(first.task.group)
    b.each("fork", lambda _: first.fork())
    with b.measure("use"):
        at_once(made.use())
    with b.measure("kill"):
        made.kill()
        b.world.settle()


RESOURCES: tuple[Resource, ...] = (
    threads, crowd, shoal, processes, zombies, sleepers, waiters, words, readers, queued_signals,
    posix_timers, cpu_timers, timerfds, keys, supplementary_groups, messages, message_readers,
    posix_messages, system_v_objects, semaphores, attachments, namespaces, pidfds,
    groups_of_control, frozen, device_programs, job,
)  # fmt: skip
