"""strace and gdb inside a sandbox, as a user of `runsc do` has them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bundle import RUNSC, execute, kvm_is_usable

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]

THREADED = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
static volatile int shared;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
__attribute__((noinline)) static int leaf(int x)
{
    int doubled = x * 2;
    shared += doubled;
    return doubled;
}
__attribute__((noinline)) static int middle(int x)
{
    int result = leaf(x + 1);
    return result + 1;
}
static void *run(void *argument)
{
    pthread_mutex_lock(&lock);
    middle((int)(long)argument);
    pthread_mutex_unlock(&lock);
    return NULL;
}
int main(int argc, char **argv)
{
    pthread_t threads[3];
    for (long i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, run, (void *)(i * 10));
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    printf("sum %d\n", shared);
    if (argc > 1)
        abort();
    return 0;
}
"""
WATCHED = r"""
static int total;
int main(void)
{
    for (int i = 1; i < 4; i++)
        total += i;
    return total;
}
"""
SCRIPT = """
echo one | cat
(exit 3)
/bin/true
"""


def inside(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the host's root file system under `runsc do`."""
    return execute([*RUNSC, "--zygote=off", "do", *command])


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def compiled(source: str, folder: Path) -> str:
    needs("gcc")
    (folder / "program.c").write_text(source)
    program = folder / "program"
    subprocess.run(
        ["gcc", "-g", "-O0", "-pthread", "-o", program, folder / "program.c"], check=True
    )
    return str(program)


def gdb(program: str, *commands: str, arguments: tuple[str, ...] = ()) -> str:
    """What gdb says to some commands."""
    needs("gdb")
    given = [word for one in ("set pagination off", *commands) for word in ("-ex", one)]
    done = inside("gdb", "-q", "-nx", "-batch", *given, "--args", program, *arguments)
    return done.stdout + done.stderr


def test_strace_follows_a_shell_script(tmp_path: Path) -> None:
    needs("strace")
    script = tmp_path / "script"
    script.write_text(SCRIPT)

    done = inside("strace", "-f", "/bin/sh", str(script))

    assert (done.returncode, done.stdout) == (0, "one\n")
    lines = done.stderr.splitlines()
    assert any('execve("/bin/sh"' in line and line.endswith("= 0") for line in lines)
    assert any('execve("/bin/true"' in line for line in lines)
    assert any('write(1, "one\\n", 4)' in line for line in lines)
    assert sum("Process" in line and "attached" in line for line in lines) == 4
    assert any("exit_group(3)" in line for line in lines)
    assert sum("+++ exited with" in line for line in lines) == 5
    assert any("SIGCHLD {si_signo=SIGCHLD" in line for line in lines)


def test_strace_counts_calls() -> None:
    needs("strace")

    done = inside("strace", "-c", "/bin/sh", "-c", "exit 5")

    assert done.returncode == 5
    assert "% time" in done.stderr
    assert "mmap" in done.stderr


def test_strace_attaches_to_a_running_process() -> None:
    needs("strace")
    script = (
        "sleep 60 & p=$!; strace -o /tmp/trace -p $p & t=$!; "
        "until grep -qE 'nanosleep|restart' /tmp/trace 2>/dev/null; do sleep 0.01; done; "
        "kill $p; wait $p 2>/dev/null; echo $?; wait $t; cat /tmp/trace >&2"
    )

    done = inside("/bin/bash", "-c", script)

    assert "restart_syscall" in done.stderr or "nanosleep" in done.stderr
    assert "killed by SIGTERM" in done.stderr
    assert done.stdout == "143\n"


def test_gdb_breaks_steps_and_finishes_in_a_threaded_program(tmp_path: Path) -> None:
    said = gdb(
        compiled(THREADED, tmp_path),
        "break leaf", "run", "bt", "info threads", "next", "print doubled", "delete", "finish",
        "step", "info registers rip", "continue",
    )  # fmt: skip

    assert "Breakpoint 1, leaf (x=" in said
    assert "#1 " in said
    assert "in middle (x=" in said
    assert "in start_thread" in said
    assert "shared += doubled" in said
    assert "$1 = " in said
    assert "Value returned is $2 = " in said
    assert "return result + 1" in said
    assert "sum 66" in said
    assert "exited normally" in said


def test_gdb_shows_where_a_program_crashed(tmp_path: Path) -> None:
    said = gdb(compiled(THREADED, tmp_path), "run", "bt", arguments=("crash",))

    assert "received signal SIGABRT" in said
    assert "in main (argc=2" in said


@pytest.mark.parametrize("hardware", [0, 1])
def test_gdb_watches_a_variable(hardware: int, tmp_path: Path) -> None:
    said = gdb(
        compiled(WATCHED, tmp_path),
        f"set can-use-hw-watchpoints {hardware}", "break main", "run", "watch total",
        "continue", "continue", "print total", "delete", "kill",
    )  # fmt: skip

    assert "Old value = 0\nNew value = 1" in said
    assert "Old value = 1\nNew value = 3" in said
    assert "$1 = 3" in said


def test_gdb_attaches_and_detaches(tmp_path: Path) -> None:
    needs("gdb")
    script = (
        "sleep 60 & p=$!; until grep -q '^230 ' /proc/$p/syscall; do sleep 0.01; done; "
        "gdb -q -nx -batch -p $p -ex bt -ex 'info proc'; "
        "grep -E '^(State|TracerPid)' /proc/$p/status; kill $p; wait $p 2>/dev/null; echo $?"
    )

    done = inside("/bin/bash", "-c", script)

    assert "nanosleep" in done.stdout
    assert "exe = '/usr/bin/sleep'" in done.stdout
    assert "State:\tS (sleeping)\nTracerPid:\t0\n143\n" in done.stdout


def test_gdb_opens_a_core_file(tmp_path: Path) -> None:
    needs("gdb")
    program = compiled(THREADED, tmp_path)
    script = (
        "cd /tmp && mkdir cores && cd cores && ulimit -c unlimited && "
        f"echo 'core.%e' >/proc/sys/kernel/core_pattern; {program} crash; echo status $?; "
        f"gdb -q -nx -batch -ex bt -ex 'print shared' {program} core.program"
    )

    done = inside("/bin/bash", "-c", script)

    assert "status 134" in done.stdout
    assert "(core dumped)" in done.stderr
    assert "Program terminated with signal SIGABRT" in done.stdout
    assert "in main (argc=2" in done.stdout
    assert "$1 = 66" in done.stdout
