"""containers.conf of podman: `[engine.runtimes]`, a list of paths for each: containers.conf(5)."""

from __future__ import annotations

import json
import os
import re
from typing import Final

from runsc.engines import blocks
from runsc.engines.settings import (
    Runtime,
    SettingsError,
    is_anothers,
    is_default,
    is_not_ours,
    not_found,
)

TABLE: Final = ("engine", "runtimes")
_HEAD = re.compile(r"\s*\[\s*engine\s*\.\s*runtimes\s*\]\s*(#.*)?")


def file() -> str:
    """Root's, or that of this user."""
    if os.geteuid() == 0:
        return "/etc/containers/containers.conf"
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(home, "containers", "containers.conf")


def runtimes(text: str) -> dict[str, str]:
    """The first path of each."""
    found = blocks.at(blocks.document(text), TABLE)
    if not isinstance(found, dict):
        return {}
    return {
        name: str(paths[0]) if isinstance(paths, list) and paths else ""
        for name, paths in found.items()
    }


def add(text: str, runtime: Runtime) -> str:
    """With this runtime."""
    if runtime.flags:
        raise SettingsError(
            "podman has no place for flags of a runtime: give them with `podman --runtime-flag`,"
            " or call runsc with them in a script, and give that as --path"
        )
    before = blocks.cut(text, runtime.name)
    keys = (*TABLE, runtime.name)
    if blocks.at(blocks.document(before), keys) is not None:
        raise is_anothers(runtime.name)
    line = f"{runtime.name} = [{json.dumps(runtime.path)}]"
    heads = [n for n, each in enumerate(before.splitlines()) if _HEAD.fullmatch(each)]
    if heads:
        after = blocks.put(before, runtime.name, [line], heads[0] + 1)
    else:
        after = blocks.put(before, runtime.name, ["[engine.runtimes]", line])
    return blocks.prove(before, after, keys, [runtime.path])


def remove(text: str, name: str) -> str:
    """Without it."""
    document = blocks.document(text)
    if blocks.at(document, (*TABLE, name)) is None:
        raise not_found(name)
    if blocks.at(document, ("engine", "runtime")) == name:
        raise is_default(name)
    after = blocks.cut(text, name)
    if after == text:
        raise is_not_ours(name)
    return blocks.prove(text, after, (*TABLE, name), None)
