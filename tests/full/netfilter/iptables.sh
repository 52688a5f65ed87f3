# iptables, as dockerd and administrators use it: what is made is shown as it was.
[ -n "$INNER" ] || INNER=1 exec unshare -nm bash "$0"
exec 2>&1
mount -t tmpfs none /run
ip link set lo up
iptables -V | sed 's/v[0-9.]*//'
iptables -L -v -n; iptables -S
. "${0%/*}/docker.bash"
iptables -t mangle -A PREROUTING -p tcp --dport 1 -j MARK --set-xmark 0x7/0xff
iptables -t nat -A PREROUTING -p udp --dport 53 -j REDIRECT --to-ports 5353
iptables -t nat -A POSTROUTING -s 10.1.0.0/16 -j SNAT --to-source 10.2.0.1-10.2.0.9
iptables -t raw -A PREROUTING -p udp --dport 9 -j NOTRACK; echo $?
iptables -t nat -A INPUT -j MASQUERADE; echo $?
iptables -A INPUT -j MASQUERADE; echo $?
iptables-save | grep -v '^#' | sed 's/\[[0-9:]*\]//'
iptables-save >/run/saved; iptables-restore </run/saved; echo $?
iptables-save | grep -v '^#' | sed 's/\[[0-9:]*\]//' | cksum
grep -v '^#' /run/saved | sed 's/\[[0-9:]*\]//' | cksum
iptables -X DOCKER-USER; echo $?
iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X; iptables -S; iptables -t nat -S
ip6tables -A INPUT -s fd00::/8 -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT
ip6tables -A INPUT -j REJECT; ip6tables -t nat -A POSTROUTING -o eth0 -j MASQUERADE
ip6tables -S; ip6tables -t nat -S
