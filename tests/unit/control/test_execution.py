from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentry.config import Capabilities, ProcessConfig, Rlimit
from sentry.control.descriptors import check, close_all
from sentry.control.execution import merge
from sentry.control.protocol import ExecProcess
from sentry.errors import EINVAL

BASE = ProcessConfig(
    args=(b"init",),
    env=(b"PATH=/bin",),
    cwd=b"/srv",
    uid=5,
    gid=6,
    additional_gids=(7,),
    capabilities=Capabilities(bounding=3, effective=1, permitted=1),
    rlimits=(Rlimit(7, 10, 20),),
    no_new_privileges=True,
    terminal=True,
    console_size=(1, 2),
)


@pytest.fixture
def opened() -> Iterator[list[int]]:
    fds: list[int] = []
    yield fds
    close_all(fds)


def test_streams_terminals_and_files_are_taken(opened: list[int], tmp_path: Path) -> None:
    opened += os.pipe()
    opened += os.openpty()
    opened += [end.detach() for end in socket.socketpair()]
    opened.append(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT))
    opened += [os.open(f"/dev/{name}", os.O_RDWR) for name in ("null", "zero", "full")]

    for fd in opened:
        check(fd)


def test_ways_to_the_host_are_refused(opened: list[int], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    opened.append(os.open(tmp_path, os.O_RDONLY))
    opened.append(os.open(tmp_path / "file", os.O_PATH))
    opened.append(os.memfd_create("x"))
    opened.append(os.eventfd(0))
    opened.append(os.pidfd_open(os.getpid()))

    for fd in opened[:2] + opened[3:5]:
        with pytest.raises(EINVAL):
            check(fd)
    check(opened[2])  # a file in memory is a file


def test_what_is_not_said_is_as_in_the_container() -> None:
    merged = merge(BASE, ExecProcess((b"p",)))

    assert merged.args == (b"p",)
    assert (merged.terminal, merged.console_size) == (False, None)
    for name in ("env", "cwd", "uid", "gid", "additional_gids", "capabilities", "rlimits"):
        assert getattr(merged, name) == getattr(BASE, name)
    assert merged.no_new_privileges


def test_what_is_said_wins_or_adds() -> None:
    merged = merge(
        BASE,
        ExecProcess(
            (b"p",),
            env=(),
            extra_env=(b"A=b",),
            cwd=b"/",
            uid=0,
            extra_gids=(8,),
            extra_capabilities=8,
            no_new_privileges=False,
        ),
    )

    assert (merged.env, merged.cwd, merged.uid, merged.gid) == ((b"A=b",), b"/", 0, 6)
    assert merged.additional_gids == (7, 8)
    assert merged.capabilities == Capabilities(bounding=11, effective=9, permitted=9)
    assert not merged.no_new_privileges
