/* AF_PACKET on the loopback: what is seen, what can be sent, names, options. */
#define _GNU_SOURCE
#include "abi.h"
#include "net.h"
#include "net_own.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

static unsigned char buf[70000];
static struct sockaddr_ll from;
static int udp;

static void alone(void)
{
    own_network();
    udp = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind_to(udp, 4001) == 0);
}

static long hello(int to)
{
    struct sockaddr_in a = loopback(to);
    return RESULT(sendto(udp, "hello", 5, 0, (SA *)&a, sizeof a));
}

static long next(int fd)
{
    socklen_t size = sizeof from;
    memset(&from, 0, sizeof from);
    long got = RESULT(recvfrom(fd, buf, sizeof buf, MSG_DONTWAIT, (SA *)&from, &size));
    CHECK(got < 0 || size == sizeof from);
    return got;
}

static int from_lo(int protocol, int kind)
{
    return from.sll_family == AF_PACKET && from.sll_protocol == htons(protocol)
           && from.sll_ifindex == 1 && from.sll_hatype == 772 && from.sll_pkttype == kind
           && from.sll_halen == 6;
}

static void kinds(void)
{
    CHECK_ERR(socket(AF_PACKET, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
    int pair[2], s = socket(AF_INET, SOCK_PACKET, htons(ETH_P_ALL));
    CHECK(option(s, 1, SO_DOMAIN) == AF_PACKET && option(s, 1, SO_TYPE) == SOCK_PACKET);
    close(s);
    s = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP));
    CHECK(option(s, 1, SO_PROTOCOL) == 0);
    CHECK_ERR(connect(s, (SA *)&from, sizeof from), EOPNOTSUPP);
    CHECK_ERR(listen(s, 1), EOPNOTSUPP);
    CHECK_ERR(accept(s, NULL, NULL), EOPNOTSUPP);
    CHECK_ERR(shutdown(s, SHUT_RDWR), EOPNOTSUPP);
    CHECK_ERR(socketpair(AF_PACKET, SOCK_DGRAM, 0, pair), EOPNOTSUPP);
    CHECK_ERR(recv(s, buf, 1, MSG_OOB | MSG_DONTWAIT), EINVAL);
    CHECK_ERR(recv(s, buf, 1, MSG_WAITALL | MSG_DONTWAIT), EINVAL);
    socklen_t size = sizeof from;
    CHECK(getsockname(s, (SA *)&from, &size) == 0 && size == 12);
    CHECK(from.sll_protocol == htons(ETH_P_IP) && from.sll_ifindex == 0);
    CHECK_ERR(getpeername(s, (SA *)&from, &size), EOPNOTSUPP);
    struct ifreq lo = {"lo"};
    CHECK(ioctl(s, SIOCGIFINDEX, &lo) == 0 && lo.ifr_ifindex == 1);
    CHECK(ioctl(s, SIOCGIFADDR, &lo) == 0);
    close(s);
    if (fork() == 0) {
        CHECK(setresuid(9, 9, 9) == 0);
        CHECK_ERR(socket(AF_PACKET, SOCK_DGRAM, 0), EPERM);
        CHECK_ERR(socket(AF_PACKET, SOCK_STREAM, 0), EPERM);
        _exit(0);
    }
    int status;
    CHECK(wait(&status) > 0 && status == 0);
}

static void seen(void)
{
    int cooked = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP)),
        all = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)),
        none = socket(AF_PACKET, SOCK_RAW, 0), other = socket(AF_PACKET, SOCK_DGRAM, htons(0x0200)),
        in = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    CHECK(set_option(in, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1) == 0);
    CHECK(events(cooked) == POLLOUT);
    CHECK(hello(4001) == 5); /* to itself */
    CHECK(events(cooked) == (POLLIN | POLLOUT));
    CHECK(queued(cooked, FIONREAD) == 33);
    CHECK(next(cooked) == 33 && from_lo(ETH_P_IP, PACKET_HOST));
    struct iphdr *ip = (void *)buf;
    CHECK(ip->version == 4 && ip->ihl == 5 && ip->protocol == IPPROTO_UDP);
    CHECK(ip->tot_len == htons(33) && ip->daddr == htonl(INADDR_LOOPBACK));
    CHECK(memcmp(buf + 28, "hello", 5) == 0 && buf[20] == 4001 >> 8 && buf[25] == 13);
    CHECK(next(cooked) == -EAGAIN);
    CHECK(next(all) == 47 && from_lo(ETH_P_IP, PACKET_OUTGOING));
    CHECK(next(all) == 47 && from_lo(ETH_P_IP, PACKET_HOST));
    CHECK(buf[12] == 8 && buf[13] == 0 && buf[14] == 0x45);
    CHECK(next(all) == -EAGAIN);
    CHECK(next(in) == 47 && from_lo(ETH_P_IP, PACKET_HOST) && next(in) == -EAGAIN);
    CHECK(next(none) == -EAGAIN && next(other) == -EAGAIN);

    CHECK(hello(4000) == 5); /* nobody is there, and ICMP says so */
    CHECK(next(cooked) == 33);
    CHECK(next(cooked) == 61 && ip->protocol == IPPROTO_ICMP && ip->tos == 0xc0);
    CHECK(buf[20] == 3 && buf[21] == 3 && memcmp(buf + 56, "hello", 5) == 0);

    unsigned counts[2];
    socklen_t size = sizeof counts;
    CHECK(getsockopt(cooked, SOL_PACKET, PACKET_STATISTICS, counts, &size) == 0);
    CHECK(counts[0] == 3 && counts[1] == 0);
    CHECK(getsockopt(cooked, SOL_PACKET, PACKET_STATISTICS, counts, &size) == 0);
    CHECK(counts[0] == 0);
    close(cooked), close(all), close(none), close(other), close(in);
}

static void bound(void)
{
    int s = socket(AF_PACKET, SOCK_RAW, 0);
    struct sockaddr_ll a = {AF_PACKET, 0, 1};
    socklen_t size = sizeof from;
    CHECK_ERR(bind(s, (SA *)&a, 19), EINVAL);
    CHECK_ERR(bind(s, NULL, 20), EFAULT);
    a.sll_family = AF_UNSPEC;
    CHECK_ERR(bind(s, (SA *)&a, sizeof a), EINVAL);
    a.sll_family = AF_PACKET, a.sll_ifindex = 0xffff;
    CHECK_ERR(bind(s, (SA *)&a, sizeof a), ENODEV);
    CHECK(option(s, 1, SO_ERROR) == 0);
    a.sll_ifindex = 1, a.sll_protocol = htons(ETH_P_IPV6);
    CHECK(bind(s, (SA *)&a, sizeof a) == 0);
    a.sll_protocol = 0;
    CHECK(bind(s, (SA *)&a, sizeof a) == 0);
    CHECK(getsockname(s, (SA *)&from, &size) == 0 && size == 18);
    CHECK(from_lo(ETH_P_IPV6, 0));
    CHECK(hello(4001) == 5 && next(s) == -EAGAIN);
    struct sockaddr_in6 six = {AF_INET6, htons(9), 0, IN6ADDR_LOOPBACK_INIT};
    int from6 = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(sendto(from6, "six", 3, 0, (SA *)&six, sizeof six) == 3);
    CHECK(next(s) == 14 + 40 + 8 + 3 && buf[14] >> 4 == 6 && buf[20] == IPPROTO_UDP);
    CHECK(buf[53] == 1 && memcmp(buf + 62, "six", 3) == 0);
    close(s), close(from6);
}

static void put(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && write(fd, value, 1) == 1);
    close(fd);
}

static unsigned short sum_of(const unsigned char *data, int size)
{
    unsigned sum = 0;
    for (int i = 0; i < size; i += 2)
        sum += data[i] << 8 | data[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    return ~((sum & 0xffff) + (sum >> 16));
}

static void sent(void)
{
    int cooked = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP)),
        raw = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    struct sockaddr_ll a = {AF_PACKET, htons(ETH_P_IP), 1};
    SA *to = (SA *)&a;
    while (recv(udp, buf, sizeof buf, MSG_DONTWAIT) >= 0)
        ;
    CHECK_ERR(send(cooked, "x", 1, 0), ENXIO);
    CHECK_ERR(sendto(cooked, "x", 1, 0, to, 19), EINVAL);
    a.sll_ifindex = 9;
    CHECK_ERR(sendto(cooked, "x", 1, 0, to, sizeof a), ENXIO);
    a.sll_ifindex = 1, a.sll_halen = 9;
    CHECK_ERR(sendto(cooked, "x", 1, 0, to, sizeof a), EINVAL);
    a.sll_halen = 6;
    CHECK(sendto(cooked, "x", 1, 0, to, sizeof a) == 1);
    CHECK(next(cooked) == 1 && from_lo(ETH_P_IP, PACKET_HOST));
    CHECK(next(raw) == 15 && from_lo(ETH_P_IP, PACKET_OUTGOING) && next(raw) == 15);
    CHECK_ERR(sendto(raw, "1234567890123", 13, 0, to, sizeof a), EINVAL);
    CHECK(sendto(raw, "12345678901234", 14, 0, to, sizeof a) == 14);
    CHECK(next(raw) == 14 && from_lo(0x3334, PACKET_MULTICAST)); /* not its own on the way out */
    CHECK(memcmp(from.sll_addr, "789012", 6) == 0 && next(raw) == -EAGAIN);
    CHECK(sendto(raw, "\2\0\0\0\0\0\0\0\0\0\0\0\0\5hi", 16, 0, to, sizeof a) == 16);
    CHECK(next(raw) == 16 && from_lo(4, PACKET_OTHERHOST));
    CHECK_ERR(sendto(cooked, buf, 65537, 0, to, sizeof a), EMSGSIZE);
    CHECK_ERR(sendto(raw, buf, 65551, 0, to, sizeof a), EMSGSIZE);

    unsigned char p[33] = {0x45, 0, 0, 33, 0, 1, 0x40, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1,
                           4001 >> 8, 4001 & 255, 4001 >> 8, 4001 & 255, 0, 13, 0, 0,
                           'h', 'e', 'l', 'l', 'o'};
    unsigned short sum = sum_of(p, 20);
    p[10] = sum >> 8, p[11] = sum;
    put("proc/sys/net/ipv4/conf/lo/accept_local", "0");
    put("proc/sys/net/ipv4/conf/lo/route_localnet", "0");
    CHECK(sendto(cooked, p, 33, 0, to, sizeof a) == 33); /* a Martian */
    CHECK_ERR(recv(udp, buf, 99, MSG_DONTWAIT), EAGAIN);
    put("proc/sys/net/ipv4/conf/lo/accept_local", "1");
    put("proc/sys/net/ipv4/conf/lo/route_localnet", "1");
    CHECK(next(cooked) == 33 && next(cooked) == -EAGAIN);
    CHECK(sendto(cooked, p, 33, 0, to, sizeof a) == 33);
    CHECK(next(cooked) == 33 && memcmp(buf, p, 33) == 0);
    socklen_t size = sizeof(struct sockaddr_in);
    CHECK(recvfrom(udp, buf, 99, MSG_DONTWAIT, (SA *)&a4, &size) == 5);
    CHECK(a4.sin_port == htons(4001) && a4.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    p[11] ^= 1; /* wrong checksums */
    CHECK(sendto(cooked, p, 33, 0, to, sizeof a) == 33);
    CHECK_ERR(recv(udp, buf, 99, MSG_DONTWAIT), EAGAIN);
    p[11] ^= 1, p[27] = 1;
    CHECK(sendto(cooked, p, 33, 0, to, sizeof a) == 33);
    CHECK_ERR(recv(udp, buf, 99, MSG_DONTWAIT), EAGAIN);
    p[27] = 0, a.sll_addr[0] = 2; /* another host's */
    CHECK(sendto(cooked, p, 33, 0, to, sizeof a) == 33);
    CHECK_ERR(recv(udp, buf, 99, MSG_DONTWAIT), EAGAIN);
    close(cooked), close(raw);
}

static void options(void)
{
    int s = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IP)), v = 1;
    CHECK_ERR(setsockopt(s, 0, 1, &v, 4), ENOPROTOOPT);
    CHECK_ERR(option(s, 0, 1), ENOPROTOOPT);
    CHECK_ERR(set_option(s, SOL_PACKET, 99, 1), ENOPROTOOPT);
    CHECK_ERR(option(s, SOL_PACKET, PACKET_ADD_MEMBERSHIP), ENOPROTOOPT);
    CHECK(set_option(s, SOL_PACKET, PACKET_ORIGDEV, 5) == 0);
    CHECK(option(s, SOL_PACKET, PACKET_ORIGDEV) == 1);
    CHECK(set_option(s, SOL_PACKET, PACKET_VERSION, 2) == 0);
    CHECK_ERR(set_option(s, SOL_PACKET, PACKET_VERSION, 9), EINVAL);
    struct packet_mreq m = {1, PACKET_MR_PROMISC};
    CHECK(setsockopt(s, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m) == 0);
    CHECK(setsockopt(s, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &m, sizeof m) == 0);
    CHECK(setsockopt(s, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &m, sizeof m) == 0);
    CHECK_ERR(setsockopt(s, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, 15), EINVAL);
    m.mr_ifindex = 9;
    CHECK_ERR(setsockopt(s, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m), ENODEV);
    m.mr_alen = 40;
    CHECK_ERR(setsockopt(s, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m), EINVAL);
    CHECK_ERR(set_option(s, 1, SO_DETACH_FILTER, 0), ENOENT);

    CHECK(set_option(s, SOL_PACKET, PACKET_AUXDATA, 1) == 0);
    CHECK(hello(4001) == 5);
    char control[100];
    struct iovec v1 = {buf, 20};
    struct msghdr h = {&from, sizeof from, &v1, 1, control, sizeof control};
    CHECK(recvmsg(s, &h, MSG_TRUNC) == 47 && h.msg_flags == MSG_TRUNC);
    struct cmsghdr *c = (void *)control;
    struct tpacket_auxdata *aux = (void *)CMSG_DATA(c);
    CHECK(c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA);
    CHECK(aux->tp_len == 47 && aux->tp_snaplen == 47 && aux->tp_net == 14);
    CHECK(aux->tp_status & TP_STATUS_USER);

    char table[2000];
    int fd = open("/proc/net/packet", O_RDONLY);
    CHECK(read(fd, table, sizeof table) > 0 && strstr(table, " 3    0800 "));
    close(fd), close(s);
}

static void down(void)
{
    int s = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP));
    struct sockaddr_ll a = {AF_PACKET, htons(ETH_P_IP), 1};
    struct ifreq lo = {"lo"};
    CHECK(ioctl(udp, SIOCSIFFLAGS, &lo) == 0);
    CHECK(bind(s, (SA *)&a, sizeof a) == 0);
    CHECK(option(s, 1, SO_ERROR) == ENETDOWN);
    CHECK_ERR(send(s, "x", 1, 0), ENETDOWN);
    close(s);
}

int main(void)
{
    alone();
    kinds();
    seen();
    bound();
    sent();
    options();
    down();
    CHECK(umount("proc") == 0 && rmdir("proc") == 0);
    return 0;
}
