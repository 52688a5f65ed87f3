"""Trees to serve and Gofers that serve them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gofer.attachment import Attachment
from tests.unit.gofer.harness import Client, serving

MakeClient = Callable[..., Client]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with a bit of everything, and a secret beside it that must never be reached."""
    root = tmp_path / "root"
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"contents")
    (root / "dir" / "inner").write_bytes(b"inner")
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "up").symlink_to("../secret")
    (root / "abs").symlink_to(tmp_path / "secret")
    (root / "updir").symlink_to("..")
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture
def connect(tree: Path) -> Iterator[MakeClient]:
    """Start a Gofer for `tree` (or more) and attach to it."""
    with ExitStack() as stack:

        def make(readonly: bool = False, start: bool = True) -> Client:
            fd = os.open(tree, os.O_PATH | os.O_DIRECTORY)
            sock = stack.enter_context(serving([Attachment(b"0", fd, readonly)]))
            os.close(fd)
            client = Client(sock)
            if start:
                client.start()
            return client

        yield make


@pytest.fixture
def client(connect: MakeClient) -> Client:
    """A client attached to a writable tree as fid 0."""
    return connect()
