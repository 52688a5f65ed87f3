# What nft monitor and conntrack -E hear, and connections that conntrack makes and changes.
[ -n "$INNER" ] || INNER=1 exec unshare -nm bash "$0"
exec 2>&1
mount -t tmpfs none /run; mount -t proc proc /proc
ip link set lo up
# Until somebody is a member of these groups of NETLINK_NETFILTER; until a file has a line.
joined() { until awk -v groups="$1" '$2 == 12 && $4 == groups { found = 1 } END { exit !found }' /proc/net/netlink; do sleep 0.1; done; }
heard() { until grep -q "$2" "$1"; do sleep 0.1; done; }
stdbuf -oL nft monitor >/run/rules & monitor=$!
joined 00000140
nft -f - <<'R'
table inet t {
	set allowed {
		type ipv4_addr
		elements = { 10.0.0.1, 10.0.0.2 }
	}
	counter seen {
	}
	chain in {
		type filter hook input priority 0; policy accept;
		ip saddr @allowed counter name "seen" accept
		tcp dport { 22, 80 } drop
	}
}
R
nft add rule inet t in udp dport 53 accept
nft insert rule inet t in udp dport 54 accept; nft add rule inet t in position 4 udp dport 55 accept
nft add element inet t allowed '{ 10.0.0.3 }'; nft delete element inet t allowed '{ 10.0.0.1 }'
nft add chain inet t in '{ policy drop ; }'; nft add chain inet t plain; nft delete chain inet t plain
nft add rule inet t nowhere accept >/dev/null 2>&1
nft delete rule inet t in handle "$(nft -a list chain inet t in | sed -n 's/.*dport 54 .*handle //p')"
nft delete table inet t
nft add table ip last
heard /run/rules 'add table ip last'
kill "$monitor"; wait "$monitor" 2>/dev/null
sed 's/by process [0-9]*/by process N/; s/__set[0-9]*/__setN/' /run/rules
nft -e -a add table ip echoed | sed 's/by process [0-9]*/by process N/'
stdbuf -oL conntrack -E >/run/connections 2>/dev/null & monitor=$!
joined 00000007
flow="-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 5 --dport 6"
quiet() { conntrack "$@" >/dev/null 2>&1; echo "conntrack $1: $?"; }
quiet -I $flow -t 100 -m 1
quiet -I $flow -t 100
quiet -U -p udp --orig-port-src 5 -m 7
conntrack -L -p udp 2>/dev/null | sed 's/17 [0-9]* src/17 N src/'
conntrack -G $flow 2>/dev/null | sed 's/17 [0-9]* src/17 N src/'
quiet -I -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 7 --dport 8 --state ESTABLISHED -u ASSURED -t 50
conntrack -L -p tcp 2>/dev/null | sed 's/6 [0-9]* EST/6 N EST/'
quiet -D -p udp --orig-port-src 5
quiet -D -p tcp
heard /run/connections 'DESTROY. tcp'
kill "$monitor"; wait "$monitor" 2>/dev/null
sed 's/\(17\|6\) [0-9]* \(src\|EST\)/\1 N \2/; s/portid=[0-9]*/portid=N/; s/ progname=.*//' /run/connections
