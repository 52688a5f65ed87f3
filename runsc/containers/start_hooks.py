"""startContainer hooks: the only ones whose program is the container's own.

config.md, "StartContainer Hooks": the path is looked up, and the hook run, inside the container,
before its first process runs. Each is a process that `exec` adds; a child of ours that stays with
it (`runsc exec`) is what the host sees, so that time limits and output are those of other hooks.
As with runc they are run as config.json said when the container was made.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import msgspec

import runsc
from runsc.containers.container import Store
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.oci import hooks, spec

_PROCESS = "hook.json"


def run(store: Store, state: State) -> None:
    """All of them, in their order. Raises: RuntimeFailure at the first that fails."""
    if not state.hook_process:
        raise RuntimeFailure(
            "an older runsc has created this container, and has not noted how its startContainer"
            " hooks are run: create it anew"
        )
    process = hooks.process(state.hook_process)
    document = hooks.StateDocument(
        state.oci_version, state.id, "created", state.bundle, state.pid, state.annotations
    )
    found = hooks.of(hooks.read(state.hooks), hooks.Phase.START_CONTAINER)
    inside = [_as_exec(store, state, process, hook) for hook in found]
    for index, (written, hook) in enumerate(inside):
        path = store.path(state.id, _PROCESS)
        with open(path, "wb") as file:
            file.write(msgspec.json.encode(written))
        problem = hooks.run_one(hook, document)
        with suppress(FileNotFoundError):  # whoever deletes the container takes it, too
            os.unlink(path)
        if problem:
            raise RuntimeFailure(f"error running startContainer hook #{index}: {problem}")


def _as_exec(
    store: Store, state: State, process: spec.Process, hook: spec.Hook
) -> tuple[spec.Process, spec.Hook]:
    """The process inside, and the hook on the host that runs it and stays."""
    written = msgspec.structs.replace(
        process,
        args=[hook.path, *(hook.args or [])[1:]],
        env=process.env if hook.env is None else hook.env,
        terminal=False,
        console_size=None,
    )
    command = [
        sys.executable, "-m", "runsc", f"--root={store.root}", "exec",
        f"--process={store.path(state.id, _PROCESS)}", state.id,
    ]  # fmt: skip
    source = os.path.dirname(os.path.abspath(runsc.__path__[0]))
    paths = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    variables = {**os.environ, "PYTHONPATH": paths}
    environment = [f"{name}={value}" for name, value in variables.items()]
    made = spec.Hook(sys.executable, command, environment, hook.timeout)
    return written, made
