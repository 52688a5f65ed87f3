"""What the command line hands to the Sentry: everything about one container's start.

Values only, already checked by runsc/oci/spec.py: numbers instead of names, masks instead of lists,
bytes where Linux has bytes. Descriptors are open and inherited by the fork; nothing here is a
path of the host. Structs of msgspec, because making a dataclass costs a millisecond of every start.
Annotations are no text, for msgspec would compile each of it in every start.
"""

from typing import Annotated

import msgspec

from sentry.abi.mount import MS_RDONLY
from sentry.faults import InjectState

Mask = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
"""Bits."""
Amount = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
"""Bytes, ns, numbers of something."""


Extents = tuple[tuple[int, int, int], ...]
"""user_namespaces(7): the first id inside, the first one outside, how many."""


class Capabilities(msgspec.Struct, frozen=True):
    """The five sets of capabilities(7) as bit masks."""

    bounding: Mask = 0
    effective: Mask = 0
    inheritable: Mask = 0
    permitted: Mask = 0
    ambient: Mask = 0


class Rlimit(msgspec.Struct, frozen=True):
    """One setrlimit(2): RLIMIT_* number, soft and hard limit (2**64-1 is RLIM_INFINITY)."""

    resource: int
    soft: int
    hard: int


class SchedulerConfig(msgspec.Struct, frozen=True):
    """What sched_setattr(2) would be told."""

    policy: Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
    nice: Annotated[int, msgspec.Meta(ge=-20, le=19)] = 0
    priority: Annotated[int, msgspec.Meta(ge=0, le=99)] = 0
    reset_on_fork: bool = False
    deadline: tuple[Amount, Amount, Amount] = (0, 0, 0)
    """Runtime, deadline, period in ns."""


class ProcessConfig(msgspec.Struct, frozen=True):
    """The first process of a container, or one started by `exec`."""

    args: tuple[bytes, ...]
    env: tuple[bytes, ...] = ()
    cwd: bytes = b"/"
    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    umask: int = 0o022
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int = 0
    scheduler: SchedulerConfig | None = None
    io_priority: int = 0
    """IOPRIO_PRIO_VALUE; 0: none of its own."""
    personality: int = 0
    """personality(2)."""
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    """Rows and columns of the terminal, where the bundle names them."""


class JobLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a process of `exec`, and all that comes of it, may use together; 0: not limited."""

    wall_ns: Amount = 0
    cpu_ns: Amount = 0
    memory: Amount = 0
    """Bytes of RAM that its processes have at a time."""
    tasks: Amount = 0
    """Threads of all its processes, zombies too, as pids.max has it."""
    written: Amount = 0
    """Bytes that its calls have written, as wchar of /proc/PID/io counts them."""
    sent: Amount = 0
    """Bytes that its sockets have given to a network outside of the sandbox."""


class JobUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """What it has used."""

    user_ns: Amount = 0
    system_ns: Amount = 0
    memory: Amount = 0
    """The most bytes, as far as anybody has looked: at least what its largest process had."""
    tasks: Amount = 0
    """The most at a time."""
    read: Amount = 0
    written: Amount = 0
    sent: Amount = 0


class MountConfig(msgspec.Struct, frozen=True):
    """One mount(2), in the order in which they are made.

    A bind mount comes through the Gofer: `attachment` is the index of what it exports, and
    `is_file` says that its root is a file. `flags` are MS_* without MS_BIND and MS_REC;
    `propagation` is MS_SHARED, MS_PRIVATE, MS_SLAVE or MS_UNBINDABLE (with MS_REC) or 0; `data`
    is what is left of the options, joined by commas.
    """

    destination: bytes
    type: str
    source: str = ""
    flags: int = 0
    propagation: int = 0
    data: str = ""
    attachment: int | None = None
    is_file: bool = False
    copy_up: bool = False
    """A tmpfs starts with what was below it."""
    follows: bool = False
    """What the host mounts below it later, or takes off again, shows."""
    exclusive: bool = False
    """Of a bind mount: others are taken not to change it, and one hears of it if they do."""
    overlay: str = ""
    """Of a bind mount: as `RootConfig.overlay`, and `overlay_size`; "" is "none"."""
    overlay_size: int = 0
    place: str = ""
    """What a bind mount is about, as the host numbers it: those of several containers that have
    the same are one file system."""


    @property
    def reads_only(self) -> bool:
        """Nothing is written through it to the host."""
        return bool(self.flags & MS_RDONLY) or bool(self.overlay)


class DeviceConfig(msgspec.Struct, frozen=True):
    """A node of /dev the bundle asks for: the mode holds S_IFCHR, S_IFBLK or S_IFIFO."""

    path: bytes
    mode: int
    major: int = 0
    minor: int = 0
    uid: int = 0
    gid: int = 0


class RootConfig(msgspec.Struct, frozen=True):
    """The root file system: attachment 0 of the Gofer.

    `overlay` is "memory" (what is written stays in the sandbox's memory), "disk" (its files' bytes
    lie in `SandboxConfig.disk_fd`) or "none" (it is kept on the host; only with a writable root).
    """

    readonly: bool = False
    overlay: str = "memory"
    overlay_size: int = 0
    """Bytes that files may have there; 0: what there is room for."""
    written_behind: bool = False
    """The Gofer has a journal: names are written to the host later than programs hear of them."""
    is_shared: bool = False
    """Others change it, too: another sandbox, or what is mounted."""
    is_image: bool = False
    """The attachment is a file: an image of EROFS."""
    image_fd: int = -1
    """That file, open to be read, where there is no Gofer."""


class LinkConfig(msgspec.Struct, frozen=True):
    """An interface that a container has from its start, where none of the host is its: frames of
    Ethernet over a stream, each with its size before it (four bytes, in network order)."""

    fd: int
    """Connected stream socket."""
    mtu: int
    addresses: tuple[tuple[bytes, int], ...] = ()
    """Addresses of 4 or 16 bytes, and the bits of their networks."""
    room: int = 0
    """Bytes that the other end may have on the way to here; what is more it loses."""
    gateways: tuple[bytes, ...] = ()
    """Of the default routes; 0.0.0.0: all are neighbours. Routers of IPv6 say so themselves."""


class PagesConfig(msgspec.Struct, frozen=True):
    """A file of pages, 4096 bytes each."""

    fd: int
    pages: int
    checks: tuple[int, ...]
    """A CRC-32 for each piece of them."""
    hashed: bool
    """It is that of their hashes (XXH64), not of their bytes."""
    looked_at: bool = False
    """Pieces with pages that are needed are good; there is nothing but these pages."""


class RestoreConfig(msgspec.Struct, frozen=True):
    """A snapshot that a sandbox begins with: sentry.state. The files are only read."""

    objects_fd: int
    objects_size: int
    objects_check: int
    """CRC-32."""
    pages: int
    """How many there are."""
    layers: tuple[PagesConfig, ...]
    """The files of pages of the snapshots that it builds on, the oldest first, and its own."""
    origins: tuple[tuple[int, int, int], ...]
    """Where the pages are, in their order: (layer, the first one in its file, how many)."""
    background: bool = False
    """Memory is read when it is touched, where it lies in one file, and not checked."""
    snapshot: str = ""
    """What the snapshot is called; empty: it has no name, and nothing can build on it."""

    def fds(self) -> tuple[int, ...]:
        """All of its files."""
        return self.objects_fd, *(layer.fd for layer in self.layers)


class ContainerConfig(msgspec.Struct, frozen=True):
    """One container."""

    container_id: str
    process: ProcessConfig
    root: RootConfig = RootConfig()
    mounts: tuple[MountConfig, ...] = ()
    hostname: str = ""
    domainname: str = ""
    masked_paths: tuple[bytes, ...] = ()
    readonly_paths: tuple[bytes, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    devices: tuple[DeviceConfig, ...] = ()
    seccomp: bytes = b""
    """The filter of the first process: an array of struct sock_filter; empty: none."""

    host_ids: tuple[Extents, Extents] = ((), ())
    """Users and groups, as the maps of its user namespace on the host have them; empty: as here.
    What programs see of it is /proc/PID/uid_map: all ids in the sandbox are those inside."""
    memory_limit: int = 1 << 30
    cpu_quota: tuple[int, int] = (0, 100_000)
    """Microseconds of CPU in a period, and the period; 0: not limited. The host enforces it."""
    cpu_weight: int = 100
    """The container's share beside others, as cpu.weight has it."""
    oom_group: bool = False
    """Where memory runs out for one program, all of the container is killed: memory.oom.group."""
    pids_limit: int = 0
    """Tasks that the container may have at a time; 0: not limited."""

    mortal_init: bool = False
    """The first process dies of signals as any other, though it is process 1."""
    preserved: tuple[int, ...] = ()
    """Descriptors of the caller that the program gets as 3 and up."""
    stdio: tuple[int, int, int] = (0, 1, 2)
    """The caller's standard input, output and error. Their flags are never changed."""
    gofer_fd: int = -1
    """Connected stream socket to the Gofer: one 9P session; attachments by index in `aname`. -1:
    there is none, for nothing of the host is needed but an image."""
    network: str = "none"
    """"none": a loopback interface of its own; "host": sockets of the host; "sandbox": a stack of
    its own behind the interfaces of a network namespace of the host, or a `link`."""
    services: bool = False
    """There are sockets of the host to connect to."""
    network_fd: int = -1
    """Connected socket of packets to the network process, where `network` is not "none"."""
    link: LinkConfig | None = None
    """Only where `network` is "sandbox"; None: its interfaces are those of a network namespace of
    the host."""
    stand_in_fd: int = -1
    """Connected socket to the process that stands for the container on the host, which wants to
    know how the first process ended; its own end is that of the container."""
    victim_fd: int = -1
    """Connected socket to a process that is killed in the end, if it is told that a program was
    killed for want of memory."""
    control_listener_fd: int = -1
    """Listening socket for other command lines; -1 where there is none."""
    restore: RestoreConfig | None = None
    """What the first program is, if it is not loaded."""


class EgressConfig(msgspec.Struct, frozen=True):
    """What may leave a network of the sandbox's own."""

    policy: str
    """A document: sentry.net.egress.rules."""
    host_addresses: tuple[str, ...] = ()
    dialer_fd: int = -1
    """Connected socket of packets to a process that reaches the policy's brokers, if it has some.
    Over a control socket it comes beside the request."""
    used: tuple[tuple[Amount, Amount, Amount], ...] = ()
    """What of its limits is used up already: bytes out and in, and connections; in all, then by
    each rule."""


class TracePoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """A point that a session listens to: sentry.watch.points."""

    name: str
    optional_fields: tuple[str, ...] = ()
    context_fields: tuple[str, ...] = ()


class TraceSink(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the records of a session go: "remote" (gVisor's wire), "json" or "null"."""

    name: str
    has_fd: bool = False
    """A descriptor comes with it."""
    retries: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    """So often a record for which there is no room is tried again; 0: while the queue has room."""
    backoff_ns: Annotated[int, msgspec.Meta(ge=1, le=10**12)] = 25_000
    """How long after the first time; twice as long each time."""
    backoff_max_ns: Annotated[int, msgspec.Meta(ge=1, le=10**12)] = 10_000_000


class TraceSession(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who listens to what happens in a sandbox, from outside: sentry.watch."""

    name: str = "Default"
    points: tuple[TracePoint, ...] = ()
    sinks: tuple[TraceSink, ...] = ()
    ignore_missing: bool = False
    """Points and fields that there are not are left out."""
    ends_with_listeners: bool = False
    """It ends when a record finds none of its sinks any more."""


class PolicyConfig(msgspec.Struct, frozen=True):
    """Who decides on system calls: sentry.policy."""

    name: str = ""
    """Of its file, for messages."""
    source: str = ""
    """Python."""
    learns: bool = False
    """Nothing is decided: what programs do is told to who watches, each thing once."""


class SandboxConfig(ContainerConfig, frozen=True):
    """One sandbox with its first container."""

    platform: str = "kvm"
    egress: EgressConfig | None = None
    """Only where `network` is "sandbox"; None: everything may leave."""
    policy: PolicyConfig | None = None
    """None: nobody decides, until a policy comes."""
    system_calls: str = "auto"
    """How they reach the kernel on kvm: "mailbox", "exit", "inline", or chosen by their cost."""
    kvm_fd: int = -1
    """/dev/kvm, open read-write; -1 on the unicorn platform."""
    ram_fd: int = -1
    """The file behind guest RAM, empty: a file on a tmpfs of `memory_limit` bytes, or a memfd."""
    disk_fd: int = -1
    """An empty file without a name on a disk of the host, where one is asked for."""
    statm_fd: int = -1
    """/proc/self/statm of the Sentry: what it allocates counts against the limit, too."""
    pagemap_fd: int = -1
    """/proc/self/pagemap of the Sentry, which tells what of RAM has changed since a snapshot."""
    cpus: int = 1
    """CPUs that the caller may run on: what the program is shown."""
    forkable: bool = False
    """It may be copied while it runs: what that takes is kept."""
    await_start: bool = False
    """Created now, started later through the control socket: outlives who created it."""
    control_fd: int = -1
    """Connected stream socket to the command line that started us."""
    log_fd: int = 2
    """Where messages, and tracebacks, go."""
    steps_fd: int = -1
    """Where tests read which steps took the kernel thread too long; -1: nowhere."""
    hold_at: int = 0
    """The container is paused in its Nth system call, for tests of snapshots; 0: never."""
    stat_fd: int = -1
    """/proc/stat, for such tests: in a virtual machine that stood still no step took long."""
    strace_fd: int = -1
    """Where system calls are written to; -1: nowhere."""
    strace_calls: tuple[str, ...] = ()
    """Only these are written: names, and families such as "%file"."""
    strace_others: bool = True
    """All but these, rather: with none named every call."""
    strace_limit: int = 32
    """So many bytes of what is read and written are shown."""
    inject: tuple[InjectState, ...] = ()
    """Faults that are wanted from the start, and what has come of them before that."""
    trace: TraceSession | None = None
    """Listens from before the first program runs."""
    trace_fds: tuple[int, ...] = ()
    """Of those of its sinks that have one."""
    repl: bool = False
    """A developer may run Python on the kernel's objects."""
    debug: bool = False
    """Say what kind of machine it is, and at the end what was refused."""


class FurtherConfig(ContainerConfig, frozen=True):
    """A container that is added to a sandbox. `memory_limit` 0: all that the sandbox has.

    It comes over a control socket, and its descriptors beside it: their numbers here are places in
    that list (`descriptors`).
    """

    shares: tuple[tuple[str, str], ...] = ()
    """(namespace, id of the container whose it is too): "ipc", "network", "pid", "uts"."""
    volumes_fd: int = -1
    """Connected stream socket to a second Gofer, for all attachments but the root: what they export
    may be other containers' too, and outlive this one. It numbers them as the first one would."""


def descriptors(config: ContainerConfig) -> set[int]:
    """Every one that a container is given."""
    fds = {
        *config.stdio,
        *config.preserved,
        config.gofer_fd,
        config.network_fd,
        config.stand_in_fd,
        config.victim_fd,
        config.control_listener_fd,
        config.link.fd if config.link is not None else -1,
        *(config.restore.fds() if config.restore is not None else ()),
    }
    if isinstance(config, SandboxConfig):
        fds |= {
            config.root.image_fd,
            config.kvm_fd,
            config.ram_fd,
            config.disk_fd,
            config.control_fd,
            config.log_fd,
            config.steps_fd,
            config.stat_fd,
            config.strace_fd,
            *config.trace_fds,
            config.egress.dialer_fd if config.egress is not None else -1,
        }
    if isinstance(config, FurtherConfig):
        fds.add(config.volumes_fd)
    return fds - {-1}


class StartError(Exception):
    """The container cannot start, and the caller is told why. From `prepare` or `run`."""
