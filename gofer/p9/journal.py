"""The journal: requests that a client leaves in memory for the server to carry out later.

A ring of bytes. The client alone writes it; what it has written stays when it dies. A
record is `check[4] length[4] position[8]` and a request, a whole 9P frame. `position` counts bytes
since the ring was empty: it says where the record begins, and that it is not one that lay there a
lap ago. `check` is the CRC-32 of all that follows. So a record is there or it is not, whenever the
writer stopped, and nothing else in the ring need be believed: no index, no count, no commit word.

The reader tells how far it has come in replies, never in the ring: what is read is never written
by two. The writer is `sentry.platform.records`, the reader `gofer.records`, both in C.
"""

from __future__ import annotations

from typing import Final

CAPACITY: Final = 1 << 20
"""Bytes of a ring, where nobody wants another one: some ten thousand records."""
MAX_FRAME: Final = 1 << 17
"""The largest request: setxattr(2) has values of 64 KiB (XATTR_SIZE_MAX)."""
HEADER_SIZE: Final = 16
"""Before the request."""
