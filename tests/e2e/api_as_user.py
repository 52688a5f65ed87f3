"""`python api_as_user.py UID STATE`: the Python API as an ordinary user who may open /dev/kvm.

As `as_user.py` does it: all is imported before the change of identity, and what keeps it is
a fork, for the interpreter may lie in a folder that the user cannot read. Prints what came of it.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from runsc import Sandbox, cli, host
from runsc.api import keeper, programs
from tests.e2e.as_user import HASH, become

LATE = (
    *(f"runsc.commands.{name.replace('-', '_')}" for name in cli.COMMANDS),
    "_blake2", HASH, "gofer.main", "runsc.api.document", "runsc.cgroups.guest",
    "runsc.launch.bundle", "runsc.launch.finder", "runsc.launch.janitor",
    "runsc.launch.neighbours", "runsc.options", "sentry.boot.sandbox", "sentry.platform.kvm",
)  # fmt: skip


class Forked:
    """A fork in the place of a program: what `programs.Child` is to the API."""

    def __init__(self, module: str, words: Sequence[str], fds: Sequence[int]) -> None:
        assert module == programs.KEEPER
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            host.close_all_but({0, 1, 2, *fds})
            sys.argv = [module, *words]
            keeper.main()
        self.code: int | None = None

    def pidfd(self) -> int:
        return os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        if self.code is None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.code = 0
        return self.code

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.001)
        return 0

    def kill(self) -> None:
        os.kill(self.pid, 9)


def begun(
    module: str, words: Sequence[str], fds: Sequence[int] = (), stderr: int = subprocess.DEVNULL
) -> Forked:
    return Forked(module, words, fds)


def main(uid: int, state: str) -> None:
    for name in LATE:
        importlib.import_module(name)
    programs.begun = begun  # type: ignore[assignment]
    become(uid)
    with Sandbox.create(state=state, memory=128 << 20) as sandbox:
        result = sandbox.commands.run("id -u; cat > /f", stdin="data")
        print(result.exit_code, result.stdout.strip(), sandbox.files.read("/f"), flush=True)
        print(*[change.path for change in sandbox.files.diff()], flush=True)
    print(*os.listdir(state), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
