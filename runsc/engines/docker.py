"""daemon.json of Docker: `"runtimes": {"NAME": {"path": …, "runtimeArgs": […]}}` (dockerd(8))."""

from __future__ import annotations

import json
import re
from typing import Any

from runsc.engines.settings import Runtime, SettingsError, is_default, not_found

INDENT = "    "


def runtimes(text: str) -> dict[str, str]:
    """Programs by name; one that only names a shim has none."""
    found = _runtimes(_document(text))
    return {name: str(it.get("path", "")) for name, it in found.items() if isinstance(it, dict)}


def add(text: str, runtime: Runtime) -> str:
    """With this runtime, also if there was one of its name."""
    if runtime.name == "runc":
        raise SettingsError('Docker keeps the name "runc" for its own')
    document = _document(text)
    entry: dict[str, Any] = {"path": runtime.path}
    if runtime.flags:
        entry["runtimeArgs"] = list(runtime.flags)
    document["runtimes"] = {**_runtimes(document), runtime.name: entry}
    return _written(document, text)


def remove(text: str, name: str) -> str:
    """Without it."""
    document = _document(text)
    found = _runtimes(document)
    if name not in found:
        raise not_found(name)
    if document.get("default-runtime") == name:
        raise is_default(name)
    document["runtimes"] = {key: it for key, it in found.items() if key != name}
    if not document["runtimes"]:
        del document["runtimes"]
    return _written(document, text)


def _document(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise SettingsError("not a JSON object")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A name that stands twice would be lost. Raises: ValueError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _runtimes(document: dict[str, Any]) -> dict[str, Any]:
    found = document.get("runtimes", {})
    if not isinstance(found, dict):
        raise SettingsError('"runtimes" is no object')
    return found


def _written(document: dict[str, Any], before: str) -> str:
    """As it was indented before."""
    first = re.search(r'^([ \t]+)"', before, re.M)
    indent = first[1] if first else INDENT
    return json.dumps(document, indent=indent, ensure_ascii=False) + "\n"
