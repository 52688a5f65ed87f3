"""struct virtio_net_hdr, as the kernel reads and writes it."""

from __future__ import annotations

from sentry.abi.socket import IPPROTO_TCP, IPPROTO_UDP
from sentry.abi.virtio import (
    VIRTIO_NET_HDR,
    VIRTIO_NET_HDR_F_DATA_VALID,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6,
    VIRTIO_NET_HDR_GSO_UDP_L4,
)
from sentry.net.link import vnet
from sentry.net.link.vnet import Offload, Received


def built(offload: Offload, protocol: int = IPPROTO_TCP, *, is_v4: bool = True) -> tuple[int, ...]:
    data = vnet.build(offload, 14, protocol, is_v4=is_v4, header_size=40)
    header = VIRTIO_NET_HDR.unpack(data)
    return (
        header.flags, header.gso_type, header.hdr_len, header.gso_size, header.csum_start,
        header.csum_offset,
    )  # fmt: skip


def test_nothing_left_to_do_is_all_zeros() -> None:
    assert vnet.build(vnet.NOTHING, 14, IPPROTO_TCP, is_v4=True, header_size=40) == bytes(10)


def test_checksum_is_named_by_its_place_in_the_frame() -> None:
    needs, none = VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE
    assert built(Offload(20, 36)) == (needs, none, 0, 0, 34, 16)


def test_segments_have_a_kind_for_each_protocol_and_family() -> None:
    offload = Offload(20, 36, 1448)
    needs = VIRTIO_NET_HDR_F_NEEDS_CSUM
    assert built(offload) == (needs, VIRTIO_NET_HDR_GSO_TCPV4, 54, 1448, 34, 16)
    assert built(offload, is_v4=False)[1] == VIRTIO_NET_HDR_GSO_TCPV6
    assert built(offload, IPPROTO_UDP)[1] == VIRTIO_NET_HDR_GSO_UDP_L4


def test_sum_is_good_if_it_was_checked_or_never_was_on_a_wire() -> None:
    for flags, is_good in (
        (0, False), (VIRTIO_NET_HDR_F_NEEDS_CSUM, True), (VIRTIO_NET_HDR_F_DATA_VALID, True),
    ):  # fmt: skip
        data = bytes([flags]) + bytes(3) + (1448).to_bytes(2, "little") + bytes(4)
        assert vnet.parse(data + b"frame") == Received(is_good, 1448)
    assert vnet.parse(bytes(9)) is None
