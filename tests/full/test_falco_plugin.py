"""examples/falco/plugin, driven as Falco does it, also with hostile input."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import REPOSITORY, Bundle
from tests.full.falco import END, FAILURE, SUCCESS, TIMEOUT, Event, Plugin, built

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        not Path("/usr/include/jansson.h").exists(), reason="libjansson-dev is not installed"
    ),
]
RULES = REPOSITORY / "examples/falco/plugin/rules.yaml"
WHO = {
    "time_ns": 1796009742134055694, "thread_id": 8, "thread_group_id": 7, "container_id": "web",
    "credentials": {"real_uid": 5, "effective_uid": 33}, "cwd": "/srv", "process_name": "sh",
    "program": "/bin/dash", "ancestry": ["3 make", "1 init"],
}  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def plugin(library: Path) -> Iterator[Plugin]:
    made = Plugin(library)
    yield made
    made.destroy()


def _line(point: str, dropped: int = 0, **record: Any) -> str:
    return json.dumps({"point": point, "record": {"context_data": WHO} | record,
                       "dropped": dropped})  # fmt: skip


def _read(plugin: Plugin, folder: Path, *lines: str) -> list[bytes]:
    path = folder / "lines"
    path.write_text("".join(f"{line}\n" for line in lines))
    assert plugin.open(str(path)) == SUCCESS
    found: list[bytes] = []
    rc = SUCCESS
    while rc != END:
        rc, more = plugin.next()
        found += more
    plugin.close()
    return found


def _unheard(plugin: Plugin, event: bytes) -> list[Any]:
    return plugin.extract(event, "sandbox.point", "evt.arg[reason]", "evt.arg[number]")


def test_it_says_what_falco_asks_first(library: Path) -> None:
    plugin = Plugin(library, "unix:/nowhere")
    assert plugin.rc == SUCCESS
    assert plugin.lib.plugin_get_required_api_version() == b"3.0.0"
    assert plugin.lib.plugin_get_event_source() == b"runsc"
    assert json.loads(plugin.lib.plugin_get_extract_event_sources()) == ["runsc"]
    assert plugin.lib.plugin_get_id() == 999
    assert len({each["name"] for each in plugin.fields}) == len(plugin.fields)
    plugin.destroy()


def test_events_are_of_falcos_form(plugin: Plugin, tmp_path: Path) -> None:
    [event] = _read(plugin, tmp_path, _line("sentry/clone"))
    header = Event.from_buffer_copy(event)
    assert (header.len, header.type, header.nparams) == (len(event), 322, 2)
    assert header.tid == (1 << 64) - 1
    sizes = [int.from_bytes(event[at : at + 4], "little") for at in (26, 30)]
    assert sizes == [4, len(event) - 26 - 8 - 4]
    assert json.loads(event[38:])["point"] == "sentry/clone"


def test_a_call_has_falcos_fields(plugin: Plugin, tmp_path: Path) -> None:
    [event] = _read(plugin, tmp_path, _line(
        "syscall/openat/exit", 4, pathname="/etc/shadow", flags=0x80002, exit={"errorno": 13}
    ))  # fmt: skip
    names = ("evt.type", "evt.dir", "evt.res", "evt.failed", "evt.is_open_read",
             "evt.is_open_write", "fd.name", "fd.directory", "fd.num", "proc.name", "proc.vpid",
             "thread.vtid", "proc.exepath", "proc.cwd", "proc.pname", "proc.pvpid",
             "proc.aname[2]", "proc.aname[0]", "proc.aname[3]", "user.uid", "group.gid",
             "container.id", "sandbox.dropped", "sandbox.time", "evt.arg[flags]", "evt.arg[none]",
             "proc.cmdline", "fd.sip")  # fmt: skip
    assert plugin.extract(event, *names) == [
        "openat", "<", "EACCES", True, True, True, "/etc/shadow", "/etc", None, "sh", 7, 8,
        "/bin/dash", "/srv", "make", 3, "init", "sh", None, 33, 0, "web", 4, WHO["time_ns"],
        "524290", None, None, None,
    ]  # fmt: skip


def test_connections_and_programs_have_theirs(plugin: Plugin, tmp_path: Path) -> None:
    peers = ("192.0.2.1:443", "[2001:db8::1]:80", "unix:/run/x", "1.2.3.4:99999", "]:", ":", "[:1")
    events = _read(
        plugin, tmp_path, *(_line("syscall/connect/exit", fd=3, peer=peer) for peer in peers)
    )
    found = [plugin.extract(each, "fd.sip", "fd.sport", "fd.name") for each in events]
    assert found[:2] == [["192.0.2.1", 443, peers[0]], ["2001:db8::1", 80, peers[1]]]
    assert found[2:] == [[None, None, peer] for peer in peers[2:]]
    [execve] = _read(plugin, tmp_path, _line(
        "sentry/execve", binary_path="/bin/cat", argv=["cat", "/etc/passwd", "-n"]
    ))  # fmt: skip
    names = ("evt.type", "evt.dir", "proc.cmdline", "proc.args", "fd.name", "evt.res")
    assert plugin.extract(execve, *names) == [
        "execve", "<", "cat /etc/passwd -n", "/etc/passwd -n", "/bin/cat", None,
    ]  # fmt: skip


def test_texts_cannot_forge_a_line_or_move_a_terminal(plugin: Plugin, tmp_path: Path) -> None:
    name = "a\nRule: x\x1b[2J\x00\x7f\u202e\u2028\x9bz/é"
    [event] = _read(plugin, tmp_path, _line("syscall/openat/enter", pathname=name))
    assert plugin.extract(event, "fd.name") == ["a?Rule: x?[2J?????z/é"]
    assert "\x1b" not in plugin.text(event)
    [long] = _read(plugin, tmp_path, _line("syscall/openat/enter", pathname="é" * 50_000))
    [text] = plugin.extract(long, "fd.name")
    assert text == "é" * 32768


@pytest.mark.parametrize(
    "line",
    ["", "no json", "[]", "{}", '{"point": 1, "record": {}}', '{"point": "a", "record": []}',
     "[" * 100_000, '{"point": "a", "record": {}} x', "\x00", '{"point":"\\ud800","record":{}}',
     '{"point":"plugin/unheard","record":{}}'],
)  # fmt: skip
def test_a_line_that_is_no_record_ends_the_connection(
    plugin: Plugin, tmp_path: Path, line: str
) -> None:
    good = _line("sentry/clone")
    heard, told = _read(plugin, tmp_path, good, line, good)
    assert plugin.extract(heard, "sandbox.point") == ["sentry/clone"]
    assert _unheard(plugin, told) == ["plugin/unheard", "it has sent what is no record", "1"]


@pytest.mark.parametrize(
    "line",
    ['{"point":"","record":{}}', '{"point":"syscall/","record":{}}',
     '{"point":"syscall//exit","record":{"exit":5,"context_data":[],"args":{},"argv":[1,null]}}',
     '{"point":"syscall/x/exit","record":{"exit":{"errorno":-99999999999},"flags":"x"}}',
     '{"point":"syscall/connect/exit","record":{"peer":":1","context_data":{"ancestry":[1,""]}}}',
     '{"point":"syscall/open/exit","record":{"fd":-1,"exit":{"result":-5}},"dropped":-1}'],
)  # fmt: skip
def test_records_with_strange_values_have_no_fields(
    plugin: Plugin, tmp_path: Path, line: str
) -> None:
    [event] = _read(plugin, tmp_path, line)
    names = [each["name"] + ("[1]" if "arg" in each else "") for each in plugin.fields]
    assert len(plugin.extract(event, *names)) == len(names)


def test_registers_of_64_bits_do_not_end_a_connection(plugin: Plugin, tmp_path: Path) -> None:
    """A program chooses them: mount(2) with flags of -1 must not switch its supervision off."""
    most = (1 << 64) - 1
    lines = [
        _line("syscall/mount/exit", arg1=most, args={"flags": most, "target": '/"\\'},
              exit={"errorno": 14}),
        _line("syscall/ptrace/exit", arg1=1 << 63, arg2=(1 << 63) - 1, arg3=-1 << 63,
              note=f'{most}"\\{most}'),
        _line("sentry/clone"),
    ]  # fmt: skip
    events = _read(plugin, tmp_path, *lines)
    assert len(events) == 3
    names = ("evt.res", "evt.arg[flags]", "evt.arg[target]", "proc.vpid", "user.uid")
    assert plugin.extract(events[0], *names) == ["EFAULT", str(most), '/"\\', 7, 33]
    names = ("evt.arg[arg1]", "evt.arg[arg2]", "evt.arg[arg3]", "evt.arg[note]", "sandbox.time")
    assert plugin.extract(events[1], *names) == [
        str(1 << 63), str((1 << 63) - 1), str(-1 << 63), f'{most}"\\{most}', WHO["time_ns"],
    ]  # fmt: skip


def test_a_long_argument_does_not_hide_itself(plugin: Plugin, tmp_path: Path) -> None:
    [event] = _read(plugin, tmp_path, _line(
        "sentry/execve", argv=["sh", "-c", "evil;" + "é" * 70_000, "behind"]
    ))  # fmt: skip
    [text] = plugin.extract(event, "proc.cmdline")
    assert text.startswith("sh -c evil;é") and len(text.encode()) in ((1 << 16) - 1, 1 << 16)


def test_a_second_one_is_refused_and_the_first_goes_on(library: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    first, second = Plugin(library), Plugin(library)
    assert first.open(f"unix:{path}") == SUCCESS
    assert second.open(f"unix:{path}") == FAILURE
    assert second.error == f"unix:{path}: Address already in use"
    second.destroy()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(_line("sentry/clone").encode() + b"\n")
        assert len(first.until()) == 1
    first.destroy()
    assert not os.path.exists(path)


def test_a_socket_that_was_left_is_taken_over(library: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
        left.listen()
    first, second = Plugin(library), Plugin(library)
    assert first.open(f"unix:{path}") == SUCCESS
    assert os.stat(path).st_mode & 0o777 == 0o600
    os.unlink(path)
    assert second.open(f"unix:{path}") == SUCCESS
    first.destroy()
    assert os.path.exists(path)  # it is the second one's now
    second.destroy()
    assert not os.path.exists(path)


def test_more_sandboxes_than_there_is_room_for_are_told_of(
    plugin: Plugin, tmp_path: Path
) -> None:
    path = str(tmp_path / "sock")
    assert plugin.open(f"unix:{path}") == SUCCESS
    with ExitStack() as stack:
        for _ in range(512):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
            plugin.next()
        for number in (1, 2):
            with socket.socket(socket.AF_UNIX) as refused:
                refused.connect(path)
                [event] = plugin.until()
                assert refused.recv(1) == b"", number
            assert _unheard(plugin, event) == ["plugin/unheard", "too many sandboxes", "1"]
            assert plugin.extract(event, "evt.type", "container.id") == ["unheard", None]


def test_without_descriptors_nobody_spins_and_who_waits_is_heard_then(
    plugin: Plugin, tmp_path: Path
) -> None:
    path = str(tmp_path / "sock")
    assert plugin.open(f"unix:{path}") == SUCCESS
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(_line("sentry/clone").encode() + b"\n")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(sock.fileno())
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            found = [plugin.next() for _ in range(3)]
            before = time.monotonic()
            waited = [plugin.next() for _ in range(4)]
            took_s = time.monotonic() - before
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        events = [event for _, batch in found + waited for event in batch]
        assert [_unheard(plugin, event)[1:] for event in events] == [["no descriptor is left", "1"]]
        assert {rc for rc, _ in waited} == {TIMEOUT}
        assert took_s >= 0.2  # every second call waits its 100 ms
        [event] = plugin.until()
        assert plugin.extract(event, "sandbox.point") == ["sentry/clone"]


def test_what_is_no_event_of_its_own_is_an_error(plugin: Plugin) -> None:
    for data in (b"", b"\xff" * 8, b"\xff\xff\xff\xff" * 2 + b"1234{}"):
        header = Event(0, 0, 26 + len(data), 322, 2)
        with pytest.raises(ValueError, match="no event"):
            plugin.extract(bytes(header) + data, "evt.type")


def test_many_sandboxes_are_heard_and_one_that_floods_does_not_starve_them(
    plugin: Plugin, tmp_path: Path
) -> None:
    path = str(tmp_path / "sock")
    assert plugin.open(f"unix:{path}") == SUCCESS
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert plugin.next() == (TIMEOUT, [])
    flood, quiet = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    with flood, quiet:
        flood.connect(path)
        quiet.connect(path)
        flood.setblocking(False)
        line = (_line("sentry/clone") + "\n").encode()
        with pytest.raises(BlockingIOError):
            while True:
                flood.send(line * 100)
        quiet.sendall(_line("sentry/out_of_memory").encode() + b"\n")
        seen: list[bytes] = []
        for _ in range(5):
            seen += plugin.next()[1]
        assert any(b"out_of_memory" in each for each in seen)
        assert len(plugin.until()) > 100
    plugin.close()
    assert not os.path.exists(path)


def test_a_line_without_an_end_costs_its_connection_and_bounded_memory(
    plugin: Plugin, tmp_path: Path
) -> None:
    path = str(tmp_path / "sock")
    assert plugin.open(f"unix:{path}") == SUCCESS
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.setblocking(False)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                try:
                    sock.send(b"x" * 65536)
                except BlockingIOError:
                    plugin.next()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10


def test_some_that_fill_all_room_do_not_keep_others_from_being_heard(
    plugin: Plugin, tmp_path: Path
) -> None:
    path = str(tmp_path / "sock")
    assert plugin.open(f"unix:{path}") == SUCCESS
    with ExitStack() as stack:
        for size in [(2 << 20) - (1 << 17)] * 40 + [1] * 32:
            greedy = stack.enter_context(socket.socket(socket.AF_UNIX))
            greedy.connect(path)
            greedy.setblocking(False)
            left = size
            with suppress(BrokenPipeError, ConnectionResetError):
                while left:
                    with suppress(BlockingIOError):
                        left -= greedy.send(b"x" * min(left, 65536))
                    plugin.next()
        quiet = stack.enter_context(socket.socket(socket.AF_UNIX))
        quiet.connect(path)
        quiet.sendall(_line("sentry/clone").encode() + b"\n")
        points = [plugin.extract(each, "sandbox.point")[0] for each in plugin.until(20)]
        assert set(points) == {"plugin/unheard", "sentry/clone"}


def test_what_cannot_be_opened_is_said(plugin: Plugin, tmp_path: Path) -> None:
    for where, said in (("", "open_params"), ("/none", "No such file"),
                        ("unix:/none/x", "No such file"),
                        ("unix:" + "x" * 200, "too long")):  # fmt: skip
        assert plugin.open(where) == FAILURE
        assert said in plugin.error
    (tmp_path / "file").write_text("kept")
    assert plugin.open(f"unix:{tmp_path / 'file'}") == FAILURE
    assert (tmp_path / "file").read_text() == "kept"
    assert plugin.open(str(tmp_path / "file")) == SUCCESS
    assert plugin.next()[0] in (SUCCESS, TIMEOUT, END)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_lines_and_events_touch_no_memory_that_is_not_theirs(
    tmp_path: Path, seed: int
) -> None:
    library = built(tmp_path, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    asan = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True,
                          check=True).stdout.strip()  # fmt: skip
    environment = os.environ | {"LD_PRELOAD": asan, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.full.falco", library, tmp_path / "sock", str(seed)],
        env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sandbox_is_heard_from_its_start(
    plugin: Plugin, tmp_path: Path, bundle: Bundle
) -> None:
    path = tmp_path / "sock"
    assert plugin.open(f"unix:{path}") == SUCCESS
    config = json.loads((RULES.parent / "session.json").read_text())
    [sink] = config["trace_session"]["sinks"]
    sink["config"]["path"] = f"unix:{path}"
    document = tmp_path / "session.json"
    document.write_text(json.dumps(config))
    bundle.args("/bin/sh", "-c", "cat /etc/shadow; nc 127.0.0.1 1; exit 3")
    done = bundle.run("kvm", flags=[f"--pod-init-config={document}"])
    assert done.returncode == 3
    names = ("evt.type", "proc.name", "fd.name", "evt.res", "proc.pname", "container.id",
             "fd.sport", "user.uid", "proc.exepath", "proc.cmdline")  # fmt: skip
    found = [plugin.extract(each, *names) for each in plugin.until()]
    opened = next(each for each in found if each[2] == "/etc/shadow" and each[3])
    assert opened[0] in ("open", "openat")
    assert (opened[1], opened[3], opened[5], opened[7]) == ("cat", "ENOENT", "test", 0)
    assert opened[4] == "sh"
    assert any(each[0] == "connect" and each[6] == 1 and each[3] == "ECONNREFUSED"
               for each in found)  # fmt: skip
    assert any(each[0] == "execve" and each[9] == "cat /etc/shadow" for each in found)
