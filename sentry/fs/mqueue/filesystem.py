"""`MqueueFs`: the one file system of a sandbox's message queues, wherever it is mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from sentry.abi.capability import CAP_SYS_RESOURCE
from sentry.abi.mqueue import MQ_BYTES_MAX
from sentry.abi.resource import RLIMIT_MSGQUEUE
from sentry.auth.credentials import Credentials
from sentry.errors import EINVAL, EMFILE, ENOSPC, EOPNOTSUPP, EPERM
from sentry.fs.mqueue.queue import Attributes, MessageQueue
from sentry.fs.proc.sysctl import of_ipc
from sentry.fs.tmpfs.directory import TmpDirectory
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.vfs.interface import Inode, Owner, StatFs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sentry.fs.kernel import Kernel
    from sentry.fs.tmpfs.file import TmpFile
    from sentry.fs.tmpfs.inode import TmpLink, TmpSpecial
    from sentry.vfs.file import Caller
    from sentry.vfs.mount import Mount

MQUEUE_MAGIC: Final = 0x19800202
HARD_MSGMAX: Final = 65536
HARD_MSGSIZEMAX: Final = 16 << 20
"""Limits that CAP_SYS_RESOURCE does not lift: include/linux/ipc_namespace.h."""


class Maker(Protocol):
    """Who makes a queue."""

    creds: Credentials

    def rlimit(self, resource: int) -> int: ...


class MqueueFs(TmpFs):
    """A flat directory of queues."""

    name = "mqueue"
    magic = MQUEUE_MAGIC
    xattr_user = False
    posix_acls = False

    def __init__(self, kernel: Kernel, sysctls: Mapping[str, str]) -> None:
        """`sysctls`: what was written below /proc/sys in its IPC namespace."""
        vfs = kernel.vfs
        assert vfs.ram_file is not None
        super().__init__(vfs.new_dev(), vfs.ram_file, vfs.now_ns, budget=vfs.budget)
        self._sysctls = sysctls
        self.queues = 0
        self.costs: dict[int, int] = {}
        """Bytes that the queues of each user count against RLIMIT_MSGQUEUE."""
        self._root = QueueDirectory(self, 0o1777, Owner(0, 0))

    def statfs(self) -> StatFs:
        """Nothing is counted."""
        return StatFs(self.magic, 4096, 0, 0, 0, 0)

    def show_options(self) -> str:
        """There are none."""
        return ""

    def limit(self, name: str) -> int:
        """A number below /proc/sys/fs/mqueue."""
        return max(int(of_ipc(self._sysctls, f"fs/mqueue/{name}")), 0)

    def new_queue(
        self, caller: Maker, name: bytes, mode: int, owner: Owner, wanted: Attributes | None
    ) -> MessageQueue:
        """mqueue_create_attr(); the rights are checked. Raises: ENOSPC, EINVAL, EMFILE."""
        privileged = caller.creds.has(CAP_SYS_RESOURCE)
        if self.queues >= self.limit("queues_max") and not privileged:
            raise ENOSPC("queues_max")
        self.check_inodes()
        attributes = self._checked(wanted, privileged)
        cost = self.costs.get(owner.uid, 0) + attributes.cost
        if cost > caller.rlimit(RLIMIT_MSGQUEUE):
            raise EMFILE("RLIMIT_MSGQUEUE")
        queue = MessageQueue(self, mode, owner, attributes)
        self._root.add(name, queue)
        self.queues += 1
        self.costs[owner.uid] = cost
        return queue

    def _checked(self, wanted: Attributes | None, privileged: bool) -> Attributes:
        most = min(self.limit("msg_max"), HARD_MSGMAX)
        largest = min(self.limit("msgsize_max"), HARD_MSGSIZEMAX)
        if wanted is None:
            return Attributes(
                min(most, self.limit("msg_default")), min(largest, self.limit("msgsize_default"))
            )
        if privileged:
            most, largest = HARD_MSGMAX, HARD_MSGSIZEMAX
        if not (0 < wanted.max_messages <= most and 0 < wanted.message_size <= largest):
            raise EINVAL(f"{wanted}")
        return wanted

    def released(self, queue: MessageQueue) -> None:
        """A queue has neither a name nor an open file any more."""
        self.queues -= 1
        left = self.costs[queue.cost_of] - queue.attributes.cost
        if left:
            self.costs[queue.cost_of] = left
        else:
            del self.costs[queue.cost_of]


class _Unprivileged:
    """Who makes a queue by open(2), where the task is not known: a user with the usual limit."""

    def __init__(self, owner: Owner) -> None:
        self.creds = Credentials.user(*owner)

    def rlimit(self, resource: int) -> int:
        """MQ_BYTES_MAX."""
        return MQ_BYTES_MAX


class QueueDirectory(TmpDirectory):
    """The root: only queues can be made in it, and only removed, not moved or linked."""

    __slots__ = ()

    fs: MqueueFs

    def make(
        self, caller: Maker, name: bytes, mode: int, owner: Owner, wanted: Attributes | None
    ) -> MessageQueue:
        """A queue with these attributes, or the default ones."""
        return self.fs.new_queue(caller, name, mode, owner, wanted)

    def create(self, name: bytes, mode: int, owner: Owner) -> MessageQueue:  # type: ignore[override]
        """open(2) with O_CREAT: the default attributes."""
        return self.make(_Unprivileged(owner), name, mode, owner, None)

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> TmpDirectory:
        """Flat."""
        raise EPERM("no directories")

    def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> TmpSpecial:
        """Queues only."""
        raise EPERM("queues only")

    def symlink(self, name: bytes, target: bytes, owner: Owner) -> TmpLink:
        """Queues only."""
        raise EPERM("queues only")

    def link(self, name: bytes, target: Inode) -> None:
        """One name each."""
        raise EPERM("one name each")

    def tmpfile(self, mode: int, owner: Owner, linkable: bool) -> TmpFile:
        """Queues only."""
        raise EOPNOTSUPP("queues only")

    def rename(
        self, name: bytes, child: Inode, new_dir: Inode, new_name: bytes, flags: int
    ) -> None:
        """Names stay."""
        raise EPERM("names stay")

    def remove(self, name: bytes) -> None:
        """The name goes; the queue stays while it is open."""
        queue = self._take(name)
        assert isinstance(queue, MessageQueue)
        queue.check_end()

    def unlink(self, name: bytes, child: Inode) -> None:
        """unlink(2)."""
        self.remove(name)

def internal_mount(caller: Any) -> Mount:
    """The mount that mq_open(2) works on, made when first needed: one for each IPC namespace."""
    namespace = caller.ns.ipc
    if namespace.mqueue is None:
        namespace.mqueue = caller.kernel.vfs.new_mount(MqueueFs(caller.kernel, namespace.sysctls))
    found: Mount = namespace.mqueue
    return found


def mount_mqueue(caller: Caller, source: bytes, flags: int, data: bytes) -> MqueueFs:
    """mount(2) of type mqueue: always the same file system in one IPC namespace."""
    fs = internal_mount(caller).fs
    assert isinstance(fs, MqueueFs)
    return fs
