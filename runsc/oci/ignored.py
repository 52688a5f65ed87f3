"""What config.json says that has no effect here, for `--debug`."""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import msgspec

from runsc.oci import spec

WITHOUT_EFFECT: dict[str, str] = {
    "linux.rootfsPropagation": "the host sees no mount of the container",
    "linux.seccomp.flags": "the filter is the Sentry's own, and it logs nothing",
    "linux.resources.devices": "the program has the Sentry's devices, and opens none of the host's",
    "linux.resources.network": "the sandbox's processes send no packets",
}
"""Known fields, and why."""
OPEN = ("linux.resources", "annotations", "linux.sysctl")
"""Whose names are not those of fields of a struct here."""


def fields(bundle: str) -> Iterator[str]:
    """One line for each, in the order of the document. Preconditions: `spec.load` has read it."""
    with open(os.path.join(bundle, "config.json"), "rb") as file:
        document = msgspec.json.decode(file.read())
    for path in _unknown(document, spec.Spec, ""):
        yield f"config.json: {path} is unknown, and ignored"
    for path, why in WITHOUT_EFFECT.items():
        if _at(document, path):
            yield f"config.json: {path} has no effect: {why}"
    for namespace in _at(document, "linux.namespaces") or ():
        if namespace.get("path") and namespace["type"] != "network":
            yield (
                f"config.json: the {namespace['type']} namespace {namespace['path']} is not joined"
                " if it is none of a sandbox here: that has a kernel, and so namespaces, of its own"
            )


def _unknown(value: Any, kind: Any, path: str) -> Iterator[str]:
    """Names in `value` that its struct does not have."""
    if path in OPEN:
        return
    if isinstance(value, list):
        inner = next((each for part in _parts(kind) for each in get_args(part)), None)
        for index, item in enumerate(value):
            yield from _unknown(item, inner, f"{path}[{index}]")
    struct = next((part for part in _parts(kind) if _is_struct(part)), None)
    if not isinstance(value, dict) or struct is None:
        return
    hints = get_type_hints(struct)
    known = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(struct)}
    for name, inner in value.items():
        where = f"{path}.{name}".lstrip(".")
        if name in known:
            yield from _unknown(inner, known[name], where)
        else:
            yield where


def _parts(kind: Any) -> tuple[Any, ...]:
    """Of `X | None` both, of another type itself."""
    return get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _at(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document
