from __future__ import annotations

import types
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from runsc import fields
from runsc.errors import SpecError
from runsc.oci import spec


def _is_there(kind: Any, names: list[str]) -> bool:
    """Whether a document of that type may have such a value; of what is no struct, any."""
    parts = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if not names:
        return True
    name, *rest = names
    if name.endswith("[]"):
        return _is_there(kind, [name[:-2], "[]", *rest])
    if name == "[]":
        return any(_is_there(get_args(part)[0], rest) for part in parts if get_args(part))
    structs = [each for each in parts if isinstance(each, type) and issubclass(each, spec._Base)]
    for struct in structs:
        hints = get_type_hints(struct)
        for field in msgspec.structs.fields(struct):
            if field.encode_name == name:
                return _is_there(hints[field.name], rest)
    return not structs


@pytest.mark.parametrize("name", fields.RIGHT)
def test_field_that_has_a_hint_is_one_of_the_document(name: str) -> None:
    assert _is_there(spec.Spec, name.split("."))


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("$", "`runsc spec` writes a config.json with all that is needed"),
        ("$.process.cwd", "a path inside the container, which begins with /"),
        ("$.cwd", "a path inside the container, which begins with /"),
        ("$.process.args[3]", fields.RIGHT["process.args"]),
        ("$.process.user.uid", fields.RIGHT["process.user"]),
        ("$.mounts[12].options[0]", 'a list such as ["rbind", "ro"]'),
        ("$.mounts[0]", fields.RIGHT["mounts"]),
        ("$.linux.sysctl[...]", fields.RIGHT["linux.sysctl"]),
        ("$.linux.sysctl.net.a", fields.RIGHT["linux.sysctl"]),
        ("$.linux.namespaces[5].type", fields.RIGHT["linux.namespaces"]),
        ("$.linux.namespaces[5].path", fields.RIGHT["linux.namespaces[].path"]),
        ("$.linux.mountLabel", fields.ANY),
    ],
)
def test_hint_is_that_of_the_field_or_of_what_it_is_in(path: str, told: str) -> None:
    assert fields.right(path) == told
    assert SpecError(path, "wrong").hint == f"{path}: {told}"
