"""The Sentry that waits for its configuration."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

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


COMMON = """
import gc, sys
from runsc.launch import early, isolation

kinds = []
def spawn(body):
    kinds.append((sys.getrefcount(early.Waiting), gc.get_freeze_count() > 1000))
    more = [early.Waiting] * 1000
    kinds.append((sys.getrefcount(early.Waiting), True))
    return 1
isolation.spawn = spawn
early.begin()
assert kinds[0][1] and kinds[0] == kinds[1], kinds
assert all("encode" in vars(each) for each in early.OF_BOTH_ENDS)
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 683")
def test_what_it_has_in_common_with_the_command_line_is_not_written_to() -> None:
    subprocess.run([sys.executable, "-c", COMMON], check=True)
