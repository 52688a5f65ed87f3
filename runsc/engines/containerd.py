"""config.toml of containerd: the runtimes of the CRI plugin, which Kubernetes uses.

The shim is ours where it lies beside the program (`runsc.shim`), else runc's, which calls the
program for each request. Sources: containerd's docs/cri/config.md (`runtime_type`,
`runtime_path`, `options.BinaryName`); the plugin is io.containerd.grpc.v1.cri in version 2 and
io.containerd.cri.v1.runtime in version 3. containerd 2 reads version 2, too.
"""

from __future__ import annotations

import json
import re
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
OUR_SHIM: Final = "io.containerd.runsc.v1"
RUNC_SHIM: Final = "io.containerd.runc.v2"
DEFAULT: Final = "runc"
"""The runtime of pods that name none, unless the file says otherwise."""
NEW: Final = "version = 2\n"
"""What stands in a file that there was not."""


def runtimes(text: str) -> dict[str, str]:
    """Programs by name, of runc's shim, or shims with a path; others have none."""
    document = blocks.document(text)
    if not document:
        return {}
    found = blocks.at(document, (*_place(document), "runtimes"))
    if not isinstance(found, dict):
        return {}
    places = (("options", "BinaryName"), ("runtime_path",))
    return {
        name: str(next(filter(None, (blocks.at(it, place) for place in places)), ""))
        for name, it in found.items()
    }


def add(text: str, runtime: Runtime) -> str:
    """With this runtime."""
    if runtime.flags and not runtime.shim:
        raise SettingsError(
            "runc's shim has no place for flags of a runtime: call runsc with them in a script, and"
            " give that as --path"
        )
    value = _with_our_shim(runtime) if runtime.shim else _with_runc_shim(runtime)
    before = blocks.cut(text, runtime.name)
    document = blocks.document(before)
    if not document:
        before += NEW
        document = blocks.document(before)
    place = _place(document)
    if blocks.at(document, (*place, "runtimes", runtime.name)) is not None:
        raise is_anothers(runtime.name)
    if _lacks_default(document):
        before = _put(before, place, DEFAULT, {"runtime_type": RUNC_SHIM})
    return _put(before, place, runtime.name, value)


def _lacks_default(document: dict[str, Any]) -> bool:
    """Whether containerd would be without its own runtime.

    Where a file names some those are all there are, and without the default one there is no CRI.
    """
    place = _place(document)
    default = blocks.at(document, (*place, "default_runtime_name")) or DEFAULT
    return default == DEFAULT and blocks.at(document, (*place, "runtimes", DEFAULT)) is None


def _put(text: str, place: blocks.Keys, name: str, value: dict[str, Any]) -> str:
    keys = (*place, "runtimes", name)
    plugin, *inner = keys[1:]
    lines = _lines(f'plugins."{plugin}".{".".join(inner)}', value)
    return blocks.prove(text, blocks.put(text, name, lines), keys, value)


def _with_runc_shim(runtime: Runtime) -> dict[str, Any]:
    return {"runtime_type": RUNC_SHIM, "options": {"BinaryName": runtime.path}}


def _with_our_shim(runtime: Runtime) -> dict[str, Any]:
    made: dict[str, Any] = {"runtime_type": OUR_SHIM, "runtime_path": runtime.shim}
    if runtime.flags:
        made["options"] = {"runsc_config": dict(map(_flag, runtime.flags))}
    return made


def _flag(word: str) -> tuple[str, str]:
    """Name and value. Raises: SettingsError."""
    name, equals, value = word.lstrip("-").partition("=")
    if not word.startswith("-") or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise SettingsError(f"{word!r}: containerd has place for flags as --NAME=VALUE")
    return name, value if equals else "true"


def _lines(table: str, value: dict[str, Any], depth: int = 0) -> list[str]:
    """A table of texts and tables, in TOML."""
    indent = "  " * depth
    made = [f"{indent}[{table}]"]
    texts = {name: each for name, each in value.items() if not isinstance(each, dict)}
    made += [f"{indent}  {name} = {json.dumps(each)}" for name, each in texts.items()]
    for name in value.keys() - texts.keys():
        made += _lines(f"{table}.{name}", value[name], depth + 1)
    return made


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
    after = blocks.prove(text, after, (*place, "runtimes", name), None)
    alone = blocks.cut(after, DEFAULT)
    if alone == after or set(runtimes(after)) != {DEFAULT}:
        return after
    return blocks.prove(after, alone, (*place, "runtimes", DEFAULT), None)


def _place(document: dict[str, Any]) -> blocks.Keys:
    version = document.get("version", 1)
    if version not in PLUGINS:
        raise SettingsError(
            f"version {version!r} of the configuration: 2 and 3 are known; see `containerd config"
            " migrate`"
        )
    return ("plugins", PLUGINS[version], "containerd")
