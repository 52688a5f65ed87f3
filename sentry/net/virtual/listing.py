"""VLANs as /proc/net/vlan shows them: net/8021q/vlanproc.c."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

from sentry.abi.netlink import VLAN_FLAG_REORDER_HDR

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.net.virtual.vlan import Vlan

FLAGS: Final = 0x81021
"""Of struct net_device, for the kernel alone: that it is a VLAN, without a queue, and the like."""
PRIORITIES: Final = "0:0  1:0  2:0  3:0  4:0  5:0  6:0 7:0"


def vlans(stack: Stack) -> Iterator[Vlan]:
    """All of a stack."""
    for link in stack.interfaces.those_still_there():
        if link.driver is not None and link.driver.kind == "vlan":
            yield cast("Vlan", link.driver)


def config(stack: Stack) -> Iterator[str]:
    """vlan_seq_show()."""
    yield "VLAN Dev name\t | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n"
    for each in vlans(stack):
        yield f"{each.interface.name:<15}| {each.key[1]}  | {each.lower.interface.name}\n"


def shown(vlan: Vlan) -> str:
    """vlandev_seq_show()."""
    interface, (_, number) = vlan.interface, vlan.key
    packets, octets = interface.received
    sent, octets_sent = interface.sent or (0, 0)
    reorders = int(bool(vlan.vlan_flags & VLAN_FLAG_REORDER_HDR))
    return (
        f"{interface.name}  VID: {number}\t REORDER_HDR: {reorders}  dev->priv_flags: {FLAGS:x}\n"
        f"{'total frames received':>30} {packets:12}\n"
        f"{'total bytes received':>30} {octets:12}\n"
        f"{'Broadcast/Multicast Rcvd':>30} {vlan.groups:12}\n\n"
        f"{'total frames transmitted':>30} {sent:12}\n"
        f"{'total bytes transmitted':>30} {octets_sent:12}\n"
        f"Device: {vlan.lower.interface.name}\n"
        f"INGRESS priority mappings: {PRIORITIES}\n EGRESS priority mappings: \n"
    )
