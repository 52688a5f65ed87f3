"""Independent implementations: Debian's diod tools against this server, its server against ours."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gofer.attachment import Attachment
from gofer.main import run
from gofer.p9 import constants as c
from gofer.p9.messages import (
    Rgetattr,
    Rread,
    Rreaddir,
    Tclunk,
    Tgetattr,
    Tlcreate,
    Tlopen,
    Tmkdir,
    Tread,
    Treaddir,
    Tremove,
    Trename,
    Twalk,
    Twrite,
)
from sentry.errors import ENOENT
from sentry.fs.gofer.session import Session, expect
from tests.patience import TIMEOUT_S
from tests.unit.gofer.harness import spawn

pytestmark = [
    pytest.mark.skipif(shutil.which("diod") is None, reason="needs Debian's diod"),
    pytest.mark.root,
]


@contextmanager
def listening(tree: Path) -> Iterator[str]:
    """One client may connect by TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def body() -> None:
            sock, _ = listener.accept()
            run(sock, [Attachment(b"/export", os.open(tree, os.O_PATH))])

        pid = spawn(body)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    assert os.waitpid(pid, 0)[1] == 0


def tool(name: str, server: str, *arguments: str) -> bytes:
    command = [name, "-s", server, "-a", "/export", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S).stdout


def test_diodcat_reads_whole_files(tree: Path) -> None:
    (tree / "big").write_bytes(os.urandom(300_000))
    with listening(tree) as server:
        data = tool("diodcat", server, "big", "dir/inner")
    assert data == (tree / "big").read_bytes() + b"inner"


def test_diodls_lists_with_attributes(tree: Path) -> None:
    os.chmod(tree / "file", 0o640)
    with listening(tree) as server:
        lines = tool("diodls", server, "-l", "/").decode().splitlines()
    listed = {line.split()[-1]: line for line in lines}
    assert {".", "..", "file", "dir", "fifo", "abs"} <= set(listed)
    assert listed["file"].startswith("-rw-r-----") and " 8 " in listed["file"]
    assert listed["dir"].startswith("drwx")


def test_diod_serves_our_session(tree: Path) -> None:
    ours, theirs = socket.socketpair()
    number = str(theirs.fileno())
    command = ["diod", "-f", "-n", "-N", "-c", "/dev/null", "-L", "stderr"]
    command += ["-e", str(tree), "-r", number, "-w", number]
    with theirs:
        server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
    session = Session(ours)
    session.negotiate(65536)
    assert session.version == c.VERSION and not session.extended
    root = session.attach(os.fsencode(tree), 0)
    fid = session.new_fid()
    session.call_now(Twalk(root, fid, [b"dir", b"inner"]))
    session.call_now(Tlopen(fid, os.O_RDWR))
    session.call_now(Twrite(fid, 5, b" more"))
    assert expect(session.call_now(Tread(fid, 0, 100)), Rread).data == b"inner more"
    assert expect(session.call_now(Tgetattr(fid, c.GETATTR_BASIC)), Rgetattr).size == 10
    session.clunk(fid)
    with pytest.raises(ENOENT):
        session.call_now(Twalk(root, session.new_fid(), [b"nothing"]))
    made = session.new_fid()
    session.call_now(Tmkdir(root, b"d", 0o755, 0))
    session.call_now(Twalk(root, made, [b"d"]))
    session.call_now(Tlcreate(made, b"f", os.O_RDWR, 0o644, 0))
    session.call_now(Tclunk(made))
    moved = session.new_fid()
    session.call_now(Twalk(root, moved, [b"d"]))
    session.call_now(Trename(moved, root, b"e"))
    listing = session.new_fid()
    session.call_now(Twalk(root, listing, [b"e"]))
    session.call_now(Tlopen(listing, os.O_RDONLY))
    assert b"f" in expect(session.call_now(Treaddir(listing, 0, 4096)), Rreaddir).data
    session.call_now(Twalk(root, made, [b"e", b"f"]))
    session.call_now(Tremove(made))
    assert os.listdir(tree / "e") == []
    session.close()
    server.wait(timeout=TIMEOUT_S)
