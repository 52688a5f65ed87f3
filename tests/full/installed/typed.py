"""Type a command into a shell at a terminal, with Tab, and print what the shell makes of it:
`typed.py SHELL...`."""

from __future__ import annotations

import os
import pty
import signal
import sys

SAYS_READY = b"rea''dy"
PREPARE = {"zsh": b"autoload -U compinit; compinit -u; "}


def see(fd: int, wanted: bytes) -> None:
    """Raises: OSError if the shell ends before it says that."""
    said = b""
    while wanted not in said:
        said += os.read(fd, 1 << 12)


signal.alarm(60)
shell = os.path.basename(sys.argv[1])
pid, fd = pty.fork()
if not pid:
    os.environ.update(TERM="dumb", HISTFILE="/dev/null")
    os.execvp(sys.argv[1], sys.argv[1:])
os.write(fd, PREPARE.get(shell, b"") + b"echo " + SAYS_READY + b"\n")
see(fd, b"ready\r\n")
os.write(fd, b"runsc checkp\t")
see(fd, b"runsc checkpoint")
os.write(fd, b"\x15exit\n")
print(f"{shell}: checkpoint", flush=True)
os.waitpid(pid, 0)
