"""sentry.syscalls.strace: lines as strace(1) writes them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

from sentry.errors import EFAULT
from sentry.syscalls import args, registry, types
from sentry.syscalls.show import flags_text, quote
from sentry.syscalls.strace.log import Strace
from sentry.wait.fiber import Interrupted


class Memory:
    """The program's memory: one page at 0x1000."""

    def __init__(self) -> None:
        self.page = bytearray(4096)

    def read(self, addr: int, count: int) -> bytes:
        if not addr >= 0x1000 or addr + count > 0x2000:
            raise EFAULT
        return bytes(self.page[addr - 0x1000 : addr - 0x1000 + count])

    def put(self, addr: int, data: bytes) -> int:
        self.page[addr - 0x1000 : addr - 0x1000 + len(data)] = data
        return addr


class Thread:
    """What of a task a trace looks at."""

    def __init__(self, mm: Memory) -> None:
        self.tid = 1
        self.mm = mm
        self.restart: BaseException | None = None
        self.ctx = SimpleNamespace(regs=[0] * 27)


class World:
    """A trace of two tasks over declarations of its own."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.soon: list[Callable[[], None]] = []
        self.strace = Strace(self, self)
        self.memory = Memory()
        self.task: Any = Thread(self.memory)

    def flush(self) -> None:
        """Nothing is held back."""

    def now_ns(self) -> int:
        return 0

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def write(self, text: str) -> None:
        self.lines.append(text.removeprefix("[pid     1] ").removesuffix("\n"))

    def call(self, number: int, *values: int, result: Any = 0, turn: bool = False) -> str:
        raw = tuple(v & (1 << 64) - 1 for v in values) + (0,) * (6 - len(values))
        self.strace.entered(self.task, number, raw)
        if turn:
            while self.soon:
                self.soon.pop(0)()
        self.strace.left(self.task, result)
        return self.lines[-1]


Protection = Annotated[int, args.unsigned(32, args.show_flags({"PROT_NONE": 0, "PROT_READ": 1}))]


def sys_read(task: Any, fd: types.Fd, buf: types.UserOut, count: types.Size) -> None: ...
def sys_write(task: Any, fd: types.Fd, buf: types.UserIn, count: types.Size) -> None: ...
def sys_openat(task: Any, dirfd: types.DirFd, path: types.Path, flags: types.OpenFlags) -> None: ...
def sys_mprotect(task: Any, addr: types.Addr, length: types.Size, prot: Protection) -> None: ...
def sys_mmap(task: Any, addr: types.Addr, length: types.Size) -> None: ...
def sys_kill(task: Any, pid: types.Pid, signo: types.Signal) -> None: ...
def sys_nanosleep(task: Any, wanted: types.TimespecIn, left: types.TimespecOut) -> None: ...
def sys_exit_group(task: Any, status: types.Int) -> None: ...
def sys_execve(task: Any, path: types.Path, argv: types.Addr, envp: types.Addr) -> None: ...


HANDLERS: dict[int, Callable[..., None]] = {
    0: sys_read, 1: sys_write, 257: sys_openat, 10: sys_mprotect, 9: sys_mmap, 62: sys_kill,
    35: sys_nanosleep, 231: sys_exit_group, 59: sys_execve,
}  # fmt: skip


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    table: list[registry.Declaration | None] = [None] * registry.TABLE_SIZE
    monkeypatch.setattr("sentry.syscalls.strace.log.TABLE", table)
    for number, handler in HANDLERS.items():
        name = handler.__name__.removeprefix("sys_")
        table[number] = registry.Declaration(number, name, handler, "", ())
    return World()


def padded(call: str, result: str) -> str:
    return call.ljust(39) + " = " + result


def test_buffer_of_a_read_is_shown_with_what_was_read(world: World) -> None:
    at = world.memory.put(0x1000, b"hello\n" + b"x" * 100)
    assert world.call(0, 3, at, 4096, result=6) == padded(r'read(3, "hello\n", 4096)', "6")


def test_long_data_is_cut(world: World) -> None:
    at = world.memory.put(0x1000, b"x" * 100)
    assert world.call(1, 1, at, 100, result=100) == (
        f'write(1, "{"x" * 32}"..., 100) = 100'
    )


def test_failed_read_shows_the_address_and_the_error(world: World) -> None:
    line = world.call(0, 3, 0x1000, 4096, result=-9)
    assert line == padded("read(3, 0x1000, 4096)", "-1 EBADF (Bad file descriptor)")


def test_path_and_flags_by_name(world: World) -> None:
    at = world.memory.put(0x1000, b"/etc/" + b"p" * 50 + b"\0")
    line = world.call(257, 0xFFFFFFFFFFFFFF9C, at, 0o2000000, result=-2)
    assert line == (
        f'openat(AT_FDCWD, "/etc/{"p" * 50}", O_RDONLY|O_CLOEXEC) '
        "= -1 ENOENT (No such file or directory)"
    )


def test_unreadable_string_is_an_address(world: World) -> None:
    assert world.call(257, 3, 0x9000, 0, result=-14).startswith("openat(3, 0x9000, O_RDONLY)")


def test_no_bits_have_a_name_too(world: World) -> None:
    assert world.call(10, 0x1000, 4096, 0).startswith("mprotect(0x1000, 4096, PROT_NONE)")


def test_address_results_are_hexadecimal(world: World) -> None:
    line = world.call(9, 0, 4096, result=0x7F0000000000)
    assert line == padded("mmap(NULL, 4096)", "0x7f0000000000")


def test_signal_by_name(world: World) -> None:
    assert world.call(62, 5, 9).startswith("kill(5, SIGKILL)")


def test_call_that_sleeps_is_written_in_two_parts(world: World) -> None:
    world.memory.put(0x1000, b"abc")
    world.call(0, 3, 0x1000, 10, result=3, turn=True)
    assert world.lines == [
        "read(3,  <unfinished ...>",
        padded('<... read resumed>"abc", 10)', "3"),
    ]


def test_line_of_another_task_splits_a_call(world: World) -> None:
    world.strace.entered(world.task, 10, (0x1000, 4096, 0, 0, 0, 0))
    other: Any = Thread(world.memory)
    other.tid = 2
    world.strace.entered(other, 231, (0, 0, 0, 0, 0, 0))
    world.strace.left(other, object())
    world.strace.left(world.task, 0)
    assert world.lines == [
        "mprotect(0x1000, 4096, PROT_NONE <unfinished ...>",
        "[pid     2] " + padded("exit_group(0)", "?"),
        padded("<... mprotect resumed>)", "0"),
    ]


def test_interrupted_sleep_says_how_it_goes_on(world: World) -> None:
    world.task.restart = Interrupted()
    line = world.call(0, 3, 0x1000, 10, result=-4)
    assert line.endswith("= ? ERESTARTSYS (To be restarted if SA_RESTART is set)")


def test_struct_is_shown(world: World) -> None:
    world.memory.put(0x1000, (1).to_bytes(8, "little") + (500).to_bytes(8, "little"))
    line = world.call(35, 0x1000, 0)
    assert line == padded("nanosleep({tv_sec=1, tv_nsec=500}, NULL)", "0").replace("  =", " =")


def test_exit_has_no_result(world: World) -> None:
    assert world.call(231, 3, result=object()) == padded("exit_group(3)", "?")
    world.strace.exited(world.task, 3 << 8)
    assert world.lines[-1] == "+++ exited with 3 +++"


def test_death_in_a_call(world: World) -> None:
    world.strace.entered(world.task, 0, (0, 0x1000, 1, 0, 0, 0))
    world.strace.exited(world.task, 9)
    assert world.lines == [
        "read(0,  <unfinished ...>",
        padded("<... read resumed> <unfinished ...>)", "?"),
        "+++ killed by SIGKILL +++",
    ]


def test_execve_shows_arguments_and_counts_the_environment(world: World) -> None:
    memory = world.memory
    memory.put(0x1000, b"/bin/a\0one\0")
    memory.put(0x1100, (0x1000).to_bytes(8, "little") + (0x1007).to_bytes(8, "little") + bytes(8))
    memory.put(0x1200, (0x1000).to_bytes(8, "little") + bytes(8))
    line = world.call(59, 0x1000, 0x1100, 0x1200, result=0)
    assert line == 'execve("/bin/a", ["/bin/a", "one"], 0x1200 /* 1 var */) = 0'


def test_unknown_call_has_all_its_registers(world: World) -> None:
    line = world.call(4000, 1, 2, result=-38)
    assert line == (
        "syscall_0xfa0(0x1, 0x2, 0x0, 0x0, 0x0, 0x0) = -1 ENOSYS (Function not implemented)"
    )


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ((11, 1, (0).to_bytes(8, "little")),
         "SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL}"),
        ((7, 2, (0x5000).to_bytes(8, "little")),
         "SIGBUS {si_signo=SIGBUS, si_code=BUS_ADRERR, si_addr=0x5000}"),
        ((15, 0, (7).to_bytes(4, "little") + bytes(4)),
         "SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=7, si_uid=0}"),
        ((17, 1, (7).to_bytes(4, "little") + bytes(4) + (3).to_bytes(4, "little")),
         "SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=7, si_uid=0, si_status=3, "
         "si_utime=0, si_stime=0}"),
        ((13, 128, b""), "SIGPIPE {si_signo=SIGPIPE, si_code=SI_KERNEL}"),
    ],
)  # fmt: skip
def test_signals_with_their_details(
    world: World, info: tuple[int, int, bytes], text: str
) -> None:
    signo, code, body = info
    signal: Any = SimpleNamespace(signo=signo, code=code, body=body)
    world.strace.signalled(world.task, signal)
    assert world.lines == [f"--- {text} ---"]


def test_octal_before_a_digit_has_three_places() -> None:
    assert quote(b"\x00a\x001\x7f") == r'"\0a\0001\177"'


def test_flags_prefer_names_of_several_bits() -> None:
    names = {"ONE": 1, "TWO": 2, "BOTH": 3, "HIGH": 8}
    assert flags_text(names, 3) == "BOTH"
    assert flags_text(names, 0x49) == "ONE|HIGH|0x40"
