"""What is tried in a process of its own: it may die, or never end, and leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

from runsc import host
from runsc.errors import RuntimeFailure
from runsc.launch import isolation

PATIENCE_MS = 30_000
MOST = 4096
"""Bytes of an answer."""


class Failed(Exception):
    """It did not work; the text says why."""


def tried(body: Callable[[], str], namespaces: int = 0) -> str:
    """What `body` says in a child in such new namespaces. Raises: Failed."""
    mine, its = os.pipe2(os.O_CLOEXEC)

    def child() -> int:
        try:
            answer = f"+{body()}"
        except (Exception, SystemExit) as error:
            answer = f"-{error}"
        os.write(its, answer.encode(errors="replace")[:MOST])
        return 0

    try:
        pid = isolation.spawn(child, namespaces) if namespaces else _forked(child)
    except RuntimeFailure as error:
        os.close(mine)
        raise Failed(str(error)) from None
    finally:
        os.close(its)
    try:
        poll = select.poll()
        poll.register(mine, select.POLLIN)
        answer = os.read(mine, MOST).decode() if poll.poll(PATIENCE_MS) else "-it does not end"
    finally:
        os.close(mine)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if not answer:
        raise Failed(f"the process that tried it has ended with status {status:#x}")
    if answer[0] == "-":
        raise Failed(answer[1:] or "it failed")
    return answer[1:]


def _forked(child: Callable[[], int]) -> int:
    pid = host.spawn(0)
    if not pid:
        try:
            child()
        finally:
            os._exit(0)
    return pid
