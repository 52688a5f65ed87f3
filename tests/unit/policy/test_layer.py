"""Verdicts, handlers that fail, and decisions that somebody outside makes."""

from __future__ import annotations

import os
import struct
from collections.abc import Coroutine
from pathlib import Path
from types import CoroutineType
from typing import Any

import pytest

from sentry.control.policies import told
from sentry.control.protocol import Reply, encode
from sentry.errors import EINVAL, ENOENT
from sentry.policy.places import path_of_file
from sentry.policy.verdicts import ALLOW, DENY, KILL, parsed
from sentry.syscalls import registry
from sentry.wait.steps import at_once
from tests.unit.policy.conftest import TCP, UDP, Ruled, inet, opens


def test_a_call_is_denied_before_anything_has_happened(world: Ruled) -> None:
    world.rule("""
        @on.call("mkdir", "mkdirat")
        def no_directories(event):
            return DENY("EROFS")
    """)
    program = world.program()
    assert program.call("mkdir", b"/new", 0o755) == -30
    world.rule("")
    assert program.call("mkdir", b"/new", 0o755) == 0


def test_program_of_a_call_is_looked_for_once(
    world: Ruled, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.rule("\n".join(f"""
        @on("mkdir", program="/bin/{number}")
        def rule_{number}(event):
            return DENY
    """ for number in range(20)))
    looks = 0

    def path_of_file(*given: Any) -> str:
        nonlocal looks
        looks += 1
        return "/bin/19"

    monkeypatch.setattr("sentry.policy.event.path_of_file", path_of_file)
    program = world.program()
    program.task.group.exe = program.task.fs.cwd
    assert program.call("mkdir", b"/new", 0o755) == -1
    assert looks == 1



def test_a_result_is_given_without_the_call(world: Ruled) -> None:
    world.rule("""
        @on.call("getpid")
        def another(event):
            return RESULT(7)
    """)
    assert world.program().call("getpid") == 7


def test_arguments_are_changed(world: Ruled) -> None:
    world.rule("""
        @on.call("write")
        def shorter(event):
            if event.args["count"] > 2 and not event.changed:
                return CHANGE(count=2)
    """)
    program = world.program()
    fd = program.ok("openat", -100, b"/new", os.O_CREAT | os.O_RDWR, 0o600)
    assert program.call("write", fd, b"12345", 5) == 2


def test_kill_is_the_end_of_the_process(world: Ruled) -> None:
    world.rule("""
        @on("openat", path="/etc/shadow")
        def end(event):
            return KILL
    """)
    program = world.program()
    other = program.thread()
    program.begin("openat", -100, b"/etc/shadow", 0, 0)
    world.settle()
    assert program.task.dead and other.task.dead
    assert program.task.group.exit_status == 31


def test_the_first_handler_that_says_something_decides(world: Ruled) -> None:
    world.rule("""
        @on.open(path="/etc/*")
        def nothing(event):
            pass

        @on.open(path="/etc/shadow", program="/bin/*")
        def of_others(event):
            return DENY("EIO")

        @on.open(path="/etc/shadow")
        def yes(event):
            return ALLOW

        @on.open
        def no(event):
            return DENY
    """)
    program = world.program()
    assert opens(program, b"/etc/shadow") == 0
    assert opens(program, b"/tmp/free") == -1
    counts = world.policy.counts
    assert counts["yes"].decided == {"allow": 1}
    assert counts["no"].decided == {"deny": 1}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("return True", "gave no verdict but bool"),
        ("return DENY('ENOTHING')", "no error is called 'ENOTHING'"),
        ("return f(event)", "RecursionError"),
        ("import os", "imports nothing but runsc.policy, not 'os'"),
        ("open('/etc/passwd')", "NameError"),
        ("return CHANGE(path=3)", ""),
        ("while True: pass", "more than 10 ms"),
        ("return sum(range(10**6)) and f(event)", "more than 10 ms"),
        ("return [f for n in iter(int, 1)]", "more than 10 ms"),
        ("x = []\n    while True: x.append(bytes(100))", "more than 10 ms"),
        ("x = 0\n    while True:\n        try:\n            while True: x += 1\n"
         "        except TypeError: pass", "more than 10 ms"),
        ("x = bytes(1 << 60)", "Error"),
    ],
)  # fmt: skip
def test_a_handler_that_fails_denies_the_call(world: Ruled, body: str, why: str) -> None:
    world.rule(f"@on('openat', path='/etc/*')\ndef f(event):\n    {body}\n")
    program = world.program()
    assert opens(program, b"/etc/shadow") == -1
    assert opens(program, b"/tmp/free") == 0
    assert why in world.logged


def test_a_handler_that_fails_is_counted_and_told_with_its_lines(world: Ruled) -> None:
    world.rule("""
        def helper():
            raise ValueError("no")

        @on.call("mkdir")
        def f(event):
            helper()
    """)
    assert world.program().call("mkdir", b"/x", 0o700) == -1
    assert world.policy.counts["f"].failed == 1
    assert "test.py:8 in f\n  test.py:4 in helper\nValueError: no" in world.logged


def test_an_error_that_cannot_be_shown_does_not_hold_up_the_kernel(world: Ruled) -> None:
    world.rule("""
        class Odd(Exception):
            def __str__(self):
                while True: pass

        @on.call("mkdir")
        def f(event):
            raise Odd
    """)
    assert world.program().call("mkdir", b"/x", 0o700) == -1
    assert "Odd" in world.logged


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import os", "test.py:2: ImportError: a policy imports nothing but runsc.policy"),
        ("def f(:", "test.py:2: "),
        ("while True: pass", "takes too long to be loaded"),
        ("@on('nothing')\ndef f(event): pass", "no system call is named 'nothing'"),
        ("@on.connect(hash='/x')\ndef f(event): pass", "address has no filter 'hash'"),
        ("@on.connect(address='10.0.0.0/33')\ndef f(event): pass", "no network"),
        ("@on.connect(port=70000)\ndef f(event): pass", "no port"),
        ("@on.execve(hash='12')\ndef f(event): pass", "no SHA-256"),
        ("#" * 70000, "at most 65536 bytes"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("x = " + "(" * 5000, "test.py"),
    ],
)
def test_a_policy_that_cannot_be_loaded_changes_nothing(
    world: Ruled, source: str, why: str
) -> None:
    world.rule("@on.call('mkdir')\ndef f(event):\n    return DENY\n")
    with pytest.raises(EINVAL, match=why):
        world.rule(source)
    assert world.program().call("mkdir", b"/x", 0o700) == -1


ASK = """
    @on("openat", path="/etc/*")
    async def ask_first(event):
        return await ask(f"{event.path}?", deadline=3600, otherwise=DENY("ETIMEDOUT"))
"""


def test_somebody_outside_decides(world: Ruled) -> None:
    world.rule(ASK)
    program = world.program()
    call = program.begin("openat", -100, b"/etc/shadow", 0, 0)
    (question,) = world.policy.outside.questions.values()
    assert (question.text, question.what) == ("/etc/shadow?", "openat /etc/shadow")
    assert question.who[0] == program.task.group.tgid
    world.policy.outside.answer(question.number, ALLOW)
    assert call.wait() >= 0
    assert world.policy.outside.questions == {}
    with pytest.raises(ENOENT):
        world.policy.outside.answer(question.number, ALLOW)


def test_an_answer_may_deny_or_kill(world: Ruled) -> None:
    world.rule(ASK)
    program = world.program()
    call = program.begin("openat", -100, b"/etc/shadow", 0, 0)
    world.policy.outside.answer(1, parsed("deny EACCES"))
    assert call.wait() == -13
    program.begin("openat", -100, b"/etc/shadow", 0, 0)
    world.policy.outside.answer(2, KILL)
    world.settle()
    assert program.task.dead


def test_an_answer_holds_for_the_object_that_was_asked_about_alone(world: Ruled) -> None:
    world.rule(ASK)
    program = world.program()
    thread = program.thread()
    program.ok("mkdir", b"/d", 0o755)
    program.ok("symlink", b"/etc/shadow", b"/d/link")
    call = program.begin("openat", -100, b"/d/link", 0, 0)
    thread.ok("unlink", b"/d/link")
    thread.ok("symlink", b"/etc/../etc/shadow2", b"/d/link")
    world.policy.outside.answer(1, ALLOW)
    assert call.wait() == -2, "it leads to what is not there now"
    thread.ok("unlink", b"/d/link")
    thread.ok("symlink", b"/tmp/free", b"/d/link")
    assert opens(program, b"/d/link") == 0


def test_another_object_after_the_answer_is_asked_about_anew(world: Ruled) -> None:
    setup = world.program()
    setup.ok("openat", -100, b"/etc/other", os.O_CREAT, 0o644)
    world.rule(ASK)
    program = world.program()
    thread = program.thread()
    program.ok("symlink", b"/etc/other", b"/tmp/link")
    call = program.begin("openat", -100, b"/tmp/link", 0, 0)
    thread.ok("unlink", b"/tmp/link")
    thread.ok("symlink", b"/etc/shadow", b"/tmp/link")
    world.policy.outside.answer(1, ALLOW)
    world.settle()
    assert not call.done
    (question,) = world.policy.outside.questions.values()
    assert question.text == "/etc/shadow?"
    world.policy.outside.answer(question.number, DENY)
    assert call.wait() == -1


def test_a_name_that_is_given_to_another_file_meanwhile_is_asked_about_anew(world: Ruled) -> None:
    setup = world.program()
    setup.ok("openat", -100, b"/etc/a", os.O_CREAT, 0o644)
    setup.ok("openat", -100, b"/etc/b", os.O_CREAT, 0o644)
    world.rule(ASK)
    program = world.program()
    call = program.begin("openat", -100, b"/etc/a", 0, 0)
    other = world.program()
    other.ok("unlink", b"/etc/a")
    renaming = other.begin("rename", b"/etc/b", b"/etc/a")
    for number in (2, 3):  # the rename is asked about, too: both of its names
        if number in world.policy.outside.questions:
            world.policy.outside.answer(number, ALLOW)
            world.settle()
    assert renaming.wait() == 0
    world.policy.outside.answer(1, ALLOW)
    world.settle()
    assert not call.done
    world.rule("")
    assert call.wait() >= 0


def test_an_address_is_copied_once_whatever_a_thread_writes_meanwhile(world: Ruled) -> None:
    world.rule("""
        @on.connect
        async def ask_first(event):
            return await ask(deadline=60)
    """)
    program = world.program()
    sock = program.ok("socket", *UDP, 0)
    at = program.place(inet("127.0.0.1", 7))
    call = program.begin("connect", sock, at, 16)
    assert world.policy.outside.questions[1].what == "connect 127.0.0.1:7"
    program.write(at, inet("127.0.0.1", 99))
    world.policy.outside.answer(1, ALLOW)
    assert call.wait() == 0
    name, length = program.buffer(16), program.place(struct.pack("<i", 16))
    program.ok("getpeername", sock, name, length)
    assert program.read(name, 8) == inet("127.0.0.1", 7)[:8]


def test_a_path_is_copied_once_whatever_a_thread_writes_meanwhile(world: Ruled) -> None:
    world.rule("""
        @on.call("openat")
        async def ask_first(event):
            return await ask(str(event.args["path"]))
    """)
    program = world.program()
    at = program.place(b"/tmp/free\0\0\0\0")
    call = program.begin("openat", -100, at, 0, 0)
    program.write(at, b"/etc/shadow\0")
    assert world.policy.outside.questions[1].text == "b'/tmp/free'"
    world.policy.outside.answer(1, ALLOW)
    fd = call.wait()
    location = program.task.files.get(fd).location
    assert path_of_file(program.task, *location) == "/tmp/free"


def test_a_handler_is_asked_once_though_the_call_is_made_again(
    world: Ruled, tmp_path: Path
) -> None:
    (tmp_path / "there").write_bytes(b"x")
    world.attach(world.export(tmp_path, exclusive=False), b"/srv")
    world.rule("""
        @on.call("openat")
        def seen(event):
            return ALLOW
    """)
    assert opens(world.program(), b"/srv/there") == 0
    assert world.policy.counts["seen"].decided == {"allow": 1}


def test_the_deadline_decides_if_nobody_answers(world: Ruled) -> None:
    world.rule(ASK.replace("deadline=3600", "deadline=0.001"))
    assert opens(world.program(), b"/etc/shadow") == -110
    assert world.policy.outside.questions == {}


def test_who_is_killed_asks_no_more(world: Ruled) -> None:
    world.rule(ASK)
    program = world.program()
    program.begin("openat", -100, b"/etc/shadow", 0, 0)
    assert len(world.policy.outside.questions) == 1
    program.task.group.exit(9)
    world.settle()
    assert program.task.dead
    assert world.policy.outside.questions == {}


def test_a_call_that_waits_at_the_moment_of_reload_is_decided_by_the_new_policy(
    world: Ruled,
) -> None:
    world.rule(ASK)
    program = world.program()
    call = program.begin("openat", -100, b"/etc/shadow", 0, 0)
    world.rule("@on('openat')\ndef f(event):\n    return DENY('EIO')\n")
    assert call.wait() == -5


def test_a_handler_that_waits_fails_as_others_do(world: Ruled) -> None:
    world.rule("""
        @on("openat", path="/etc/*")
        async def f(event):
            await ask()
            while True: pass
    """)
    program = world.program()
    call = program.begin("openat", -100, b"/etc/shadow", 0, 0)
    world.policy.outside.answer(1, ALLOW)
    assert call.wait() == -1
    assert "more than 10 ms" in world.logged


def test_a_handler_awaits_nothing_but_an_answer(world: Ruled) -> None:
    world.rule("""
        class Other:
            def __await__(self):
                yield 1

        @on("openat")
        async def f(event):
            await Other()
    """)
    assert opens(world.program(), b"/etc/shadow") == -1
    assert "awaits nothing but ask()" in world.logged


def test_too_many_questions_are_answered_at_once(
    world: Ruled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.policy.outside.MAX_QUESTIONS", 1)
    world.rule(ASK)
    first = world.program().begin("openat", -100, b"/etc/shadow", 0, 0)
    assert opens(world.program(), b"/etc/shadow") == -110
    world.policy.outside.answer(1, ALLOW)
    assert first.wait() >= 0


def test_a_connection_waits_for_an_answer(world: Ruled) -> None:
    world.rule("""
        @on.connect(protocol="tcp")
        async def f(event):
            return await ask(f"{event.address}:{event.port}")
    """)
    program = world.program()
    call = program.begin("connect", program.ok("socket", *TCP, 0), inet("127.0.0.1", 9), 16)
    world.policy.outside.answer(1, ALLOW)
    assert call.wait() == -111


def test_without_a_policy_calls_are_as_before(world: Ruled) -> None:
    from sentry.syscalls.registry import CALLS, TABLE  # noqa: PLC0415

    before = {n: CALLS[n] for n, each in enumerate(TABLE) if each is not None}
    world.rule("@on.open\ndef f(event): pass\n@on.call('getpid')\ndef g(event): pass\n")
    assert CALLS[257] is not before[257]
    at_once(world.policy.use(None))
    assert CALLS[257] == TABLE[257].first_call  # type: ignore[union-attr]
    assert opens(world.program(), b"/etc/shadow") == 0


def test_a_path_that_could_not_be_read_is_not_read_again(world: Ruled) -> None:
    world.rule("""
        @on.call("openat")
        async def ask_first(event):
            return await ask(str(event.args))
    """)
    program = world.program()
    at = program.place(b"x" * 5000)
    call = program.begin("openat", -100, at, 0, 0)
    program.write(at, b"/tmp/free\0")
    world.policy.outside.answer(1, ALLOW)
    assert call.wait() == -36


def test_the_source_of_a_mount_is_read_once(world: Ruled) -> None:
    world.rule("""
        @on.call("mount")
        async def ask_first(event):
            return await ask(str(event.args["source"]))
    """)
    program = world.program()
    program.ok("mkdir", b"/m", 0o755)
    at = program.place(b"/tmp\0")
    call = program.begin("mount", at, b"/m", 0, 4096, 0)
    program.write(at, b"/etc\0")
    assert world.policy.outside.questions[1].text == "b'/tmp'"
    world.policy.outside.answer(1, ALLOW)
    assert call.wait() == 0
    assert program.call("access", b"/m/free", 0) == 0


def test_who_has_asked_may_change_what_the_object_stays(world: Ruled) -> None:
    world.rule("""
        @on.open(path="/etc/*")
        async def read_only(event):
            if event.changed:
                return ALLOW if not event.writes else DENY("EIO")
            await ask()
            return CHANGE(flags=0)
    """)
    program = world.program()
    call = program.begin("openat", -100, b"/etc/shadow", os.O_RDWR, 0)
    world.policy.outside.answer(1, ALLOW)
    fd = call.wait()
    assert fd >= 0
    assert program.call("fcntl", fd, 3, 0) & 3 == 0


def test_rules_hold_for_rests_of_calls_whatever_makes_them(
    world: Ruled, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Compiled(Coroutine[Any, Any, Any]):
        """As those of compiled modules are."""

        def __init__(self, rest: Any) -> None:
            self.send, self.throw, self.close = rest.send, rest.throw, rest.close
            self.__rest = rest

        def __await__(self) -> Any:
            return self.__rest.__await__()

        def send(self, value: Any) -> Any:
            raise NotImplementedError

        def throw(self, *error: Any) -> Any:
            raise NotImplementedError

    def eager(coro: Any) -> Any:
        result = plain(coro)
        return Compiled(result) if isinstance(result, CoroutineType) else result

    plain = registry.eager
    monkeypatch.setattr(registry, "eager", eager)
    world.rule("""
        @on.execve(path="/tmp/*")
        async def ask_first(event):
            return await ask()

        @on.execve
        def none(event):
            return DENY("EIO")
    """)
    program = world.program()
    for name, text in ((b"/tmp/run", b"#!/etc/run\n"), (b"/etc/run", b"no program")):
        file = program.ok("openat", -100, name, os.O_CREAT | os.O_WRONLY, 0o755)
        program.ok("write", file, text, len(text))
        program.ok("close", file)
    call = program.begin("execve", b"/tmp/run", 0, 0)
    world.policy.outside.answer(1, ALLOW)
    assert call.wait() == -5, "its interpreter was not judged"


def test_what_is_asked_can_be_told(world: Ruled) -> None:
    world.rule("""
        @on.open(path="/tmp/**")
        async def ask_first(event):
            return await ask(event.path + "\\ud800")
    """)
    program = world.program()
    program.begin("openat", -100, b"/tmp/\xff" + b"x" * 200, os.O_CREAT, 0o600)
    found = told(world.kernel)
    assert encode(Reply(policy=found))
    assert found.questions[0].what.startswith("openat /tmp/\\udcff")


def test_questions_have_room_in_an_answer(
    world: Ruled, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.rule(ASK)
    threads = [world.program() for _ in range(3)]
    for program in threads:
        program.begin("openat", -100, b"/etc/shadow", 0, 0)
    assert len(told(world.kernel).questions) == 3
    monkeypatch.setattr("sentry.control.policies.MAX_QUESTIONS_SIZE", 130)
    assert [each.number for each in told(world.kernel).questions] == [1]
    assert [each.number for each in told(world.kernel, 1).questions] == [2]
    for number in (1, 2, 3):
        world.policy.outside.answer(number, ALLOW)


def test_a_program_does_not_fill_the_log(
    world: Ruled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.policy.engine.MAX_TOLD", 2)
    world.rule("@on.open(path='/etc/*')\ndef f(event):\n    return 1 / 0\n")
    program = world.program()
    assert [opens(program, b"/etc/shadow") for _ in range(4)] == [-1] * 4
    assert world.logged.count("ZeroDivisionError") == 2
    assert world.policy.counts["f"].failed == 4
