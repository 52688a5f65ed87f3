from __future__ import annotations

import json

import pytest

from runsc.engines import docker
from runsc.engines.settings import Runtime, SettingsError

RUNSC = Runtime("runsc", "/usr/bin/runsc", ("--network=host",))


def test_a_runtime_is_added_and_all_else_stays() -> None:
    text = '{\n  "log-level": "warn",\n  "runtimes": {"x": {"path": "/x"}},\n  "big": 1e3\n}\n'

    after = docker.add(text, RUNSC)

    document = json.loads(after)
    assert list(document) == ["log-level", "runtimes", "big"]
    assert document["runtimes"] == {
        "x": {"path": "/x"},
        "runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--network=host"]},
    }
    assert after.startswith('{\n  "log-level"')
    assert docker.runtimes(after) == {"x": "/x", "runsc": "/usr/bin/runsc"}
    assert json.loads(docker.remove(after, "runsc")) == json.loads(text)


def test_a_file_that_is_not_there_gets_one_runtime_and_loses_it() -> None:
    after = docker.add("", Runtime("runsc", "/r"))

    assert json.loads(after) == {"runtimes": {"runsc": {"path": "/r"}}}
    assert json.loads(docker.add(after, RUNSC))["runtimes"]["runsc"]["path"] == "/usr/bin/runsc"
    assert json.loads(docker.remove(after, "runsc")) == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ('{"runtimes": []}', "no object"),
        ('{"a": 1, "a": 2}', "stands twice"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, why: str) -> None:
    for edit in (lambda: docker.add(text, RUNSC), lambda: docker.remove(text, "runsc")):
        with pytest.raises(SettingsError, match=why):
            edit()


def test_names_that_cannot_be_had_or_taken_are_refused() -> None:
    with pytest.raises(SettingsError, match="not found"):
        docker.remove("{}", "runsc")
    with pytest.raises(SettingsError, match="default runtime"):
        docker.remove('{"default-runtime": "runsc", "runtimes": {"runsc": {}}}', "runsc")
    with pytest.raises(SettingsError, match="its own"):
        docker.add("", Runtime("runc", "/r"))
