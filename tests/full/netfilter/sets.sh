# ipset: sets are made, filled, listed, saved, restored, exchanged; rules ask and fill them.
[ -n "$INNER" ] || INNER=1 exec unshare -nm bash "$0"
exec 2>&1
mount -t tmpfs none /run; mount -t proc proc /proc
ip link set lo up
try() { echo "\$ $*"; "$@"; local got=$?; ((got)) && echo "= $got"; }
# What is shown, without the order in a hash, how that lies in Linux's memory, and seconds that are left.
plain() { sed 's/ bucketsize 12 initval 0x[0-9a-f]*//; s/timeout [1-9][0-9] /timeout N /; /^Revision: /d; /^Size in memory: /d' | sort; }
# addresses
try ipset create a hash:ip
try ipset create a hash:ip
try ipset -exist create a hash:ip
try ipset create a hash:net
try ipset add a 10.0.0.1
try ipset add a 10.0.0.1
try ipset -exist add a 10.0.0.1
try ipset add a 10.0.0.4-10.0.0.6
try ipset test a 10.0.0.5
try ipset test a 10.0.0.7
try ipset del a 10.0.0.7
try ipset del a 10.0.0.5
ipset list a | plain; ipset save a | plain
try ipset add a ::1
try ipset add nothing 10.0.0.1
try ipset add a 10.0.0.1,tcp:80
try ipset create six hash:ip family inet6
try ipset add six 2001:db8::1
ipset list six | plain
try ipset create many hash:ip maxelem 3
try ipset add many 10.0.0.0-10.0.0.7
try ipset create odd hash:ip netmask 24 hashsize 10
try ipset add odd 10.0.0.77
ipset save odd | plain
# networks
try ipset create n hash:net
try ipset add n 10.0.0.0/24
try ipset add n 10.0.0.128/25
try ipset add n 10.0.0.7 nomatch
try ipset add n 0.0.0.0/0
try ipset test n 10.0.0.7
try ipset test n 10.0.0.8
ipset list n | plain
# with ports
try ipset create p hash:ip,port
try ipset add p 10.0.0.1,tcp:80
try ipset add p 10.0.0.1,udp:53-55
try ipset add p 10.0.0.1,icmp:ping
try ipset add p 10.0.0.1,90
try ipset test p 10.0.0.1,tcp:90
ipset save p | plain
try ipset create np hash:net,port
try ipset add np 10.1.0.0/16,tcp:1-3
ipset save np | plain
try ipset create bp bitmap:port range 1-1024
try ipset add bp 80-82
try ipset add bp 2000
ipset save bp; ipset list bp | plain
# of sets
try ipset create l list:set
try ipset add l a
try ipset add l n
try ipset add l nothing
try ipset add l six before n
try ipset add l l
ipset list l | grep -v '^Revision\|^Size'; ipset save l
# with more to each
try ipset create t hash:ip timeout 99 counters comment
try ipset add t 10.0.0.1 timeout 0
printf 'add t 10.0.0.2 packets 5 bytes 7 comment "who is it"\n' | try ipset restore
ipset save t | plain
# as a whole
try ipset destroy a
try ipset destroy six
try ipset rename t u
try ipset rename u a
try ipset create s1 hash:ip; try ipset create s2 hash:ip; try ipset add s1 1.1.1.1
try ipset swap s1 s2; ipset save s2 | plain
try ipset swap s1 n
try ipset swap s1 none
try ipset flush s2; ipset save s2 | plain
try ipset list -n
ipset list -t n | plain
try ipset create long5678901234567890123456789012 hash:ip
try ipset create w bitmap:port range 5-70000
try ipset create w hash:nothing
printf 'create r hash:ip\nadd r 10.9.0.1\nadd r 10.9.0.2\nadd r 10.9.0.1\nadd r 10.9.0.3\n' | try ipset restore
ipset save r | plain
printf 'create r hash:ip\nadd r 10.9.0.1\nadd r 10.9.0.5\n' | try ipset -exist restore
ipset save r | plain
# rules that name them
try iptables -A OUTPUT -m set --match-set r dst -j DROP
try iptables -A OUTPUT -m set --match-set p dst,dst -p tcp -j REJECT
try iptables -A OUTPUT -j SET --add-set s1 dst
try iptables -A OUTPUT -m set ! --match-set r src,dst --packets-gt 5 -j SET --add-set s1 dst --exist --timeout 7
try iptables -A OUTPUT -m set --match-set nothere dst -j DROP
try iptables -S OUTPUT
try iptables-legacy -A OUTPUT -m set --match-set r dst -j DROP
try iptables-legacy -A OUTPUT -j SET --del-set s2 dst
try iptables-legacy -A OUTPUT -m set --match-set nothere dst -j DROP
try iptables-legacy -S OUTPUT
try ipset destroy r
ipset list r | plain
try iptables -F; try iptables-legacy -F
try ipset destroy r
try ipset destroy
ipset save | plain
try ipset destroy nothing
# what goes through them
ip netns add inside
ip link add v0 type veth peer name eth0 netns inside; ip addr add 172.17.0.1/16 dev v0; ip link set v0 up
ip -n inside addr add 172.17.0.2/16 dev eth0; ip -n inside link set eth0 up
mkdir /run/w; echo hello >/run/w/index.html
busybox httpd -p 80 -h /run/w; ip netns exec inside busybox httpd -p 80 -h /run/w
fetch() { timeout 20 busybox wget -q -O - "http://$1/"; echo "$1: $?"; }
ipset create closed hash:ip,port; ipset create seen hash:ip,port counters; ipset create nets hash:net; ipset create both list:set
ipset add nets 172.17.0.0/16; ipset add both nets
for with in iptables iptables-legacy; do
    ipset flush seen
    $with -A OUTPUT -p tcp --dport 80 -j SET --add-set seen dst,dst
    $with -A OUTPUT -p tcp -m set --match-set closed dst,dst -j REJECT --reject-with tcp-reset
    fetch 127.0.0.1; fetch 172.17.0.2
    ipset add closed 127.0.0.1,80; ipset add closed 172.17.0.2,80
    fetch 127.0.0.1; fetch 172.17.0.2
    ipset flush closed
    ipset list seen | sed 's/packets [1-9][0-9]* bytes [0-9]*/some/' | plain
    $with -I OUTPUT -m set --match-set both dst -j ACCEPT; $with -A OUTPUT -p tcp --dport 80 -j REJECT --reject-with tcp-reset
    fetch 127.0.0.1; fetch 172.17.0.2
    $with -F
done
