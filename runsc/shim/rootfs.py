"""The mounts of which containerd makes a root file system, below the bundle.

Source: containerd's mount/mount_linux.go. Where the folders of an overlay do not fit into the page
that mount(2) takes, they are named from the folder that they have in common.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from runsc import host
from runsc.errors import RuntimeFailure
from runsc.oci import mounts
from runsc.shim.messages import Mount
from sentry.abi import mount as abi

FOLDER = "rootfs"
LOWER = "lowerdir="
PAGE = os.sysconf("SC_PAGE_SIZE")


def mount(bundle: str, wanted: Sequence[Mount]) -> None:
    """All of them, one over the other. Raises: RuntimeFailure; then there is none of them."""
    if not wanted:
        return
    folder = os.path.join(bundle, FOLDER)
    with suppress(FileExistsError):
        os.mkdir(folder, 0o711)
    try:
        for each in wanted:
            target = folder if not each.target else os.path.join(folder, each.target.lstrip("/"))
            _mount(each, target)
    except OSError as error:
        unmount(bundle)
        reason = f"failed to mount rootfs component: {error.strerror or error}"
        raise RuntimeFailure(reason) from None


def _mount(wanted: Mount, target: str) -> None:
    options = mounts.parse(wanted.options)
    if options.idmapped:
        raise OSError(0, f"option {options.idmapped}")
    flags = options.flags | options.bind
    data = options.data
    before = os.getcwd()
    if len(data) >= PAGE and wanted.type == "overlay":
        data = _shortened(data)
    try:
        host.mount(wanted.source, target, wanted.type, flags & ~_afterwards(options), data or None)
    finally:
        os.chdir(before)
    if _afterwards(options):  # a bind mount takes its flags in a second step: mount(2)
        host.mount(None, target, None, flags | abi.MS_REMOUNT)
    if options.propagation:
        host.mount(None, target, None, options.propagation)


def _afterwards(options: mounts.Options) -> int:
    return options.flags if options.bind else 0


def _shortened(data: str) -> str:
    """From the folder of the lower ones, where this process goes."""
    words = data.split(",")
    lower = next((word for word in words if word.startswith(LOWER)), LOWER).removeprefix(LOWER)
    paths = lower.split(":")
    if not all(path.startswith("/") for path in paths):
        return data
    common = os.path.commonpath(paths)
    os.chdir(common)
    near = ":".join(os.path.relpath(path, common) for path in paths)
    return ",".join(LOWER + near if word.startswith(LOWER) else word for word in words)


def unmount(bundle: str) -> None:
    """All that is mounted there; none is no error."""
    folder = os.path.join(bundle, FOLDER)
    for _ in range(_count(folder)):
        with suppress(OSError):
            host.umount(folder, abi.MNT_DETACH | abi.UMOUNT_NOFOLLOW)


def _count(folder: str) -> int:
    """How many are on one another there."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return sum(line.split(" ")[4] == folder for line in file)
