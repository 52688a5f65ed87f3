# A container behind a bridge, as dockerd sets one up, and somebody outside: masquerading, a
# published port, isolation, counters.
[ -n "$INNER" ] || INNER=1 exec unshare -nm bash "$0"
exec 2>&1
mount -t tmpfs none /run; mount -t proc proc /proc
ip link set lo up
ip netns add inside; ip netns add outside
ip link add br0 type bridge; ip addr add 172.17.0.1/16 dev br0; ip link set br0 up
ip link add v0 type veth peer name eth0 netns inside; ip link set v0 master br0; ip link set v0 up
ip link add up0 type veth peer name eth0 netns outside
ip addr add 10.9.0.1/24 dev up0; ip link set up0 up
for each in "inside 172.17.0.2/16" "outside 10.9.0.2/24"; do
    set -- $each
    ip -n "$1" link set lo up; ip -n "$1" addr add "$2" dev eth0; ip -n "$1" link set eth0 up
    mkdir -p "/run/$1/cgi-bin"
    echo "of $1" >"/run/$1/index.html"
    printf '#!/bin/sh\necho\necho "$REMOTE_ADDR"\n' >"/run/$1/cgi-bin/who"
    chmod +x "/run/$1/cgi-bin/who"
    ip netns exec "$1" busybox httpd -p 80 -h "/run/$1"
done
ip -n inside route add default via 172.17.0.1
echo 1 >/proc/sys/net/ipv4/ip_forward
ask() { timeout 20 ip netns exec "$1" busybox wget -q -O - "http://$2" 2>&1; echo "$1 asks $2: $?"; }
iptables -P FORWARD DROP
iptables -N DOCKER; iptables -N DOCKER-USER
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o br0 -j DOCKER
iptables -A FORWARD -i br0 ! -o br0 -j ACCEPT
iptables -A DOCKER -d 172.17.0.2/32 ! -i br0 -o br0 -p tcp -m tcp --dport 80 -j ACCEPT
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o br0 -j MASQUERADE
iptables -t nat -A DOCKER -i br0 -j RETURN
iptables -t nat -A DOCKER ! -i br0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
ask inside 10.9.0.2/
ask inside 10.9.0.2/cgi-bin/who
ask outside 10.9.0.1:8080/
ask outside 10.9.0.1:8080/cgi-bin/who
iptables -t nat -L DOCKER -v -n -x | awk 'NR > 2 { print $1, $2, $3 }'
iptables -t nat -L POSTROUTING -v -n -x | awk 'NR > 2 { print $1, $3 }'
grep -c 'dport=8080.*ASSURED' /proc/net/nf_conntrack
conntrack -L 2>/dev/null | grep 'dport=8080' | head -1 | sed 's/ [0-9]* TIME_WAIT/ TIME_WAIT/; s/sport=[0-9]*/P/; s/dport=[0-9]* \[/P [/'
conntrack -D -p tcp --orig-port-dst 8080 2>/dev/null | wc -l; conntrack -F 2>/dev/null; conntrack -L 2>/dev/null
iptables -I DOCKER-USER -i up0 -p tcp -j REJECT --reject-with tcp-reset
ask outside 10.9.0.1:8080/
iptables -F DOCKER-USER
ip netns exec outside ping -c 1 -q 10.9.0.1 | grep -o '1 received'
ip netns exec inside ping -c 1 -q 10.9.0.2 | grep -o '1 received'
nft add table inet more
nft 'add chain inet more in { type filter hook input priority 0 ; policy accept ; }'
nft add rule inet more in tcp dport 7777 counter reject with tcp reset
busybox nc -w 2 127.0.0.1 7777 </dev/null; echo "refused: $?"
nft list chain inet more in
