"""Where the arguments of `turning.Calls` lie, and arguments that chance hardly finds.

A row of `LIKELY` is the arguments of a call that come past its checks: bytes are placed in the room
of that argument, and a word is a method of `Calls` that makes the number.
"""

from __future__ import annotations

import struct

from sentry.abi import fcntl
from tests.caller import AREA
from tests.unit.net.netfilter.blobs import with_rules

SLOT = 64
ROOM = 64 * SLOT
"""For what one argument points to."""
ARGUMENTS = AREA + 0x100000
"""Rooms of the six arguments; behind them lie slots to which the structs in them point."""
INNER, INNERS = ARGUMENTS + 6 * ROOM, 256
END = INNER + INNERS * SLOT
OTHERS = END + SLOT
"""Memory where nobody looks for reads."""
FILE, FOLDER, DATAGRAMS, STREAM, INOTIFY, QUEUE, CONTEXT, FANOTIFY = 0, 1, 12, 14, 23, 26, 28, 29
"""Of the descriptors that `turning._files` opens."""

Value = int | bytes | str


def words(*values: int) -> bytes:
    """Of 64 bits."""
    return struct.pack(f"<{len(values)}Q", *values)


_iovec = words(INNER, 8)
_strings = words(INNER, INNER + SLOT, 0)
_capabilities = struct.pack("<Ii", 0x20080522, 0)
_filter = words(1, INNER)
_soon = words(0, 1)
_table = with_rules("filter", 1, [], counters=(4, INNER))
LIKELY: dict[str, tuple[tuple[Value, ...], ...]] = {
    "bpf": (
        (5, struct.pack("<IIQQ", 15, 2, INNER, INNER + SLOT), 48),
        (15, struct.pack("<IIQ", FILE, 64, INNER), 16),
        (16, struct.pack("<IIIIQI", FOLDER, 6, 0, 0, INNER, 4), 28),
    ),
    "capget": ((_capabilities, words(0, 0, 0)),),
    "capset": ((_capabilities, words(0, 0, 0)),),
    "clone3": ((words(0, 0, 0, 0, 17, 0, 0, 0), 64),),
    "execve": ((b"f", _strings, words(INNER + 2 * SLOT, 0)),),
    "execveat": ((fcntl.AT_FDCWD, b"f", _strings, words(INNER + 2 * SLOT, 0), 0),),
    "faccessat2": ((fcntl.AT_FDCWD, b"f", 0, 0),),
    "fanotify_mark": ((FANOTIFY, 1, 2, FOLDER, b"f"),),
    "fsconfig": ((CONTEXT, 1, b"size", b"1m", 0),),
    "futex_wait": ((words(5), 9, 0xFFFFFFFF, 2, _soon, 1),),
    "futex_waitv": ((words(9, INNER, 2), 1, 0, _soon, 1),),
    "getsockopt": (
        (STREAM, 0, 64, b"filter".ljust(84, b"\0"), words(84)),
        (STREAM, 0, 65, struct.pack("<32sI4x", b"filter", 632), words(672)),
        (STREAM, 0, 66, b"tcp".ljust(30, b"\0"), words(30)),
    ),
    "inotify_add_watch": ((INOTIFY, b"f", 2),),
    "io_cancel": (("aio", words(0, 0, 0, 0, 0, 0, 0, 0), OTHERS),),
    "io_submit": (("aio", 1, words(INNER + SLOT)),),
    "keyctl": (
        (10, (1 << 64) - 4, b"user", b"name", 0),
        (1, b"name"),
        (2, "key", b"data", 4),
        (20, "key", words(INNER, 8), 1, 0),
    ),
    "lsetxattr": ((b"f", b"user.a", b"value", 5, 0),),
    "mbind": ((AREA, 4096, 2, words(1), 64, 0),),
    "migrate_pages": ((0, 64, words(1), words(1)),),
    "mount_setattr": ((fcntl.AT_FDCWD, b"d", 0, words(1, 0, 0, 0), 32),),
    "move_mount": ((fcntl.AT_FDCWD, b"d", fcntl.AT_FDCWD, b"d", 0),),
    "mq_timedsend": ((QUEUE, b"data", 4, 1, _soon),),
    "openat2": ((fcntl.AT_FDCWD, b"f", bytes(24), 24),),
    "prctl": (
        (22, 2, _filter),
        (15, b"name"),
        (0x53564D41, 0, AREA, 4096, b"name"),
    ),
    "process_vm_readv": (("own_pid", _iovec, 1, words(OTHERS, 8), 1, 0),),
    "process_vm_writev": (("own_pid", _iovec, 1, words(OTHERS, 8), 1, 0),),
    "pwritev": ((FILE, _iovec, 1, 0, 0),),
    "pwritev2": ((FILE, _iovec, 1, 0, 0, 0),),
    "rt_sigtimedwait": ((words(0), 0, _soon, 8),),
    "seccomp": ((1, 0, _filter),),
    "sendto": ((DATAGRAMS, b"data", 4, 0, 0, 0),),
    "set_mempolicy": ((2, words(1), 64),),
    "setsockopt": ((STREAM, 0, 64, _table, len(_table)),),
    "write": ((FILE, b"data", 4),),
}
