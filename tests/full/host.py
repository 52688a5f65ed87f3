"""A host as people have it, in QEMU (ci/host/run), with this tree installed as a user would."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, Result

RUN = REPOSITORY / "ci/host/run"
NO_DISK = 77
"""The exit status of that."""
PATIENCE_S = 900
"""For one step: the CPU is emulated, and busy machines are slower still."""
INSTALL = """
/opt/runsc/bin/pip install -q --no-index --find-links=wheels 'runsc[systemd]'
ln -s /opt/runsc/bin/runsc /usr/local/bin
"""


class Host:
    """One that runs: `booted`."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.folder = folder
        self._config = config

    def call(self, script: str, user: str = "root", stdin: bytes = b"") -> Result:
        """A shell script there, which ends with what fails first."""
        done = subprocess.run(
            ["ssh", "-F", self._config, f"{user}@host", f"set -e\n{script}"],
            input=stdin, capture_output=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        return Result(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def ok(self, script: str, user: str = "root", stdin: bytes = b"") -> str:
        """One that must succeed; what it writes, without the last line end."""
        result = self.call(script, user, stdin)
        assert result.returncode == 0, (script, result.stdout, result.stderr)
        return result.stdout.removesuffix("\n")

    def forward(self, socket: str) -> Path:
        """A Unix socket of the host, from here."""
        here = self.folder / Path(socket).name
        ssh = ["ssh", "-F", self._config, "-O", "forward", f"-L{here}:{socket}", "root@host"]
        subprocess.run(ssh, check=True, capture_output=True)
        return here


@contextmanager
def booted(folder: Path) -> Iterator[Host]:
    """It ends with the block."""
    with subprocess.Popen(
        [RUN, folder], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as machine:
        assert machine.stdout
        try:
            said = machine.stdout.readline().split()
            if not said and machine.wait() == NO_DISK:
                pytest.skip("there is no Debian to be had here")
            assert said[:1] == ["ready"], machine.returncode
            yield Host(folder, Path(said[1]))
        finally:
            machine.terminate()
