"""What a program may ask of an interface that it serves."""

from __future__ import annotations

import struct

import pytest

from sentry.abi import fcntl
from sentry.abi import tun as abi
from sentry.errors import EINVAL
from tests.world import Program, World

DEVICE = 10 << 8 | 200


def served(program: Program) -> int:
    """/dev/net/tun with an interface whose frames have a virtio header."""
    program.ok("mknod", b"/tun", 0o20600, DEVICE)
    fd = program.ok("open", b"/tun", fcntl.O_RDWR, 0)
    flags = abi.IFF_TUN | abi.IFF_NO_PI | abi.IFF_VNET_HDR
    program.ok("ioctl", fd, abi.TUNSETIFF, struct.pack("<16sH22x", b"t0", flags))
    return fd


@pytest.mark.parametrize(
    "size, is_taken", [(9, False), (12, True), (1 << 16, True), (1 << 30, False)]
)
def test_header_before_each_frame_has_a_size_that_can_be_read(size: int, is_taken: bool) -> None:
    with World() as world:
        program = world.program()
        fd = served(program)
        asked = program.call("ioctl", fd, abi.TUNSETVNETHDRSZ, struct.pack("<i", size))
        assert asked == (0 if is_taken else -EINVAL.number)
