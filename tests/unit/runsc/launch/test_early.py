"""The Sentry that waits for its configuration."""

from __future__ import annotations

import socket
import subprocess
import sys

from runsc.launch import early

HAND_OVER = """
import os, socket
from runsc.launch import early
from runsc.filters import Switches
from runsc.launch.boot import Terms
from sentry.config import ProcessConfig, SandboxConfig

def serials(config):
    return [os.fstat(fd).st_ino for fd in (*config.preserved, *config.stdio, config.log_fd)]

ours, theirs = socket.socketpair()
answer, tell = os.pipe()
pid = os.fork()
if not pid:
    ours.close()
    handed = early._receive(theirs)
    os.write(tell, repr((serials(handed.config), handed.terms.held, handed.switches)).encode())
    os._exit(0)
os.close(tell)
theirs.close()
for _ in range(40):
    os.memfd_create("so that numbers differ")
fds = [os.memfd_create("") for _ in range(600)]
process = ProcessConfig((b"/bin/true",), env=(b"A=" + bytes(1 << 20),))
config = SandboxConfig("c1", process, preserved=tuple(fds[4:]), stdio=tuple(fds[:3]), log_fd=fds[3])
terms = Terms(held=True, before_gofer=lambda: "")
assert early.Waiting(pid, ours).hand_over(config, Switches(trap=True), terms) == pid
with os.fdopen(answer) as file:
    assert file.read() == repr((serials(config), True, Switches(trap=True)))
os.waitpid(pid, 0)
"""


def test_configuration_and_descriptors_arrive_on_the_same_numbers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HAND_OVER], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_a_command_line_that_ends_hands_nothing_over() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(early.HEAD.pack(100, 1))
        ours.close()

        assert early._receive(theirs) is None
