"""What was learnt of a build, a web server under load and a shell session lets them run again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bundle import PLAIN, REPOSITORY, kvm_is_usable

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
MAKEFILE = """
OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))
all: program
\t./program
program: $(OBJECTS)
\tgcc -o $@ $^
%.o: %.c
\tgcc -O1 -c -o $@ $<
"""
BUILD = "make -j2 >/tmp/log 2>&1 && tail -n1 /tmp/log"
SERVER = """
mkdir -p /tmp/w/logs /tmp/www; echo hello >/tmp/www/index.html
cat >/tmp/n.conf <<END
worker_processes 2; daemon on; pid /tmp/n.pid; error_log /tmp/w/error;
events {}
http { access_log /tmp/w/access; client_body_temp_path /tmp/w/1; proxy_temp_path /tmp/w/2;
fastcgi_temp_path /tmp/w/3; uwsgi_temp_path /tmp/w/4; scgi_temp_path /tmp/w/5;
server { listen 127.0.0.1:8080; root /tmp/www; } }
END
nginx -c /tmp/n.conf
ab -q -n 500 -c 8 http://127.0.0.1:8080/ 2>/dev/null | grep -E 'Failed|Complete'
nginx -c /tmp/n.conf -s stop
"""
SESSION = """
cd /tmp; for n in 1 2 3; do echo $n >file$n; done; ls | sort | head -n3; cat file* | wc -l
find /etc -maxdepth 1 -name 'pass*' | xargs grep -c root; ps >/dev/null; mkdir -p a/b; mv file1 a/b
ln -s a/b c; cat c/file1; rm -r a; (sleep 0.1; echo late) & wait; id -u; date >/dev/null
"""


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _run(folder: Path, script: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [*PLAIN, f"--root={folder / 'state'}", *flags]
    return subprocess.run(
        [*command, "sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=300, check=False, cwd=REPOSITORY, env={**os.environ, "PATH": PATH},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("root", "script", "shows"),
    [
        ("RUNSC_ROOTFS_WORKLOADS", BUILD, "42 units"),
        ("RUNSC_ROOTFS_LANGUAGES", SERVER, "Complete requests:      500"),
        ("RUNSC_ROOTFS_DEBIAN", SESSION, "late"),
    ],
    ids=["build", "server", "shell"],
)
def test_what_was_learnt_is_enough_to_run_again(
    tmp_path: Path, root: str, script: str, shows: str
) -> None:
    if root not in os.environ:
        pytest.skip(f"{root} says where there is none")
    if "make" in script:
        script = _sources() + script
    learnt, seen = tmp_path / "learnt.toml", tmp_path / "seen"
    over = ["--root", os.environ[root], "--cwd", "/"]
    first = _run(
        tmp_path, script,
        "policy", "learn", "-o", str(learnt), "--record", str(seen), *over,
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    assert shows in first.stdout

    tested = subprocess.run(
        [*PLAIN, "policy", "test", str(learnt), str(seen)], capture_output=True, text=True,
        check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert (tested.returncode, tested.stdout, tested.stderr) == (0, "", "")

    told = tmp_path / "told"
    session = tmp_path / "session.json"
    session.write_text(json.dumps({"trace_session": {
        "points": [{"name": "sentry/policy"}],
        "sinks": [{"name": "json", "config": {"path": str(told)}}],
    }}))  # fmt: skip
    again = _run(
        tmp_path, script,
        f"--pod-init-config={session}", "do", "--policy", str(learnt), *over,
    )  # fmt: skip
    denied = [line for line in told.read_text().splitlines() if '"deny' in line]
    assert denied == []
    assert again.returncode == 0, again.stderr
    assert shows in again.stdout

    other = _run(
        tmp_path, "cat /etc/fstab /etc/login.defs; nc -h; mkdir /tmp/z; true",
        "do", "--policy", str(learnt), *over,
    )  # fmt: skip
    assert "ermission denied" in other.stderr


def _sources() -> str:
    """Shell that makes a program of forty files."""
    lines = ["mkdir -p /tmp/in && cd /tmp/in"]
    lines += [f"echo 'int f{n}(void) {{ return 1; }}' >f{n}.c" for n in range(42)]
    calls = "+".join(f"f{n}()" for n in range(42))
    declared = " ".join(f"int f{n}(void);" for n in range(42))
    lines.append(
        f"printf '#include <stdio.h>\\n%s\\n' '{declared} int main(void)"
        f' {{ printf("%d units\\n", {calls}); return 0; }}\' >main.c'
    )
    lines.append("cat >Makefile <<'END'\n" + MAKEFILE + "END\n")
    return "\n".join(lines)
