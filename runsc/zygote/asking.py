"""`runsc zygote start`, `stop` and `status`: the process as a person sees it."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
from contextlib import suppress
from typing import NamedTuple

from runsc.errors import RuntimeFailure
from runsc.zygote import beginning, client, place, server
from runsc.zygote.protocol import ABOUT

END_S = 10
BEGIN_S = 60
"""On a busy machine importing all takes its time."""
MESSAGE_MAX = 1 << 16
CREDENTIALS = struct.Struct("=iII")
"""ucred of unix(7): pid, uid, gid."""


class About(NamedTuple):
    """What it says of itself."""

    pid: int
    since: float
    """Seconds since the epoch."""
    served: int
    """Commands that have asked."""


def about() -> About | None:
    """None: nobody listens. Raises: RuntimeFailure if one has begun, and does not listen yet."""
    found = _held()
    if found is None:
        return None
    os.close(found[1])
    return found[0]


def _held() -> tuple[About, int] | None:
    """The same with a pidfd. One that finds its program changed says nothing, and is followed by
    another, which begins meanwhile. Raises: RuntimeFailure."""
    try:
        found, begins = _asked(), True
        while found is None and begins:  # what has begun may find that files have changed again
            begins = _await_beginning()
            found = _asked()
    except client.Unheard:
        return None
    return found


def _asked() -> tuple[About, int] | None:
    """None: it has not answered. Raises: client.Unheard."""
    try:
        sock = client.ask(ABOUT, ())
    except client.Unheard:
        raise
    except client.Unserved:  # also one that has ended the connection before it was asked
        return None
    with socket.socket(fileno=sock.detach()) as conn:
        conn.settimeout(client.ANSWER_S)
        try:
            said, fds, _, _ = socket.recv_fds(conn, 1000, 1)
            pid, since, served = said.decode().split()
            return About(int(pid), float(since), int(served)), fds[0]
        except (OSError, ValueError, IndexError):
            return None


def start() -> None:
    """It listens then. Raises: RuntimeFailure."""
    _await_beginning()
    if about() is not None:
        return
    claim = None
    try:
        claim = beginning.claimed()  # of several who start one at once, one does
    except OSError:
        _await_beginning()
        if about() is not None:
            return
    given = (claim.fileno(),) if claim is not None else ()
    process = subprocess.Popen(
        [*beginning.COMMAND, *(f"--claim={fd}" for fd in given)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
        env=beginning.environment(),
        pass_fds=given,
    )
    if claim is not None:
        claim.close()
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline():
        return
    said = process.stderr.read(MESSAGE_MAX).decode(errors="replace").strip()
    process.wait()
    if about() is None:  # else another was faster
        raise RuntimeFailure(f"no zygote could be started: {said}")


def stop() -> None:
    """It has ended then, also one that was about to begin by itself. Raises: RuntimeFailure."""
    _await_beginning()
    found = _held()
    if found is None:
        if server.is_heard(place.socket_path()):
            raise RuntimeFailure("the zygote does not answer")
        return
    zygote, pidfd = found
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(END_S * 1000):
            raise RuntimeFailure(f"process {zygote.pid} does not end")
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def _await_beginning() -> bool:
    """Until none begins by itself any more: it listens then, or has failed. Whether one did.

    Raises: RuntimeFailure.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as claim:
        claim.setblocking(False)
        with suppress(OSError):  # none does; or many wait for it
            claim.connect(beginning.claim_name())  # nobody accepts: this ends with the claim
            said = claim.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            if CREDENTIALS.unpack(said)[1] == os.geteuid():
                poll = select.poll()
                poll.register(claim, select.POLLIN)
                if not poll.poll(BEGIN_S * 1000):
                    raise RuntimeFailure("a zygote has begun, and does not listen yet")
                return True
    return False
