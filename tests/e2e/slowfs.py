"""A file system (FUSE) with a file, `file`: its reads and writes are held until the test goes on.

    python -m tests.e2e.slowfs FOLDER

It says `mounted`, then `read` or `write` when such a request has come, or `lookup` when the name
`nowhere` is looked up, and answers nothing more until a line comes in. The protocol is that of
<linux/fuse.h>.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

CONTENT = b"late\n"
ROOT, FILE = 1, 2
UNANSWERED = (2, 36, 42)
"""FORGET, INTERRUPT, BATCH_FORGET"""
HEADER = struct.Struct("<IIQQIIII")


def attributes(node: int) -> bytes:
    """struct fuse_attr"""
    mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o666
    size = 0 if node == ROOT else len(CONTENT)
    return struct.pack("<6Q10I", node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def say(word: str) -> None:
    print(word, flush=True)


def hold(word: str) -> None:
    """Tell the test, and wait for it."""
    say(word)
    sys.stdin.readline()


def answer(opcode: int, node: int, body: bytes) -> bytes | int:
    """The reply, or an errno."""
    match opcode:
        case 26:  # INIT
            return struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, *[0] * 8)
        case 1 if body == b"file\0":  # LOOKUP
            return struct.pack("<4Q2I", FILE, 1, 3600, 3600, 0, 0) + attributes(FILE)
        case 1:
            if body == b"nowhere\0":
                hold("lookup")
            return errno.ENOENT
        case 3 | 4:  # GETATTR SETATTR
            return struct.pack("<Q2I", 3600, 0, 0) + attributes(node)
        case 14 | 27:  # OPEN OPENDIR
            return struct.pack("<QII", 0, 0, 0)
        case 15:  # READ
            hold("read")
            return CONTENT if struct.unpack_from("<QQ", body)[1] == 0 else b""
        case 16:  # WRITE
            hold("write")
            return struct.pack("<II", struct.unpack_from("<QQI", body)[2], 0)
        case 17:  # STATFS
            return struct.pack("<5Q4I6I", 1, 0, 0, 1, 0, 4096, 255, 4096, 0, *[0] * 6)
        case 18 | 25 | 29:  # RELEASE FLUSH RELEASEDIR
            return b""
    return errno.ENOSYS


def main() -> None:
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40755,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"slow", os.fsencode(sys.argv[1]), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), "mount")
    say("mounted")
    while True:
        request = os.read(device, 1 << 20)
        _, opcode, unique, node, *_ = HEADER.unpack_from(request)
        if opcode in UNANSWERED:
            continue
        reply = answer(opcode, node, request[HEADER.size :])
        error, data = (-reply, b"") if isinstance(reply, int) else (0, reply)
        os.write(device, struct.pack("<IiQ", 16 + len(data), error, unique) + data)


if __name__ == "__main__":
    main()
