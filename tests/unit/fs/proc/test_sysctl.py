"""sentry.fs.proc.sysctl: values below /proc/sys."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.fcntl import O_WRONLY
from sentry.auth.credentials import Credentials
from sentry.errors import EINVAL, ENOENT, EPERM
from sentry.fs.proc.sysctl import get_sysctl, set_sysctl
from sentry.fs.proc.sysctl_tree import SYSCTLS
from sentry.kernel.nsproxy import Uts
from sentry.kernel.pids import Pids
from sentry.kernel.services import Services
from sentry.net.namespace import NetNamespace
from sentry.vfs.budget import DescriptorLimit
from tests.world import World

PATHS = "kernel/core_pattern", "vm/swappiness"


@pytest.fixture
def kernel() -> Any:
    vfs = SimpleNamespace(protected_symlinks=True, descriptors=DescriptorLimit())
    return SimpleNamespace(services=Services(), uts=Uts(b"box"), vfs=vfs, pids=Pids(100))


@pytest.fixture
def reader(kernel: Any) -> Any:
    """A task, whose namespaces some values belong to."""
    ns = SimpleNamespace(
        uts=kernel.uts, net=NetNamespace(kernel, kernel.services.sysctls),
        ipc=SimpleNamespace(sysctls=kernel.services.sysctls, owner=None),
    )  # fmt: skip
    return SimpleNamespace(kernel=kernel, ns=ns, pids=kernel.pids, creds=Credentials.root())


def test_value_is_kept_for_each_kernel(kernel: Any) -> None:
    assert get_sysctl(kernel, "vm/swappiness") == "60"
    set_sysctl(kernel, "vm.swappiness", "10")
    assert get_sysctl(kernel, "vm/swappiness") == "10"
    other: Any = SimpleNamespace(services=Services())
    assert get_sysctl(other, "vm/swappiness") == "60"


def test_vector_takes_the_first_numbers(kernel: Any, reader: Any) -> None:
    set_sysctl(reader, "net/ipv4/ip_local_port_range", "1024 2000")
    assert get_sysctl(reader, "net/ipv4/ip_local_port_range") == "1024\t2000"
    set_sysctl(reader, "kernel.sem", "5 6")
    assert get_sysctl(reader, "kernel/sem") == "5\t6\t500\t32000"


def test_position_counts_while_writes_are_strict() -> None:
    with World() as world:
        program = world.program()
        world.mount("proc", b"/proc")
        pattern = program.ok("open", b"/proc/sys/kernel/core_pattern", O_WRONLY)
        number = program.ok("open", b"/proc/sys/vm/swappiness", O_WRONLY)

        def put(fd: int, data: bytes, offset: int) -> tuple[str, ...]:
            assert program.call("pwrite64", fd, program.place(data), len(data), offset) == len(data)
            return tuple(get_sysctl(world.kernel, path) for path in PATHS)

        assert put(pattern, b".%p", 4) == ("core.%p", "60")
        assert put(pattern, b"%e", 9) == ("core.%p", "60")
        assert put(pattern, bytes(1), 5) == ("core.", "60")
        assert put(number, b"5", 1) == ("core.", "60")
        assert put(pattern, b"x" * 2000, 5) == ("core." + "x" * 122, "60")
        set_sysctl(world.kernel, "kernel.sysctl_writes_strict", "-1")
        assert put(number, b"5", 1) == ("core." + "x" * 122, "5")
        assert put(pattern, b"%e", 4) == ("%e", "5")
        with pytest.raises(EINVAL):
            set_sysctl(world.kernel, "kernel.sysctl_writes_strict", "2")


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("kernel.msgmax", "0x10", "16"),
        ("kernel.msgmax", "010", "8"),
        ("kernel.msgmax", "2147483647", "2147483647"),
        ("kernel.shmmax", "18446744073709551615", "18446744073709551615"),
        ("net.ipv4.tcp_notsent_lowat", "4294967295", "4294967295"),
        ("net.ipv4.tcp_fin_timeout", "-0x1", "-1"),
    ],
)
def test_numbers_are_read_as_linux_reads_them(
    kernel: Any, reader: Any, name: str, value: str, kept: str
) -> None:
    who = reader if name.startswith(("net", "kernel.msg", "kernel.shm")) else kernel
    set_sysctl(who, name, value)
    assert get_sysctl(who, name.replace(".", "/")) == kept


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("kernel.nothing", "1", ENOENT),
        ("kernel.osrelease", "x", EPERM),
        ("vm.swappiness", "many", EINVAL),
        ("vm.swappiness", "", EINVAL),
        ("vm.swappiness", "--5", EINVAL),
        ("vm.swappiness", "09", EINVAL),
        ("vm.swappiness", "0x", EINVAL),
        ("vm.swappiness", "+5", EINVAL),
        ("kernel.msgmax", "2147483648", EINVAL),
        ("kernel.shmmax", "18446744073709551616", EINVAL),
        ("net.ipv4.tcp_keepalive_time", "2147483648", EINVAL),
        ("net.ipv4.tcp_fin_timeout", "-2147483649", EINVAL),
        ("net.ipv4.tcp_keepalive_time", "\N{SUPERSCRIPT TWO}", EINVAL),
        ("net.ipv4.tcp_keepalive_time", "--5", EINVAL),
        ("net.ipv4.ip_local_port_range", "1 2 3", EINVAL),
        ("net.ipv4.ip_local_port_range", "1 \N{SUPERSCRIPT TWO}", EINVAL),
        ("fs.mount-max", "\N{SUPERSCRIPT TWO}", EINVAL),
        ("fs.protected_symlinks", "7", EINVAL),
        ("fs.nr_open", "63", EINVAL),
        ("kernel.pid_max", "300", EINVAL),
        ("kernel.pid_max", "\N{SUPERSCRIPT TWO}", EINVAL),
        ("kernel.ns_last_pid", "4194305", EINVAL),
    ],
)
def test_what_cannot_be_set(
    kernel: Any, reader: Any, name: str, value: str, error: type[Exception]
) -> None:
    declared = SYSCTLS.get(name.replace(".", "/"))
    with pytest.raises(error):
        set_sysctl(reader if declared is not None and declared.of_reader else kernel, name, value)


def test_limits_of_numbers_are_the_kernels(kernel: Any, reader: Any) -> None:
    set_sysctl(kernel, "fs.nr_open", "64")
    set_sysctl(kernel, "kernel.pid_max", "301")
    set_sysctl(reader, "kernel.ns_last_pid", "76")

    assert kernel.vfs.descriptors.nr_open == 64
    assert kernel.pids.pid_max == 301
    assert kernel.pids.allocate() == 77
    assert get_sysctl(reader, "kernel/ns_last_pid") == "77"


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("msg_default", 1, 65536), ("msg_max", 1, 65536),
        ("msgsize_default", 128, 16 << 20), ("msgsize_max", 128, 16 << 20),
    ],
)  # fmt: skip
def test_queues_of_messages_are_made_with_values_that_linux_takes(
    reader: Any, name: str, least: int, most: int
) -> None:
    path = f"fs/mqueue/{name}"
    for value in (least, most):
        set_sysctl(reader, path, str(value))
        assert get_sysctl(reader, path) == str(value)
    for value in (0, least - 1, most + 1):
        with pytest.raises(EINVAL):
            set_sysctl(reader, path, str(value))


def test_host_name_is_the_kernels(kernel: Any, reader: Any) -> None:
    set_sysctl(reader, "kernel.hostname", "other")
    assert kernel.uts.nodename == b"other"
    assert get_sysctl(reader, "kernel/hostname") == "other"


def test_text_may_be_anything(kernel: Any) -> None:
    set_sysctl(kernel, "kernel.core_pattern", "/tmp/core.%p")
    assert get_sysctl(kernel, "kernel/core_pattern") == "/tmp/core.%p"


def test_boot_id_stays_and_uuid_does_not(kernel: Any) -> None:
    assert get_sysctl(kernel, "kernel/random/boot_id") == get_sysctl(
        kernel, "kernel/random/boot_id"
    )
    assert get_sysctl(kernel, "kernel/random/uuid") != get_sysctl(kernel, "kernel/random/uuid")


@pytest.mark.parametrize("name", [
    "net.ipv4.conf.all.src_valid_mark", "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.default.log_martians", "net.ipv4.conf.lo.accept_source_route",
    "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_mtu_probing", "net.ipv4.ip_no_pmtu_disc",
    "net.ipv4.tcp_notsent_lowat", "net.ipv4.tcp_no_metrics_save",
])  # fmt: skip
def test_what_users_of_docker_set_is_there(reader: Any, name: str) -> None:
    set_sysctl(reader, name, "1")
    assert get_sysctl(reader, name.replace(".", "/")) == "1"
