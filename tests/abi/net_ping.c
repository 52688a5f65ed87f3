/* Ping sockets: who may have one, where they are bound, what they send and receive. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"
#include "net_own.h"

#include <netinet/ip_icmp.h>

static int ping4(void)
{
    return socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
}

static int ping6(void)
{
    return socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6);
}

static int bind4(int fd, unsigned ip, int id)
{
    struct sockaddr_in a = {AF_INET, htons(id), {htonl(ip)}};
    return bind(fd, (SA *)&a, sizeof a);
}

static int bind6(int fd, const char *ip, int id)
{
    struct sockaddr_in6 a = {AF_INET6, htons(id)};
    inet_pton(AF_INET6, ip, &a.sin6_addr);
    return bind(fd, (SA *)&a, sizeof a);
}

static void allowed(void)
{
    own_network();
    if (parted()) /* they are */
        return;
    CHECK_ERR(ping4(), EACCES);
    int fd = open("proc/sys/net/ipv4/ping_group_range", O_WRONLY);
    CHECK(fd >= 0 && write(fd, "0 100", 5) == 5);
    close(fd);
}

static void bound(void)
{
    int s = ping4(), t = ping4(), g = ping6();
    CHECK(option(s, 1, SO_REUSEADDR) == 1);
    CHECK_ERR(bind4(s, 0xe0000001, 0), EADDRNOTAVAIL);
    CHECK_ERR(bind4(s, 0xffffffff, 0), EADDRNOTAVAIL);
    CHECK_ERR(bind4(s, 0x7fffffff, 0), EADDRNOTAVAIL);
    CHECK_ERR(bind4(s, 0x08080808, 0), EADDRNOTAVAIL);
    CHECK(bind4(s, INADDR_LOOPBACK, 77) == 0 && port(s) == 77);
    CHECK_ERR(bind4(s, INADDR_LOOPBACK, 78), EINVAL);
    CHECK(bind4(t, INADDR_LOOPBACK, 77) == 0);
    CHECK_ERR(bind6(g, "ff02::1", 0), EINVAL);
    CHECK_ERR(bind6(g, "ff0e::1", 0), EINVAL);
    CHECK_ERR(bind6(g, "::ffff:127.0.0.1", 0), EINVAL);
    CHECK_ERR(bind6(g, "2001::1", 0), EADDRNOTAVAIL);
    CHECK(bind6(g, "::1", 5) == 0);
    close(s), close(t), close(g);
}

/* Without waiting where the answer comes with the call. */
#define AWAIT (parted() ? 0 : MSG_DONTWAIT)

static void echoes(void)
{
    int s = ping4();
    struct icmphdr h = {8};
    struct sockaddr_in a = loopback(across(9));
    char text[99];
    CHECK(sendto(s, &h, sizeof h, 0, (SA *)&a, sizeof a) == 8); /* the kernel makes the checksum */
    CHECK((port(s) & 0xffff) != 0);
    CHECK(recvfrom(s, text, 99, AWAIT, (SA *)&a4, (al = sizeof a4, &al)) == 8);
    CHECK(text[0] == 0 && a4.sin_port == 0 && *(unsigned short *)(text + 4) == htons(port(s)));
    CHECK(connect_to(s, across(0)) == 0);
    CHECK_ERR(getpeername(s, (SA *)&a4, &al), ENOTCONN);
    CHECK(send(s, &h, 8, 0) == 8 && recv(s, text, 99, AWAIT) == 8);
    CHECK_ERR(send(s, &h, 7, 0), EINVAL);
    h.code = 1;
    CHECK_ERR(send(s, &h, 8, 0), EINVAL);
    h.code = h.type = 0;
    CHECK_ERR(send(s, &h, 8, 0), EINVAL);
    h.type = 8;
    CHECK_ERR(send(s, &h, 8, MSG_OOB), EOPNOTSUPP);
    CHECK_ERR(listen(s, 1), EOPNOTSUPP);
    CHECK_ERR(option(s, SOL_RAW, 1), EOPNOTSUPP);
    CHECK_ERR(set_option(s, SOL_RAW, 1, 1), ENOPROTOOPT);
    CHECK_ERR(set_option(s, 0, IP_HDRINCL, 1), ENOPROTOOPT);
    close(s);
    s = ping6();
    h.type = 128;
    struct sockaddr_in6 six = {AF_INET6, 0, 0, address6_of(across(0) >> 16)};
    CHECK(sendto(s, &h, 8, 0, (SA *)&six, sizeof six) == 8);
    CHECK(recv(s, text, 99, AWAIT) == 8 && (unsigned char)text[0] == 129);
    close(s);
}

/* The data of a control message of the next packet. */
static char told[64];

static int tells(int fd, int level, int name)
{
    char text[99], control[400];
    struct iovec iov = {text, sizeof text};
    struct msghdr m = {NULL, 0, &iov, 1, control, sizeof control};
    CHECK(recvmsg(fd, &m, MSG_DONTWAIT) > 0);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == level && c->cmsg_type == name) {
            memcpy(told, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
            return 1;
        }
    return 0;
}

static int send_with(int fd, void *header, SA *to, int size, int level, int name, void *data, int n)
{
    union {
        struct cmsghdr head;
        char room[100];
    } control = {.head = {CMSG_LEN(n), level, name}};
    struct iovec iov = {header, 8};
    struct msghdr m = {to, size, &iov, 1, &control, CMSG_SPACE(n)};
    memcpy(CMSG_DATA(&control.head), data, n);
    return sendmsg(fd, &m, 0);
}

/* A reply has the class of its request; the kernel does not look for the address of ours. */
static void classes(void)
{
    struct icmphdr h = {8};
    struct sockaddr_in a = loopback(0);
    struct sockaddr_in6 six = {AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT};
    struct in_pktinfo source = {0};
    int s = ping4(), g = ping6(), tos = 0x20, tclass = 0x88;
    CHECK(set_option(s, 0, IP_TOS, 0x48) == 0 && set_option(s, 0, IP_RECVTOS, 1) == 0);
    CHECK(sendto(s, &h, 8, 0, (SA *)&a, sizeof a) == 8 && tells(s, 0, IP_TOS) && told[0] == 0x48);
    CHECK(send_with(s, &h, (SA *)&a, sizeof a, 0, IP_TOS, &tos, 4) == 8);
    CHECK(tells(s, 0, IP_TOS) && told[0] == 0x20);
    CHECK(set_option(s, 0, IP_PKTINFO, 1) == 0 && set_option(s, 0, IP_RECVORIGDSTADDR, 1) == 0);
    CHECK(sendto(s, &h, 8, 0, (SA *)&a, sizeof a) == 8 && tells(s, 0, IP_PKTINFO));
    CHECK(!memcmp(told, "\1\0\0\0" "\0\0\0\0" "\177\0\0\1", 12));
    unsigned short sum;
    CHECK(sendto(s, &h, 8, 0, (SA *)&a, sizeof a) == 8);
    char text[8];
    CHECK(recv(s, text, 8, MSG_DONTWAIT | MSG_PEEK) == 8 && memcpy(&sum, text + 2, 2));
    CHECK(tells(s, 0, IP_ORIGDSTADDR) && !memcmp(told + 2, &sum, 2));
    CHECK(inet_pton(AF_INET, "127.9.9.9", &source.ipi_spec_dst) == 1);
    CHECK(bind4(s, INADDR_LOOPBACK, 0) == -1);
    CHECK(send_with(s, &h, (SA *)&a, sizeof a, 0, IP_PKTINFO, &source, sizeof source) == 8);
    CHECK(recv(s, text, 8, MSG_DONTWAIT) == 8);
    CHECK(inet_pton(AF_INET, "10.9.9.9", &source.ipi_spec_dst) == 1);
    CHECK_ERR(send_with(s, &h, (SA *)&a, sizeof a, 0, IP_PKTINFO, &source, sizeof source),
              ENETUNREACH);
    source = (struct in_pktinfo){99};
    CHECK_ERR(send_with(s, &h, (SA *)&a, sizeof a, 0, IP_PKTINFO, &source, sizeof source), ENODEV);

    h.type = 128;
    CHECK(set_option(g, 41, IPV6_TCLASS, 0x24) == 0 && set_option(g, 41, IPV6_RECVTCLASS, 1) == 0);
    CHECK(sendto(g, &h, 8, 0, (SA *)&six, sizeof six) == 8);
    CHECK(tells(g, 41, IPV6_TCLASS) && told[0] == 0x24);
    CHECK(send_with(g, &h, (SA *)&six, sizeof six, 41, IPV6_TCLASS, &tclass, 4) == 8);
    CHECK(tells(g, 41, IPV6_TCLASS) && told[0] == (char)0x88);
    close(s), close(g);
}

/* The header is looked at before the address, the address before the way. */
static void checks(void)
{
    static char big[70000] = {8};
    struct icmphdr h = {8}, h6 = {128}, extended = {42}, wrong = {13};
    struct sockaddr_in a = loopback(0), b = {AF_INET}, none = loopback(0);
    struct sockaddr_in6 six = {AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT}, mapped = {AF_INET6};
    struct sockaddr_in6 group = {AF_INET6};
    int s = ping4(), g = ping6();
    CHECK_ERR(sendto(s, &h, 8, 0, NULL, 0), EDESTADDRREQ);
    CHECK_ERR(sendto(s, &wrong, 8, 0, NULL, 0), EINVAL);
    CHECK_ERR(sendto(s, NULL, 8, MSG_OOB, (SA *)&a, 15), EOPNOTSUPP);
    CHECK_ERR(sendto(s, NULL, 7, MSG_OOB, (SA *)&a, 15), EINVAL);
    CHECK_ERR(sendto(s, NULL, 8, 0, (SA *)&a, 15), EFAULT);
    CHECK_ERR(sendto(s, &h, 8, 0, (SA *)&a, 15), EINVAL);
    CHECK_ERR(sendto(s, &h, 8, 0, (SA *)&six, sizeof six), EAFNOSUPPORT);
    none.sin_family = 0;
    CHECK_ERR(sendto(s, &h, 8, 0, (SA *)&none, sizeof none), EAFNOSUPPORT);
    CHECK(sendto(s, &extended, 8, 0, (SA *)&a, sizeof a) == 8);
    CHECK_ERR(recv(s, big, 8, MSG_DONTWAIT), EAGAIN);
    inet_pton(AF_INET, "10.1.1.1", &b.sin_addr);
    CHECK_ERR(sendto(s, &h, 8, 0, (SA *)&b, sizeof b), ENETUNREACH);
    b.sin_addr.s_addr = htonl(0x7fffffff);
    CHECK_ERR(sendto(s, &h, 8, 0, (SA *)&b, sizeof b), EACCES);
    CHECK_ERR(connect(s, (SA *)&b, sizeof b), EACCES);
    CHECK(set_option(s, 1, SO_BROADCAST, 1) == 0);
    CHECK(sendto(s, &h, 8, 0, (SA *)&b, sizeof b) == 8);
    CHECK_ERR(recv(s, big, 8, MSG_DONTWAIT), EAGAIN);
    big[0] = 8;
    CHECK(sendto(s, big, 65515, 0, (SA *)&a, sizeof a) == 65515);
    CHECK_ERR(sendto(s, big, 65516, 0, (SA *)&a, sizeof a), EMSGSIZE);
    CHECK_ERR(sendto(s, big, 65536, 0, (SA *)&a, sizeof a), EMSGSIZE);
    CHECK_ERR(queued(s, FIONREAD), ENOTTY);
    CHECK_ERR(queued(s, TIOCOUTQ), ENOTTY);

    CHECK_ERR(sendto(g, &h6, 8, 0, (SA *)&six, 24), EINVAL);
    CHECK_ERR(sendto(g, &h6, 8, 0, (SA *)&a, sizeof a), EINVAL);
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &mapped.sin6_addr);
    inet_pton(AF_INET6, "ff02::1", &group.sin6_addr);
    CHECK_ERR(sendto(g, &h6, 8, 0, (SA *)&mapped, sizeof mapped), EINVAL);
    CHECK_ERR(sendto(g, &h6, 8, 0, (SA *)&group, sizeof group), EINVAL);
    CHECK_ERR(bind(g, (SA *)&six, 24), EINVAL);
    CHECK_ERR(connect(g, (SA *)&a, sizeof a), EAFNOSUPPORT);
    big[0] = 128;
    CHECK(sendto(g, big, 65535, 0, (SA *)&six, sizeof six) == 65535);
    CHECK_ERR(sendto(g, big, 65536, 0, (SA *)&six, sizeof six), EMSGSIZE);
    close(s), close(g);
}

/* A connected socket hears everybody; of two with an identifier the last one gets the reply. */
static void replies(void)
{
    struct icmphdr h = {8};
    struct sockaddr_in a = loopback(0);
    struct sockaddr un = {0};
    char text[8];
    int s = ping4(), t = ping4();
    CHECK(connect_to(s, 0) == 0);
    inet_pton(AF_INET, "127.1.2.3", &a.sin_addr);
    CHECK(sendto(s, &h, 8, 0, (SA *)&a, sizeof a) == 8 && recv(s, text, 8, MSG_DONTWAIT) == 8);
    CHECK(option(s, 0, IP_PROTOCOL) == port(s));
    CHECK(shutdown(s, SHUT_WR) == 0);
    CHECK_ERR(send(s, &h, 8, 0), EPIPE);
    close(s);
    s = ping4();
    CHECK(bind4(s, INADDR_LOOPBACK, 99) == 0 && bind4(t, INADDR_LOOPBACK, 99) == 0);
    CHECK(sendto(s, &h, 8, 0, (SA *)&a, sizeof a) == 8);
    CHECK_ERR(recv(s, text, 8, MSG_DONTWAIT), EAGAIN);
    CHECK(recv(t, text, 8, MSG_DONTWAIT) == 8);
    CHECK(connect(t, (SA *)&a, sizeof a) == 0 && connect(t, &un, sizeof un) == 0 && port(t) == 99);
    close(s), close(t);
}

int main(void)
{
    allowed();
    echoes();
    if (!parted()) { /* they are about addresses of one's own */
        bound();
        classes();
        checks();
        replies();
    }
    if (!parted())
        CHECK(umount("proc") == 0 && rmdir("proc") == 0);
    return 0;
}
