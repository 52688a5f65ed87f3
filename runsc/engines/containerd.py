"""config.toml of containerd: the runtimes of the CRI plugin, which Kubernetes uses.

Sources: containerd's docs/cri/config.md (`runtime_type`, `options.BinaryName`); the plugin is
io.containerd.grpc.v1.cri in version 2 and io.containerd.cri.v1.runtime in version 3. containerd 2
reads version 2, too.
"""

from __future__ import annotations

import json
from typing import Any, Final

from runsc.engines import blocks
from runsc.engines.settings import (
    Runtime,
    SettingsError,
    is_anothers,
    is_default,
    is_not_ours,
    not_found,
)

PLUGINS: Final = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
SHIM: Final = "io.containerd.runc.v2"
NEW: Final = "version = 2\n"
"""What stands in a file that there was not."""


def runtimes(text: str) -> dict[str, str]:
    """Programs by name; those of other shims have none."""
    document = blocks.document(text)
    if not document:
        return {}
    found = blocks.at(document, (*_place(document), "runtimes"))
    if not isinstance(found, dict):
        return {}
    return {name: str(blocks.at(it, ("options", "BinaryName")) or "") for name, it in found.items()}


def add(text: str, runtime: Runtime) -> str:
    """With this runtime."""
    if runtime.flags:
        raise SettingsError(
            "containerd has no place for flags of a runtime: call runsc with them in a script, and"
            " give that as --path"
        )
    before = blocks.cut(text, runtime.name)
    document = blocks.document(before)
    if not document:
        before += NEW
        document = blocks.document(before)
    keys = (*_place(document), "runtimes", runtime.name)
    if blocks.at(document, keys) is not None:
        raise is_anothers(runtime.name)
    plugin, *inner = keys[1:]
    table = f'plugins."{plugin}".{".".join(inner)}'
    lines = (
        f"[{table}]",
        f'  runtime_type = "{SHIM}"',
        f"  [{table}.options]",
        f"    BinaryName = {json.dumps(runtime.path)}",
    )
    value = {"runtime_type": SHIM, "options": {"BinaryName": runtime.path}}
    return blocks.prove(before, blocks.put(before, runtime.name, lines), keys, value)


def remove(text: str, name: str) -> str:
    """Without it."""
    document = blocks.document(text)
    place = _place(document) if document else ("plugins",)
    if blocks.at(document, (*place, "runtimes", name)) is None:
        raise not_found(name)
    if blocks.at(document, (*place, "default_runtime_name")) == name:
        raise is_default(name)
    after = blocks.cut(text, name)
    if after == text:
        raise is_not_ours(name)
    return blocks.prove(text, after, (*place, "runtimes", name), None)


def _place(document: dict[str, Any]) -> blocks.Keys:
    version = document.get("version", 1)
    if version not in PLUGINS:
        raise SettingsError(
            f"version {version!r} of the configuration: 2 and 3 are known; see `containerd config"
            " migrate`"
        )
    return ("plugins", PLUGINS[version], "containerd")
