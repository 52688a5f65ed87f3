"""A few threads for calls that may block: reads that are not cached, writes, fsync.

Threads start when they are first needed, thus under the Gofer's filter and with its rights. They
are those of `_thread`: `threading` and `queue` are 0.3 MiB that nothing here needs.
"""

from __future__ import annotations

import errno
import os
from _queue import SimpleQueue
from _thread import allocate_lock, start_new_thread
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

Work: TypeAlias = Callable[[], Any]
Done: TypeAlias = Callable[[Any, BaseException | None], None]


class Pool:
    """Runs work on threads; `completed` runs the callbacks on the thread that calls it."""

    def __init__(self, size: int, begin: Callable[[], None]) -> None:
        """`begin` is called first by each thread."""
        self._size = size
        self._begin = begin
        self._idle = 0
        """Threads that wait for work, less the work that waits for a thread."""
        self._threads = 0
        self._lock = allocate_lock()
        self._queue: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._done: deque[tuple[Done, Any, BaseException | None]] = deque()
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable when there is something for `completed`."""

    def submit(self, work: Work, done: Done) -> None:
        """Where the host starts no thread one that there is does it later; or it fails: ENOMEM."""
        with self._lock:
            start = self._idle <= 0 and self._threads < self._size
            if start:
                self._threads += 1
            else:
                self._idle -= 1
        self._queue.put((work, done))
        if not start:
            return
        try:
            start_new_thread(self._run, ())
        except RuntimeError:
            with self._lock:
                self._threads -= 1
                self._idle -= 1
            if not self._threads:  # nobody else takes it
                self._queue.get()
                self._idle += 1
                failure = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
                self._done.append((done, None, failure))
                os.eventfd_write(self.fd, 1)

    def completed(self) -> None:
        """Run the callbacks of what has finished."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return
        while self._done:
            done, value, failure = self._done.popleft()
            done(value, failure)

    def close(self) -> None:
        """End the threads when their work is done; its outcome is for nobody."""
        for _ in range(self._threads):
            self._queue.put(None)
        if not self._threads:
            os.close(self.fd)

    def _run(self) -> None:
        self._begin()
        while True:
            item = self._queue.get()
            if item is None:
                return
            work, done = item
            value, failure = None, None
            try:
                value = work()
            except BaseException as error:
                failure = error
            self._done.append((done, value, failure))
            with self._lock:
                self._idle += 1
            os.eventfd_write(self.fd, 1)
