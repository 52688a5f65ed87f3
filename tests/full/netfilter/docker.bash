# What dockerd makes, and what administrators add to it, by whatever iptables is.
for chain in DOCKER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2 DOCKER-USER; do
    iptables -N "$chain"
done
iptables -N DOCKER; echo $?
iptables -P FORWARD DROP
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -j DOCKER-ISOLATION-STAGE-1
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o docker0 -j DOCKER
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables -A FORWARD -i docker0 -o docker0 -j ACCEPT
iptables -A DOCKER ! -i docker0 -o docker0 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT
iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
iptables -A DOCKER-USER -j RETURN
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables -t nat -A DOCKER -i docker0 -j RETURN
iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
iptables -S; iptables -t nat -S; iptables -t nat -L -v -n
iptables -C FORWARD -j DOCKER-USER; echo $?
iptables -C FORWARD -j DOCKER-NONE; echo $?
iptables -D FORWARD -j DOCKER-ISOLATION-STAGE-1; echo $?
iptables -I FORWARD 2 -s 10.0.0.0/8 -p udp -m multiport --dports 53,67:68 -j REJECT
iptables -R FORWARD 1 -m mark --mark 0x5/0xff -j DROP
iptables -A INPUT -p icmp -m icmp --icmp-type 8 -m limit --limit 5/sec --limit-burst 10 -j ACCEPT
iptables -A INPUT -p tcp --tcp-flags SYN,RST SYN -m comment --comment "a SYN" -j LOG --log-prefix "syn: "
iptables -A INPUT -m state --state NEW -i lo -j ACCEPT
iptables -A INPUT -p tcp --dport 22 -j REJECT --reject-with tcp-reset
