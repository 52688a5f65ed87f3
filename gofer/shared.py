"""What the sessions of one Gofer share, and the ceilings on it. It knows no session."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence

from msgspec import Struct

from gofer._native import lib
from gofer.attachment import Attachment
from gofer.fid import FidBudget
from gofer.hearing import Hearing
from gofer.journal import Journal
from gofer.locks import LockTable
from gofer.node import NodeTable
from gofer.pool import Pool
from gofer.watches import Watches

POOL_THREADS = 4


class Limits(Struct, frozen=True):
    """Ceilings on what clients can make this process hold."""

    max_fids: int = 131072
    """Of all sessions."""
    max_nodes: int = 131072
    max_node_fds: int = 8192
    max_connections: int = 256
    max_watches: int = 1024
    """The host's user has 8192 or more of them, for all sandboxes."""
    max_heard: int = 8192
    """Directories that are heard of (`gofer.hearing`)."""
    pool_threads: int = POOL_THREADS


class Given(Struct, frozen=True):
    """Descriptors that were made before the process was confined; -1: there is none."""

    queue: int = -1
    """An inotify instance: `gofer.watches`."""
    journal: int = -1
    """A file in memory: `gofer.journal`."""
    group: int = -1
    """A fanotify group: `gofer.hearing`."""


def limits_for_this_process() -> Limits:
    """Half the descriptors are for nodes, the rest for open files and sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return Limits(max_node_fds=max(min(hard // 2, 1 << 16), 64))


class Shared:
    """Nodes, locks, watches, threads, and the roots that are served."""

    def __init__(
        self, attachments: Sequence[Attachment], limits: Limits, log: Callable[[str], None],
        given: Given,
    ) -> None:  # fmt: skip
        self.limits = limits
        self.uid = os.geteuid()
        """Who owns what was just made."""
        lib.gofer_remember_ids()
        self.log = log
        self.table = NodeTable(limits.max_nodes, limits.max_node_fds)
        self.fid_budget = FidBudget(limits.max_fids)
        self.watches = Watches(given.queue, limits.max_watches)
        self.journal = Journal(given.journal)
        self.hearing = Hearing(given.group, self.table, limits.max_heard, log)
        self.locks = LockTable()
        self.pool = Pool(limits.pool_threads, self.table.hot.roam)
        self.roots = {each.name: self.table.root(each) for each in attachments}
