"""iproute2 makes interfaces and namespaces, and shows them, as on Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.test_tun import with_device

pytestmark = [
    pytest.mark.full,
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="needs /dev/kvm"),
]
SCRIPT = """
exec 2>&1
ip netns add foo
ip link add veth0 address 02:00:00:00:00:01 type veth \
    peer name veth1 address 02:00:00:00:00:02 netns foo
ip addr add 10.7.0.1/24 dev veth0; ip link set veth0 up
ip -n foo addr add 10.7.0.2/24 dev veth1; ip -n foo link set veth1 up
ip -o link show veth0 | sed 's/ gso.*//'; ip -4 -o addr show veth0
ip -n foo -o link show veth1; ip -n foo route
ip link add d0 address 02:00:00:00:00:03 type dummy; ip link set d0 netns foo name d1
ip -n foo -br link show d1
ip tuntap add mode tun name vpn user 5; ip tuntap list
ip link add br0 address 02:00:00:00:00:04 type bridge ageing_time 12000
ip link set veth0 master br0; ip link set br0 up; ip link set veth0 type bridge_slave isolated on
bridge link set dev veth0 hairpin on; bridge -d link show | grep -Eo '(hairpin|isolated) o[nf]+'
ip -o link show master br0 | cut -d' ' -f2-12; ip -d link show br0 | grep -o 'ageing_time [0-9]*'
ip -br link show br0; ip link set veth0 nomaster; ip -br link show br0; ip link del br0
ip link add link veth0 name veth0.5 type vlan id 5
ip link del veth0; ip -n foo -br link; ip -br link show type tun
ip link del vpn; ip netns del foo; ip netns list; ip -br link
"""
TOLD = """\
2: veth0@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP \
mode DEFAULT group default qlen 1000\\    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff \
link-netns foo
2: veth0    inet 10.7.0.1/24 scope global veth0\\       valid_lft forever preferred_lft forever
2: veth1@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP \
mode DEFAULT group default qlen 1000\\    link/ether 02:00:00:00:00:02 brd ff:ff:ff:ff:ff:ff \
link-netnsid 0
10.7.0.0/24 dev veth1 proto kernel scope link src 10.7.0.2
d1               DOWN           02:00:00:00:00:03 <BROADCAST,NOARP>
vpn: tun persist user 5
hairpin on
isolated on
veth0@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master br0 state UP mode
ageing_time 12000
br0              UP             02:00:00:00:00:04 <BROADCAST,MULTICAST,UP,LOWER_UP>
br0              DOWN           02:00:00:00:00:04 <NO-CARRIER,BROADCAST,MULTICAST,UP>
RTNETLINK answers: Operation not supported
lo               DOWN           00:00:00:00:00:00 <LOOPBACK>
d1               DOWN           02:00:00:00:00:03 <BROADCAST,NOARP>
vpn              DOWN           <POINTOPOINT,MULTICAST,NOARP>
lo               UNKNOWN        00:00:00:00:00:00 <LOOPBACK,UP,LOWER_UP>
"""


def test_interfaces_and_namespaces_are_made_and_shown(tmp_path: Path, languages: Path) -> None:
    bundle = Bundle(tmp_path / "bundle", languages).args("sh", "-c", SCRIPT)
    bundle.configure(with_device)
    bundle.document["root"]["readonly"] = False
    bundle.document["mounts"].append(
        {"destination": "/run", "type": "tmpfs", "source": "none", "options": []}
    )
    done = bundle.run(flags=["--network=none"])
    assert (done.stdout.replace(" \n", "\n"), done.stderr) == (TOLD, "")
