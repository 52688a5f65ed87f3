"""Sessions from files, and the words that a listener and the runtime say first."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runsc.errors import RuntimeFailure
from runsc.launch import tracing
from sentry.config import TracePoint, TraceSink
from sentry.protobuf import decode, encode
from sentry.watch.messages import Handshake

POINT = {"name": "syscall/read/enter", "optional_fields": ["fd_path"], "context_fields": ["time"]}


def _file(folder: Path, document: Any) -> str:
    path = folder / "session.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def _sinks(*sinks: dict[str, Any]) -> dict[str, Any]:
    return {"name": "Default", "points": [POINT], "sinks": list(sinks)}


@contextmanager
def listening(path: Path, answer: Callable[[int], bytes | None]) -> Iterator[list[int]]:
    """A listener that answers a version, or closes; which versions were said."""
    said: list[int] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(path))
        sock.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = sock.accept()
                except OSError:
                    return
                with client:
                    data = client.recv(1000)
                    if not data:
                        return
                    said.append(decode(Handshake, data).version)
                    if (words := answer(said[-1])) is not None:
                        client.send(words)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield said
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last:
                last.connect(str(path))
            thread.join()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_session_is_read_by_itself_or_out_of_the_file_of_a_pod(
    tmp_path: Path, wrapped: bool
) -> None:
    document = _sinks({"name": "null"})
    wanted = tracing.read(_file(tmp_path, {"trace_session": document} if wrapped else document))
    assert wanted.session.name == "Default"
    assert wanted.session.points == (TracePoint("syscall/read/enter", ("fd_path",), ("time",)),)
    assert tracing.connect(wanted).session.sinks == (TraceSink("null"),)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("{", "truncated"),
        ("[]", "Expected `object`"),
        ('{"sinks": [{"status": ' + "[" * 100_000, "recursion"),
        ({"pints": []}, "unknown field"),
        ({"points": [{"name": 5}]}, "points[0].name"),
        (_sinks({"name": "kafka"}), 'sink "kafka" not found'),
        (_sinks({"name": "remote", "config": {}}), "endpoint"),
        (_sinks({"name": "remote", "config": {"endpoint": "/x", "retries": 1.5}}), "retries"),
        (_sinks({"name": "remote", "config": {"endpoint": "/x", "backoff": "1"}}), "duration"),
        (_sinks({"name": "remote", "config": {"endpoint": "/x", "backoff": "1s"}}), "larger"),
        (
            _sinks({"name": "remote", "config": {"endpoint": "/x", "backoff_max": f"{10**400}h"}}),
            "no duration",
        ),
        (_sinks({"name": "json", "config": {"file": "/x"}}), "unknown field"),
        (_sinks(*[{"name": "null"}] * 17), "length <= 16"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, document: Any, text: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        tracing.read(_file(tmp_path, document))
    assert text in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match=r"open .*/none: no such file"):
        tracing.read(str(tmp_path / "none"))


def test_gvisors_settings_of_a_remote_sink_are_taken(tmp_path: Path) -> None:
    config = {"endpoint": str(tmp_path / "s"), "retries": 3.0, "backoff": "1ms",
              "backoff_max": "20ms"}  # fmt: skip
    wanted = tracing.read(_file(tmp_path, _sinks({"name": "remote", "config": config})))
    with listening(tmp_path / "s", lambda _: encode(Handshake(1))):
        made = tracing.connect(wanted)
        made.close()
    assert made.session.sinks == (TraceSink("remote", True, 3, 1_000_000, 20_000_000),)


@pytest.mark.parametrize(("wants", "said"), [(1, [1]), (2, [1, 2])])
def test_a_listener_that_takes_one_version_alone_gets_it(
    tmp_path: Path, wants: int, said: list[int]
) -> None:
    def answer(version: int) -> bytes | None:
        return encode(Handshake(wants)) if version == wants else None

    with listening(tmp_path / "s", answer) as heard:
        os.close(tracing.greeted(str(tmp_path / "s")))
    assert heard == said


@pytest.mark.parametrize(
    ("words", "text"), [(b"", "no version"), (b"\xff\xff", "number"), (b"\x08\x00", r"\(0\) is")]
)
def test_a_listener_that_says_something_else_is_refused(
    tmp_path: Path, words: bytes, text: str
) -> None:
    with listening(tmp_path / "s", lambda _: words or None), pytest.raises(ValueError, match=text):
        tracing.greeted(str(tmp_path / "s"))


def test_a_listener_that_is_not_there_is_an_error_unless_that_is_to_be_ignored(
    tmp_path: Path,
) -> None:
    sink = {"name": "remote", "config": {"endpoint": str(tmp_path / "none")}}
    with pytest.raises(RuntimeFailure, match="sink remote: no such file"):
        tracing.connect(tracing.read(_file(tmp_path, _sinks(sink))))
    ignoring = tracing.read(_file(tmp_path, _sinks(sink | {"ignore_setup_error": True})))
    made = tracing.connect(ignoring)
    assert made.fds == ()
    assert made.session.sinks == (TraceSink("remote"),)
    assert made.warnings == ("sink remote: no such file or directory: ignored",)


def test_lines_go_to_a_file_for_its_owner_alone_or_to_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        sinks = [{"name": "json", "config": {"path": each}}
                 for each in (str(path), f"unix:{tmp_path}/s", "-")]  # fmt: skip
        made = tracing.connect(tracing.read(_file(tmp_path, _sinks(*sinks))))
        assert len(made.fds) == 3
        made.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_standard_error_is_another_description_that_does_not_block(tmp_path: Path) -> None:
    sinks = {"name": "json", "config": {"path": "-"}}
    wanted = tracing.read(_file(tmp_path, _sinks(sinks)))
    reader, writer = os.pipe()
    kept = os.dup(2)
    try:
        os.dup2(writer, 2)
        made = tracing.connect(wanted)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert not os.get_blocking(made.fds[0])
    assert os.get_blocking(writer)
    os.write(made.fds[0], b"x")
    assert os.read(reader, 10) == b"x"
    made.close()
    os.close(reader)
    os.close(writer)


def test_the_session_for_falco_has_only_points_and_fields_that_there_are() -> None:
    from sentry.syscalls import table  # noqa: F401, PLC0415  all declarations
    from sentry.watch.session import chosen  # noqa: PLC0415

    wanted = tracing.read(str(Path(__file__).parents[4] / "examples/falco/session.json"))
    for point in wanted.session.points:
        assert chosen(point, ignore_missing=False) is not None
        assert "container_id" in point.context_fields
