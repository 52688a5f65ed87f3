"""Become the Gofer: what a forked child does before it serves.

Its trees → empty root → rights → filter → serve. See runsc/launch/boot.py, docs/isolation.md.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial

from gofer import confine
from gofer._native import lib as gofer_lib
from gofer.attachment import Attachment, CacheMode
from gofer.p9.journal import CAPACITY
from gofer.shared import POOL_THREADS, Given
from runsc import filters, host
from runsc.launch import boot, isolation, landlock, users
from runsc.launch.frozen import freeze_imports
from runsc.launch.gofer_start import GoferStart
from runsc.launch.title import set_title
from runsc.oci.exports import Export
from sentry.abi import mount
from sentry.abi.fcntl import (
    AT_RECURSIVE,
    F_ADD_SEALS,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
)
from sentry.log_rate import Rate
from sentry.suppress import suppress

Serve = Callable[
    [socket.socket, Sequence[Attachment], Callable[[], None], Callable[[str], None], Given], None
]
"""gofer.main.run: the session's socket, what it serves, the last lockdown, the log, descriptors."""


def gofer_main(
    gofer: GoferStart, serve: Serve, switches: filters.Switches, terms: boot.Terms
) -> int:
    """The body of the Gofer's process. What ends it is the end of its socket, and, unless it
    outlives the command line, that of the command line. What is written behind it finishes."""
    sock, log_fd, exports = gofer.sock, gofer.log_fd, gofer.exports
    is_behind = gofer.life >= 0
    tie = 0 if terms.outlives or is_behind else signal.SIGKILL
    entrance = gofer.entrance
    follows = any(export.follows for export in exports)
    propagation = mount.MS_SLAVE if follows else mount.MS_PRIVATE
    isolation.enter(gofer.descriptors() | set(terms.joins), tie, propagation)
    boot.join(terms.joins)
    set_title("runsc-gofer", gofer.container_id)
    os.dup2(log_fd, 2)
    if terms.before_gofer is not None:
        isolation.tie_to_parent(signal.SIGKILL)  # nothing is written yet, and a hook may hang
        if not os.read(gofer.hold, 16):
            return 1
        os.write(gofer.hold, terms.before_gofer().encode() or b"\0")
        os.close(gofer.hold)
        isolation.tie_to_parent(tie)
    numbered = list(enumerate(exports, gofer.first))
    more = terms.label.mount_option
    try:
        attachments = [_attach(index, export, more) for index, export in numbered]
    except OSError as error:
        os.write(gofer.told, str(error.strerror).encode())
        return 1
    os.close(gofer.told)
    shared = any(
        attachment.cache is CacheMode.SHARED and not export.is_file
        for attachment, export in zip(attachments, exports, strict=True)
    )
    alone = any(each.cache is CacheMode.EXCLUSIVE and not each.readonly for each in attachments)
    given = Given(
        queue=_of_nobody(gofer_lib.gofer_notify) if shared else -1,
        journal=sealed_memory(CAPACITY) if is_behind else -1,
        group=_of_nobody(gofer_lib.gofer_hearing) if alone else -1,
    )
    kept = frozenset(confine.capabilities(attachments))
    named = {
        (attachment.connects or attachment.opens)[1:].decode(): export.path
        for attachment, export in zip(attachments, exports, strict=True)
        if attachment.connects or attachment.opens
    }
    trees = {
        attachment.name.decode(): attachment.fd
        for attachment, export in zip(attachments, exports, strict=True)
        if export.follows
    }
    program = filters.gofer_program(switches.trap, confine.socket_rules(attachments))
    filters.forget_rules()
    if gofer.own_users:
        isolation.limit_tasks(1 + POOL_THREADS)
    put_on = terms.label.prepare()
    isolation.leave_root(named, trees, more)
    if entrance is not None:
        users.enter(entrance)
    isolation.drop_rights(isolation.Rights(os.getuid(), kept), tie, put_on)
    landlock.restrict_gofer(
        landlock.Tree(attachment.fd, _is_written(attachment), not export.is_file)
        for attachment, export in zip(attachments, exports, strict=True)
    )

    def lockdown() -> None:
        freeze_imports()
        filters.install(program, switches, log_fd)

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=sock)
    try:
        serve(connection, attachments, lockdown, partial(_log, Rate()), given)
    finally:
        connection.detach()  # dropped open, it would be printed, and printing asks for its peer
    return 0


def _is_written(attachment: Attachment) -> bool:
    """What is written to a FIFO changes no file system: a read-only one does not mind, either."""
    return not attachment.readonly or bool(attachment.opens)


def _log(rate: Rate, text: str) -> None:
    """Standard error is the log here; who is served may cause only so much of it."""
    if not rate.spent:
        rate.take(len(text))
        os.write(2, text.encode() + b"\n")


def _of_nobody(make: Callable[[], int]) -> int:
    """An inotify instance, or a fanotify group, or -1. The host counts them, and their watches, by
    user: root's own programs must not miss what sandboxes take, so as root it belongs to the
    Sentry's user. In a user namespace of an ordinary user's there is none but him."""
    user = os.geteuid()
    try:
        if user == 0:
            with suppress(OSError):
                os.seteuid(isolation.NOBODY)
        return max(make(), -1)
    except OSError:
        return -1
    finally:
        os.seteuid(user)


def sealed_memory(size: int) -> int:
    """Zeros that two processes may share: neither can make it shorter under the other's stores."""
    fd = os.memfd_create("runsc-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
    return fd


def _clone(export: Export, attributes: int) -> int:
    """Of a mount that it did not make, an ordinary user may have no part: then all of it."""
    try:
        fd = host.clone_mount(export.path, attributes, AT_RECURSIVE if export.recursive else 0)
    except OSError as error:
        if export.recursive or error.errno != errno.EINVAL:
            raise
        fd = host.clone_mount(export.path, attributes)
    if export.owners_fd >= 0:
        host.map_owners(fd, export.owners_fd, AT_RECURSIVE if export.owners_below else 0)
        os.close(export.owners_fd)
    return fd


def _overlay(export: Export, attributes: int, more: str) -> int:
    """One that config.json asks for, of folders of the host; `more` options, after a comma."""
    host.mount("overlay", "/proc", "overlay", 0, export.overlay + more)
    try:
        return host.clone_mount("/proc", attributes)
    finally:
        host.umount("/proc", mount.MNT_DETACH)


def _opened(export: Export, more: str) -> int:
    """A tree in a mount of its own: set-user-id and device files mean nothing in it."""
    attributes = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
    if not export.writable:
        attributes |= mount.MOUNT_ATTR_RDONLY
    fd = _overlay(export, attributes, more) if export.overlay else _clone(export, attributes)
    if not export.is_file or export.special:
        return fd
    access = os.O_RDWR if export.writable else os.O_RDONLY
    opened = os.open(f"/proc/self/fd/{fd}", access | os.O_CLOEXEC | os.O_NONBLOCK)
    os.close(fd)
    return opened


def _attach(index: int, export: Export, more: str) -> Attachment:
    """What the Sentry sees as this number. Raises: OSError that says it in words."""
    try:
        fd = _opened(export, more)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        what = f"overlay ({export.overlay})" if export.overlay else export.path
        raise OSError(error.errno, f"mount {what}: {why}") from None
    alone = export.is_exclusive if index else not export.is_shared
    cache = CacheMode.EXCLUSIVE if alone else CacheMode.SHARED
    connects = b"/%d" % index if export.is_service else b""
    opens = b"/%d" % index if export.is_fifo else b""
    return Attachment(
        str(index).encode(),
        fd,
        not export.writable,
        cache,
        connects,
        export.reaches,
        export.binds,
        opens,
    )
