"""A honeypot: a program sees secrets that are none, and whoever touches one is told of.

    python3 examples/honeypot/honeypot.py [--root ROOT] PROGRAM [ARGUMENT]...

The folder of secrets exists nowhere: `Honeypot` makes it up as it is looked at.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from runsc import Sandbox
from runsc.fs import FileSystem, Stat, folder, regular

BAIT = {
    "/aws/credentials": b"[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n",
    "/ssh/id_ed25519": b"-----BEGIN OPENSSH PRIVATE KEY-----\nbm9ib2R5\n",
    "/wallet.dat": bytes(4096),
}


class Honeypot(FileSystem):
    """Tells `tell` of each file that is read: its path."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._began_ns = time.time_ns()

    def stat(self, path: str) -> Stat:
        if path in BAIT:
            return regular(len(BAIT[path]), 0o600, mtime_ns=self._began_ns)
        if path == "/" or any(each.startswith(f"{path}/") for each in BAIT):
            return folder(0o700, mtime_ns=self._began_ns)
        raise FileNotFoundError(2, "no such bait", path)

    def list(self, path: str) -> list[str]:
        above = path.rstrip("/") + "/"
        below = {each[len(above) :].split("/")[0] for each in BAIT if each.startswith(above)}
        return sorted(below)

    def read(self, path: str, offset: int, size: int) -> bytes:
        if not offset:
            self._tell(path)
        return BAIT[path][offset : offset + size]


def main() -> int:
    """Run a program beside the bait; 1 if it took some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="a folder with programs in it; the host's own files else")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    taken: list[str] = []
    mounts = {"/root/.secrets": Honeypot(taken.append)}
    with Sandbox.create(root=given.root, mounts=mounts) as sandbox:
        result = sandbox.commands.run(given.command, env={"HOME": "/root"})
    sys.stdout.write(result.stdout)
    sys.stdout.flush()
    for path in taken:
        print(f"it has read {path}", file=sys.stderr)
    return int(bool(taken))


if __name__ == "__main__":
    sys.exit(main())
