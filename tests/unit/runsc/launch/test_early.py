"""The Sentry and the Gofer that wait for what they are to do."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import pytest

from runsc.filters import Switches
from runsc.launch import early, programs
from runsc.launch.boot import Terms

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
    handed = early.receive(theirs, early.Handover)
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
early._waiting.append(early.Waiting(pid, ours))
assert early.claim(early.PLATFORM)(config, Switches(trap=True), terms) == pid
with os.fdopen(answer) as file:
    assert file.read() == repr((serials(config), True, Switches(trap=True)))
os.waitpid(pid, 0)
"""


def test_configuration_and_descriptors_arrive_on_the_same_numbers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HAND_OVER], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


OF_GOFER = """
import os, socket
from runsc.launch import early
from runsc.filters import Switches
from runsc.launch.boot import Terms
from runsc.launch.gofer_start import GoferHandover, GoferStart
from runsc.launch.users import Entrance
from runsc.oci.exports import Export, Users

def serials(start, terms):
    fds = start.sock, start.log_fd, start.told, start.life, start.entrance.fd, *terms.joins
    owned = [fd for each in start.exports for fd in (each.owners_fd, each.lock_fd)]
    return [fd if fd < 0 else os.fstat(fd).st_ino for fd in (*fds, *owned, start.hold)]

ours, theirs = socket.socketpair()
answer, tell = os.pipe()
pid = os.fork()
if not pid:
    ours.close()
    handed = early.receive(theirs, GoferHandover)
    paths = [(each.path, each.owners) for each in handed.start.exports]
    os.write(tell, repr((serials(handed.start, handed.terms), paths)).encode())
    os._exit(0)
os.close(tell)
theirs.close()
for _ in range(40):
    os.memfd_create("so that numbers differ")
fds = [os.memfd_create("") for _ in range(9)]
exports = (
    Export("/a", True, lock_fd=fds[0]),
    Export("/b", False, owners=Users(((0, 1, 2),)), owners_fd=fds[1]),
)
start = GoferStart(
    fds[2], exports, fds[3], False, "c1", Entrance(fds[4], 0, 0), told=fds[5], life=fds[6]
)
terms = Terms(joins=(fds[7], fds[8]))
early._gofers.append(early.Waiting(pid, ours))
assert early.claim_gofer()(start, Switches(), terms) == pid
with os.fdopen(answer) as file:
    assert file.read() == repr((serials(start, terms), [(e.path, e.owners) for e in exports]))
os.waitpid(pid, 0)
"""


def test_trees_and_descriptors_of_a_gofer_arrive_on_the_same_numbers() -> None:
    subprocess.run([sys.executable, "-c", OF_GOFER], check=True)


def test_a_gofer_with_hooks_is_a_fork_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    waiting: list[Any] = [early.Waiting(0, ours)]
    monkeypatch.setattr(early, "_gofers", waiting)
    monkeypatch.setattr(programs, "forked_gofer", lambda serve: lambda *given: 7)
    start: Any = None

    with ours, theirs:
        assert early.claim_gofer()(start, Switches(), Terms(before_gofer=str)) == 7

    assert waiting


BOTH = """
import os
from runsc.launch import early, isolation

def spawn(body):
    pid = os.fork()
    if not pid:
        os._exit(body())
    return pid

def waits(sock):
    return 7 if not sock.recv(1) else 8

isolation.spawn, early._become, early._become_gofer = spawn, waits, waits
early.begin()
early.begin_gofer()
sentry, gofer = early._waiting[0], early._gofers[0]
sentry.leave()
assert os.waitstatus_to_exitcode(os.waitpid(sentry.pid, 0)[1]) == 7, "the Gofer has its socket"
early._waiting.clear()
assert not early.discard()
try:
    os.waitpid(gofer.pid, 0)
except ChildProcessError:
    os._exit(0)
"""


def test_each_sees_the_end_of_its_command_line_and_none_is_left() -> None:
    subprocess.run([sys.executable, "-c", BOTH], check=True, timeout=60)


def test_a_command_line_that_ends_hands_nothing_over() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(early.HEAD.pack(100, 1))
        ours.close()

        assert early.receive(theirs, early.Handover) is None


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


FEW_FILES = """
import os, resource, sys
from runsc.errors import RuntimeFailure
from runsc.launch import early, isolation

resource.setrlimit(resource.RLIMIT_NOFILE, (20, int(sys.argv[1])))
try:
    isolation.check_open_files()
except RuntimeFailure as error:
    sys.exit(print(error))

def become(sock):
    os.write(1, b"%d\\n" % resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return 0

(waiting,) = early._spawned(become)
os.waitpid(waiting.pid, 0)
"""


@pytest.mark.parametrize(
    ("hard", "said"),
    [(128, "128\n"), (20, "too few files may be open: 20, and a sandbox needs 64\n")],
)
def test_few_files_of_the_caller_are_no_limit_and_too_few_at_all_are_told(
    hard: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(hard)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (said, "")
