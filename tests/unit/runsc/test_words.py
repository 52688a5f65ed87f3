from __future__ import annotations

import pytest

from runsc.words import plain

SWITCHES, OTHERS = {"--debug", "--detach"}, {"--root", "--bundle", "-b", "--rootless"}


@pytest.mark.parametrize(
    ("args", "made"),
    [
        (["run", "x"], ["run", "x"]),
        (["-debug", "-root=/x", "run"], ["--debug", "--root=/x", "run"]),
        (["-root", "-debug", "run"], ["--root", "-debug", "run"]),
        (["--debug=true", "--detach=0", "--root", "--debug=false"], ["--debug", "--root",
                                                                   "--debug=false"]),
        (["--debug=maybe"], ["--debug=maybe"]),
        (["-b", "/x", "-d", "-bd"], ["-b", "/x", "-d", "-bd"]),
        (["-b", "-debug", "-debug", "b"], ["-b", "-debug", "--debug", "b"]),
        (["--rootless", "do"], ["--rootless=true", "do"]),
        (["--rootless", "auto", "-debug", "do"], ["--rootless=auto", "--debug", "do"]),
        (["--rootless"], ["--rootless=true"]),
        (["--rootless=false", "do"], ["--rootless=false", "do"]),
        (["--", "-debug"], ["--", "-debug"]),
        (["--root"], ["--root"]),
    ],
)  # fmt: skip
def test_words_of_go_are_those_of_click(args: list[str], made: list[str]) -> None:
    assert plain(args, SWITCHES, OTHERS, mixed=True) == made


@pytest.mark.parametrize(
    ("args", "made"),
    [
        (["--detach", "-m", "x", "-debug", "--debug=false"], None),
        (["-debug", "-detach=true", "-root=/", "--debug=0"], ["--debug", "--detach", "-root=/",
                                                             "--debug=0"]),
        (["--detach=false", "-debug"], ["--debug"]),
        (["--root", "--detach", "-debug"], ["--root", "--detach", "--debug"]),
    ],
)  # fmt: skip
def test_words_behind_the_last_flag_stay(args: list[str], made: list[str] | None) -> None:
    found = plain(args, SWITCHES, OTHERS | {"-m"}, mixed=False, last="--detach")
    assert found == (args if made is None else made)


def test_words_of_the_program_stay() -> None:
    args = ["-debug", "sh", "-debug", "--debug=false"]

    assert plain(args, SWITCHES, OTHERS, mixed=False) == ["--debug", *args[1:]]
    assert plain(args, SWITCHES, OTHERS, mixed=True) == ["--debug", "sh", "--debug"]
