"""What CPython and glibc need to go on living, in the Sentry and in the network process.

Neither makes a thread: what they have of these is there before the filter.
"""

from __future__ import annotations

from runsc.filters.rule import Rule, clear
from sentry.abi import mman, unistd

NO_EXEC = (clear(2, mman.PROT_EXEC),)
"""mmap(2) and mprotect(2) without PROT_EXEC: nothing written can be run."""


def common(use: str) -> tuple[Rule, ...]:
    """These rules; `use` is the run that makes those calls."""
    return (
        Rule(
            unistd.mmap,
            "forced",
            "memory of the process, windows onto donated files; never executable",
            (NO_EXEC,),
        ),
        Rule(unistd.munmap, "forced", "memory of the process"),
        Rule(unistd.mremap, "forced", "realloc of large blocks"),
        Rule(unistd.brk, "forced", "malloc"),
        Rule(unistd.write, "forced", "descriptors we hold, the log"),
        Rule(unistd.writev, "forced", "glibc's last words: what is broken in the heap"),
        Rule(unistd.close, use, "descriptors we hold"),
        Rule(unistd.recvmsg, use, "messages with descriptors: 9P, control, requests for sockets"),
        Rule(unistd.getsockname, use, "CPython, making a socket object"),
        Rule(unistd.exit_group, "forced", "the end of the process"),
    )
