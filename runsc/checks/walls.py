"""What keeps the processes of a sandbox from the host."""

from __future__ import annotations

from runsc import host
from runsc.checks.findings import Finding, bad, good, note
from runsc.checks.tried import Failed, tried
from runsc.launch import isolation, landlock
from sentry.abi import prctl
from sentry.abi.mount import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID
from sentry.abi.seccomp import SECCOMP_RET_ALLOW

RETURN = 0x06
"""BPF_RET | BPF_K."""


def namespaces() -> list[Finding]:
    """They are made, and mounts are cloned in them, as for the Gofer."""
    try:
        tried(lambda: "", isolation.NAMESPACES)
    except Failed as error:
        text, _, advice = str(error).partition(": ")
        return [bad("namespaces", text, advice)]
    whose = "as root" if isolation.is_privileged() else "with a user namespace"
    made = good("namespaces", f"can be made {whose}")
    try:
        tried(_clone, isolation.NAMESPACES)
    except Failed as error:
        advice = "a filter around runsc has to allow open_tree(2) and mount_setattr(2)"
        return [made, bad("mounts", f"cannot be cloned: {error}", advice)]
    return [made, good("mounts", "can be cloned, without setuid and devices")]


def _clone() -> str:
    host.clone_mount("/", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    return ""


def seccomp() -> Finding:
    """A filter that allows all is put on."""
    try:
        tried(_filter)
    except Failed as error:
        return bad("seccomp", f"no filter can be put on: {error}", "a kernel with SECCOMP_FILTER")
    return good("seccomp", "filters can be put on")


def _filter() -> str:
    host.prctl(prctl.PR_SET_NO_NEW_PRIVS, 1)
    allow_all = RETURN.to_bytes(4, "little") + SECCOMP_RET_ALLOW.to_bytes(4, "little")
    host.install_filter(allow_all, 0)
    return ""


def landlock_wall(version: int | None = None) -> Finding:
    """A wall behind others."""
    found = host.landlock_version() if version is None else version
    if found < landlock.OLDEST:
        what = f"version {found}" if found else "not there"
        return note(
            "landlock", f"{what}: the Gofer has one wall less",
            "Linux 5.19 or newer, with `landlock` in the list of lsm= (/sys/kernel/security/lsm)",
        )  # fmt: skip
    return good("landlock", f"version {found}")
