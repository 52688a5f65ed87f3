"""A program that is written in the middle and read again: it ends as if nothing had been."""

from __future__ import annotations

import time
from pathlib import Path

from runsc.containers import listener
from sentry.control.protocol import Request
from tests.e2e.bundle import RUNSC, TIMEOUT_S, Bundle, Result, execute

ANSWER_S = 10.0


class RoundTrip:
    """A bundle whose container is held at a call, written, and read by another one."""

    def __init__(self, bundle: Bundle, platform: str, folder: Path) -> None:
        self._bundle = bundle
        self._folder = folder
        self.image = folder / "image"
        self._flags = [f"--root={folder}/state", f"--platform={platform}", "--network=none"]

    def hold(self, call: int) -> bool:
        """Run it to its Nth call; False: it has ended before."""
        bundle = f"--bundle={self._bundle.write()}"
        held = [f"--TESTONLY-hold-at={call}", f"--log={self._folder}/log"]
        with open(self._folder / "out", "wb") as out:
            done = self.command(*held, "run", "--detach", bundle, "first", out=out)
        assert done.returncode == 0, done.stderr
        socket = str(self._folder / "state" / "first" / "control.sock")
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                status = listener.ask(socket, Request("state"), ANSWER_S).status
            except OSError:
                return False
            if status in ("paused", "stopped"):
                return status == "paused"
            time.sleep(0.005)
        raise AssertionError("it neither ends nor stands")

    def write(self) -> Result:
        """Checkpoint it."""
        return self.command("checkpoint", f"--image-path={self.image}", "first")

    def read(self) -> Result:
        """Run the rest of it."""
        bundle = f"--bundle={self._bundle.path}"
        return self.command("restore", f"--image-path={self.image}", bundle, "second")

    def delete(self) -> None:
        """Nothing is left."""
        for name in ("first", "second"):
            self.command("delete", "--force", name)

    def command(self, *words: str, out: object = None) -> Result:
        """One of ours."""
        if out is None:
            return execute([*RUNSC, *self._flags, *words])
        import subprocess  # noqa: PLC0415

        with open(self._folder / "err", "wb") as errors:
            done = subprocess.run(
                [*RUNSC, *self._flags, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        text = (self._folder / "err").read_text()
        return subprocess.CompletedProcess(done.args, done.returncode, "", text)
