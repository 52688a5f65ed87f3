"""Rules about objects, and programs that try to get round them."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable

import pytest

from sentry.errors import ENAMETOOLONG
from sentry.policy.places import MAX_PATH, path_of_file
from sentry.vfs.dentry import Dentry
from tests.unit.policy.conftest import TCP, UDP, UNIX, Ruled, inet, opens
from tests.world import Program

NO_ETC = """
    @on("openat", path="/etc/**")
    def no_etc(event):
        return DENY("EACCES")
"""


def test_a_file_that_matches_is_denied_and_others_are_not(world: Ruled) -> None:
    world.rule(NO_ETC)
    program = world.program()
    assert opens(program, b"/etc/shadow") == -13
    assert opens(program, b"/tmp/free") == 0


def by_dots(program: Program) -> int:
    return opens(program, b"/tmp/../etc/./shadow")


def by_directory(program: Program) -> int:
    fd = program.ok("openat", -100, b"/etc/..", os.O_PATH, 0)
    return program.call("openat", fd, b"etc/shadow", 0, 0)


def by_working_directory(program: Program) -> int:
    program.ok("chdir", b"/etc")
    return opens(program, b"shadow")


def by_symbolic_link(program: Program) -> int:
    program.ok("symlink", b"/etc/shadow", b"/tmp/s")
    return opens(program, b"/tmp/s")


def by_link_to_directory(program: Program) -> int:
    program.ok("symlink", b"/etc", b"/tmp/d")
    return opens(program, b"/tmp/d/shadow")


def by_open(program: Program) -> int:
    return program.call("open", b"/etc/shadow", 0, 0)


def by_openat2(program: Program) -> int:
    how = program.place(struct.pack("<3Q", 0, 0, 0))
    return program.call("openat2", -100, b"/etc/shadow", how, 24)


def by_openat2_in_root(program: Program) -> int:
    how = program.place(struct.pack("<3Q", 0, 0, 0x10))
    fd = program.ok("openat", -100, b"/", os.O_PATH, 0)
    return program.call("openat2", fd, b"/etc/shadow", how, 24)


def by_creat(program: Program) -> int:
    return program.call("creat", b"/etc/new", 0o644)


def by_creating(program: Program) -> int:
    result = opens(program, b"/etc/new", os.O_CREAT | os.O_WRONLY)
    assert program.call("access", b"/etc/new", 0) == -2, "it was made"
    return result


def by_exclusive_creation(program: Program) -> int:
    return opens(program, b"/etc/new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)


def by_creating_what_is_there(program: Program) -> int:
    return opens(program, b"/etc/shadow", os.O_CREAT | os.O_RDWR)


def by_dangling_link(program: Program) -> int:
    program.ok("symlink", b"/etc/new", b"/tmp/dangling")
    return opens(program, b"/tmp/dangling", os.O_CREAT | os.O_WRONLY)


def by_truncation(program: Program) -> int:
    result = opens(program, b"/etc/shadow", os.O_TRUNC)
    status = program.buffer(144)
    program.ok("stat", b"/etc/shadow", status)
    assert struct.unpack("<q", program.read(status + 48, 8)) == (5,)
    return result


def by_temporary_file(program: Program) -> int:
    return opens(program, b"/etc", 0o20200000 | os.O_RDWR)


def by_o_path(program: Program) -> int:
    return opens(program, b"/etc/shadow", os.O_PATH)


def by_hard_link(program: Program) -> int:
    return program.call("link", b"/etc/shadow", b"/tmp/hard")


def by_hard_link_of_descriptors(program: Program) -> int:
    fd = program.ok("openat", -100, b"/etc", os.O_PATH, 0)
    return program.call("linkat", fd, b"shadow", -100, b"/tmp/hard", 0)


def by_rename(program: Program) -> int:
    return program.call("rename", b"/etc/shadow", b"/tmp/moved")


def by_rename_of_directory(program: Program) -> int:
    return program.call("rename", b"/etc", b"/tmp/etc")


def by_rename_over(program: Program) -> int:
    return program.call("renameat2", -100, b"/tmp/free", -100, b"/etc/shadow", 0)


def by_exchange(program: Program) -> int:
    return program.call("renameat2", -100, b"/tmp", -100, b"/etc", 2)


def by_chroot(program: Program) -> int:
    program.ok("chroot", b"/etc")
    return opens(program, b"/shadow")


def by_bind_mount(program: Program) -> int:
    return program.call("mount", b"/etc", b"/tmp", 0, 4096, 0)


def by_bind_mount_of_the_file(program: Program) -> int:
    return program.call("mount", b"/etc/shadow", b"/tmp/free", 0, 4096, 0)


def by_bind_mount_of_the_root(program: Program) -> int:
    program.ok("mkdir", b"/tmp/m", 0o755)
    program.ok("mount", b"/tmp", b"/tmp/m", 0, 4096, 0)
    program.ok("chdir", b"/tmp/m")
    return opens(program, b"../../etc/shadow")


def by_tree_that_is_attached(program: Program) -> int:
    program.ok("mkdir", b"/tmp/m", 0o755)
    fd = program.ok("open_tree", -100, b"/etc", 1)
    program.ok("move_mount", fd, b"", -100, b"/tmp/m", 4)
    return opens(program, b"/tmp/m/shadow")


def by_mount_namespace(program: Program) -> int:
    program.ok("unshare", 0x20000)
    program.ok("mkdir", b"/tmp/m", 0o755)
    tree = program.ok("open_tree", -100, b"/", 1)
    program.ok("move_mount", tree, b"", -100, b"/tmp/m", 4)
    program.ok("chroot", b"/tmp/m")
    return opens(program, b"/etc/shadow")


def by_descriptor_of_a_mount(program: Program) -> int:
    fd = program.ok("open_tree", -100, b"/etc", 1)
    return program.call("openat", fd, b"shadow", 0, 0)


def by_overlay(program: Program) -> int:
    for name in (b"/tmp/m", b"/tmp/u", b"/tmp/w"):
        program.ok("mkdir", name, 0o755)
    options = b"lowerdir=/etc,upperdir=/tmp/u,workdir=/tmp/w"
    return program.call("mount", b"overlay", b"/tmp/m", b"overlay", 0, options)


def by_overlay_in_parts(program: Program) -> int:
    fd = program.ok("fsopen", b"overlay", 0)
    result = program.call("fsconfig", fd, 1, b"lowerdir", b"/etc:/tmp", 0)
    return result or program.call("fsconfig", fd, 6, 0, 0, 0)


def by_handle(program: Program) -> int:
    handle = program.place(struct.pack("<Ii", 128, 0) + bytes(128))
    program.ok("name_to_handle_at", -100, b"/etc/shadow", handle, program.buffer(4), 0)
    root = program.ok("openat", -100, b"/", 0, 0)
    return program.call("open_by_handle_at", root, handle, 0)


def by_vfork_child(program: Program) -> int:
    call = program.begin("vfork")
    program.world.settle()
    tids = set(program.world.kernel.pids.tasks) - {program.task.tid}
    child = Program(program.world, program.world.kernel.pids.tasks[max(tids)])
    result = opens(child, b"/etc/shadow")
    child.begin("exit_group", 0)
    call.wait()
    return result


@pytest.mark.parametrize(
    "attempt",
    [
        by_dots, by_directory, by_working_directory, by_symbolic_link, by_link_to_directory,
        by_open, by_openat2, by_openat2_in_root, by_creat, by_creating, by_exclusive_creation,
        by_creating_what_is_there, by_dangling_link, by_truncation, by_temporary_file, by_o_path,
        by_hard_link, by_hard_link_of_descriptors, by_rename, by_rename_of_directory,
        by_rename_over, by_exchange, by_chroot, by_bind_mount, by_bind_mount_of_the_file,
        by_bind_mount_of_the_root, by_tree_that_is_attached, by_overlay, by_overlay_in_parts,
        by_mount_namespace, by_descriptor_of_a_mount, by_handle, by_vfork_child,
    ],
)  # fmt: skip
def test_a_file_is_the_same_whichever_way_leads_there(
    world: Ruled, attempt: Callable[[Program], int]
) -> None:
    world.rule(NO_ETC)
    assert attempt(world.program()) == -13


def test_a_link_to_a_descriptor_leads_to_what_it_is(world: Ruled) -> None:
    world.mount("proc", b"/proc")
    program = world.program()
    fd = program.ok("openat", -100, b"/etc/shadow", os.O_PATH, 0)
    world.rule(NO_ETC)
    assert opens(program, b"/proc/self/fd/%d" % fd) == -13
    assert opens(program, b"/proc/self/root/etc/shadow") == -13


def test_what_a_name_of_a_directory_leads_to_is_seen_before_it_changes(world: Ruled) -> None:
    world.rule("""
        @on("openat", path="/home/*/.ssh/**")
        def no_keys(event):
            return DENY("EACCES")
    """)
    program = world.program()
    for name in (b"/home", b"/home/me", b"/home/me/.ssh"):
        program.ok("mkdir", name, 0o755)
    assert program.call("rename", b"/home/me", b"/tmp/me") == -13
    assert program.call("rename", b"/home/me/.ssh", b"/tmp/ssh") == -13
    assert program.call("rename", b"/tmp/free", b"/tmp/freed") == 0


def test_a_rule_about_removal_holds_for_all_calls_that_remove(world: Ruled) -> None:
    world.rule("""
        @on("unlink", path="/etc/*")
        def keep(event):
            return DENY("EROFS") if event.path == "/etc/shadow" else None
    """)
    program = world.program()
    assert program.call("unlink", b"/etc/shadow") == -30
    assert program.call("unlinkat", -100, b"/tmp/../etc/shadow", 0) == -30
    assert program.call("unlink", b"/tmp/free") == 0


def test_a_handler_sees_what_is_opened_by_whom(world: Ruled) -> None:
    world.rule("""
        @on.open(path="/etc/**")
        def saw(event):
            print(event.call, event.path, event.writes, event.creates, event.args["flags"])
    """)
    opens(world.program(), b"/etc/new", os.O_CREAT | os.O_WRONLY)
    assert "openat /etc/new True True 65" in world.logged


NO_NET = """
    @on.connect(address=["10.0.0.0/8", "127.0.0.0/8", "2001:db8::/32"])
    def no_net(event):
        return DENY("EACCES")
"""


def test_an_address_is_denied_whichever_call_leads_there(world: Ruled) -> None:
    world.rule(NO_NET)
    program = world.program()
    udp = program.ok("socket", *UDP, 0)
    tcp = program.ok("socket", *TCP, 0)
    target = inet("10.1.2.3", 80)
    assert program.call("connect", tcp, target, 16) == -13
    assert program.call("connect", udp, target, 16) == -13
    assert program.call("sendto", udp, b"x", 1, 0, target, 16) == -13
    assert program.call("sendto", tcp, b"x", 1, 0x20000000, target, 16) == -13
    name, iov = program.place(target), program.place(struct.pack("<QQ", program.place(b"x"), 1))
    message = program.place(struct.pack("<QIxxxxQQQQixxxx", name, 16, iov, 1, 0, 0, 0) + bytes(8))
    assert program.call("sendmsg", udp, message, 0) == -13
    assert program.call("sendmmsg", udp, message, 1, 0) == -13


@pytest.mark.parametrize(
    "ip",
    [
        bytes(10) + b"\xff\xff\x0a\1\2\3", bytes(15) + b"\1", bytes(16),
        b"\x20\1\x0d\xb8" + bytes(12),
    ],
    ids=["mapped", "loopback", "wildcard", "ipv6"],
)
def test_an_address_of_ipv6_is_what_it_leads_to(world: Ruled, ip: bytes) -> None:
    raw = struct.pack("<H", 10) + struct.pack(">H4x16s4x", 80, ip)
    world.rule(NO_NET.replace("2001:db8::/32", "2001:db8::/32\", \"::1"))
    program = world.program()
    sock = program.ok("socket", 10, 2, 0)
    assert program.call("sendto", sock, b"x", 1, 0, raw, 28) == -13


def test_the_wildcard_is_the_loopback_address(world: Ruled) -> None:
    world.rule(NO_NET)
    program = world.program()
    assert program.call("connect", program.ok("socket", *TCP, 0), inet("0.0.0.0", 80), 16) == -13


def test_an_address_can_be_changed(world: Ruled) -> None:
    world.rule("""
        @on.connect(port=80)
        def elsewhere(event):
            return CHANGE(address="127.0.0.1", port=8080)
    """)
    program = world.program()
    sock = program.ok("socket", *UDP, 0)
    program.ok("connect", sock, inet("192.0.2.1", 80), 16)
    name, length = program.buffer(16), program.place(struct.pack("<i", 16))
    program.ok("getpeername", sock, name, length)
    assert program.read(name, 8) == inet("127.0.0.1", 8080)[:8]


def test_what_an_address_is_changed_to_is_judged(world: Ruled) -> None:
    world.rule("""
        @on.connect(port=80)
        def elsewhere(event):
            return CHANGE(port=81)

        @on.connect(port=81)
        def not_there(event):
            return DENY("ECONNREFUSED") if event.changed else ALLOW
    """)
    program = world.program()
    sock = program.ok("socket", *UDP, 0)
    assert program.call("connect", sock, inet("127.0.0.1", 80), 16) == -111
    assert program.call("connect", sock, inet("127.0.0.1", 81), 16) == 0


def test_sockets_of_names_are_known_by_what_a_path_leads_to(world: Ruled) -> None:
    program = world.program()
    server = program.ok("socket", 1, 1, 0)
    program.ok("bind", server, b"\1\0/tmp/socket", 14)
    program.ok("listen", server, 1)
    program.ok("symlink", b"/tmp/socket", b"/tmp/other")
    world.rule("""
        @on.connect
        def no_socket(event):
            if event.family == "unix" and event.address in ("/tmp/socket", "@name"):
                return DENY("EACCES")
    """)
    client = program.ok("socket", 1, 1, 0)
    assert program.call("connect", client, b"\1\0/tmp/other", 13) == -13
    assert program.call("connect", client, b"\1\0\0name", 7) == -13


def test_a_path_can_be_changed_and_what_it_leads_to_is_judged(world: Ruled) -> None:
    world.rule("""
        @on("openat", path="/tmp/free")
        def another(event):
            return CHANGE(path="/etc/shadow")

        @on("openat", path="/etc/*")
        def saw(event):
            print("changed", event.changed, event.path)
    """)
    assert opens(world.program(), b"/tmp/free") == 0
    assert "changed True /etc/shadow" in world.logged


def test_a_path_that_is_changed_twice_is_denied(world: Ruled) -> None:
    world.rule("""
        @on("openat")
        def round(event):
            return CHANGE(path="/tmp/free")
    """)
    assert opens(world.program(), b"/etc/shadow") == -1


def test_a_rule_for_a_program_is_about_the_file_not_about_what_is_mounted_there(
    world: Ruled,
) -> None:
    program = world.program()
    program.ok("mkdir", b"/bin", 0o755)
    for name in (b"/bin/good", b"/tmp/evil"):
        program.ok("openat", -100, name, os.O_CREAT | os.O_WRONLY, 0o755)
    program.ok("mount", b"/tmp/evil", b"/bin/good", 0, 4096, 0)
    fd = program.ok("openat", -100, b"/bin/good", 0, 0)
    program.task.group.exe = program.task.files.get(fd).location
    world.rule("""
        @on("openat", path="/etc/*", program="/bin/good")
        def good(event):
            return ALLOW

        @on("openat", path="/etc/*")
        def others(event):
            return DENY("EACCES")
    """)
    assert opens(program, b"/etc/shadow") == -13


@pytest.mark.parametrize("family", [2, 0])
def test_an_address_of_no_family_is_one_of_the_sockets_own(world: Ruled, family: int) -> None:
    world.rule(NO_NET)
    program = world.program()
    sock = program.ok("socket", *UDP, 0)
    target = struct.pack("<H", family) + inet("0.0.0.0", 80)[2:]
    assert program.call("sendto", sock, b"x", 1, 0, target, 16) == -13


def test_no_raw_packet_leaves_by_an_address_of_no_family(world: Ruled) -> None:
    world.rule("""
        @on.connect(address="::1")
        def no_loopback(event):
            return DENY("EACCES")
    """)
    program = world.program()
    sock = program.ok("socket", 10, 3, 58)
    target = struct.pack("<HHI", 0, 0, 0x01020304) + bytes(15) + b"\1" + bytes(4)
    assert program.call("sendto", sock, bytes(8), 8, 0, target, 28) == -13


def test_a_port_is_not_bound_by_an_address_of_no_family(world: Ruled) -> None:
    world.rule("""
        @on.bind(port=8080)
        def not_that(event):
            return DENY("EACCES")
    """)
    program = world.program()
    sock = program.ok("socket", *TCP, 0)
    target = bytes(2) + inet("0.0.0.0", 8080)[2:]
    assert program.call("bind", sock, target, 16) == -13


def test_a_connection_may_be_given_up(world: Ruled) -> None:
    world.rule(NO_NET.replace("10.0.0.0/8", "0.0.0.0/0"))
    program = world.program()
    sock = program.ok("socket", *UDP, 0)
    assert program.call("connect", sock, bytes(16), 16) == 0


ALLOWED = """
    @on.open(path="/pub/**")
    def public(event):
        return ALLOW

    @on.open
    def others(event):
        return DENY("EACCES")
"""


def test_a_file_that_may_not_be_opened_gets_no_name_that_may(world: Ruled) -> None:
    program = world.program()
    program.ok("mkdir", b"/pub", 0o755)
    program.ok("close", program.ok("openat", -100, b"/pub/mine", os.O_CREAT, 0o644))
    world.rule(ALLOWED)
    assert program.call("rename", b"/etc/shadow", b"/pub/shadow") == -13
    assert program.call("rename", b"/etc", b"/pub/etc") == -13
    assert program.call("link", b"/etc/shadow", b"/pub/shadow") == -13
    assert program.call("renameat2", -100, b"/etc/shadow", -100, b"/pub/mine", 2) == -13
    options = b"lowerdir=/etc:/tmp"
    assert program.call("mount", b"overlay", b"/pub", b"overlay", 0, options) == -13
    assert program.call("rename", b"/pub/mine", b"/pub/yours") == 0
    assert program.call("mount", b"none", b"/", 0, 1 << 18, 0) == 0, "it gives nothing a name"


def test_a_socket_gets_no_other_name(world: Ruled) -> None:
    program = world.program()
    server = program.ok("socket", *UNIX, 0)
    program.ok("bind", server, b"\1\0/tmp/socket", 14)
    program.ok("listen", server, 1)
    program.ok("close", program.ok("openat", -100, b"/tmp/file", os.O_CREAT, 0o644))
    world.rule("""
        @on.connect(path="/tmp/*")
        def not_that(event):
            return DENY("EACCES")
    """)
    assert program.call("rename", b"/tmp/socket", b"/other") == -13
    assert program.call("link", b"/tmp/socket", b"/other") == -13
    assert program.call("rename", b"/tmp", b"/other") == -13
    assert program.call("rename", b"/tmp/file", b"/other") == 0


ALLOWED_SOCKETS = """
    @on.open
    def all_files(event):
        return ALLOW

    @on.open(path="/etc/**")
    def no_etc(event):
        return DENY

    @on.connect(path="/run/a/*")
    def known(event):
        return ALLOW

    @on.connect(port=80)
    def web(event):
        return DENY("EIO")

    @on.connect
    def others(event):
        return DENY("EACCES")
"""


def test_a_socket_that_may_not_be_connected_to_gets_no_name_that_may(world: Ruled) -> None:
    program = world.program()
    for folder in (b"/run", b"/run/a", b"/tmp/b", b"/tmp/c"):
        program.ok("mkdir", folder, 0o755)
    for name in (b"/tmp/b/evil", b"/run/a/good"):
        program.ok("bind", program.ok("socket", *UNIX, 0), b"\1\0" + name + b"\0", len(name) + 3)
    program.ok("close", program.ok("openat", -100, b"/tmp/file", os.O_CREAT, 0o644))
    world.rule(ALLOWED_SOCKETS)
    assert program.call("rename", b"/tmp/b/evil", b"/run/a/new") == -13
    assert program.call("rename", b"/tmp/b/evil", b"/run/a/good") == -13
    assert program.call("link", b"/tmp/b/evil", b"/run/a/new") == -13
    fd = program.ok("openat", -100, b"/tmp/b/evil", os.O_PATH, 0)
    assert program.call("linkat", fd, b"", -100, b"/run/a/new", 0x1000) == -13
    for old, new in ((b"/tmp/b/evil", b"/run/a/good"), (b"/run/a/good", b"/tmp/b/evil")):
        assert program.call("renameat2", -100, old, -100, new, 2) == -13
    assert program.call("renameat2", -100, b"/run/a", -100, b"/tmp/b", 2) == -13
    assert program.call("rename", b"/tmp/b", b"/run/a/x") == -13
    assert program.call("rename", b"/tmp/file", b"/run/a/file") == 0, "no socket"
    assert program.call("rename", b"/tmp/c", b"/tmp/d") == 0, "no name that is allowed"
    assert program.call("rename", b"/tmp/b/evil", b"/tmp/b/worse") == 0
    assert program.call("rename", b"/run/a/good", b"/run/a/better") == 0, "it was allowed before"
    assert program.call("rename", b"/run/a/better", b"/tmp/gone") == 0


def test_what_may_be_opened_may_not_be_connected_to_yet(world: Ruled) -> None:
    """An ALLOW of a rule about files is none about sockets; that of one about names is for all."""
    program = world.program()
    program.ok("bind", program.ok("socket", *UNIX, 0), b"\1\0/tmp/socket\0", 14)
    rules = """
        @on("openat", path="/**")
        def files(event):
            return ALLOW

        @on.connect(path="/tmp/socket")
        def not_that(event):
            return DENY("EACCES")
    """
    world.rule(rules)
    assert program.call("rename", b"/tmp/socket", b"/other") == -13
    world.rule("""
        @on("rename", path="/**")
        def names(event):
            return ALLOW
    """ + rules)
    assert program.call("rename", b"/tmp/socket", b"/other") == 0


def test_who_may_give_away_a_name_may_not_give_any_other(world: Ruled) -> None:
    program = world.program()
    for folder in (b"/run", b"/run/a"):
        program.ok("mkdir", folder, 0o755)
    for name in (b"/tmp/evil", b"/run/a/good"):
        program.ok("bind", program.ok("socket", *UNIX, 0), b"\1\0" + name + b"\0", len(name) + 3)
    names = """
    @on("rename", path="/tmp/*")
    def names(event):
        return ALLOW

    @on("renameat2", path="/tmp/*")
    def names_too(event):
        return ALLOW
"""
    world.rule(names + ALLOWED_SOCKETS)
    assert program.call("rename", b"/tmp/evil", b"/run/a/new") == -13
    for old, new in ((b"/tmp/evil", b"/run/a/good"), (b"/run/a/good", b"/tmp/evil")):
        assert program.call("renameat2", -100, old, -100, new, 2) == -13
    assert program.call("rename", b"/tmp/evil", b"/tmp/other") == 0
    world.rule(names.replace('"/tmp/*"', '["/tmp/*", "/run/a/new"]') + ALLOWED_SOCKETS)
    assert program.call("rename", b"/tmp/other", b"/run/a/new") == 0


@pytest.mark.parametrize("steps_ns", [500_000, -(10**12)], ids=["at once", "in steps"])
@pytest.mark.parametrize("lowers", [b"/", b"/tmp/a:/etc", b"/tmp/a:/tmp/b:/"])
def test_nothing_lies_below_an_overlay_however_long_it_takes(
    world: Ruled, monkeypatch: pytest.MonkeyPatch, lowers: bytes, steps_ns: int
) -> None:
    world.rule(NO_ETC)
    program = world.program()
    for name in (b"/tmp/a", b"/tmp/b", b"/tmp/m"):
        program.ok("mkdir", name, 0o755)
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", steps_ns)
    options = b"lowerdir=" + lowers + (b":/tmp/b" if lowers == b"/" else b"")
    assert program.call("mount", b"overlay", b"/tmp/m", b"overlay", 0, options) == -13


def test_what_is_decided_while_a_call_sleeps_is_decided(
    world: Ruled, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.rule(NO_ETC.replace('DENY("EACCES")', "RESULT(7)"))
    program = world.program()
    for name in (b"/tmp/a", b"/tmp/m"):
        program.ok("mkdir", name, 0o755)
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", -(10**12))
    options = b"lowerdir=/tmp/a:/etc"
    assert program.call("mount", b"overlay", b"/tmp/m", b"overlay", 0, options) == 7
    assert "bug" not in world.logged.lower()


def test_a_removed_file_that_is_open_has_the_path_that_it_had(world: Ruled) -> None:
    program = world.program()
    program.ok("openat", -100, b"/etc/shadow", 0, 0)
    world.rule(NO_ETC)
    handle = program.place(struct.pack("<Ii", 128, 0) + bytes(128))
    program.ok("name_to_handle_at", -100, b"/etc/shadow", handle, program.buffer(4), 0)
    root = program.ok("openat", -100, b"/", 0, 0)
    program.ok("unlink", b"/etc/shadow")
    assert program.call("open_by_handle_at", root, handle, 0) == -13


def test_what_a_program_mounts_has_no_path_of_its_choice(world: Ruled) -> None:
    world.mount("proc", b"/proc")
    world.rule("""
        @on.open(path="/proc/**")
        def there(event):
            return DENY("EACCES")
    """)
    program = world.program()
    for name in (b"/bin", b"/tmp/p"):
        program.ok("mkdir", name, 0o755)
    program.ok("mount", b"none", b"/tmp/p", b"proc", 0, 0)
    program.ok("umount2", b"/proc", 2)
    assert opens(program, b"/tmp/p/self/status") == -13, "it is what /proc is"
    program.ok("mount", b"none", b"/bin", b"tmpfs", 0, 0)
    fd = program.call("openat", -100, b"/bin/curl", os.O_CREAT, 0o755)
    assert fd >= 0
    place = program.task.files.get(fd).location
    assert path_of_file(program.task, *place) == "tmpfs:/curl"


def test_a_path_without_an_end_costs_no_more_than_its_length(world: Ruled) -> None:
    program = world.program()
    world.rule("""
        @on.open(path="/**/a/**/a/**/a/**/b")
        def deep(event):
            return DENY("EACCES")
    """)
    for _ in range(400):
        program.ok("mkdir", b"a", 0o755)
        program.ok("chdir", b"a")
    began = time.thread_time_ns()
    assert opens(program, b"c", os.O_CREAT) == 0
    assert time.thread_time_ns() - began < 50_000_000
    assert opens(program, b"b", os.O_CREAT) == -13


def test_what_has_too_long_a_path_is_denied(world: Ruled) -> None:
    program = world.program()
    world.rule("""
        @on.open
        def all(event):
            return ALLOW

        @on("unlink", path="/tmp/x")
        def one(event):
            return DENY
    """)
    for _ in range(MAX_PATH // 256 + 1):
        program.ok("mkdir", b"d" * 255, 0o755)
        program.ok("chdir", b"d" * 255)
    for name in (b"c", b"c" * 100):
        assert opens(program, name, os.O_CREAT) == -ENAMETOOLONG.number
        assert program.call("unlink", name) == -ENAMETOOLONG.number
    program.ok("chdir", b"..")
    assert opens(program, b"c" * 100, os.O_CREAT) == 0
    program.ok("unlink", b"c" * 100)


def test_a_path_is_whole_or_there_is_none(world: Ruled) -> None:
    task, root = world.program().task, world.mounts.root.location
    bottom = root.dentry
    for _ in range(MAX_PATH // 2):
        bottom = Dentry(bottom, b"d", root.inode)
    assert path_of_file(task, root.mount, bottom) == "/d" * (MAX_PATH // 2)
    for _ in range(3):
        bottom = Dentry(bottom, b"d", root.inode)
        with pytest.raises(ENAMETOOLONG):
            path_of_file(task, root.mount, bottom)


def test_who_is_killed_is_hashed_no_more(world: Ruled) -> None:
    world.rule(f"""
        @on.execve(hash={"0" * 64!r})
        def none(event):
            return DENY
    """)
    program = world.program()
    file = program.ok("openat", -100, b"/tmp/large", os.O_CREAT | os.O_WRONLY, 0o755)
    program.ok("ftruncate", file, 1 << 36)
    program.ok("close", file)
    program.begin("execve", b"/tmp/large", 0, 0)
    world.loop.turn()
    program.task.group.exit(9)
    began = time.thread_time_ns()
    while not program.task.dead:
        world.loop.turn()
        assert time.thread_time_ns() - began < 1_000_000_000
