# Routes: which are taken, where they stand, how they are shown.
exec 2>&1
[ -n "$INNER" ] || INNER=1 exec unshare -nm bash "$0"
r() { echo "\$ $*"; "$@" 2>/dev/null; echo "=$?"; }
mount -t proc proc /proc; ip link set lo up
ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up
for each in v0 v1; do while ip -6 addr show dev $each | grep -q tentative; do sleep 0.1; done; done
ip addr add 10.1.0.1/24 dev v0; ip addr add 10.2.0.1/24 dev v1; ip -6 addr add fd01::1/64 dev v0 nodad
r ip route add 10.9.0.0/16 via 10.1.0.9
r ip route append 10.9.0.0/16 via 10.1.0.8
r ip route append 10.9.0.0/16 via 10.1.0.8
r ip route prepend 10.9.0.0/16 via 10.1.0.7
r ip route add 10.9.0.0/16 via 10.1.0.6
r ip route add 10.9.0.0/16 via 10.1.0.6 metric 5
r ip route append 10.9.0.0/16 via 10.1.0.5 metric 5
r ip route show
r ip route get 10.9.0.1
r ip route change 10.9.0.0/16 via 10.1.0.4
r ip route show
r ip route replace 10.9.0.0/16 via 10.1.0.8
r ip route show
r ip route replace 10.9.0.0/16 via 10.1.0.8
r ip route change 10.8.0.0/16 via 10.1.0.4
r ip route del 10.9.0.0/16 via 10.1.0.4
r ip route del 10.9.0.0/16
r ip route show
r ip route add 10.7.0.0/16 via 10.77.0.1
r ip route add 10.7.0.0/16 via 10.77.0.1 dev v0
r ip route add 10.7.0.0/16 via 10.77.0.1 dev v0 onlink
r ip route add 10.7.1.0/24 via 10.77.0.1 onlink
r ip route add 10.7.1.0/24 via 10.1.0.1 dev v0
r ip route add 10.7.1.0/24 via 10.1.0.255 dev v0
r ip route add 10.7.1.0/24 via 10.2.0.5 dev v0
r ip route add 10.7.1.0/24 via 10.7.0.5 dev v0
r ip route add 10.7.2.0/24 via 224.0.0.1 dev v0
r ip route add 10.7.2.0/24 via 127.0.0.1 dev lo
r ip route add 10.7.2.0/24 dev lo
r ip route add 10.7.3.0/24 dev v0 scope host
r ip route add 10.7.4.0/24 dev v0 scope global
r ip route add 10.7.4.0/24 via 10.7.3.1
r ip route add 10.7.5.0/24 via 10.1.0.3 scope link
r ip route add 10.7.5.0/24 via 10.1.0.3 src 10.2.0.1
r ip route add 10.7.6.0/24 via 10.1.0.3 src 10.3.0.1
r ip route add default via 10.1.0.2
r ip route add 10.7.6.0/24 via 10.99.0.1
r ip route add 10.7.6.0/24 nexthop via 10.99.0.1 dev v0 nexthop via 10.1.0.3 dev v0
r ip route add 10.7.6.0/24 nexthop via 10.99.0.1 dev v0 onlink nexthop via 10.1.0.3 dev v0
r ip route add 10.0.0.0/8 via 10.1.0.3
r ip route add 10.0.0.0/24 via 10.1.0.3
r ip route add 10.0.0.0/16 via 10.1.0.3
r ip route add 1.0.0.0/8 via 10.1.0.3
r ip route add 200.0.0.0/8 via 10.1.0.3 table 100
r ip route add 200.0.0.0/8 via 10.1.0.3 table 355
r ip route add 200.0.0.0/8 via 10.1.0.3 table 1000
r ip route add 0.0.0.0/1 via 10.1.0.3
r ip route show
r ip -4 route show table all
cat /proc/net/route
echo --- v6
r ip -6 route add fd09::/16 via fd01::9
r ip -6 route append fd09::/16 via fd01::8
r ip -6 route append fd09::/16 via fd01::8
r ip -6 route prepend fd09::/16 via fd01::7
r ip -6 route add fd09::/16 via fd01::6
r ip -6 route add fd09::/16 via fd01::6 metric 5
r ip -6 route append fd09::/16 dev v0 metric 5
r ip -6 route append fd09::/16 dev v1 metric 5
r ip -6 route show | grep -v ^fe80
r ip -6 route change fd09::/16 via fd01::4
r ip -6 route show | grep -v ^fe80
r ip -6 route change fd08::/16 via fd01::4
r ip -6 route del fd09::/16 via fd01::4
r ip -6 route del fd09::/16
r ip -6 route show | grep -v ^fe80
r ip -6 route add fd0a::/16 via fd55::1
r ip -6 route add fd0a::/16 via fd55::1 dev v0
r ip -6 route add fd0a::/16 via fd55::1 dev v0 onlink
r ip -6 route add fd0b::/16 via fd01::1 dev v0
r ip -6 route add fd0b::/16 via fd01::3 dev v1
r ip -6 route add fd0b::/16 via fe80::1
r ip -6 route add fd0b::/16 via fe80::1 dev v1
r ip -6 route add fd0c::/16 via ff02::1 dev v1
r ip -6 route add fd0c::/16 via fd0b::1
r ip -6 route add default via fe80::1 dev v0
r ip -6 route add fd0b:1::/32 via fd01::3
r ip -6 route add fd0b:1::/48 via fd01::3
r ip -6 route add ::/1 via fd01::3
r ip -6 route show | grep -v ^fe80
r ip -6 route show table all | grep -v '^fe80\|^multicast\|^local fe80'
