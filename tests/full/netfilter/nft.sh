# nft: a set of rules is given back as it was; changes, counters, errors, and where they are.
[ -n "$INNER" ] || INNER=1 exec unshare -nm bash "$0"
exec 2>&1
mount -t tmpfs none /run
ip link set lo up
cat >/run/rules <<'R'
table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		tcp dport 8080 dnat to 10.7.0.2:80
		iifname "up*" udp dport 53 redirect to :5353
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.7.0.0/24 oifname != "br0" masquerade
		ip saddr 10.8.0.0/24 meta l4proto tcp snat to 10.9.0.1-10.9.0.9:1024-2048
	}
}
table inet filter {
	counter seen {
	}
	quota much {
		over 25 mbytes
	}
	set allowed {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8, 192.168.1.0-192.168.1.9 }
	}
	set seen4 {
		type ipv4_addr
		size 128
		flags dynamic,timeout
		timeout 1m
	}
	set pairs {
		type ipv4_addr . inet_service
		flags interval
		elements = { 10.1.0.0/16 . 80-90, 10.2.0.1 . 443 }
	}
	map ports {
		type inet_service : verdict
		elements = { 22 : accept, 23 : jump strangers }
	}
	map to {
		type inet_service : ipv4_addr
		elements = { 80 : 10.0.0.1, 81 : 10.0.0.2 }
	}
	chain strangers {
		ip6 saddr fd00::/8 return
		tcp flags syn / fin,syn,rst,ack counter drop
		meta mark 0x00000005 ct mark set 0x00000007
		meta mark set ct mark
	}
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		ct state invalid drop
		iif "lo" accept comment "ours"
		ip saddr @allowed tcp dport { 80, 443 } counter accept
		ip saddr . tcp dport @pairs accept
		tcp dport vmap @ports
		udp dport 53 limit rate 10/second burst 20 packets accept
		icmp type echo-request counter name "seen" accept
		icmpv6 type { nd-neighbor-solicit, nd-router-advert } accept
		quota name "much" drop
		add @seen4 { ip saddr timeout 30s }
		meta skuid 1000 accept
		fib daddr type local accept
		ip ttl set 5
		log prefix "in: " level warn
		meta l4proto { tcp, udp } th dport 1-1023 jump strangers
		reject with icmpx admin-prohibited
	}
	chain forward {
		type filter hook forward priority filter + 10; policy accept;
		ct direction original ct original ip saddr 10.0.0.1 accept
		numgen random mod 2 0 accept
		tcp dport 9000 reject with tcp reset
	}
}
R
nft -f /run/rules; echo "added: $?"
nft list ruleset
nft add rule inet filter strangers tcp dport 1 accept
nft insert rule inet filter strangers tcp dport 2 accept
nft list chain inet filter strangers
handle=$(nft -a list chain inet filter strangers | sed -n 's/.*dport 2 .*handle //p')
nft delete rule inet filter strangers handle "$handle"
nft replace rule inet filter strangers handle "$(nft -a list chain inet filter strangers |
    sed -n 's/.*dport 1 .*handle //p')" udp dport 3 drop
nft list chain inet filter strangers
nft add element inet filter allowed '{ 172.16.0.0/12 }'
nft delete element inet filter allowed '{ 10.0.0.0/8 }'
nft list set inet filter allowed
nft get element inet filter allowed '{ 172.16.5.5 }'
nft get element inet filter allowed '{ 10.5.5.5 }' | grep -c . || true
nft add element inet filter ports '{ 25 : drop }'; nft list map inet filter ports
nft delete chain inet filter strangers; echo $?
nft add rule inet filter strangers jump strangers; echo $?
nft add rule inet filter input masquerade; echo $?
nft add rule inet filter nowhere accept; echo $?
nft 'add table ip one; add chain ip one two; add rule ip one three accept'; nft list tables
nft add chain inet filter input '{ policy accept ; }'
nft rename chain inet filter forward onward; nft list chains inet
nft add counter inet filter more; nft list counters; nft delete counter inet filter more
nft -j list table ip nat | head -c 300; echo
nft flush chain ip nat prerouting; nft list table ip nat
nft delete table ip nat; nft destroy table ip nat; nft flush ruleset; nft list ruleset; echo end
