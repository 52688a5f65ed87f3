"""The mounts of which containerd makes a root file system, below the bundle.

Source: containerd's mount/mount_linux.go. Where the folders of an overlay do not fit into the page
that mount(2) takes, they are named from the folder that they have in common.
"""

from __future__ import annotations

import errno
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
MAX_LINKS = 255
"""On the way to a target, as containerd has it."""
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
            _mount(each, _within(folder, each.target))
    except OSError as error:
        unmount(bundle)
        reason = f"failed to mount rootfs component: {error.strerror or error}"
        raise RuntimeFailure(reason) from None


def _within(folder: str, target: str) -> str:
    """A place in what is mounted there by now, whose links lead nowhere out of it: they are an
    image's. fs.RootPath() of containerd's continuity. Raises: OSError."""
    at, links = folder, 0
    rest = target.split("/")[::-1]
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        if name == "..":
            at = folder if at == folder else os.path.dirname(at)
            continue
        place = os.path.join(at, name)
        if not os.path.islink(place):
            at = place
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        text = os.readlink(place)
        at = folder if text.startswith("/") else at
        rest += text.split("/")[::-1]
    return at


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
    """All that is mounted there, one over the other; none is no error."""
    with suppress(OSError):
        while True:
            host.umount(os.path.join(bundle, FOLDER), abi.MNT_DETACH | abi.UMOUNT_NOFOLLOW)
