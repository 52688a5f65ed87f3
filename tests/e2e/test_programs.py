"""Programs in real root file systems: what they print and how they end is what Linux does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle, kvm_is_usable, natively

SMALL = [
    "echo hello",
    "echo out; echo err >&2; exit 3",
    "exit 255",
    "sh -c 'kill -TERM $$'; echo $?",
    "sh -c 'kill -KILL $$'; echo $?",
    "seq 1 500 | sort -r | head -3 | tr '1' x",
    "cat; echo end",
    "ls -1 /bin | wc -l",
    "cd /etc && pwd && ls",
    "(exit 4); echo $?; false || echo no",
    "for i in 1 2 3; do (exit $i) & wait $!; echo $?; done; sleep 0 & wait; echo waited",
    "trap 'echo caught; exit 7' USR1; kill -USR1 $$; sleep 5",
    "echo a >/tmp/a && mv /tmp/a /tmp/b && cat /tmp/b && rm /tmp/b && ls /tmp",
    "mkdir -p /tmp/d/e && ln -s e /tmp/d/l && readlink /tmp/d/l; rm -r /tmp/d",
    'printf \'%s\\n\' "$PATH" "$HOME"',
    "umask; touch /tmp/u; stat -c %a /tmp/u; rm /tmp/u",
    "sh -c 'echo $0 $#' name a b",
    "dd if=/bin/busybox bs=64k count=4 2>/dev/null | sha256sum",
    "head -c 300000 /bin/busybox | gzip | gunzip | md5sum",
    "/no/such/program; echo $?",
]
PYTHON = [
    "import sys; print(sys.version_info[:2], sys.byteorder)",
    "import json, hashlib as h; print(h.sha1(json.dumps([1]).encode()).hexdigest())",
    "raise SystemExit(9)",
    "import ctypes; ctypes.string_at(0)",
    "import threading as t; n=[0]\n"
    "def f():\n  for _ in range(1000): n[0]+=1\n"
    "a=[t.Thread(target=f) for _ in range(4)]\n[x.start() for x in a]\n[x.join() for x in a]\n"
    "print(n[0])",
    "import subprocess as s; print(s.run(['sort'], input=b'b\\na\\n', capture_output=True).stdout)",
    "import os; r,w=os.pipe(); p=os.fork()\nif not p: os.write(w,b'x'); os._exit(3)\n"
    "print(os.read(r,9), os.waitpid(p,0)[1])",
]
LARGE = [
    ("bash", "-c", "for i in {1..20}; do echo -n $((i*i)),; done; echo"),
    ("bash", "-c", "diff -u /etc/passwd /etc/group | grep -c ^+"),
    ("bash", "-c", "set -o pipefail; false | true; echo $?"),
    *(("python3", "-c", text) for text in PYTHON),
    ("perl", "-e", "print join(',', map { $_ ** 2 } 1 .. 5), \"\\n\""),
    ("tar", "-cf", "-", "-C", "/etc", "passwd", "--owner=0", "--group=0", "--mtime=@0"),
    ("find", "/usr/bin", "-name", "py*"),
]
ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]


@pytest.mark.root
@pytest.mark.parametrize("script", SMALL)
def test_shell_script_ends_as_on_linux(bundle: Bundle, platform: str, script: str) -> None:
    args = ("/bin/sh", "-c", script)
    bundle.args(*args).document["process"]["env"] = ENVIRONMENT

    ours = bundle.run(platform, stdin="input\n")

    linux = natively(bundle.rootfs, args, ENVIRONMENT, stdin="input\n")
    code = linux.returncode if linux.returncode >= 0 else 128 - linux.returncode
    assert (ours.stdout, ours.stderr, ours.returncode) == (linux.stdout, linux.stderr, code)


@pytest.mark.root
@pytest.mark.kvm
@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")
@pytest.mark.parametrize("args", LARGE, ids=lambda args: " ".join(args)[:40])
def test_debian_program_ends_as_on_linux(
    tmp_path: Path, debian: Path, args: tuple[str, ...]
) -> None:
    bundle = Bundle(tmp_path / "bundle", debian).args(*args)
    bundle.document["process"]["env"] = ENVIRONMENT

    ours = bundle.run()

    linux = natively(debian, args, ENVIRONMENT)
    code = linux.returncode if linux.returncode >= 0 else 128 - linux.returncode
    assert (ours.stdout, ours.stderr, ours.returncode) == (linux.stdout, linux.stderr, code)
