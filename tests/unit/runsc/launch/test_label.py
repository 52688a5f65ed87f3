"""Labels of security modules: what is written where, and what is said where there are none."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runsc.errors import RuntimeFailure
from runsc.launch import label
from runsc.launch.label import Label


@pytest.fixture
def attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as /proc/PID/attr, with AppArmor's own."""
    for folder in (tmp_path, tmp_path / "apparmor"):
        folder.mkdir(exist_ok=True)
        for name in ("current", "exec"):
            (folder / name).touch()
    monkeypatch.setattr(label, "ATTRIBUTES", str(tmp_path))
    return tmp_path


def _written(attributes: Path) -> dict[str, str]:
    files = (path for path in attributes.rglob("*") if path.is_file())
    texts = {str(path.relative_to(attributes)): path.read_text() for path in files}
    return {name: text for name, text in texts.items() if text}


def test_program_gets_both_labels(attributes: Path) -> None:
    Label("tight", "u:r:t:s0").put_on_program()

    assert _written(attributes) == {"apparmor/exec": "exec tight", "exec": "u:r:t:s0"}


def test_thread_gets_both_labels_when_it_says_so(attributes: Path) -> None:
    put_on = Label("tight", "u:r:t:s0").prepare()
    assert _written(attributes) == {}

    put_on()

    assert _written(attributes) == {
        "apparmor/current": "changeprofile tight", "current": "u:r:t:s0"
    }  # fmt: skip


def test_kernel_without_a_folder_for_apparmor_has_one_for_all(attributes: Path) -> None:
    for name in ("current", "exec"):
        (attributes / "apparmor" / name).unlink()

    Label("tight").put_on_program()

    assert _written(attributes) == {"exec": "exec tight"}


def test_nothing_is_opened_where_there_is_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label, "ATTRIBUTES", "/nowhere")

    Label().put_on_program()
    Label().prepare()()


def test_what_is_refused_is_said_as_runc_says_it(
    attributes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    put_on = Label("tight").prepare()
    monkeypatch.setattr(os, "write", refused)

    with pytest.raises(OSError) as told:
        put_on()

    assert told.value.strerror == (
        "unable to start container process: error during container init: unable to apply apparmor"
        " profile: apparmor failed to apply profile:"
        f" write {attributes}/apparmor/current: no such file or directory"
    )


def test_no_descriptor_is_left(attributes: Path) -> None:
    before = os.listdir("/proc/self/fd")

    Label("tight", "u:r:t:s0").put_on_program()
    Label("tight", "u:r:t:s0").prepare()()

    assert os.listdir("/proc/self/fd") == before


def test_categories_of_a_mount_label_are_no_options() -> None:
    assert Label().mount_option == ""
    assert Label(files="u:r:t:s0:c1,c2").mount_option == ',context="u:r:t:s0:c1,c2"'


def _container(**labels: str) -> Any:
    known = {"apparmor_profile": "", "selinux_label": "", "mount_label": ""}
    return SimpleNamespace(**(known | labels))


@pytest.mark.parametrize("name", ["selinux_label", "mount_label"])
def test_selinux_label_where_there_is_none_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label, "SELINUX", "/nowhere")

    with pytest.raises(RuntimeFailure) as told:
        label.of(_container(**{name: "u:r:t:s0"}))

    assert str(told.value) == (
        "selinux label is specified in config, but selinux is disabled or not supported"
    )


@pytest.fixture
def selinux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as selinuxfs."""
    for name in ("enforce", "context"):
        (tmp_path / name).touch()
    monkeypatch.setattr(label, "SELINUX", str(tmp_path))
    return tmp_path


def test_labels_of_config_json(selinux: Path) -> None:
    made = label.of(_container(apparmor_profile="a", selinux_label="b", mount_label="c"))

    assert made == Label("a", "b", "c")
    assert made.of_profile == Label("a")
    assert (selinux / "context").read_text() == "c"


def test_mount_label_that_the_policy_does_not_know_is_refused(
    selinux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(fd: int, data: bytes) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "write", refused)

    with pytest.raises(RuntimeFailure) as told:
        label.of(_container(mount_label="u:r:t:s0"))

    assert str(told.value) == "linux.mountLabel u:r:t:s0: invalid argument"


def test_program_that_the_policy_forbids_is_refused_with_the_label(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)

    with pytest.raises(PermissionError) as told:
        Label(context="u:r:t:s0").execute(fd, "title")
    with pytest.raises(PermissionError, match="Permission denied"):
        Label("tight").execute(fd, "title")
    os.close(fd)

    assert told.value.strerror == (
        "unable to start container process: error during container init: unable to apply selinux"
        " label u:r:t:s0: execve: permission denied"
    )
