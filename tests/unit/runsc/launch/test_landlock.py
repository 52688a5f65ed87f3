"""What Gofer and network process may still do by Landlock alone: each case in a child."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from runsc import host
from runsc.launch import landlock
from sentry.abi.prctl import PR_SET_NO_NEW_PRIVS

pytestmark = pytest.mark.skipif(
    host.landlock_version() < landlock.OLDEST, reason="the kernel has no Landlock that we use"
)


def outcome(restrict: Callable[[], None], attempt: Callable[[], object]) -> int:
    """The errno of an attempt under a restriction, 0 if it succeeded."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            host.prctl(PR_SET_NO_NEW_PRIVS, 1)
            restrict()
            code = 0
            attempt()
        except OSError as error:
            code = error.errno or 254
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("served/a", "served/b", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "served/a/file").write_bytes(b"x")
    (tmp_path / "other/file").write_bytes(b"x")
    return tmp_path


def serves(path: Path, writable: bool = True) -> Callable[[], None]:
    fd = os.open(path, os.O_PATH)
    return lambda: landlock.restrict_gofer([landlock.Tree(fd, writable, path.is_dir())])


def test_gofer_reaches_its_tree_and_nothing_else(tree: Path) -> None:
    served = serves(tree / "served")

    assert outcome(served, lambda: os.open(tree / "served/a/file", os.O_RDWR | os.O_TRUNC)) == 0
    assert outcome(served, lambda: os.listdir(tree / "served/a")) == 0
    assert outcome(served, lambda: os.rename(tree / "served/a/file", tree / "served/b/f")) == 0
    assert outcome(served, lambda: os.open(tree / "other/file", os.O_RDONLY)) == errno.EACCES
    assert outcome(served, lambda: os.listdir(tree)) == errno.EACCES
    assert outcome(served, lambda: os.mkdir(tree / "other/new")) == errno.EACCES
    assert outcome(served, lambda: os.link(tree / "other/file", tree / "served/n")) == errno.EXDEV


def test_gofer_changes_nothing_that_is_read_only(tree: Path) -> None:
    served = serves(tree / "served", writable=False)

    assert outcome(served, lambda: os.open(tree / "served/a/file", os.O_RDONLY)) == 0
    for attempt in (
        lambda: os.open(tree / "served/a/file", os.O_WRONLY),
        lambda: os.open(tree / "served/a/new", os.O_WRONLY | os.O_CREAT),
        lambda: os.unlink(tree / "served/a/file"),
        lambda: os.mkdir(tree / "served/new"),
        lambda: os.truncate(tree / "served/a/file", 0),
    ):
        assert outcome(served, attempt) == errno.EACCES


def test_gofer_runs_no_program_and_makes_no_device(tree: Path) -> None:
    program = tree / "served/true"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    served = serves(tree / "served")

    assert outcome(served, lambda: os.execv(program, [program])) == errno.EACCES
    if os.geteuid() == 0:
        make = lambda: os.mknod(tree / "served/null", 0o020600, os.makedev(1, 3))  # noqa: E731
        assert outcome(served, make) == errno.EACCES


def test_gofer_of_a_file_reaches_that_file(tree: Path) -> None:
    served = serves(tree / "served/a/file")

    assert outcome(served, lambda: os.open(tree / "served/a/file", os.O_RDWR)) == 0
    assert outcome(served, lambda: os.listdir(tree / "served/a")) == errno.EACCES


@pytest.mark.skipif(host.landlock_version() < landlock.TCP_SINCE, reason="Landlock without TCP")
def test_network_process_connects_to_the_one_port_that_is_named() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as named,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        restrict = lambda: landlock.restrict_network(named.getsockname()[1])  # noqa: E731
        with socket.socket() as sock:
            assert outcome(restrict, lambda: sock.connect(named.getsockname())) == 0
        with socket.socket() as sock:
            assert outcome(restrict, lambda: sock.connect(other.getsockname())) == errno.EACCES


@pytest.mark.skipif(host.landlock_version() < landlock.TCP_SINCE, reason="Landlock without TCP")
def test_network_process_binds_and_connects_to_nothing(tree: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def connect() -> None:
            socket.socket().connect(("127.0.0.1", port))

        def bind() -> None:
            socket.socket().bind(("127.0.0.1", 0))

        assert outcome(landlock.restrict_network, connect) == errno.EACCES
        assert outcome(landlock.restrict_network, bind) == 0
        assert outcome(serves(tree), bind) == errno.EACCES
    forbidden = outcome(landlock.restrict_network, lambda: os.open(tree, os.O_RDONLY))
    assert forbidden == errno.EACCES


@pytest.mark.skipif(host.landlock_version() < landlock.TCP_SINCE, reason="Landlock without TCP")
def test_dialer_is_connected_to_sockets_that_it_can_name_and_opens_nothing(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as broker, socket.create_server(("127.0.0.1", 0)) as server:
        broker.bind(str(tree / "broker"))
        broker.listen()

        def connect() -> None:
            socket.socket(socket.AF_UNIX).connect(str(tree / "broker"))

        assert outcome(landlock.restrict_dialer, connect) == 0
        for attempt in (
            lambda: os.open(tree / "other/file", os.O_RDONLY),
            lambda: os.listdir(tree),
            lambda: socket.socket().connect(server.getsockname()),
            lambda: socket.socket().bind(("127.0.0.1", 0)),
        ):
            assert outcome(landlock.restrict_dialer, attempt) == errno.EACCES


@pytest.mark.skipif(host.landlock_version() < landlock.SCOPES_SINCE, reason="no scopes")
def test_abstract_sockets_of_others_and_signals_stay_outside(tree: Path) -> None:
    name = f"\0runsc-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        for restrict in (serves(tree), landlock.restrict_network, landlock.restrict_dialer):
            assert outcome(restrict, lambda: socket.socket(socket.AF_UNIX).connect(name)) == (
                errno.EPERM
            )
            assert outcome(restrict, lambda: os.kill(os.getppid(), 0)) == errno.EPERM
