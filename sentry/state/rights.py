"""`Rights`: what a container's configuration lets its programs become.

An image says whose its processes are and what they have open. It is believed as far as the first
process of the bundle could have come to that by itself, so an image is worth no more than a program
that is run there: more capabilities are not given, a profile of seccomp(2) and no_new_privs are put
back, and ids or files that it could not have reached are refused by their names. capabilities(7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sentry.abi.capability import (
    CAP_MKNOD,
    CAP_SETFCAP,
    CAP_SETGID,
    CAP_SETUID,
    CAP_SYS_ADMIN,
    CAP_SYS_RESOURCE,
)
from sentry.abi.fcntl import O_ACCMODE, O_RDONLY, O_WRONLY
from sentry.abi.mount import MS_NODEV
from sentry.abi.seccomp import (
    AUDIT_ARCH_X86_64,
    SECCOMP_RET_ACTION_FULL,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_LOG,
)
from sentry.abi.stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFMT, S_IFREG, S_ISGID, S_ISUID
from sentry.abi.unistd import mount, unshare
from sentry.auth.credentials import ALL_CAPS, Credentials
from sentry.auth.permissions import MAY_READ, MAY_WRITE
from sentry.errors import EACCES
from sentry.state import records
from sentry.state.pages import Damaged
from sentry.vfs.access import check_device, check_inode

if TYPE_CHECKING:
    from sentry.config import ContainerConfig
    from sentry.vfs.file import Caller
    from sentry.vfs.interface import Inode
    from sentry.vfs.location import Location

_ACCESS: Final = {O_RDONLY: MAY_READ, O_WRONLY: MAY_WRITE}
_SETS: Final = ("effective", "permitted", "inheritable", "bounding", "ambient")


class Rights:
    """Of the first process of `config`, which has `creds`."""

    def __init__(self, config: ContainerConfig, creds: Credentials) -> None:
        process = config.process
        self.creds = creds
        self.no_new_privs = process.no_new_privileges
        self.filter = config.seccomp
        self._let_pass: set[int] = set()
        """Kinds of namespaces that it was asked for; there may be thousands of each."""
        caps = self.creds.permitted | self.creds.inheritable
        if not self.no_new_privs:  # a program of a set-user-ID file, or with capabilities
            caps |= self.creds.bounding
        self._caps = caps & ALL_CAPS
        self._oom_score_adj = process.oom_score_adj
        self._hard = {limit.resource: limit.hard for limit in process.rlimits}
        self._opener = Credentials.root() if self.has(CAP_SETUID) else self.creds

    def has(self, capability: int) -> bool:
        """Some program of the container may have it."""
        return bool(self._caps >> capability & 1)

    @property
    def most(self) -> Credentials:
        """Of a program that may do whatever some program may."""
        return replace(
            self._opener, permitted=self._caps, effective=self._caps, inheritable=0, ambient=0
        )

    def checked(self, record: records.Credentials) -> records.Credentials:
        """Ids that it may have, without capabilities that it may not. Raises: Damaged."""
        groups = {*record.ids[1::2], *record.groups}
        self.check_user(*record.ids[::2])
        if not self.has(CAP_SETGID) and groups - {self.creds.gid, *self.creds.groups}:
            raise Damaged("a process of a group that no program of this container can be in")
        if record.user_ns is not None:  # capabilities there are those of who may make it
            return record
        sets = {name: getattr(record, name) & self._caps for name in _SETS}
        sets["bounding"] = record.bounding & self.creds.bounding
        return records.Credentials(record.ids, record.groups, securebits=record.securebits, **sets)

    def check_namespace(self, flag: int, *, is_owned: bool) -> None:
        """A program may have made one, CLONE_*; `is_owned`: by a user namespace that one has made.

        Raises: Damaged.
        """
        if not is_owned and not self.has(CAP_SYS_ADMIN):
            raise Damaged("a namespace that no program of this container can make")
        if flag not in self._let_pass and not self._passes(unshare, flag):
            raise Damaged("a namespace that the container's seccomp profile forbids")
        self._let_pass.add(flag)

    def check_mount(self) -> None:
        """Some program may have called mount(2). Raises: Damaged."""
        if not self._passes(mount, 0):
            raise Damaged("a mount that the container's seccomp profile forbids")

    def _passes(self, call: int, argument: int) -> bool:
        """The container's profile lets it."""
        if not self.filter:
            return True
        from sentry.bpf.filter import CallFilter  # noqa: PLC0415  not all have one

        found = CallFilter(self.filter).run(call, AUDIT_ARCH_X86_64, 0, (argument, 0, 0, 0, 0, 0))
        return found & SECCOMP_RET_ACTION_FULL in (SECCOMP_RET_ALLOW, SECCOMP_RET_LOG)

    def check_maps(self, record: records.UserNamespace) -> None:
        """Of a user namespace: who has not CAP_SETUID maps his own user, CAP_SETGID the group.

        Raises: Damaged.
        """
        self.check_user(record.owner)
        own = {"user": (self.creds.uid, CAP_SETUID), "group": (self.creds.gid, CAP_SETGID)}
        for (kind, (number, cap)), extents in zip(
            own.items(), (record.uids, record.gids), strict=True
        ):
            if not self.has(cap) and any(each[1:] != (number, 1) for each in extents):
                raise Damaged(f"a user namespace with a {kind} that no program can map")

    @property
    def sets_groups(self) -> bool:
        """setgroups(2) may be left on in a user namespace."""
        return self.has(CAP_SETGID)

    @property
    def sets_file_caps(self) -> bool:
        """Some program of the container may have CAP_SETFCAP."""
        return self.has(CAP_SETFCAP)

    def check_user(self, *ids: int) -> None:
        """Raises: Damaged."""
        others = {*ids} - {self.creds.uid}
        if others and not self.has(CAP_SETUID):
            raise Damaged(f"a process of user {max(others)}, which no program of this container"
                          " can be")  # fmt: skip

    def limit(self, resource: int, record: records.Limit) -> records.Limit:
        """No higher than the container's."""
        hard = record.hard
        if not self.has(CAP_SYS_RESOURCE):
            hard = min(hard, self._hard.get(resource, hard))
        return records.Limit(min(record.soft, hard), hard)

    def oom_score_adj(self, asked: int) -> int:
        """Whoever has not CAP_SYS_RESOURCE may not lower it: proc_pid_oom_score_adj(5)."""
        return asked if self.has(CAP_SYS_RESOURCE) else max(asked, self._oom_score_adj)

    def check_made(self, node: records.Node) -> None:
        """Of a new file: devices need CAP_MKNOD. Raises: Damaged."""
        if node.mode & S_IFMT in (S_IFCHR, S_IFBLK) and node.rdev and not self.has(CAP_MKNOD):
            raise Damaged("a device that no program of this container can have made")

    def mode(self, node: records.Node) -> int:
        """The permissions of a file, which make no program somebody that none can be."""
        lost = 0
        if node.uid != self.creds.uid and not self.has(CAP_SETUID):
            lost |= S_ISUID
        is_directory = node.mode & S_IFMT == S_IFDIR
        if node.gid != self.creds.gid and not is_directory and not self.has(CAP_SETGID):
            lost |= S_ISGID
        return node.mode & 0o7777 & ~lost

    def check_read(self, inode: Inode) -> None:
        """Somebody may have opened it to read, who need not be there any more. Raises: EACCES,
        NotNow."""
        if inode.uid != self._opener.fsuid:
            check_inode(self._opener, inode, MAY_READ)

    def check_open(self, caller: Caller, location: Location, flags: int) -> None:
        """Whoever owns a file may have opened it before it had this mode. open(2), but for what is
        told of it. Raises: EACCES, EROFS, EPERM, NotNow."""
        inode, mount = location.dentry.inode, location.mount
        kind, access = inode.kind, _ACCESS.get(flags & O_ACCMODE, MAY_READ | MAY_WRITE)
        if kind in (S_IFCHR, S_IFBLK) and (mount.flags & MS_NODEV or inode.fs.no_devices):
            raise EACCES("a device on a nodev mount")
        if kind in (S_IFREG, S_IFDIR) and access & MAY_WRITE:
            mount.check_writable()
        if inode.uid != self._opener.fsuid and not inode.belongs_to(caller):
            check_inode(self._opener, inode, access)
        if kind in (S_IFCHR, S_IFBLK):
            check_device(caller, kind, inode.rdev, access)
