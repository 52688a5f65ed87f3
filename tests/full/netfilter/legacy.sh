# iptables without nftables: what is made is shown as it was, errors are the same.
[ -n "$INNER" ] || INNER=1 exec unshare -nm bash "$0"
exec 2>&1
mount -t tmpfs none /run; mount -t proc proc /proc
ip link set lo up
iptables() { iptables-legacy "$@"; }
ip6tables() { ip6tables-legacy "$@"; }
iptables -V | sed 's/v[0-9.]*//'
iptables -L -v -n; iptables -S; iptables -t security -S; iptables -t nosuch -S; echo $?
. "${0%/*}/docker.bash"
iptables -A INPUT -g DOCKER-USER
iptables -A OUTPUT -m owner --uid-owner 1000 -j DROP
iptables -t mangle -A PREROUTING -p tcp --dport 1 -j MARK --set-xmark 0x7/0xff
iptables -t nat -A PREROUTING -p udp --dport 53 -j REDIRECT --to-ports 5353
iptables -t nat -A POSTROUTING -s 10.1.0.0/16 -j SNAT --to-source 10.2.0.1-10.2.0.9
iptables -t raw -A PREROUTING -p udp --dport 9 -j NOTRACK; echo $?
iptables -t nat -A INPUT -j MASQUERADE; echo $?
iptables -A INPUT -j MASQUERADE; echo $?
iptables -A INPUT -m owner --uid-owner 1; echo $?
iptables -A DOCKER-USER -j DOCKER; iptables -A DOCKER -j DOCKER-USER; echo $?
iptables-legacy-save | grep -v '^#' | sed 's/\[[0-9:]*\]//'
iptables-legacy-save >/run/saved; iptables-legacy-restore </run/saved; echo $?
iptables-legacy-save | grep -v '^#' | sed 's/\[[0-9:]*\]//' | cksum
grep -v '^#' /run/saved | sed 's/\[[0-9:]*\]//' | cksum
iptables -X DOCKER-USER; echo $?
iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X; iptables -S; iptables -t nat -S
sort /proc/net/ip_tables_names
ip6tables -A INPUT -s fd00::/8 -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT
ip6tables -A INPUT ! -p tcp -i lo -j REJECT; ip6tables -t nat -A POSTROUTING -o eth0 -j MASQUERADE
ip6tables -S; ip6tables -t nat -S; sort /proc/net/ip6_tables_names
