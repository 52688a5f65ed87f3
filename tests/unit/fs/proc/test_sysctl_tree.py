"""sentry.fs.proc.sysctl_tree: /proc/sys, which is imported when somebody looks into it."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.stat import S_IFDIR, S_IFREG
from sentry.errors import EEXIST, ENOTDIR
from sentry.fs.proc.filesystem import ProcFs
from sentry.fs.proc.folders import check_new, has_left
from sentry.fs.proc.sysctl_tree import SYSCTLS, tree
from sentry.kernel.pids import Pids
from sentry.kernel.services import Services
from sentry.vfs.interface import ABSENT

LATE = """
import sys
from types import SimpleNamespace
from sentry.fs.proc.filesystem import ProcFs
from sentry.kernel.kernel import Kernel
from sentry.kernel.pids import Pids
from sentry.kernel.services import Services

def known():
    return "sentry.fs.proc.sysctl" in sys.modules

vfs = SimpleNamespace(new_dev=lambda: 33, now_ns=lambda: 0)
root = ProcFs(SimpleNamespace(vfs=vfs, pids=Pids(100), services=Services())).root
folder = root.lookup_cached(b"sys")
assert not known() and not root.stale(folder)
folder.lookup_cached(b"nothing")
assert known()
"""


@pytest.fixture
def root() -> Any:
    vfs = SimpleNamespace(new_dev=lambda: 33, now_ns=lambda: 0)
    return ProcFs(SimpleNamespace(vfs=vfs, pids=Pids(100), services=Services())).root


def lookup(inode: Any, path: str) -> Any:
    for name in path.encode().split(b"/"):
        inode = inode.lookup_cached(name)
    return inode


def test_nobody_looks_into_it_imports_no_value() -> None:
    subprocess.run([sys.executable, "-c", LATE], check=True)


def test_every_value_is_a_file(root: Any) -> None:
    assert len(SYSCTLS) > 400
    for path in SYSCTLS:
        assert lookup(root, f"sys/{path}").kind == S_IFREG


def test_its_directories_are_listed(root: Any) -> None:
    folder = lookup(root, "sys")
    assert dict(folder.names()) == {name.encode(): S_IFDIR for name in tree()}
    assert folder.links() == 2 + len(tree())
    assert folder.lookup_cached(b"nothing") is ABSENT
    assert (b"sys", S_IFDIR) in root.names()


def test_of_networks_there_is_a_directory_for_each_interface(root: Any) -> None:
    conf = lookup(root, "sys/net/ipv4/conf")
    names = {name for name, _ in conf.names()}
    assert names == {b"all", b"default", b"lo"}
    assert conf.lookup_cached(b"eth0") is None  # it depends on who looks


def test_it_stays_whatever_is_served(root: Any) -> None:
    assert not has_left(lookup(root, "sys"))


def test_what_is_served_does_not_take_its_place() -> None:
    with pytest.raises(EEXIST):
        check_new("sys/kernel/hostname", ())
    with pytest.raises(ENOTDIR):
        check_new("sys/kernel/hostname/x", ())
    check_new("sys/kernel/nothing", ())
