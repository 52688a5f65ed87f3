from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from runsc.commands.spec import example
from runsc.errors import RuntimeFailure, SpecError
from runsc.oci import ignored, resources, spec
from sentry import config


def _document(**changes: Any) -> bytes:
    made = msgspec.to_builtins(example())
    made.update(changes)
    return json.dumps(made).encode()


@pytest.mark.parametrize("module", [config, spec])
def test_annotations_of_what_each_start_decodes_are_no_text(module: ModuleType) -> None:
    """msgspec compiles text: 2 ms for each of both modules."""
    structs = [kind for kind in vars(module).values() if isinstance(kind, type(msgspec.Struct))]
    own = [kind.__annotations__ for kind in structs if kind.__module__ == module.__name__]
    assert len(own) > 15
    assert not [each for hints in own for each in hints.values() if isinstance(each, str)]


def test_decode_of_what_spec_writes_gives_it_back() -> None:
    assert spec.decode(msgspec.json.encode(example()), spec.Spec) == example()


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"ociVersion": 1}, "$.ociVersion"),
        ({"process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": [1]}}, "$.process.args[0]"),
        ({"process": {"user": {"uid": -1, "gid": 0}, "cwd": "/"}}, "$.process.user.uid"),
        ({"process": {"user": {"uid": 1 << 32, "gid": 0}, "cwd": "/"}}, "$.process.user.uid"),
        ({"process": {"cwd": "/"}}, "$.process"),
        ({"mounts": [{"type": "proc"}]}, "$.mounts[0]"),
        ({"mounts": {}}, "$.mounts"),
        ({"linux": {"sysctl": {"a.b": 1}}}, "$.linux.sysctl[...]"),
        ({"linux": {"namespaces": [{"type": "pid"}, {"type": 4}]}}, "$.linux.namespaces[1].type"),
    ],
)
def test_decode_of_wrong_type_names_its_json_path(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec.decode(_document(**changes), spec.Spec)

    assert caught.value.path == path
    assert f"at `{path}`" in str(caught.value)


def test_decode_ignores_fields_it_does_not_know() -> None:
    assert spec.decode(_document(vm={"hypervisor": {}}, zzz=1), spec.Spec)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b"null", b'{"linux":{"resources":{"a":' + b"[" * 100_000]
)
def test_decode_of_something_else_is_an_error(data: bytes) -> None:
    with pytest.raises(RuntimeFailure):
        spec.decode(data, spec.Spec)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "line 1, column 1: input data was truncated"),
        (b'{\n "a": 1,\n', "line 3, column 1: input data was truncated"),
        (b'{\n "a": 1,\n b: 2}', "line 3, column 2: object keys must be strings"),
        (b'{"ociVersion": x}', "line 1, column 16: invalid character"),
        (b'{"ociVersion": "1.2.0"}\n{}', "line 2, column 2: trailing characters"),
    ],
)
def test_decode_of_bad_syntax_says_in_which_line(data: bytes, told: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        spec.decode(data, spec.Spec)
    assert str(caught.value) == f"config.json is not JSON: {told}"


def test_load_without_bundle_or_document_says_what_runc_says(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match=r"^JSON specification file config.json not found$"):
        spec.load(str(tmp_path))
    with pytest.raises(RuntimeFailure, match=r"^chdir .*/none: no such file or directory$"):
        spec.load(str(tmp_path / "none"))


@pytest.mark.parametrize(
    "part",
    [spec.Spec, spec.Process, spec.User, spec.Root, spec.Linux, spec.Seccomp, spec.Hooks,
     resources.Resources, resources.Memory, resources.Cpu],
)  # fmt: skip
def test_page_says_what_becomes_of_each_field(part: type[msgspec.Struct]) -> None:
    page = (Path(__file__).parents[4] / "docs/config-json.md").read_text()
    table = "\n".join(line for line in page.splitlines() if line.startswith("| "))
    said = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", table))))

    assert {field.encode_name for field in msgspec.structs.fields(part)} <= said
    assert {path.rpartition(".")[2] for path in ignored.WITHOUT_EFFECT} <= said
