"""Settings of interfaces, which go with them; what sockets heed of others."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from sentry.abi.fcntl import O_RDWR
from sentry.abi.socket import (
    AF_INET,
    AF_UNIX,
    IPPROTO_TCP,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_LINGER2,
    TCP_SYNCNT,
)
from sentry.errors import EADDRINUSE, EAGAIN, EINVAL
from sentry.net.sysctls import link_renamed, ports_in, shown_ports
from tests.contract.sockets.calls import Sockets
from tests.world import Program


class _Stack:
    def __init__(self, **values: str) -> None:
        self.sysctls = {f"net/ipv4/conf/{name}/rp_filter": each for name, each in values.items()}


def _renamed(old: str, new: str | None, **values: str) -> dict[str, str]:
    stack: Any = _Stack(**values)
    link_renamed(stack, old, new)
    return {path.split("/")[3]: value for path, value in stack.sysctls.items()}


def test_settings_go_with_an_interface() -> None:
    assert _renamed("eth0", "eth1", eth0="1", eth01="2") == {"eth1": "1", "eth01": "2"}
    assert _renamed("eth0", None, eth0="1", all="2") == {"all": "2"}


@pytest.mark.parametrize("name", ["all", "default"])
def test_an_interface_of_that_name_does_not_touch_those_of_all(name: str) -> None:
    values = {name: "1", "eth0": "2"}
    assert _renamed(name, "eth1", **values) == values
    assert _renamed(name, None, **values) == values
    assert _renamed("eth0", name, **values) == {name: "1"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [("8080", "8080"), ("9148-9200,80", "80,9148-9200"), ("1-3, 4 ,2", "1-4"), ("0-65535", None)],
)
def test_ports_are_shown_in_order(text: str, shown: str | None) -> None:
    assert shown_ports(ports_in(text)) == (shown or text)


@pytest.mark.parametrize("text", ["x", "1-", "-1", "2-1", "65536", "1,,2", "1 2", "\u0663"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(EINVAL):
        ports_in(text)


def written(task: Program, name: str, value: bytes) -> None:
    if task.call("access", b"/proc/sys", 0):
        task.world.mount("proc", b"/proc")
    fd = task.ok("open", b"/proc/sys/net/" + name.encode(), O_RDWR, 0)
    assert task.ok("write", fd, task.place(value), len(value)) == len(value)


def test_reserved_ports_are_not_found_and_can_be_asked_for(task: Program) -> None:
    written(task, "ipv4/ip_local_port_range", b"40000 40003")
    written(task, "ipv4/ip_local_reserved_ports", b"40001-40003\n")
    sockets = Sockets(task)

    def bind(port: int) -> int:
        fd = task.ok("socket", AF_INET, SOCK_DGRAM, 0)
        name = struct.pack("<H", AF_INET) + struct.pack(">H12x", port)
        result = task.call("bind", fd, task.place(name), len(name))
        return result or int.from_bytes(sockets.name(fd)[2:4])

    assert [bind(0), bind(0), bind(40002)] == [40000, -EADDRINUSE.number, 40002]


def test_backlog_is_no_longer_than_somaxconn_says(task: Program) -> None:
    written(task, "core/somaxconn", b"1")
    name = struct.pack("<H", AF_UNIX) + b"\0name"
    listener, sockets = task.ok("socket", AF_UNIX, SOCK_STREAM, 0), Sockets(task)
    sockets.bind(listener, name)
    task.ok("listen", listener, 100)
    results = [
        task.call("connect", task.ok("socket", AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0),
                  task.place(name), len(name))
        for _ in range(3)
    ]  # fmt: skip
    assert results == [0, 0, -EAGAIN.number]


def test_time_of_keepalive_that_was_not_set_is_as_the_sysctl_says(task: Program) -> None:
    written(task, "ipv4/tcp_keepalive_time", b"600")
    sockets, fd = Sockets(task), task.ok("socket", AF_INET, SOCK_STREAM, 0)
    assert sockets.get(fd, IPPROTO_TCP, TCP_KEEPIDLE) == struct.pack("<i", 600)
    assert sockets.set(fd, IPPROTO_TCP, TCP_KEEPIDLE, struct.pack("<i", 30)) == 0
    assert sockets.get(fd, IPPROTO_TCP, TCP_KEEPIDLE) == struct.pack("<i", 30)


def test_option_that_was_set_to_its_default_stays_when_the_sysctl_changes(task: Program) -> None:
    sockets, fd = Sockets(task), task.ok("socket", AF_INET, SOCK_STREAM, 0)
    other = task.ok("socket", AF_INET, SOCK_STREAM, 0)
    for option, name, default in (
        (TCP_KEEPIDLE, b"tcp_keepalive_time", 7200), (TCP_KEEPINTVL, b"tcp_keepalive_intvl", 75),
        (TCP_KEEPCNT, b"tcp_keepalive_probes", 9), (TCP_SYNCNT, b"tcp_syn_retries", 6),
        (TCP_LINGER2, b"tcp_fin_timeout", 60),
    ):  # fmt: skip
        value = struct.pack("<i", default)
        assert sockets.get(fd, IPPROTO_TCP, option) == value
        assert sockets.set(fd, IPPROTO_TCP, option, value) == 0
        written(task, "ipv4/" + name.decode(), b"5")
        assert sockets.get(fd, IPPROTO_TCP, option) == value
        assert sockets.get(other, IPPROTO_TCP, option) == struct.pack("<i", 5)
    assert sockets.set(fd, IPPROTO_TCP, TCP_LINGER2, struct.pack("<i", 0)) == 0
    assert sockets.get(fd, IPPROTO_TCP, TCP_LINGER2) == struct.pack("<i", 5)
    assert sockets.set(fd, IPPROTO_TCP, TCP_LINGER2, struct.pack("<i", -7)) == 0
    assert sockets.get(fd, IPPROTO_TCP, TCP_LINGER2) == struct.pack("<i", -1)
