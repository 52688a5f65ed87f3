"""Numbers of 9P2000.L: qid types, masks, limits.

Source: the protocol description of diod (protocol.md) and Linux's include/net/9p/9p.h.
"""

from __future__ import annotations

VERSION = b"9P2000.L"
VERSION_EXTENDED = b"9P2000.L.runsc1"
"""The base protocol and the messages of `gofer.p9.extensions`, """
EXTENDED = 198
"""which have numbers from here on."""
VERSION_UNKNOWN = b"unknown"

NOTAG = 0xFFFF
NOFID = 0xFFFFFFFF
NONUNAME = 0xFFFFFFFF
NOID = 0xFFFFFFFF
"""As uid or gid: leave it as the host file system chose it."""
NOCPU = 0xFFFFFFFF
NOOPEN = 0xFFFFFFFF
DONATE_IF_REGULAR = 2
"""Twalkx.donate."""
"""As open flags of Twalkx: walk only."""

HEADER_SIZE = 7
"""size[4] type[1] tag[2]."""
IO_HEADER_SIZE = 24
"""What a read or write message needs besides its data (P9_IOHDRSZ)."""
MSIZE_MIN = 4096
MSIZE_MAX = 1 << 20
MAX_WALK = 16
"""Names in one walk message (P9_MAXWELEM)."""
MAX_SPARES = 32
"""Fids of one Tsparex: their attributes fit into MSIZE_MIN."""
NAME_MAX = 255

QTDIR = 0x80
QTSYMLINK = 0x02
QTFILE = 0x00

# Tgetattr.request_mask, Rgetattr.valid
GETATTR_BASIC = 0x7FF
GETATTR_BTIME = 0x800

# Tsetattr.valid
SETATTR_MODE = 0x001
SETATTR_UID = 0x002
SETATTR_GID = 0x004
SETATTR_SIZE = 0x008
SETATTR_ATIME = 0x010
SETATTR_MTIME = 0x020
SETATTR_CTIME = 0x040
SETATTR_ATIME_SET = 0x080
SETATTR_MTIME_SET = 0x100

AT_REMOVEDIR = 0x200

# Rhearx.heard
HEARD_NAME = 0
HEARD_FILE = 1

# Tlock
LOCK_TYPE_RDLCK = 0
LOCK_TYPE_WRLCK = 1
LOCK_TYPE_UNLCK = 2
LOCK_SUCCESS = 0
LOCK_BLOCKED = 1
LOCK_ERROR = 2

# Rwalkx.opened, Rcreatex.opened
OPENED_NO = 0
OPENED_FID = 1
"""The new fid is open for Tread and Twrite."""
OPENED_DONATED = 2
"""The open descriptor comes with this reply; the new fid (if any) is not open."""
