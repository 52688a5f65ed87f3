# Traffic through tables of iptables without nftables, beside a chain of nftables: a published port,
# masquerading, rules for what begins here, counters.
[ -n "$INNER" ] || INNER=1 exec unshare -nm bash "$0"
exec 2>&1
mount -t tmpfs none /run; mount -t proc proc /proc
ip link set lo up
ip netns add inside; ip netns add outside
number=0
for each in inside outside; do
    ip link add "$each" type veth peer name eth0 netns "$each"
    ip addr add "10.$number.0.1/24" dev "$each"; ip link set "$each" up
    ip -n "$each" link set lo up
    ip -n "$each" addr add "10.$number.0.2/24" dev eth0; ip -n "$each" link set eth0 up
    mkdir -p "/run/$each/cgi-bin"; echo "of $each" >"/run/$each/index.html"
    printf '#!/bin/sh\necho\necho "$REMOTE_ADDR"\n' >"/run/$each/cgi-bin/who"
    chmod +x "/run/$each/cgi-bin/who"
    ip netns exec "$each" busybox httpd -p 80 -h "/run/$each"
    number=$((number + 1))
done
ip -n inside route add default via 10.0.0.1
echo 1 >/proc/sys/net/ipv4/ip_forward
mkdir /run/here; echo here >/run/here/index.html
busybox httpd -p 7000 -h /run/here
iptables() { iptables-legacy "$@"; }
ask() { timeout 20 ip netns exec "$1" busybox wget -q -O - "http://$2" 2>&1; echo "$1 asks $2: $?"; }
iptables -P FORWARD DROP
iptables -A FORWARD -o inside -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -d 10.0.0.2 ! -i inside -o inside -p tcp -m tcp --dport 80 -j ACCEPT
iptables -A FORWARD -i inside ! -o inside -j ACCEPT
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A POSTROUTING -s 10.0.0.0/24 ! -o inside -j MASQUERADE
iptables -t nat -A DOCKER -i inside -j RETURN
iptables -t nat -A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80
iptables -t nat -A PREROUTING -p tcp --dport 8081 -j REDIRECT --to-ports 7000
iptables -t nat -A OUTPUT -p tcp -d 127.0.0.1 --dport 8082 -j REDIRECT --to-ports 7000
ask inside 10.1.0.2/
ask inside 10.1.0.2/cgi-bin/who
ask outside 10.1.0.1:8080/
ask outside 10.1.0.1:8081/
timeout 20 busybox wget -q -O - http://127.0.0.1:8082/; echo $?
iptables -t nat -L DOCKER -v -n -x | awk 'NR > 2 { print $1, $2, $3 }'
iptables -t nat -L POSTROUTING -v -n -x | awk 'NR > 2 { print $1, $3 }'
conntrack -L 2>/dev/null | grep -c 'dport=8080.*ASSURED'
iptables -t mangle -A FORWARD -p tcp --dport 80 -j MARK --set-mark 7
nft -f - <<'R'
table ip later {
	chain forward {
		type filter hook forward priority 10; policy accept;
		meta mark 7 ip daddr 10.1.0.2 reject with tcp reset
	}
}
R
ask inside 10.1.0.2/
ask outside 10.1.0.1:8080/
nft delete table ip later
iptables -I FORWARD -i inside -p tcp -j REJECT --reject-with tcp-reset
ask inside 10.1.0.2/
iptables -D FORWARD 1
iptables -A OUTPUT -p udp --dport 9 -j DROP
iptables -A INPUT -p udp --dport 10
for port in 9 10 10; do echo x >"/dev/udp/127.0.0.1/$port"; echo $?; done
iptables -L OUTPUT -v -n -x | awk 'NR > 2 { print $1, $2, $3 }'
iptables -L INPUT -v -n -x | awk 'NR > 2 { print $1, $2, $3 }'
iptables -Z INPUT; iptables -A INPUT -p udp --dport 11
iptables -L INPUT -v -n -x | awk 'NR > 2 { print $1, $2 }'
iptables -L OUTPUT -v -n -x | awk 'NR > 2 { print $1, $2, $3 }'
