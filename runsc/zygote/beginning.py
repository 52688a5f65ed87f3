"""A zygote that begins by itself: after a command that found none, for those that follow.

It is ready before it listens, so that nobody waits for it: importing takes longer than a start. Who
has begun one holds a claim until then, so that of many commands one does.

On the way of every command that makes a sandbox: little is imported.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os
import sys

from runsc.zygote import client, place

COMMAND = (sys.executable, "-P", "-m", "runsc", "zygote", "serve", f"--room={' ' * 4096}")
"""What executes it. Arguments of forks lie where its own did: execve(2) alone makes room there."""
KEPT = (*place.OF_PROGRAMS, "LC_", "LANG", "LISTEN_", "PATH", "XDG_RUNTIME_DIR")
"""Beginnings of the variables that are for it."""
SPACES = ("cgroup", "ipc", "net", "pid", "time", "user", "uts")
"""Namespaces in which it would stay. Its mount namespace is where its program lies."""
BACKLOG = 16
"""How many may wait for one that begins (`asking`)."""


def environment() -> dict[str, str]:
    """That of a zygote: each of its forks has it in memory, so nobody's secrets are in it."""
    kept = {name: text for name, text in os.environ.items() if name.startswith(KEPT)}
    return {**kept, "PYTHONPATH": os.pathsep.join(place.paths(kept))}


def begin() -> None:
    """Have one begin, of which nobody hears, without the descriptors of this process.

    Not where it could do nothing for others: who is confined has forks that are, and whom nice(1)
    has put behind others, unless it is root, cannot have forks that are not. Not where it would
    keep what is there for a command alone: the devices of a network namespace are until that ends.
    """
    is_behind = os.geteuid() != 0 and os.getpriority(os.PRIO_PROCESS, 0) > 0
    if is_behind or _is_confined() or _is_apart():
        return
    try:
        inherited = client.inherited()
        claim = claimed()
    except OSError:  # somebody else has one begin, or no descriptors are left
        return
    actions = [
        *((os.POSIX_SPAWN_CLOSE, fd) for fd in inherited if fd > 2),
        *((os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)),
    ]
    try:
        os.posix_spawn(
            sys.executable, [*COMMAND, f"--claim={claim.fileno()}"], environment(),
            file_actions=actions, setsid=True, setsigmask=(),
            setsigdef=(_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT, _signal.SIGQUIT),
        )  # fmt: skip
    except OSError:  # there is no process left
        return
    finally:
        claim.close()


def claimed() -> _socket.socket:
    """What says that one begins until it is closed; who is executed has it, too. Raises: OSError,
    also where somebody else has it."""
    claim = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        claim.bind(claim_name())
        claim.listen(BACKLOG)
        os.set_inheritable(claim.fileno(), True)
    except OSError:
        claim.close()
        raise
    return claim


def claim_name() -> str:
    """An abstract one, taken while one begins. Others may take it, too: then none begins so."""
    return f"\0runsc-zygote-{os.geteuid()}-{place.socket_path()[-8:]}"


def _is_confined() -> bool:
    try:
        with open("/proc/self/status", "rb") as file:
            found = dict(line.split(b":", 1) for line in file)
        return any(int(found[name]) for name in (b"NoNewPrivs", b"Seccomp"))
    except (OSError, KeyError, ValueError):
        return True


def _is_apart(first: int = 1) -> bool:
    """Whether its namespaces are not those of the first process, as far as this user may see."""
    for name in SPACES:
        try:
            own, other = (os.stat(f"/proc/{pid}/ns/{name}").st_ino for pid in ("self", first))
        except OSError:  # another user's, or this kernel has none
            continue
        if own != other:
            return True
    return False
