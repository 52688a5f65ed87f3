"""A Gofer with a journal, and a client that writes it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gofer.attachment import Attachment
from gofer.p9.codec import Message
from gofer.p9.constants import NOTAG
from gofer.p9.extensions import Rdrainx, Rjournalx, Tdrainx, Tjournalx
from sentry.platform.records import JournalWriter
from tests.unit.gofer.harness import Client, serving


class JournalClient(Client):
    """Requests one at a time, or into the journal."""

    def open_journal(self) -> None:
        capacity = self.ask(Tjournalx(), Rjournalx).capacity
        self.ring = self.take_fd()
        self.memory = mmap.mmap(self.ring, capacity)
        self.writer = JournalWriter(self.memory)

    def leave(self, *requests: Message) -> None:
        """Write records."""
        for request in requests:
            self.writer.append(request.encode(NOTAG))

    def drain(self) -> Rdrainx:
        reply = self.ask(Tdrainx(0), Rdrainx)
        self.writer.reached(reply.position)
        return reply


@contextmanager
def journalling(tree: Path, capacity: int = 1 << 16) -> Iterator[JournalClient]:
    """A client that is attached to `tree` as fid 0. The Gofer has ended after it."""
    fd = os.open(tree, os.O_PATH | os.O_DIRECTORY)
    ring = os.memfd_create("journal", os.MFD_CLOEXEC)
    os.ftruncate(ring, capacity)
    try:
        with serving([Attachment(b"0", fd)], journal=ring) as sock:
            client = JournalClient(sock)
            client.start()
            client.open_journal()
            yield client
            os.close(client.ring)
    finally:
        os.close(fd)
        os.close(ring)
