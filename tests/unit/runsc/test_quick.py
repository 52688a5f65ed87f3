"""The quick way to `exec` takes only what it understands as the command line does."""

from __future__ import annotations

import click
import pytest

from runsc import cli, quick
from runsc.commands.exec import command
from runsc.containers.execspec import Wishes, request
from runsc.containers.names import default_root
from sentry.control.protocol import ExecProcess, Request, decode


def _with_click(args: list[str]) -> dict[str, object]:
    """What the command line's framework makes of the flags of exec."""
    return dict(command.make_context("exec", list(args)).params)


def _as_dict(wishes: Wishes) -> dict[str, object]:
    return {name: getattr(wishes, name) for name in Wishes.__slots__}


@pytest.mark.parametrize(
    "args",
    [
        ["c", "true"],
        ["c", "sh", "-c", "exit 3", "--user", "x"],
        ["-t", "-d", "--console-socket", "/s", "--pid-file=/p", "c", "sh"],
        ["--detach", "--process", "/p.json", "c"],
        ["-e", "A=b", "--env=C=d", "-u", "1:2", "--cwd", "/x", "c", "env"],
        ["-g", "1", "--additional-gids=2", "--cap", "CAP_KILL", "-c", "CAP_CHOWN", "c", "id"],
        ["--no-new-privs", "--ignore-paused", "--preserve-fds", "2", "c", "ls"],
        ["--tty", "-p", "f", "c"],
    ],
)
def test_understood_flags_mean_what_they_mean_to_the_command_line(args: list[str]) -> None:
    root, wishes = quick.parse(["exec", *args])
    expected = _with_click(args)

    assert root == default_root()
    for name, value in _as_dict(wishes).items():
        known = expected[name]
        assert (list(value) if isinstance(known, tuple) else value) == (
            list(known) if isinstance(known, tuple) else known
        ), name


def test_global_flags_before_it() -> None:
    args = ["--root=/r", "--log", "/l", "--log-format", "json", "--debug", "exec", "c", "x"]
    root, wishes = quick.parse(args)

    assert (root, wishes.container_id, wishes.args) == ("/r", "c", ["x"])


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["run", "exec"],
        ["--root", "exec", "c", "x"],
        ["--log-format=xml", "exec", "c", "x"],
        ["--platform=other", "exec", "c", "x"],
        ["exec"],
        ["exec", "--help"],
        ["exec", "-td", "c", "x"],
        ["exec", "-eA=b", "c", "x"],
        ["exec", "--user", "-u", "c"],
        ["exec", "--bogus", "c", "x"],
        ["exec", "--preserve-fds", "x", "c", "y"],
        ["exec", "--", "c", "x"],
    ],
)
def test_doubts_go_to_the_command_line(args: list[str]) -> None:
    with pytest.raises(quick.Doubt):
        quick.parse(args)


def test_every_flag_is_one_of_the_command_lines() -> None:
    known = {name for option in command.params for name in option.opts}
    globals_known = {name for option in cli.main_group.params for name in option.opts}

    assert known >= {*quick.VALUES, *quick.LISTS, *quick.SWITCHES, *quick.NUMBERS}
    assert globals_known >= {*quick.GLOBALS, *quick.GLOBAL_SWITCHES}
    assert isinstance(command, click.Command)


def _nothing(text: str) -> None:
    raise AssertionError(text)


def test_request_written_by_hand_is_one_of_the_protocol() -> None:
    wishes = Wishes(
        "c",
        ["echo", "\udcff é\n"],
        env=["A=b"],
        cwd="/x",
        user="1:2",
        additional_gids=[3, 4],
        cap=["CAP_CHOWN"],
        no_new_privs=True,
        tty=True,
        ignore_paused=True,
    )
    data, terminal, size = request(wishes, _nothing)

    assert (terminal, size) == (True, None)
    assert decode(data, Request) == Request(
        "exec",
        process=ExecProcess(
            args=(b"echo", b"\xff \xc3\xa9\n"),
            extra_env=(b"A=b",),
            cwd=b"/x",
            uid=1,
            gid=2,
            extra_gids=(3, 4),
            extra_capabilities=1,
            no_new_privileges=True,
            terminal=True,
            ignore_paused=True,
        ),
    )
    plain, _, _ = request(Wishes("c", ["x"]), _nothing)
    assert decode(plain, Request) == Request("exec", process=ExecProcess((b"x",)))
