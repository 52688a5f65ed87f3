"""What a caller and a fork of the zygote say to each other: packets of a Unix socket.

A request, with descriptors; TAKEN, with a pidfd, or REFUSED; GO; then STAND_IN, with a socket
(`standing`), as often as it takes, and ENDED. Costs nothing to import.
"""

from __future__ import annotations

import os

from runsc.zygote import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BOUND, STANDS, KEEPER = "", "stands", "keeper"
"""What a caller is to the fork: its first descriptor is one whose end is its death; so, and
stand-ins have to be the caller's children; or it is somebody else, who waits for nothing."""
TAKEN, REFUSED, ENDED, STAND_IN = b"+", b"-", b"=", b"s"
"""What a fork says: it is ready, or why it cannot be; its exit code; a stand-in is to be made."""
GO, ABOUT = b"go", b"about"
"""What a caller says: to go on; or, instead of a request, that it wants to hear of the zygote."""


def pack(
    program: str,
    words: Sequence[str],
    numbers: Sequence[int],
    environment: Mapping[bytes, bytes],
    how: str = "",
) -> bytes:
    """A request, which `forked.Request` reads: fields that end with a NUL.

    `numbers`: those that the descriptors are to have. `how`: BOUND, STANDS or KEEPER.
    """
    fields = [place.program(), program.encode(), how.encode()]
    fields.append(b" ".join(b"%d" % number for number in numbers))
    fields.append(b"%d" % len(words))
    fields += map(os.fsencode, words)
    fields += (name + b"=" + value for name, value in environment.items())
    return b"".join(field + b"\0" for field in fields)
