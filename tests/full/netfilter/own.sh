# What begins in the network itself: translated to a container, dropped, rejected.
[ -n "$INNER" ] || INNER=1 exec unshare -nm bash "$0"
exec 2>&1
mount -t tmpfs none /run; mount -t proc proc /proc
ip link set lo up
ip netns add inside
ip link add v0 type veth peer name eth0 netns inside; ip addr add 172.17.0.1/16 dev v0; ip link set v0 up
ip -n inside addr add 172.17.0.2/16 dev eth0; ip -n inside link set eth0 up; ip -n inside route add default via 172.17.0.1
mkdir /run/w; echo hello >/run/w/index.html
ip netns exec inside busybox httpd -p 80 -h /run/w
iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
timeout 20 busybox wget -q -O - http://172.17.0.1:8080/; echo $?
iptables -A INPUT -p tcp --dport 9000 -j DROP
timeout 3 busybox nc -w 2 127.0.0.1 9000 </dev/null; echo $?
iptables -A OUTPUT -d 172.17.0.2 -p icmp -j DROP; ping -c 1 -W 1 172.17.0.2 | grep -c received; iptables -A OUTPUT -d 172.17.0.2 -p tcp -j REJECT --reject-with icmp-admin-prohibited
timeout 5 busybox wget -q -O - http://172.17.0.2/ ; echo $?
iptables -A OUTPUT -m owner --uid-owner 1000 -j DROP; iptables -S OUTPUT
# what was to leave is redirected to us, as by a transparent proxy
mkdir /run/here; echo here >/run/here/index.html; busybox httpd -p 7000 -h /run/here
iptables -F OUTPUT
iptables -t nat -I OUTPUT -d 172.17.0.2 -p tcp --dport 81 -j REDIRECT --to-ports 7000
timeout 20 busybox wget -q -O - http://172.17.0.2:81/; echo $?
timeout 20 busybox wget -q -O - http://172.17.0.2:80/; echo $?
conntrack -L -p tcp 2>/dev/null | grep -c 'dport=81 .*sport=7000.*ASSURED'
