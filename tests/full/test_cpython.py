"""CPython's own tests: in a sandbox none comes out worse than in a container of runc.

The tests are those of Debian's libpython3.13-testsuite. Both containers have the same config.json;
what runc's container fails or leaves out as well says nothing about us.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.e2e.bundle import REPOSITORY, Bundle, Document, kvm_is_usable

MODULE_TIMEOUT_S = 900
pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.alike,
    pytest.mark.timeout(2 * MODULE_TIMEOUT_S + 60),
    pytest.mark.skipif(not shutil.which("runc"), reason="needs runc"),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
CAPABILITIES = (
    "CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD "
    "CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_CHROOT"
)
"""What docker gives."""
MODULES = (
    "asyncgen asyncio audit cmd_line concurrent_futures ctypes dbm eintr epoll faulthandler fcntl "
    "file fileio fork1 gc getpass glob grp httpservers interpreters io ioctl largefile "
    "mailbox memoryview mmap multiprocessing_fork multiprocessing_forkserver "
    "multiprocessing_main_handling multiprocessing_spawn openpty os pathlib poll popen posix "
    "posixpath pty pwd queue readline repl resource sched select selectors shutil signal socket "
    "socketserver sqlite3 stat statistics subprocess support tarfile tempfile termios thread "
    "threading threadsignals time timeout tty uuid venv wait3 wait4 zipfile"
)
UNPRIVILEGED = "glob httpservers mailbox os pathlib posix shutil signal subprocess tempfile"
"""Those that test other things when they are not run by root."""
USER = 1000
ONE_MILLISECOND = """
    test_timerfd_TFD_TIMER_ABSTIME test_timerfd_initval test_timerfd_interval test_timerfd_select
    test_timerfd_ns_TFD_TIMER_ABSTIME test_timerfd_ns_initval test_timerfd_ns_interval
    test_timerfd_ns_select
"""
"""These allow a millisecond from timerfd_settime(2) to their next look at a clock, which a program
in a sandbox may exceed on a busy machine. They may fail, but neither hang nor raise."""
MAY_FAIL = {f"test.test_os.TimerfdTests.{name}" for name in ONE_MILLISECOND.split()}
SHOWN = 20000
"""Characters of the output that a failure shows: the tracebacks are at the end."""
ORDER = {"ok": 0, "skipped": 1, "failure": 2, "error": 2, "missing": 3}


@pytest.fixture(scope="module")
def copy(cpython: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root file system that runc's containers write to; in a sandbox that stays in memory."""
    made = tmp_path_factory.mktemp("cpython") / "rootfs"
    subprocess.run(["cp", "-a", "--reflink=auto", cpython, made], check=True)
    yield made
    shutil.rmtree(made)


def _configured(document: Document, results: Path, uid: int) -> None:
    process = document["process"]
    process["noNewPrivileges"] = False
    sets = () if uid else ("bounding", "effective", "permitted")
    process["capabilities"] = dict.fromkeys(sets, CAPABILITIES.split())
    process["user"] = {"uid": uid, "gid": uid}
    process["cwd"] = "/tmp"
    process["env"] += ["HOME=/tmp", "LANG=C.UTF-8"]
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}]
    document["root"]["readonly"] = False
    document["mounts"] = [m for m in document["mounts"] if m["destination"] != "/sys/fs/cgroup"]
    document["mounts"].append(
        {"destination": "/results", "type": "bind", "source": str(results), "options": ["rbind"]}
    )


def _outcomes(command: list[str], results: Path) -> tuple[dict[str, str], str]:
    """Run it to the end: how each test came out, and what was printed."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=MODULE_TIMEOUT_S,
        check=False,
        cwd=REPOSITORY,
    )
    report = results / "report.xml"
    assert report.exists(), done.stdout[-SHOWN:]
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ORDER]
        found[case.get("name", "?")] = kinds[0] if kinds else "ok"
    report.unlink()
    return found, done.stdout


@pytest.mark.parametrize(
    ("module", "uid"),
    [(name, 0) for name in MODULES.split()] + [(name, USER) for name in UNPRIVILEGED.split()],
)
def test_no_test_of_cpython_comes_out_worse_than_under_runc(
    module: str, uid: int, cpython: Path, copy: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    results.chmod(0o777)
    bundle = Bundle(tmp_path / "bundle", cpython)
    bundle.configure(lambda document: _configured(document, results, uid))
    test = ["-m", "test", "-v", "-u", "network,walltime", "--junit-xml=/results/report.xml"]
    bundle.args("/usr/bin/python3", *test, f"test_{module}")
    log = tmp_path / "log"

    command = bundle.command(flags=["--network=none", f"--debug-log={log}"])
    ours, printed = _outcomes(command, results)
    bundle.document["root"]["path"] = str(copy)
    theirs, _ = _outcomes(
        ["runc", f"--root={tmp_path}/runc", "run", f"--bundle={bundle.write()}", tmp_path.name],
        results,
    )

    worse = {
        name: f"{ours.get(name, 'missing')}, {outcome} under runc"
        for name, outcome in theirs.items()
        if ORDER[ours.get(name, "missing")] > ORDER[outcome]
        and not (ours.get(name) == "failure" and name in MAY_FAIL)
    }
    assert not worse, printed[-SHOWN:]
    assert log.read_text() == ""
