"""What containerd's configuration says: understood, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from runsc.shim import messages as m
from runsc.shim import options
from runsc.shim.options import Settings
from runsc.shim.ttrpc import Refused


def of_body(text: str, path: str = "") -> m.Any:
    given = m.RuntimeOptions("io.containerd.runsc.v1.options", path, text.encode())
    return m.packed("runtimeoptions.v1.Options", given)


def test_without_options_state_lies_where_gvisor_has_it() -> None:
    assert options.read(None, "k8s.io") == Settings("/run/containerd/runsc/k8s.io")
    assert options.read(m.Any(), "ns") == Settings("/run/containerd/runsc/ns")


def test_options_of_the_cri_are_the_table_as_it_stands_there() -> None:
    body = """
        TypeUrl = "io.containerd.runsc.v1.options"
        root = "/r"
        shim_cgroup = "/shims"
        log_path = "/var/log/shim"
        log_level = "debug"
        SystemdCgroup = true
        io_uid = 0
        [runsc_config]
          platform = "kvm"
          debug = true
          strace-log-size = 64
    """

    settings = options.read(of_body(body), "ns")

    assert settings == Settings(
        "/r/ns",
        ("--platform=kvm", "--debug=true", "--strace-log-size=64", "--systemd-cgroup"),
        "/shims",
        "/var/log/shim",
        True,
    )


def test_a_file_can_have_them(tmp_path: Path) -> None:
    file = tmp_path / "runsc.toml"
    file.write_text('[runsc_config]\nnetwork = "none"\n')

    assert options.read(of_body("", str(file)), "ns").flags == ("--network=none",)


def test_options_of_docker_are_those_of_runc() -> None:
    given = m.packed("containerd.runc.v1.Options", m.RuncOptions(root="/r", systemd_cgroup=True))

    assert options.read(given, "moby") == Settings("/r/moby", ("--systemd-cgroup",))


def test_owners_of_pipes_that_containerd_names_for_user_namespaces_are_passed_over() -> None:
    given = m.packed("containerd.runc.v1.Options", m.RuncOptions(io_uid=100000, io_gid=100000))

    assert options.read(given, "k8s.io") == Settings("/run/containerd/runsc/k8s.io")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('colour = "red"', "colour is not known"),
        ('binary_name = "/usr/bin/runsc"', "binary_name has no meaning"),
        ("io_uid = 7", "io_uid has no meaning"),
        ('log_level = "loud"', "log_level 'loud' is none of"),
        ("root = 7", "root is no text"),
        ("runsc_config = 1", "runsc_config is no table"),
        ("[runsc_config]\nplatform = []", "runsc_config.platform is no text"),
        ('[runsc_config]\nroot = "/r"', "the option root says that"),
        ("a = ", "Invalid value"),
        ("\xff", "Invalid"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(body: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        options.read(of_body(body), "ns")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (m.Any("other.Options", b""), "other.Options is not known"),
        (m.Any("runtimeoptions.v1.Options", b"\x08"), "without an end"),
        (of_body("", "/nonexistent/file"), "No such file"),
    ],
)
def test_options_of_another_kind_are_refused(given: m.Any, why: str) -> None:
    with pytest.raises(Refused, match=why):
        options.read(given, "ns")


def test_flags_become_global_flags_as_on_the_command_line(tmp_path: Path) -> None:
    flags = ("--network=none", "--overlay2=none", "--file-access=shared")
    settings = Settings("/r/ns", flags, log_path=str(tmp_path / "log"))

    made = settings.globals()

    assert (made.root, made.network, made.overlay) == ("/r/ns", "none", "none")
    assert (tmp_path / "log").exists()


def test_a_flag_that_there_is_not_is_refused_by_name() -> None:
    from runsc.errors import RuntimeFailure  # noqa: PLC0415

    with pytest.raises(RuntimeFailure, match="--no-such-flag"):
        Settings("/r", ("--no-such-flag=1",)).globals()


def test_what_delete_needs_is_kept_in_the_bundle(tmp_path: Path) -> None:
    settings = Settings("/r/ns", ("--debug",))

    options.save(str(tmp_path), settings)

    assert options.saved(str(tmp_path), "ns") == settings
    assert options.saved("/nonexistent", "ns") == Settings("/run/containerd/runsc/ns")


def test_words_that_containerd_has_for_runc_do_not_come_in_place_of_what_is_configured() -> None:
    own, runcs = of_body('log_level = "debug"'), m.packed("containerd.runc.v1.Options", m.Empty())

    assert options.configured(runcs, own) is own
    assert options.configured(of_body(""), own) is not own
    assert options.configured(None, own) is own
    assert options.configured(runcs, None) is runcs
    of_docker = m.packed("containerd.runc.v1.Options", m.RuncOptions(root="/x"))
    assert options.configured(runcs, of_docker) is runcs
