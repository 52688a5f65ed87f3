/* Packets by an interface that the program serves itself: UDP, TCP, ping, each way. Needs root. */
#define _GNU_SOURCE
#include "net_tun.h"

#include <fcntl.h>
#include <net/route.h>
#include <net/ethernet.h>
#include <netinet/if_ether.h>

#define OURS "10.9.0.1"
#define THEIRS "10.9.0.2"
#define PORT 7000

static unsigned ours, theirs;
static unsigned char packet[70000];
static struct iphdr *const ip = (void *)packet;
static struct udphdr *const udp = (void *)(packet + 20);
static struct tcphdr *const tcp = (void *)(packet + 20);
static struct icmphdr *const icmp = (void *)(packet + 20);

static void check_sum(void)
{
    int size = ntohs(ip->tot_len) - 20;
    CHECK(sum_of(packet + 20, size, pseudo_sum(ip, size)) == 0xFFFF);
}

/* What stands behind the header goes off, from there to here. */
static void answer(int fd, int size, int protocol)
{
    put_header(packet, size, protocol, theirs, ours);
    unsigned short *at = protocol == IPPROTO_TCP ? &tcp->check : &udp->check;
    if (protocol == IPPROTO_ICMP) {
        icmp->checksum = 0;
        icmp->checksum = htons(~sum_of(icmp, size, 0));
    } else {
        *at = 0;
        *at = htons(~sum_of(packet + 20, size, pseudo_sum(ip, size)));
    }
    write_packet(fd, packet);
}

static int udp_socket(const char *local, int port)
{
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in at = place(local, port);
    CHECK(sock >= 0 && bind(sock, (void *)&at, sizeof at) == 0);
    return sock;
}

static void datagrams(int fd)
{
    char text[64];
    struct sockaddr_in to = place(THEIRS, PORT), from;
    socklen_t size = sizeof from;
    int sock = udp_socket("0.0.0.0", 5000);
    CHECK(sendto(sock, "question", 8, 0, (void *)&to, sizeof to) == 8);
    CHECK(next_packet(fd, packet, sizeof packet) == 36 && ip->protocol == IPPROTO_UDP);
    CHECK(ip->saddr == ours && ip->daddr == theirs && ip->ttl == 64);
    CHECK(udp->dest == htons(PORT) && udp->source == htons(5000) && ntohs(udp->len) == 16);
    CHECK(!memcmp(udp + 1, "question", 8));
    check_sum();
    *udp = (struct udphdr){.source = htons(PORT), .dest = htons(5000), .len = htons(14)};
    memcpy(udp + 1, "answer", 6);
    answer(fd, 14, IPPROTO_UDP);
    CHECK(recvfrom(sock, text, sizeof text, 0, (void *)&from, &size) == 6);
    CHECK(!memcmp(text, "answer", 6) && from.sin_port == htons(PORT));
    CHECK(from.sin_addr.s_addr == theirs);
    udp->check ^= 1; /* a wrong sum is not taken, and nobody is at the next port */
    write_packet(fd, packet);
    udp->dest = htons(5001);
    answer(fd, 14, IPPROTO_UDP);
    CHECK_ERR(recv(sock, text, sizeof text, MSG_DONTWAIT), EAGAIN);
    next_packet(fd, packet, sizeof packet);
    CHECK(ip->protocol == IPPROTO_ICMP && ip->daddr == theirs);
    CHECK(icmp->type == ICMP_DEST_UNREACH && icmp->code == ICMP_PORT_UNREACH);
    /* the other one says the same */
    CHECK(connect(sock, (void *)&to, sizeof to) == 0 && send(sock, "x", 1, 0) == 1);
    int got = next_packet(fd, packet, sizeof packet);
    memmove(packet + 28, packet, got);
    *icmp = (struct icmphdr){ICMP_DEST_UNREACH, ICMP_PORT_UNREACH};
    answer(fd, 8 + got, IPPROTO_ICMP);
    CHECK_ERR(recv(sock, text, sizeof text, 0), ECONNREFUSED);
    close(sock);
}

static void pings(int fd)
{
    char text[200];
    struct sockaddr_in to = place(THEIRS, 0);
    *icmp = (struct icmphdr){ICMP_ECHO, .un.echo = {htons(3), htons(4)}};
    memcpy(icmp + 1, "hello", 6);
    answer(fd, 14, IPPROTO_ICMP);
    CHECK(next_packet(fd, packet, sizeof packet) == 34 && ip->protocol == IPPROTO_ICMP);
    CHECK(icmp->type == ICMP_ECHOREPLY && icmp->un.echo.sequence == htons(4));
    CHECK(!memcmp(icmp + 1, "hello", 6) && sum_of(icmp, 14, 0) == 0xFFFF);
    int sock = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    struct icmphdr echo = {ICMP_ECHO, .un.echo = {htons(9), htons(1)}};
    echo.checksum = htons(~sum_of(&echo, sizeof echo, 0));
    CHECK(sock >= 0 && sendto(sock, &echo, sizeof echo, 0, (void *)&to, sizeof to) == 8);
    CHECK(next_packet(fd, packet, sizeof packet) == 28 && icmp->type == ICMP_ECHO);
    icmp->type = ICMP_ECHOREPLY;
    answer(fd, 8, IPPROTO_ICMP);
    CHECK(recv(sock, text, sizeof text, 0) == 28 && text[20] == ICMP_ECHOREPLY);
    close(sock);
}

/* --- TCP, as far as the other end needs it */

struct end {
    int fd, port, peer;
    unsigned next, heard; /* what is sent next, what was heard up to */
};

static void say(struct end *end, int flags, const char *data, int size)
{
    *tcp = (struct tcphdr){.source = htons(end->port), .dest = htons(end->peer),
                           .seq = htonl(end->next), .ack_seq = htonl(end->heard), .doff = 5,
                           .window = htons(60000)};
    ((unsigned char *)tcp)[13] = flags;
    memcpy(tcp + 1, data, size);
    answer(end->fd, 20 + size, IPPROTO_TCP);
    end->next += size + ((flags & (TH_SYN | TH_FIN)) != 0);
}

/* The next segment; its payload has so many bytes. */
static int hear(struct end *end)
{
    int got = next_packet(end->fd, packet, sizeof packet) - 20 - tcp->doff * 4;
    CHECK(ip->protocol == IPPROTO_TCP && ip->saddr == ours && tcp->dest == htons(end->port));
    check_sum();
    end->peer = ntohs(tcp->source);
    return got;
}

static int flags_heard(void) { return ((unsigned char *)tcp)[13]; }

static void stream_out(int fd)
{
    struct sockaddr_in to = place(THEIRS, PORT);
    struct end end = {fd, PORT, 0, 1000};
    char text[64];
    static char data[20000], heard[20000];
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), total = 0;
    CHECK_ERR(connect(sock, (void *)&to, sizeof to), EINPROGRESS);
    CHECK(hear(&end) == 0 && flags_heard() == TH_SYN);
    end.heard = ntohl(tcp->seq) + 1;
    say(&end, TH_SYN | TH_ACK, "", 0);
    CHECK(hear(&end) == 0 && flags_heard() == TH_ACK);
    CHECK(fcntl(sock, F_SETFL, 0) == 0 && connect(sock, (void *)&to, sizeof to) == 0);
    say(&end, TH_ACK | TH_PUSH, "welcome", 7);
    CHECK(recv(sock, text, sizeof text, 0) == 7 && !memcmp(text, "welcome", 7));
    CHECK(hear(&end) == 0 && ntohl(tcp->ack_seq) == end.next);
    for (int i = 0; i < (int)sizeof data; i++) data[i] = i * 7 + i / 256;
    CHECK(send(sock, data, sizeof data, 0) == sizeof data);
    unsigned first = end.heard;
    while (total < (int)sizeof data) { /* what does not fit the MTU comes in segments */
        int got = hear(&end), at = ntohl(tcp->seq) - first;
        CHECK(got > 0 && got <= 1460 && at <= total);
        if (at < total) { /* again, since no answer came in time */
            say(&end, TH_ACK, "", 0);
            continue;
        }
        memcpy(heard + at, (char *)tcp + tcp->doff * 4, got);
        total += got;
        end.heard += got;
        say(&end, TH_ACK, "", 0);
    }
    CHECK(!memcmp(data, heard, sizeof data));
    CHECK(shutdown(sock, SHUT_WR) == 0 && hear(&end) == 0 && flags_heard() == (TH_FIN | TH_ACK));
    end.heard++;
    say(&end, TH_FIN | TH_ACK, "", 0);
    CHECK(recv(sock, text, sizeof text, 0) == 0);
    CHECK(hear(&end) == 0 && flags_heard() == TH_ACK);
    close(sock);
    /* refused */
    sock = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERR(connect(sock, (void *)&to, sizeof to), EINPROGRESS);
    hear(&end);
    end.next = 0;
    end.heard = ntohl(tcp->seq) + 1;
    say(&end, TH_RST | TH_ACK, "", 0);
    CHECK(fcntl(sock, F_SETFL, 0) == 0);
    CHECK_ERR(connect(sock, (void *)&to, sizeof to), ECONNREFUSED);
    close(sock);
}

/* To a socket that listened before there was an interface. */
static void stream_in(int fd, int listener)
{
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    struct end end = {fd, 4000, PORT, 5000};
    char text[64];
    say(&end, TH_SYN, "", 0);
    CHECK(hear(&end) == 0 && flags_heard() == (TH_SYN | TH_ACK));
    end.heard = ntohl(tcp->seq) + 1;
    say(&end, TH_ACK, "", 0);
    int sock = accept(listener, (void *)&from, &size);
    CHECK(sock >= 0 && from.sin_addr.s_addr == theirs && from.sin_port == htons(4000));
    say(&end, TH_ACK | TH_PUSH, "request", 7);
    CHECK(recv(sock, text, sizeof text, 0) == 7 && !memcmp(text, "request", 7));
    CHECK(hear(&end) == 0 && ntohl(tcp->ack_seq) == end.next);
    CHECK(send(sock, "reply", 5, 0) == 5 && hear(&end) == 5);
    end.heard += 5;
    say(&end, TH_RST | TH_ACK, "", 0);
    CHECK_ERR(recv(sock, text, sizeof text, 0), ECONNRESET);
    close(sock);
    end = (struct end){fd, 4001, 7999, 1};
    say(&end, TH_SYN, "", 0); /* nobody listens there */
    CHECK(hear(&end) == 0 && flags_heard() == (TH_RST | TH_ACK));
}

/* A gateway, a network behind it, and a device that goes down and is another size. */
static void routes(int fd)
{
    struct sockaddr_in far = place("192.0.2.9", PORT), near = place(THEIRS, PORT);
    int sock = control();
    struct rtentry way = {.rt_flags = RTF_UP | RTF_GATEWAY};
    CHECK_ERR(connect(sock, (void *)&far, sizeof far), ENETUNREACH);
    *(struct sockaddr_in *)&way.rt_dst = place("192.0.2.0", 0);
    *(struct sockaddr_in *)&way.rt_genmask = place("255.255.255.0", 0);
    *(struct sockaddr_in *)&way.rt_gateway = place(THEIRS, 0);
    CHECK(ioctl(sock, SIOCADDRT, &way) == 0);
    CHECK_ERR(ioctl(sock, SIOCADDRT, &way), EEXIST);
    CHECK(sendto(sock, "far", 3, 0, (void *)&far, sizeof far) == 3);
    next_packet(fd, packet, sizeof packet);
    CHECK(ip->daddr == far.sin_addr.s_addr && ip->saddr == ours);
    CHECK(ioctl(sock, SIOCDELRT, &way) == 0);
    CHECK_ERR(ioctl(sock, SIOCDELRT, &way), ESRCH);
    CHECK(ioctl(sock, SIOCADDRT, &way) == 0);
    struct ifreq request = named("wire", 0);
    request.ifr_mtu = 600;
    CHECK(ioctl(sock, SIOCSIFMTU, &request) == 0);
    CHECK(sendto(sock, packet, 1000, 0, (void *)&near, sizeof near) == 1000);
    CHECK(next_packet(fd, packet, sizeof packet) <= 600 && ntohs(ip->frag_off) == 0x2000);
    next_packet(fd, packet, sizeof packet);
    CHECK(ntohs(ip->frag_off) == 576 / 8);
    for (int i = 0; i < 3; i++) {
        request.ifr_mtu = (int[]){67, 65536, -1}[i];
        CHECK_ERR(ioctl(sock, SIOCSIFMTU, &request), EINVAL);
    }
    set_up("wire", 0);
    CHECK_ERR(sendto(sock, "x", 1, 0, (void *)&near, sizeof near), ENETUNREACH);
    CHECK_ERR(write(fd, packet, 20), EIO);
    set_up("wire", 1);
    CHECK(sendto(sock, "x", 1, 0, (void *)&near, sizeof near) == 1);
    CHECK(next_packet(fd, packet, sizeof packet) == 29);
    CHECK_ERR(sendto(sock, "x", 1, 0, (void *)&far, sizeof far), ENETUNREACH); /* it has gone */
    close(sock);
}

static void shown(void)
{
    char text[4000], *line;
    unsigned long long got, packets;
    struct ifreq request;
    read_text("proc/net/dev", text, sizeof text);
    CHECK((line = strstr(text, "wire:")) != NULL);
    CHECK(sscanf(line, "wire: %llu %llu", &got, &packets) == 2 && got > 100 && packets > 10);
    read_text("proc/net/route", text, sizeof text);
    CHECK((line = strstr(text, "wire\t0000090A\t00000000\t0001")) != NULL);
    CHECK(get("wire", SIOCGIFADDR, &request) == 0);
    CHECK(((struct sockaddr_in *)&request.ifr_addr)->sin_addr.s_addr == ours);
    CHECK(get("wire", SIOCGIFNETMASK, &request) == 0);
    CHECK(((struct sockaddr_in *)&request.ifr_netmask)->sin_addr.s_addr == htonl(0xFFFFFF00));
    CHECK(get("wire", SIOCGIFTXQLEN, &request) == 0 && request.ifr_qlen == 500);
    CHECK(get("wire", SIOCGIFHWADDR, &request) == 0 && request.ifr_hwaddr.sa_family == 65534);
}

/* With a virtio header, and whoever reads does what is left to do. */
static void left_to_do(void)
{
    struct virtio_net_hdr *head = (void *)packet;
    static char data[30000];
    struct sockaddr_in to = place("10.9.1.2", 9);
    int fd = make_up("big", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, "10.9.1.1", "255.255.255.0");
    int sock = control();
    CHECK(ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) == 0);
    CHECK(sendto(sock, "sum", 3, 0, (void *)&to, sizeof to) == 3);
    CHECK(read(fd, packet, sizeof packet) == 10 + 31);
    CHECK(head->flags == VIRTIO_NET_HDR_F_NEEDS_CSUM && head->csum_start == 20);
    CHECK(head->csum_offset == 6 && head->gso_type == 0);
    struct iphdr *inner = (void *)(packet + 10);
    CHECK(sum_of(packet + 30, 11, pseudo_sum(inner, 11)) != 0xFFFF);
    struct udphdr *sum = (void *)(packet + 30);
    CHECK(ntohs(sum->check) == pseudo_sum(inner, 11));
    /* and the other way: the sum is not there yet */
    struct sockaddr_in own = place("10.9.1.1", 9000);
    CHECK(bind(sock, (void *)&own, sizeof own) < 0); /* it has a port already */
    close(sock);
    sock = udp_socket("10.9.1.1", 9000);
    memset(packet, 0, 10);
    *head = (struct virtio_net_hdr){VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 20,
                                    .csum_offset = 6};
    put_header(packet + 10, 11, IPPROTO_UDP, to.sin_addr.s_addr, own.sin_addr.s_addr);
    *sum = (struct udphdr){htons(9), htons(9000), htons(11)};
    sum->check = htons(pseudo_sum(inner, 11));
    CHECK(write(fd, packet, 41) == 41 && recv(sock, data, 10, 0) == 3);
    close(sock);
    close(fd);
}

/* A program sleeps in read(2) while the interface is deleted. */
static void deleted(int fd)
{
    struct {
        struct nlmsghdr head;
        struct ifinfomsg info;
    } request = {{sizeof request, RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK},
                 {.ifi_index = if_nametoindex("wire")}};
    char answer[1000];
    int ready[2], netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    if (!child) {
        CHECK(write(ready[1], "", 1) == 1);
        long got;
        do errno = 0, got = read(fd, packet, sizeof packet); while (got > 0);
        _exit(got == -1 && (errno == EFAULT || errno == EBADFD) ? 0 : 1);
    }
    CHECK(read(ready[0], answer, 1) == 1);
    CHECK(send(netlink, &request, sizeof request, 0) == sizeof request);
    CHECK(recv(netlink, answer, sizeof answer, 0) > 0);
    CHECK(((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)answer))->error == 0);
    CHECK(status_of(child) == 0 && if_nametoindex("wire") == 0);
    CHECK_ERR(read(fd, packet, 100), EBADFD);
    struct ifreq again = named("again", IFF_TUN);
    CHECK(ioctl(fd, TUNSETIFF, &again) == 0 && if_nametoindex("again") > 0);
    close(netlink);
}

int main(void)
{
    own_tun_network();
    ours = place(OURS, 0).sin_addr.s_addr;
    theirs = place(THEIRS, 0).sin_addr.s_addr;
    struct sockaddr_in any = place("0.0.0.0", PORT);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(listener, (void *)&any, sizeof any) == 0 && listen(listener, 5) == 0);
    int fd = make_up("wire", IFF_TUN | IFF_NO_PI, OURS, "255.255.255.0");
    datagrams(fd);
    pings(fd);
    stream_out(fd);
    stream_in(fd, listener);
    shown();
    routes(fd);
    left_to_do();
    deleted(fd);
    return 0;
}
