# Much data through translation: segments of 64 KiB whose checksums are left to others.
[ -n "$INNER" ] || INNER=1 exec unshare -nm bash "$0"
exec 2>&1
mount -t tmpfs none /run; mount -t proc proc /proc
ip link set lo up; ip netns add inside; ip netns add outside
number=0
for each in inside outside; do
    ip link add "$each" type veth peer name eth0 netns "$each"
    ip addr add "10.$number.0.1/24" dev "$each"; ip link set "$each" up
    ip -n "$each" addr add "10.$number.0.2/24" dev eth0; ip -n "$each" link set eth0 up
    ip -n "$each" route add default via "10.$number.0.1"
    number=$((number + 1))
done
echo 1 >/proc/sys/net/ipv4/ip_forward
nft -f - <<'R'
table ip t {
	chain pre { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 10.0.0.2:80; }
	chain post { type nat hook postrouting priority srcnat; masquerade; }
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct status dnat accept
	}
}
R
mkdir /run/www; seq 3000000 >/run/www/numbers
ip netns exec inside busybox httpd -p 80 -h /run/www
ip netns exec outside busybox wget -q -O - http://10.1.0.1:8080/numbers | cksum
cksum </run/www/numbers
ip netns exec outside busybox wget -q -T 2 -O - http://10.0.0.2/numbers; echo "without translation: $?"
