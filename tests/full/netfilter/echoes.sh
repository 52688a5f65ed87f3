# Echo requests and replies that stay in the network: dropped, rejected, translated, followed.
[ -n "$INNER" ] || INNER=1 exec unshare -nm bash "$0"
exec 2>&1
mount -t tmpfs none /run; mount -t proc proc /proc
ip link set lo up
ip netns add inside
ip link add v0 type veth peer name eth0 netns inside; ip addr add 172.17.0.1/16 dev v0; ip link set v0 up
ip -n inside addr add 172.17.0.2/16 dev eth0; ip -n inside link set eth0 up
# what is said of the first answer, and of the sum
asked() { echo "$@:"; ping -c 1 -W 1 "$@" 2>&1 | sed -nE 's/ttl=.*//; s/, time .*//; /icmp_seq|transmitted|sendmsg/p'; }
asked 127.0.0.1
nft -f - <<'R'
table inet t {
	chain in {
		type filter hook input priority filter;
		ip daddr 127.0.0.2 icmp type echo-request counter drop
		ip daddr 127.0.0.3 icmp type echo-request reject with icmp type admin-prohibited
		icmpv6 type echo-request counter reject with icmpv6 type port-unreachable
		ip saddr 127.0.0.6 icmp type echo-reply counter drop
		ct state established counter
	}
	chain out {
		type filter hook output priority filter;
		ip daddr 127.0.0.4 icmp type echo-request drop
		ip daddr 127.0.0.5 icmp type echo-request reject
	}
}
table ip n {
	chain out {
		type nat hook output priority -100;
		ip daddr 172.17.0.1 dnat to 127.0.0.9
	}
}
R
for each in 2 3 4 5 6 7 9; do asked 127.0.0.$each; done
asked ::1
asked 172.17.0.1
nft list chain inet t in
nft flush ruleset
asked 127.0.0.2; asked ::1
