"""A real browser, in a root file system of its own and without any network, over its DevTools
protocol: JSON messages with a NUL behind each, on descriptors 3 (to it) and 4 (from it)."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = (
    "chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
    "--user-data-dir=/tmp/profile", "--no-first-run",
)  # fmt: skip
APART = (
    'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t tmpfs tmpfs "$0/tmp"'
    ' && mount --bind "$1" "$0/mnt" && exec chroot "$0" "${@:2}"'
)
"""Sees a folder of the test at /mnt."""


class Browser:
    """One page at a time."""

    def __init__(self, to: int, said: int) -> None:
        self._to = os.fdopen(to, "wb", buffering=0)
        self._said = os.fdopen(said, "rb")
        self._number = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []
        """What it has told unasked."""

    def open(self, url: str) -> None:
        """Until it is loaded."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = ""
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.ask(f"{domain}.enable")
        self.events.clear()
        self.ask("Page.navigate", url=url)
        while not any(each.get("method") == "Page.loadEventFired" for each in self.events):
            self._hear()

    def value(self, script: str) -> Any:
        """Of an expression in the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def scheme(self, name: str) -> None:
        """light or dark."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.ask("Emulation.setEmulatedMedia", features=[feature])

    def picture(self) -> bytes:
        """As PNG."""
        taken = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def ask(self, method: str, **parameters: Any) -> Any:
        """One command, and what came of it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while (answer := self._hear()).get("id") != self._number:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _hear(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._said.read(1)) != b"\0":
            assert byte, "the browser has ended"
            data += byte
        message: dict[str, Any] = json.loads(data)
        if "id" not in message:
            self.events.append(message)
        return message

    def close(self) -> None:
        self._to.close()
        self._said.close()


@contextmanager
def browsing(rootfs: Path, folder: Path) -> Iterator[Browser]:
    """`folder` is file:///mnt/. Needs root."""
    low_in, ours_to = os.pipe()
    ours_from, low_out = os.pipe()
    theirs_in, theirs_out = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (low_in, low_out))
    os.close(low_in)
    os.close(low_out)
    process = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "bash", "-c",
         f"exec 3<&{theirs_in} 4>&{theirs_out}; {APART}",
         str(rootfs), str(folder), *PROGRAM],
        pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    made = Browser(ours_to, ours_from)
    try:
        yield made
    finally:
        made.close()
        process.kill()
        process.wait()
