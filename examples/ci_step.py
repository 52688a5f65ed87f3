"""A step of a CI job in a sandbox: the sources go in, commands run, what they have made comes out.

    python3 examples/ci_step.py --root ROOT --artifact build/app SOURCES make 'make test'

Nothing that a build does reaches the machine but the artifacts; there is no network unless
--network says so. The exit code is that of the command that failed, 124 for one that took too long.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from runsc import LimitExceeded, Limits, Sandbox, TimeLimitExceeded

PLACE = "/work"
TOO_LONG, TOO_MUCH = 124, 125


def step(
    sources: Path, commands: Sequence[str], *, artifacts: Sequence[str] = (),
    into: Path = Path("artifacts"), minutes: float = 30.0, processes: int = 2000,
    say: Callable[[str], object] = sys.stdout.write, **options: Any,
) -> int:  # fmt: skip
    """The exit code. `artifacts`: paths in the sources' folder, files or folders; `options`: of
    `Sandbox.create`."""
    limits = Limits(processes=processes)
    with Sandbox.create(timeout=minutes * 60 + 600, **options) as sandbox:
        sandbox.files.upload(sources, PLACE)
        for command in commands:
            say(f"+ {command}\n")
            try:
                done = sandbox.commands.run(
                    command, cwd=PLACE, timeout=minutes * 60, limits=limits, on_stdout=say,
                    on_stderr=say, env={"CI": "true", "HOME": "/root"},
                )  # fmt: skip
            except TimeLimitExceeded:
                say(f"it took more than {minutes:g} minutes\n")
                return TOO_LONG
            except LimitExceeded as error:
                say(f"{error}\n")
                return TOO_MUCH
            if done.exit_code:
                say(f"it ended with {done.exit_code}\n")
                return done.exit_code
        for artifact in artifacts:
            _fetch(sandbox, artifact, into)
    return 0


def _fetch(sandbox: Sandbox, artifact: str, into: Path) -> None:
    place = PurePosixPath(artifact)
    if place.is_absolute() or ".." in place.parts or not place.name:
        raise ValueError(f"an artifact is a path in the sources: {artifact}")
    target = into / place.name
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    into.mkdir(parents=True, exist_ok=True)
    sandbox.files.download(f"{PLACE}/{place}", target)


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="a folder with the tools in it; the host's own files else")
    parser.add_argument("--image", help="or an image: docs/images.md")
    parser.add_argument("--network", default="none", help="none, sandbox, host")
    parser.add_argument("--memory", type=int, default=2048, help="MiB")
    parser.add_argument("--minutes", type=float, default=30.0, help="for each command")
    parser.add_argument("--artifact", action="append", default=[])
    parser.add_argument("--into", type=Path, default=Path("artifacts"))
    parser.add_argument("sources", type=Path)
    parser.add_argument("commands", nargs="+")
    given = parser.parse_args()
    sys.exit(step(
        given.sources, given.commands, artifacts=given.artifact, into=given.into,
        minutes=given.minutes, root=given.root, image=given.image, network=given.network,
        memory=given.memory << 20,
    ))  # fmt: skip


if __name__ == "__main__":
    main()
