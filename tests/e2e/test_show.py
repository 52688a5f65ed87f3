"""What a user is promised: shells, Python, C programs, deaths by signal, in a Debian system."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bundle import RUNSC, Bundle, execute, kvm_is_usable, natively

ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
SHELL = """
echo one two | tr a-z A-Z | sed s/ONE/1/
sleep 0 & wait $!; echo background $?
trap 'echo trapped' USR1; kill -USR1 $$; echo after
cat <<END
here in $HOME
END
"""
PYTHON = """
import subprocess, threading
print(len(open('/etc/passwd').read()))
open('/tmp/written', 'w').write('text'); print(open('/tmp/written').read())
t = threading.Thread(target=lambda: print('thread')); t.start(); t.join()
print(subprocess.run(['echo', 'subprocess'], capture_output=True).stdout)
"""
COMMANDS = {
    "busybox sh": ("busybox", "sh", "-c", SHELL),
    "bash loop": ("bash", "-c", "for i in $(seq 50); do echo $i | wc -c; done"),
    "ls -lR": ("ls", "-lR", "/usr/share/doc"),
    "python3": ("python3", "-c", PYTHON),
}
AVX2 = r"""
#include <immintrin.h>
#include <stdio.h>
__attribute__((target("avx2"))) static void add(int *a, const int *b)
{
    for (int i = 0; i < 64; i += 8) {
        __m256i sum = _mm256_add_epi32(_mm256_loadu_si256((void *)(a + i)),
                                       _mm256_loadu_si256((void *)(b + i)));
        _mm256_storeu_si256((void *)(a + i), sum);
    }
}
int main(void)
{
    int a[64], b[64], total = 0;
    for (int i = 0; i < 64; i++) { a[i] = i; b[i] = 2 * i; }
    if (__builtin_cpu_supports("avx2"))
        add(a, b);
    else
        for (int i = 0; i < 64; i++) a[i] += b[i];
    for (int i = 0; i < 64; i++) total += a[i];
    printf("%d\n", total);
    return total & 0x7f;
}
"""
DEATHS = r"""
#include <signal.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv)
{
    volatile int zero = 0;
    volatile int *nowhere = 0;
    (void)argc;
    if (!strcmp(argv[1], "SIGSEGV")) *nowhere = 1;
    if (!strcmp(argv[1], "SIGFPE")) zero = 7 / zero;
    if (!strcmp(argv[1], "SIGILL")) __asm__ volatile("ud2");
    if (!strcmp(argv[1], "SIGABRT")) abort();
    return 0;
}
"""
LEAK = r"""
#include <stdlib.h>
#include <string.h>
char *volatile kept;
int main(int argc, char **argv)
{
    kept = malloc(10);
    if (!strcmp(argv[1], "lost")) kept = 0;
    return 0;
}
"""


def compiled(text: str, folder: Path, *flags: str, compiler: str = "gcc") -> Path:
    """A program out of C."""
    target = folder / "program"
    command = [compiler, "-x", "c", "-O1", "-w", *flags, "-o", str(target), "-"]
    subprocess.run(command, input=text, text=True, check=True)
    return target


def of_debian(folder: Path, debian: Path, *args: str, program: Path | None = None) -> Bundle:
    """A bundle over the Debian root file system, perhaps with a program bound to /program."""
    bundle = Bundle(folder / "bundle", debian).args(*args)
    bundle.document["process"]["env"] = ENVIRONMENT
    if program is not None:
        bundle.document["mounts"].append(
            {"destination": "/program", "source": str(program), "options": ["bind", "ro"]}
        )
    return bundle


@pytest.mark.root
@pytest.mark.parametrize("name", COMMANDS)
def test_debian_command_does_what_it_does_on_linux(
    tmp_path: Path, debian: Path, platform: str, name: str
) -> None:
    args = COMMANDS[name]
    linux = natively(debian, args, ENVIRONMENT)
    ours = of_debian(tmp_path, debian, *args).run(platform)
    assert (ours.stdout, ours.stderr, ours.returncode) == (linux.stdout, linux.stderr, 0)


@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")
@pytest.mark.parametrize("link", ["-static", "-no-pie", "-pie"])
def test_vector_instructions_of_the_cpu_work(tmp_path: Path, debian: Path, link: str) -> None:
    program = compiled(AVX2, tmp_path, link)
    linux = subprocess.run([program], capture_output=True, text=True, check=False)
    ours = of_debian(tmp_path, debian, "/program", program=program).run("kvm")
    assert (ours.stdout, ours.stderr, ours.returncode) == (linux.stdout, "", linux.returncode)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGFPE", "SIGILL", "SIGABRT"])
def test_death_by_signal_is_told_as_runc_tells_it(
    tmp_path: Path, debian: Path, platform: str, name: str
) -> None:
    program = compiled(DEATHS, tmp_path, "-static")
    linux = subprocess.run([program, name], check=False)
    assert linux.returncode == -signal.Signals[name]
    shell = ("sh", "-c", f"/program {name}; echo $?")
    inside = of_debian(tmp_path, debian, *shell, program=program).run(platform)
    assert inside.stdout == f"{128 + signal.Signals[name]}\n"


@pytest.mark.parametrize("what", ["kept", "lost"])
def test_leak_sanitizer_tells_in_a_new_sandbox_what_it_tells_on_linux(
    tmp_path: Path, debian: Path, platform: str, what: str
) -> None:
    """It stops all threads by ptrace(2), from a process that the program allows to."""
    program = compiled(LEAK, tmp_path, "-fsanitize=leak")
    library = subprocess.check_output(["gcc", "-print-file-name=liblsan.so"], text=True).strip()
    linux = subprocess.run([program, what], capture_output=True, text=True, check=False)
    bundle = of_debian(tmp_path, debian, "/program", what, program=program)
    place, there = "/usr/lib/x86_64-linux-gnu/liblsan.so.0", os.path.realpath(library)
    bundle.document["mounts"].append(
        {"destination": place, "source": there, "options": ["bind", "ro"]}
    )
    ours = bundle.run(platform)
    assert linux.returncode == {"kept": 0, "lost": 23}[what]
    assert ours.returncode == linux.returncode, ours.stderr
    assert ours.stderr.splitlines()[-1:] == linux.stderr.splitlines()[-1:]


@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGFPE", "SIGILL"])
def test_death_of_the_first_process_is_the_exit_code(
    tmp_path: Path, debian: Path, name: str
) -> None:
    program = compiled(DEATHS, tmp_path, "-static")
    ours = of_debian(tmp_path, debian, "/program", name, program=program).run("kvm")
    assert ours.returncode == 128 + signal.Signals[name]


def test_do_tells_of_our_own_kernel(tmp_path: Path) -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    state = f"--root={tmp_path / 'state'}"
    text = f"import os; print(os.uname().release != {os.uname().release!r}, os.getpid())"
    done = execute([*RUNSC, state, "do", "/usr/bin/python3", "-c", text])
    assert (done.stdout, done.returncode) == ("True 1\n", 0)


CLOCK = r"""
#include <stdio.h>
#include <time.h>
int main(void)
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < 100; i++)
        clock_gettime(CLOCK_REALTIME, &b);
    clock_gettime(CLOCK_MONOTONIC, &b);
    puts(b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec) ? "on" : "back");
    return 0;
}
"""


@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")
@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_libc_reads_the_clock_through_the_vdso(
    tmp_path: Path, busybox: Path, compiler: str
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    program = compiled(CLOCK, tmp_path, "-static", compiler=compiler)
    log = tmp_path / "strace"
    bundle = of_debian(tmp_path, busybox, "/program", program=program)

    done = bundle.run("kvm", flags=["--strace", f"--debug-log={log}"])

    assert (done.stdout, done.returncode) == ("on\n", 0)
    calls = log.read_text()
    assert "exit_group(0)" in calls
    assert calls.count("clock_gettime(") < 10  # of 102: when the page's horizon is passed


DAMAGE = {
    "not executable": (lambda image: image, 0o644, "permission denied"),
    "foreign architecture": (
        lambda image: image[:18] + b"\xb7\0" + image[20:],
        0o755,
        "exec format error",
    ),
    "truncated header": (lambda image: image[:40], 0o755, "exec format error"),
    "no program": (lambda image: b"\0\1\2\3" * 64, 0o755, "exec format error"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_program_that_is_none_is_refused_with_the_reason(
    tmp_path: Path, busybox: Path, what: str
) -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    damage, mode, reason = DAMAGE[what]
    program = compiled(CLOCK, tmp_path, "-static")
    program.write_bytes(damage(program.read_bytes()))
    program.chmod(mode)

    done = of_debian(tmp_path, busybox, "/program", program=program).run("kvm")

    assert done.returncode == 1
    assert reason in done.stderr
