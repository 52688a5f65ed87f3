from __future__ import annotations

import tomllib

import pytest

from runsc.engines import containerd
from runsc.engines.settings import Runtime, SettingsError

RUNSC = Runtime("runsc", '/opt/a "b"/runsc')
VERSION_2 = """# mine
version = 2
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".containerd]
      default_runtime_name = "runc" # as ever
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2\""""
VERSION_3 = 'version = 3\n[plugins."io.containerd.cri.v1.runtime".cni]\nbin_dir = "/x"\n'


@pytest.mark.parametrize("text", [VERSION_2 + "\n", VERSION_3, 'version = 2\nroot = "/r"\n'])
def test_a_runtime_is_added_and_taken_away_again(text: str) -> None:
    after = containerd.add(text, RUNSC)

    assert after.startswith(text)
    assert containerd.runtimes(after)["runsc"] == RUNSC.path
    assert containerd.remove(after, "runsc") == text
    again = containerd.add(after, Runtime("runsc", "/other"))
    assert containerd.runtimes(again)["runsc"] == "/other"
    assert again.count("runtime_type") == after.count("runtime_type")


def test_a_line_without_an_end_gets_one() -> None:
    assert containerd.remove(containerd.add(VERSION_2, RUNSC), "runsc") == VERSION_2 + "\n"


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_a_new_file_says_its_version(text: str) -> None:
    assert containerd.runtimes(text) == {}

    after = containerd.add(text, RUNSC)

    assert tomllib.loads(after)["version"] == 2
    assert containerd.runtimes(after) == {"runc": "", "runsc": RUNSC.path}


def test_containerds_own_runtime_is_named_too_as_long_as_there_is_another() -> None:
    one = containerd.add(VERSION_3, RUNSC)
    two = containerd.add(one, Runtime("untrusted", "/other"))

    assert list(containerd.runtimes(two)) == ["runc", "runsc", "untrusted"]
    assert list(containerd.runtimes(containerd.remove(two, "untrusted"))) == ["runc", "runsc"]
    chosen = VERSION_3 + '[plugins."io.containerd.cri.v1.runtime".containerd]\n'
    chosen += 'default_runtime_name = "other"\n'
    assert list(containerd.runtimes(containerd.add(chosen, RUNSC))) == ["runsc"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version = ", "not TOML"),
        ('root = "/r"\n', "version 1 of the configuration"),
        ("version = 4\n", "version 4"),
        ("version = 2\nplugins = {a = 1}\n", "nothing can be added"),
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]\na = 1\n',
            "did not write",
        ),
    ],
)
def test_what_cannot_be_changed_is_refused(text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        containerd.add(text, RUNSC)


def test_what_cannot_be_taken_away_is_refused() -> None:
    with pytest.raises(SettingsError, match="not found"):
        containerd.remove("", "runsc")
    with pytest.raises(SettingsError, match="did not write"):
        containerd.remove(VERSION_2.replace("runtimes.runc", "runtimes.runsc"), "runsc")
    chosen = containerd.add(VERSION_2.replace('"runc"', '"runsc"'), RUNSC)
    with pytest.raises(SettingsError, match="default runtime"):
        containerd.remove(chosen, "runsc")


SHIM = "/opt/bin/containerd-shim-runsc-v1"


@pytest.mark.parametrize("text", [VERSION_2 + "\n", VERSION_3, ""])
def test_a_shim_beside_the_program_is_what_containerd_is_told_of(text: str) -> None:
    flags = ("--platform=kvm", "--debug")

    after = containerd.add(text, Runtime("runsc", "/opt/bin/runsc", flags, SHIM))

    document = tomllib.loads(after)
    plugin = containerd.PLUGINS[document["version"]]
    assert document["plugins"][plugin]["containerd"]["runtimes"]["runsc"] == {
        "runtime_type": "io.containerd.runsc.v1",
        "runtime_path": SHIM,
        "options": {"runsc_config": {"platform": "kvm", "debug": "true"}},
    }
    assert containerd.runtimes(after)["runsc"] == SHIM
    assert containerd.remove(after, "runsc") == (text or "version = 2\n")


def test_flags_of_the_shim_have_their_value_with_them() -> None:
    with pytest.raises(SettingsError, match="--NAME=VALUE"):
        containerd.add("", Runtime("runsc", "/r", ("--platform", "kvm"), SHIM))


def test_flags_have_no_place_with_the_shim_of_runc() -> None:
    with pytest.raises(SettingsError, match="in a script"):
        containerd.add("", Runtime("runsc", "/r", ("--debug",)))
