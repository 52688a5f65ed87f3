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
bridge fdb add 02:00:00:00:00:09 dev veth0 master static
bridge fdb show dev veth0 | grep master | sort; bridge fdb del 02:00:00:00:00:09 dev veth0 master
ip -o link show master br0 | cut -d' ' -f2-12; ip -d link show br0 | grep -o 'ageing_time [0-9]*'
ip -br link show br0; ip link set veth0 nomaster; ip -br link show br0; ip link del br0
ip link add link veth0 name veth0.5 type vlan id 5
ip -d -o link show veth0.5 | grep -o 'vlan protocol.*HDR>'; ip -br link show type vlan
ip link add link veth0 name again type vlan id 5; ip link del veth0.5
ip rule add from 10.7.0.0/24 lookup 100 prio 5
ip rule add fwmark 0x7/0xff iif veth0 lookup 100 suppress_prefixlength 0 prio 6
ip -6 rule add to fd00::/64 lookup 7 prio 9; ip rule; ip -6 rule
ip rule del prio 6; ip rule del from 10.7.0.0/24; ip rule del prio 6
ip route add default via 10.7.0.9 table 100; ip route show table 100
ip route add 10.9.0.0/16 nexthop via 10.7.0.8 weight 2 nexthop via 10.7.0.9
ip route show 10.9.0.0/16; ip route add blackhole 10.10.0.0/16; ip route show 10.10.0.0/16
ip route add 10.11.0.0/16 via inet6 fe80::9 dev veth0; ip route show 10.11.0.0/16
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
02:00:00:00:00:01 master br0 permanent
02:00:00:00:00:09 master br0 static
veth0@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master br0 state UP mode
ageing_time 12000
br0              UP             02:00:00:00:00:04 <BROADCAST,MULTICAST,UP,LOWER_UP>
br0              DOWN           02:00:00:00:00:04 <NO-CARRIER,BROADCAST,MULTICAST,UP>
vlan protocol 802.1Q id 5 <REORDER_HDR>
veth0.5@veth0    DOWN           02:00:00:00:00:01 <BROADCAST,MULTICAST>
RTNETLINK answers: File exists
0:\tfrom all lookup local
5:\tfrom 10.7.0.0/24 lookup 100
6:\tfrom all fwmark 0x7/0xff iif veth0 lookup 100 suppress_prefixlength 0
32766:\tfrom all lookup main
32767:\tfrom all lookup default
0:\tfrom all lookup local
9:\tfrom all to fd00::/64 lookup 7
32766:\tfrom all lookup main
RTNETLINK answers: No such file or directory
default via 10.7.0.9 dev veth0
10.9.0.0/16
\tnexthop via 10.7.0.8 dev veth0 weight 2
\tnexthop via 10.7.0.9 dev veth0 weight 1
blackhole 10.10.0.0/16
10.11.0.0/16 via inet6 fe80::9 dev veth0
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
