exec 2>&1
ip link add v0 type veth peer name v1
ls /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf
cat /proc/sys/net/ipv4/conf/v0/rp_filter; echo 2 >/proc/sys/net/ipv4/conf/v0/rp_filter; cat /proc/sys/net/ipv4/conf/v0/rp_filter
ip link set v0 up; ip link set v1 up; ip -6 addr show dev v0 | grep -c inet6
echo 1 >/proc/sys/net/ipv6/conf/v0/disable_ipv6;  ip -6 addr show dev v0 | grep -c inet6
echo 0 >/proc/sys/net/ipv6/conf/v0/disable_ipv6;  ip -6 addr show dev v0 | grep -c inet6
echo 1500 >/proc/sys/net/ipv6/conf/v0/mtu; echo 1501 >/proc/sys/net/ipv6/conf/v0/mtu;cat /proc/sys/net/ipv6/conf/v0/mtu
ls /proc/sys/net/ipv4/conf/v2; mkdir /proc/sys/net/ipv4/conf/v2
unshare -n sh -c 'ls /proc/sys/net/ipv4/conf; cat /proc/sys/net/ipv4/conf/v0/rp_filter'
ip link set v0 down; ip link set v0 name w0;cat /proc/sys/net/ipv4/conf/w0/rp_filter /proc/sys/net/ipv4/conf/v0/rp_filter
ip link del w0;  ls /proc/sys/net/ipv4/conf
