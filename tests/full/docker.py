"""A dockerd with a folder of its own, over the runtime of these tests."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import Result
from tests.full.engine import TIMEOUT_S, Engine
from tests.full.runtimes import RUNTIME

NEEDED = ("dockerd", "docker", "containerd", "ctr", "containerd-shim-runc-v2")
needs_docker = pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)), reason=f"needs {' '.join(NEEDED)}"
)


NO_BRIDGE = {"bridge": "none", "iptables": False, "ip6tables": False}
BRIDGE = {"userland-proxy": False, "ip-forward": False, "ip-masq": False}
APART = ("unshare", "--net", "--mount")
"""Where a bridge of dockerd's, and the firewall, is nobody else's."""


class Docker(Engine):
    """A dockerd with a folder of its own, and an image called bb.

    Its runtimes: `tested`, which is the default, and `keeping`, with which what is written to a
    root file system stays there.
    """

    image = "bb"

    def __init__(
        self, folder: Path, rootfs: Path, prefix: Sequence[str], settings: dict[str, Any]
    ) -> None:
        self.folder = folder
        self.runtime = RUNTIME.script(folder / "runsc")
        keeping = RUNTIME.script(folder / "keeping", *RUNTIME.keeping)
        self.socket = folder / "sock"
        self.containerd = folder / "exec/containerd/containerd.sock"
        self._prefix = prefix
        (folder / "daemon.json").write_text(
            json.dumps(
                {
                    "data-root": str(folder / "data"),
                    "exec-root": str(folder / "exec"),
                    "pidfile": str(folder / "pid"),
                    "hosts": [f"unix://{self.socket}"],
                    "default-runtime": "tested",
                    "runtimes": {
                        "tested": {"path": str(self.runtime)},
                        "keeping": {"path": str(keeping)},
                    },
                    **settings,
                }
            )
        )
        self.start()
        archive = folder / "image.tar"
        subprocess.run(["tar", "-C", rootfs, "-cf", archive, "."], check=True)
        self.ok("import", str(archive), "bb")

    def start(self) -> None:
        """Until it answers."""
        with (self.folder / "log").open("a") as log:
            self.daemon = subprocess.Popen(
                [*self._prefix, "dockerd", f"--config-file={self.folder}/daemon.json"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + TIMEOUT_S
        while self.call("version").returncode:
            if self.daemon.poll() is not None or time.monotonic() > end:
                said = (self.folder / "log").read_text()[-300:]
                pytest.skip(f"dockerd does not start: {said}")
            select.select([], [], [], 0.1)

    def call(self, *args: str, stdin: str = "") -> Result:
        return execute(["docker", f"--host=unix://{self.socket}", *args], stdin)

    def outside(self, script: str, patience_s: int = TIMEOUT_S) -> str:
        """A script in the network namespace of dockerd; what it writes."""
        enter = ["nsenter", f"--target={self.daemon.pid}", "--net"]
        result = execute([*enter, "timeout", str(patience_s), "busybox", "sh", "-c", script])
        assert result.returncode == 0, result
        return result.stdout

    def ctr(self, *args: str) -> Result:
        return execute(["ctr", f"--address={self.containerd}", "--namespace=test", *args])

    def stop(self) -> None:
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(TIMEOUT_S)


def execute(command: list[str], stdin: str = "") -> Result:
    """The old builder is the one that uses the daemon's runtimes."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        env=environment,
    )  # fmt: skip
