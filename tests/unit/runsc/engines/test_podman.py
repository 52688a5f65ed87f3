from __future__ import annotations

from pathlib import Path

import pytest

from runsc.engines import podman
from runsc.engines.settings import Runtime, SettingsError

RUNSC = Runtime("runsc", "/usr/bin/runsc")
SHIPPED = """[containers]
#userns = "host"
[engine]
runtime = "crun"
[engine.runtimes] # where they are
#crun = ["/usr/bin/crun"]
runc = ["/usr/bin/runc", "/sbin/runc"]
[engine.volume_plugins]
"""


@pytest.mark.parametrize(
    "text", ["", SHIPPED, "[engine]\nevents_logger = 'file'\n", "[ engine . runtimes ]\n"]
)
def test_a_runtime_is_added_and_taken_away_again(text: str) -> None:
    after = podman.add(text, RUNSC)

    assert podman.runtimes(after) == {**podman.runtimes(text), "runsc": "/usr/bin/runsc"}
    assert podman.remove(after, "runsc") == text
    assert podman.runtimes(podman.add(after, Runtime("runsc", "/o")))["runsc"] == "/o"


def test_two_runtimes_are_in_the_same_table() -> None:
    both = podman.add(podman.add("", RUNSC), Runtime("other", "/o"))

    assert podman.runtimes(both) == {"runsc": "/usr/bin/runsc", "other": "/o"}
    assert podman.runtimes(podman.remove(both, "other")) == {"runsc": "/usr/bin/runsc"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[engine", "not TOML"),
        ("[engine]\nruntimes = {runc = ['/r']}\n", "nothing can be added"),
        ("[engine.runtimes]\nrunsc = ['/r']\n", "did not write"),
    ],
)
def test_what_cannot_be_changed_is_refused(text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        podman.add(text, RUNSC)


def test_what_cannot_be_taken_away_is_refused() -> None:
    with pytest.raises(SettingsError, match="not found"):
        podman.remove(SHIPPED, "runsc")
    with pytest.raises(SettingsError, match="did not write"):
        podman.remove(SHIPPED, "runc")
    with pytest.raises(SettingsError, match="default runtime"):
        podman.remove(podman.add(SHIPPED.replace('"crun"', '"runsc"'), RUNSC), "runsc")
    with pytest.raises(SettingsError, match="in a script"):
        podman.add("", Runtime("runsc", "/r", ("--debug",)))


def test_the_file_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert podman.file() == "/etc/containers/containers.conf"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert podman.file() == f"{tmp_path}/containers/containers.conf"
