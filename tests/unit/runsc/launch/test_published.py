"""What `run --publish` listens at."""

from __future__ import annotations

import socket

import pytest

from runsc.errors import RuntimeFailure
from runsc.launch.published import Port, listening, parse


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("8080:80", Port("127.0.0.1", 8080, 80)),
        ("0.0.0.0:8080:80", Port("0.0.0.0", 8080, 80)),
        ("[::1]:1:65535", Port("::1", 1, 65535)),
        ("8080:80/tcp", Port("127.0.0.1", 8080, 80)),
    ],
)
def test_port_says_where_it_is_and_where_it_leads(text: str, port: Port) -> None:
    assert parse(text) == port


@pytest.mark.parametrize(
    "text", ["", "80", ":", "80:", ":80", "0:80", "80:0", "65536:1", "1:65536", "a:1", "1:a",
             "localhost:1:2", "::1:80", "1:2:3:4", "[::1:80:80", "+1:2", "\uff11:2", "80:80/udp"],
)  # fmt: skip
def test_what_is_no_port_is_told(text: str) -> None:
    with pytest.raises(RuntimeFailure, match="--publish"):
        parse(text)


def test_port_that_is_taken_is_told_and_the_others_are_let_go() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(
        ("127.0.0.1", 0)
    ) as other:
        number, free = taken.getsockname()[1], other.getsockname()[1]
        other.close()
        with (
            pytest.raises(RuntimeFailure, match=f"port {number} of 127.0.0.1: address already"),
            listening([f"{free}:80", f"{number}:80"]),
        ):
            pass
    with listening([f"{free}:80"]) as found:
        assert list(found.values()) == [80]
        assert not next(iter(found)).getblocking()
