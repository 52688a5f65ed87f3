"""The program: its flags, as Go has them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runsc.engines.settings import SHIM
from runsc.shim import program
from runsc.shim.messages import RuntimeInfo
from sentry.protobuf import decode
from tests.e2e.bundle import REPOSITORY


def run(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "runsc.shim.program", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd=REPOSITORY,
        env=os.environ,
        timeout=60,
    )


@pytest.mark.parametrize("words", [["-id", "x"], ["--id", "x"], ["-id=x"], ["--id=x"]])
def test_flags_are_as_go_has_them(words: list[str]) -> None:
    flags = program.parse([*words, "-debug", "-namespace", "", "start", "-v"])

    assert (flags.texts["id"], flags.action, flags.switches) == ("x", "start", {"debug"})


@pytest.mark.parametrize(("word", "on"), [("-debug=true", True), ("-debug=false", False)])
def test_a_switch_may_have_a_value(word: str, on: bool) -> None:
    assert ("debug" in program.parse([word]).switches) is on


def test_a_flag_that_there_is_not_is_an_error() -> None:
    with pytest.raises(ValueError, match="not defined: -colour"):
        program.parse(["-colour", "red", "start"])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["start"], b"namespace cannot be empty"),
        (["-namespace", "n"], b"start and delete"),
        (["-colour"], b"not defined"),
    ],
)
def test_what_is_wrong_is_said_and_is_exit_code_1(words: list[str], why: bytes) -> None:
    done = run(*words)

    assert (done.returncode, done.stdout) == (1, b"")
    assert why in done.stderr
    assert b"Traceback" not in done.stderr


def test_its_version_and_what_it_can_do_are_told() -> None:
    assert run("-v").stdout.startswith(SHIM.encode())

    info = decode(RuntimeInfo, run("-info").stdout)

    assert info.name == program.RUNTIME
    assert info.features is not None and info.features.type_url == program.FEATURES
    assert b'"ociVersionMin"' in info.features.value
