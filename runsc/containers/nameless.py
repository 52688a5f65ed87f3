"""New files of a folder that get their names when all is in them: open(2), O_TMPFILE.

So who is killed before leaves nothing. Where the file system has no such files they have their
names from the start, and are removed unless `name` was called.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import IO

NONE_SUCH = (errno.EOPNOTSUPP, errno.EISDIR)
FLAGS = os.O_RDWR | os.O_CLOEXEC
MODE = 0o600


class Files:
    """Some, by name."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._named: set[str] = set()
        """Those that have theirs."""
        self._is_done = False

    def __getitem__(self, name: str) -> IO[bytes]:
        return self._files[name]

    def make(self, name: str) -> None:
        """One more, empty. Raises: OSError: FileExistsError if the name is taken."""
        path = os.path.join(self._folder, name)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        try:
            fd = os.open(self._folder, FLAGS | os.O_TMPFILE, MODE)
        except OSError as error:
            if error.errno not in NONE_SUCH:
                raise
            fd = os.open(path, FLAGS | os.O_CREAT | os.O_EXCL, MODE)
            self._named.add(name)
        self._files[name] = open(fd, "r+b")  # noqa: SIM115  closed by `close`

    def make_again(self, name: str) -> IO[bytes]:
        """Another one in the place of one that there is, which stays open. Raises: OSError."""
        if name in self._named:
            os.unlink(os.path.join(self._folder, name))
            self._named.discard(name)
        self.make(name)
        return self._files[name]

    def name(self) -> None:
        """All of them, in their order. Raises: OSError, and none of them is there then."""
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name, file in self._files.items():
                file.flush()
                if name not in self._named:
                    os.link(f"/proc/self/fd/{file.fileno()}", name, dst_dir_fd=folder)
                    self._named.add(name)
        finally:
            os.close(folder)
        self._is_done = True

    def close(self) -> None:
        """They stay only if they all have their names by `name`."""
        for file in self._files.values():
            with suppress(OSError):  # it writes again what a full disk has refused
                file.close()
        for name in set() if self._is_done else self._named:
            with suppress(OSError):
                os.unlink(os.path.join(self._folder, name))
