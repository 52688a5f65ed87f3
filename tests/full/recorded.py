"""A build, a web server under load, a shell session: recorded, and the pictures of docs/pictures.

    python -m tests.full.recorded
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from tests.conftest import rootfs_of
from tests.e2e.bundle import REPOSITORY, Bundle
from tests.e2e.client import Client

PICTURES: Final = REPOSITORY / "docs" / "pictures"
MAKEFILE = """
OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))
all: program
\t./program
program: $(OBJECTS)
\tgcc -o $@ $^
%.o: %.c
\tgcc -O1 -c -o $@ $<
"""
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
while [ -e /tmp/n.pid ]; do sleep 0.01; done
"""
SESSION = """
cd /tmp; for n in 1 2 3; do echo $n >file$n; done; ls | sort | head -n3; cat file* | wc -l
find /etc -maxdepth 1 -name 'pass*' | xargs grep -c root; ps >/dev/null; mkdir -p a/b; mv file1 a/b
ln -s a/b c; cat c/file1; rm -r a; (sleep 0.1; echo late) & wait; id -u; date >/dev/null
"""
CAPABILITIES: Final = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETGID", "CAP_SETUID", "CAP_KILL")
"""What nginx uses to give its workers a user of their own."""


def build(files: int) -> str:
    """Shell that makes a program of so many files."""
    lines = ["mkdir -p /tmp/in && cd /tmp/in"]
    lines += [f"echo 'int f{n}(void) {{ return 1; }}' >f{n}.c" for n in range(files)]
    calls = "+".join(f"f{n}()" for n in range(files))
    declared = " ".join(f"int f{n}(void);" for n in range(files))
    lines.append(
        f"printf '#include <stdio.h>\\n%s\\n' '{declared} int main(void)"
        f' {{ printf("%d units\\n", {calls}); return 0; }}\' >main.c'
    )
    lines.append("cat >Makefile <<'END'\n" + MAKEFILE + "END\n")
    lines.append("make -j2 >/tmp/log 2>&1 && tail -n1 /tmp/log")
    return "\n".join(lines)


class Program(NamedTuple):
    """Shell, where it runs, and what it says."""

    rootfs: str
    script: str
    says: str


PROGRAMS: Final = {
    "build": Program("workloads", build(42), "42 units"),
    "server": Program("languages", SERVER, "Complete requests:      500"),
    "shell": Program("debian", SESSION, "late"),
}


def recorded(folder: Path, program: Program) -> tuple[Client, Path]:
    """A recording of it, from its start to its end, and who reads it."""
    bundle = Bundle(folder / "bundle", rootfs_of(program.rootfs)).args("sh", "-c", program.script)
    for held in bundle.document["process"]["capabilities"].values():
        held.extend(CAPABILITIES)
    client = Client(bundle)
    client.create("c")
    recording = folder / "recording"
    with client.begin("trace", "watch", "--show=", f"--record={recording}", "c"):
        try:
            deadline = time.monotonic() + 30
            while "SESSIONS (1)" not in client.ok("trace", "list", "c"):
                assert time.monotonic() < deadline
            client.ok("start", "c")
            client.ok("wait", "c")
        finally:
            client.ok("delete", "--force", "c")
    assert program.says in client.output("c"), client.output("c")
    return client, recording


def main() -> None:
    """Draw the pictures anew."""
    programs = PROGRAMS | {
        # figures are taken once a second: what is over before has no costs
        "build": Program("workloads", build(5) + "\nsleep 2", "5 units"),
        "shell": Program("debian", SESSION + "\nsleep 2", "late"),
        "server": Program("languages", SERVER.replace("500", "1000"), "requests:      1000"),
    }
    for name, program in programs.items():
        with tempfile.TemporaryDirectory() as folder:
            client, recording = recorded(Path(folder), program)
            for plot in ("timeline", "cost"):
                picture = PICTURES / f"{name}-{plot}.svg"
                client.ok("report", f"--plot={plot}", f"--output={picture}", str(recording))
                picture.chmod(0o644)


if __name__ == "__main__":
    main()
