"""`Credentials`: who a task is. An immutable value; a change gives a new one, as in Linux.

Ids are kernel ids (userns.py). Capability sets are ints with bit CAP_* set; they count in the own
user namespace and those below it. The rules are those of credentials(7), capabilities(7) and
security/commoncap.c.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from sentry.abi.capability import (
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    CAP_FSETID,
    CAP_LAST_CAP,
    CAP_LINUX_IMMUTABLE,
    CAP_MAC_OVERRIDE,
    CAP_MKNOD,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
)
from sentry.abi.prctl import (
    SECBIT_KEEP_CAPS,
    SECBIT_KEEP_CAPS_LOCKED,
    SECBIT_NO_CAP_AMBIENT_RAISE,
    SECBIT_NO_SETUID_FIXUP,
    SECBIT_NOROOT,
)
from sentry.auth.userns import NO_ID, UserNamespace, kernel_id, shown_gid, shown_uid
from sentry.errors import EINVAL, EPERM

ALL_CAPS: Final = (1 << (CAP_LAST_CAP + 1)) - 1
FS_CAPS: Final = sum(
    1 << cap
    for cap in (
        CAP_CHOWN,
        CAP_MKNOD,
        CAP_DAC_OVERRIDE,
        CAP_DAC_READ_SEARCH,
        CAP_FOWNER,
        CAP_FSETID,
        CAP_LINUX_IMMUTABLE,
        CAP_MAC_OVERRIDE,
    )
)
"""CAP_FS_SET: what follows the file-system uid."""
UNCHANGED: Final = NO_ID
"""(uid_t) -1: leave alone; also no valid id."""


class Login(Struct, frozen=True):
    """Who logged in, in which session: audit's, which change of ids does not touch."""

    uid: int
    session: int


class Credentials(Struct, frozen=True):
    """Ids and capability sets of a task."""

    uid: int = 0
    gid: int = 0
    euid: int = 0
    egid: int = 0
    suid: int = 0
    sgid: int = 0
    fsuid: int = 0
    fsgid: int = 0
    groups: tuple[int, ...] = ()
    """Sorted, as they are shown."""
    effective: int = 0
    permitted: int = 0
    inheritable: int = 0
    bounding: int = ALL_CAPS
    ambient: int = 0
    securebits: int = 0
    user_ns: UserNamespace | None = None

    @staticmethod
    def root() -> Credentials:
        """The superuser with every capability."""
        return Credentials(effective=ALL_CAPS, permitted=ALL_CAPS)

    @staticmethod
    def user(uid: int, gid: int, groups: tuple[int, ...] = ()) -> Credentials:
        """A plain user."""
        return Credentials(uid, gid, uid, gid, uid, gid, uid, gid, tuple(sorted(groups)))

    # --- where capabilities count

    def has(self, cap: int) -> bool:
        """capable(): the capability is effective, and in the sandbox's first user namespace."""
        return bool(self.effective >> cap & 1) and self.user_ns is None

    def own(self, cap: int) -> bool:
        """ns_capable(current_user_ns()): the capability is effective in the own namespace."""
        return bool(self.effective >> cap & 1)

    def has_in(self, namespace: UserNamespace | None, cap: int) -> bool:
        """ns_capable(): whether the capability counts in a user namespace: cap_capable()."""
        while namespace is not self.user_ns:
            if namespace is None:
                return False
            if namespace.parent is self.user_ns and namespace.owner == self.euid:
                return True
            namespace = namespace.parent
        return bool(self.effective >> cap & 1)

    def over(self, cap: int, uid: int, gid: int | None = None) -> bool:
        """capable_wrt_inode_uidgid(): and the owners of the file have names in the namespace."""
        if not self.effective >> cap & 1:
            return False
        ns = self.user_ns
        if ns is None:
            return True
        if ns.uid_map.from_kernel(uid) == NO_ID:
            return False
        return gid is None or ns.gid_map.from_kernel(gid) != NO_ID

    # --- ids as the program writes them

    def kuid(self, uid: int) -> int:
        """A user that the program names; -1 stays so. Raises: EINVAL."""
        return uid if self.user_ns is None or uid == NO_ID else self._mapped(uid, "uid")

    def kgid(self, gid: int) -> int:
        """A group that the program names; -1 stays so. Raises: EINVAL."""
        return gid if self.user_ns is None or gid == NO_ID else self._mapped(gid, "gid")

    def _mapped(self, number: int, kind: str) -> int:
        found = kernel_id(self.user_ns, number, kind)
        if found == NO_ID:
            raise EINVAL(f"{kind} {number} is not mapped")
        return found

    def shown_uid(self, uid: int) -> int:
        """A user as the program sees it."""
        return uid if self.user_ns is None else shown_uid(self.user_ns, uid)

    def shown_gid(self, gid: int) -> int:
        """A group as the program sees it."""
        return gid if self.user_ns is None else shown_gid(self.user_ns, gid)

    @property
    def root_uid(self) -> int:
        """make_kuid(user_ns, 0): who root is here."""
        return kernel_id(self.user_ns, 0)

    def in_new_namespace(self, namespace: UserNamespace | None) -> Credentials:
        """set_cred_user_ns(): the same ids, with every capability there and nowhere else."""
        return replace(
            self, user_ns=namespace, securebits=0, inheritable=0, permitted=ALL_CAPS,
            effective=ALL_CAPS, ambient=0, bounding=ALL_CAPS,
        )  # fmt: skip

    def in_group(self, gid: int) -> bool:
        """in_group_p(): the file-system gid or a supplementary one."""
        if gid == self.fsgid:
            return True
        groups = self.groups
        at = bisect_left(groups, gid)
        return at < len(groups) and groups[at] == gid

    def for_access(self) -> Credentials:
        """access(2) judges by the real ids: access_override_creds(), fs/open.c."""
        effective = self.effective
        if not self.securebits & SECBIT_NO_SETUID_FIXUP:
            effective = self.permitted if self.uid == self.root_uid else 0
        if (self.fsuid, self.fsgid, self.effective) == (self.uid, self.gid, effective):
            return self
        return replace(self, fsuid=self.uid, fsgid=self.gid, effective=effective)

    # --- user ids

    def set_uid(self, uid: int) -> Credentials:
        """setuid(2)."""
        _valid(uid)
        if self.own(CAP_SETUID):
            return self._with_uids(uid, uid, uid)
        if uid not in (self.uid, self.suid):
            raise EPERM(f"setuid {uid}")
        return self._with_uids(self.uid, uid, self.suid)

    def set_reuid(self, ruid: int, euid: int) -> Credentials:
        """setreuid(2)."""
        new_real = self.uid if ruid == UNCHANGED else ruid
        new_effective = self.euid if euid == UNCHANGED else euid
        if not self.own(CAP_SETUID):
            if ruid != UNCHANGED and ruid not in (self.uid, self.euid):
                raise EPERM(f"setreuid real {ruid}")
            if euid != UNCHANGED and euid not in (self.uid, self.euid, self.suid):
                raise EPERM(f"setreuid effective {euid}")
        saved = self.suid
        if ruid != UNCHANGED or euid not in (UNCHANGED, self.uid):
            saved = new_effective
        return self._with_uids(new_real, new_effective, saved)

    def set_resuid(self, ruid: int, euid: int, suid: int) -> Credentials:
        """setresuid(2)."""
        asked = (ruid, euid, suid)
        if not self.own(CAP_SETUID):
            for uid in asked:
                if uid != UNCHANGED and uid not in (self.uid, self.euid, self.suid):
                    raise EPERM(f"setresuid {uid}")
        old = (self.uid, self.euid, self.suid)
        new = tuple(o if a == UNCHANGED else a for a, o in zip(asked, old, strict=True))
        if euid == UNCHANGED and new == old:
            return self
        return self._with_uids(*new)

    def set_fsuid(self, uid: int) -> Credentials:
        """setfsuid(2): the same credentials when it is not allowed."""
        allowed = uid in (self.uid, self.euid, self.suid, self.fsuid) or self.own(CAP_SETUID)
        if uid == UNCHANGED or not allowed or uid == self.fsuid:
            return self
        effective = self.effective
        if not self.securebits & SECBIT_NO_SETUID_FIXUP:
            root = self.root_uid
            if self.fsuid == root and uid != root:
                effective &= ~FS_CAPS
            elif self.fsuid != root and uid == root:
                effective |= self.permitted & FS_CAPS
        return replace(self, fsuid=uid, effective=effective)

    def _with_uids(self, real: int, effective_uid: int, saved: int) -> Credentials:
        """Take the ids, with the capabilities that follow: cap_emulate_setxuid()."""
        permitted, effective, ambient = self.permitted, self.effective, self.ambient
        if not self.securebits & SECBIT_NO_SETUID_FIXUP:
            root = self.root_uid
            had_root = root in (self.uid, self.euid, self.suid)
            if had_root and root not in (real, effective_uid, saved):
                if not self.securebits & SECBIT_KEEP_CAPS:
                    permitted = effective = 0
                ambient = 0
            if self.euid == root and effective_uid != root:
                effective = 0
            elif self.euid != root and effective_uid == root:
                effective = permitted
        return replace(
            self,
            uid=real,
            euid=effective_uid,
            suid=saved,
            fsuid=effective_uid,
            permitted=permitted,
            effective=effective,
            ambient=ambient,
        )

    # --- group ids

    def set_gid(self, gid: int) -> Credentials:
        """setgid(2)."""
        _valid(gid)
        if self.own(CAP_SETGID):
            return replace(self, gid=gid, egid=gid, sgid=gid, fsgid=gid)
        if gid not in (self.gid, self.sgid):
            raise EPERM(f"setgid {gid}")
        return replace(self, egid=gid, fsgid=gid)

    def set_regid(self, rgid: int, egid: int) -> Credentials:
        """setregid(2)."""
        new_real = self.gid if rgid == UNCHANGED else rgid
        new_effective = self.egid if egid == UNCHANGED else egid
        if not self.own(CAP_SETGID):
            if rgid != UNCHANGED and rgid not in (self.gid, self.egid):
                raise EPERM(f"setregid real {rgid}")
            if egid != UNCHANGED and egid not in (self.gid, self.egid, self.sgid):
                raise EPERM(f"setregid effective {egid}")
        saved = self.sgid
        if rgid != UNCHANGED or egid not in (UNCHANGED, self.gid):
            saved = new_effective
        return replace(self, gid=new_real, egid=new_effective, sgid=saved, fsgid=new_effective)

    def set_resgid(self, rgid: int, egid: int, sgid: int) -> Credentials:
        """setresgid(2)."""
        asked = (rgid, egid, sgid)
        if not self.own(CAP_SETGID):
            for gid in asked:
                if gid != UNCHANGED and gid not in (self.gid, self.egid, self.sgid):
                    raise EPERM(f"setresgid {gid}")
        old = (self.gid, self.egid, self.sgid)
        new = tuple(o if a == UNCHANGED else a for a, o in zip(asked, old, strict=True))
        if egid == UNCHANGED and new == old:
            return self
        real, effective, saved = new
        return replace(self, gid=real, egid=effective, sgid=saved, fsgid=effective)

    def set_fsgid(self, gid: int) -> Credentials:
        """setfsgid(2): the same credentials when it is not allowed."""
        allowed = gid in (self.gid, self.egid, self.sgid, self.fsgid) or self.own(CAP_SETGID)
        return replace(self, fsgid=gid) if gid != UNCHANGED and allowed else self

    def set_groups(self, groups: tuple[int, ...]) -> Credentials:
        """setgroups(2); the length is checked, and they are sorted. Raises: EPERM, EINVAL."""
        if not self.may_set_groups:
            raise EPERM("setgroups")
        if groups:
            _valid(groups[-1])
        return replace(self, groups=groups)

    @property
    def may_set_groups(self) -> bool:
        """may_setgroups(): in a user namespace only once its groups are mapped, and allowed."""
        ns = self.user_ns
        allowed = ns is None or (bool(ns.gid_map) and ns.setgroups_allowed)
        return allowed and self.own(CAP_SETGID)

    # --- capabilities

    def capset(self, effective: int, permitted: int, inheritable: int) -> Credentials:
        """capset(2): cap_capset()."""
        effective, permitted, inheritable = (
            s & ALL_CAPS for s in (effective, permitted, inheritable)
        )
        allowed = self.inheritable | (
            self.bounding if self.own(CAP_SETPCAP) else self.permitted & self.bounding
        )
        if not self.own(CAP_SETPCAP) and inheritable & ~(self.inheritable | self.permitted):
            raise EPERM("inheritable beyond permitted")
        if inheritable & ~allowed:
            raise EPERM("inheritable beyond the bounding set")
        if permitted & ~self.permitted:
            raise EPERM("permitted may only shrink")
        if effective & ~permitted:
            raise EPERM("effective beyond permitted")
        return replace(
            self,
            effective=effective,
            permitted=permitted,
            inheritable=inheritable,
            ambient=self.ambient & permitted & inheritable,
        )

    def drop_bounding(self, cap: int) -> Credentials:
        """prctl(PR_CAPBSET_DROP)."""
        if not self.own(CAP_SETPCAP):
            raise EPERM("PR_CAPBSET_DROP")
        if not 0 <= cap <= CAP_LAST_CAP:
            raise EINVAL(f"capability {cap}")
        return replace(self, bounding=self.bounding & ~(1 << cap))

    def raise_ambient(self, cap: int) -> Credentials:
        """prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE); the number is checked."""
        if (
            not (self.permitted & self.inheritable) >> cap & 1
            or self.securebits & SECBIT_NO_CAP_AMBIENT_RAISE
        ):
            raise EPERM(f"ambient {cap}")
        return replace(self, ambient=self.ambient | 1 << cap)

    def lower_ambient(self, cap: int) -> Credentials:
        """prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER); the number is checked."""
        return replace(self, ambient=self.ambient & ~(1 << cap))

    def clear_ambient(self) -> Credentials:
        """prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)."""
        return replace(self, ambient=0)

    def set_keep_caps(self, keep: bool) -> Credentials:
        """prctl(PR_SET_KEEPCAPS)."""
        if self.securebits & SECBIT_KEEP_CAPS_LOCKED:
            raise EPERM("SECBIT_KEEP_CAPS is locked")
        bits = self.securebits & ~SECBIT_KEEP_CAPS
        return replace(self, securebits=bits | (SECBIT_KEEP_CAPS if keep else 0))

    def set_securebits(self, bits: int) -> Credentials:
        """prctl(PR_SET_SECUREBITS): cap_task_prctl()."""
        old, locks = self.securebits, 0xAA
        changes_locked = (old & locks) >> 1 & (old ^ bits)
        unlocks = old & locks & ~bits
        if changes_locked or unlocks or bits & ~0xFF or not self.own(CAP_SETPCAP):
            raise EPERM(f"securebits {bits:#x}")
        return replace(self, securebits=bits)

    @property
    def root_is_special(self) -> bool:
        """!SECURE_NOROOT: uid 0 gets capabilities at execve."""
        return not self.securebits & SECBIT_NOROOT


def _valid(uid: int) -> None:
    if uid == UNCHANGED:
        raise EINVAL("-1 is no id")
