/* Raw sockets: names, where the protocol stands for a port; MSG_MORE; broadcast. And what is
   said where no address is left. */
#define _GNU_SOURCE
#include "abi.h"
#include "net_own.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

static struct sockaddr_in address4(const char *text, int at)
{
    struct sockaddr_in a = {AF_INET, htons(at)};
    CHECK(inet_pton(AF_INET, text, &a.sin_addr) == 1);
    return a;
}

static struct sockaddr_in6 address6(const char *text, int at)
{
    struct sockaddr_in6 a = {AF_INET6, htons(at)};
    CHECK(inet_pton(AF_INET6, text, &a.sin6_addr) == 1);
    return a;
}

/* The name is this one. */
static int is_named(int fd, int peer, const char *text, int at)
{
    struct sockaddr_in6 a = {0};
    socklen_t size = sizeof a;
    char shown[64];
    if ((peer ? getpeername : getsockname)(fd, (SA *)&a, &size))
        return 0;
    if (a.sin6_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)&a)->sin_addr, shown, sizeof shown);
    else
        inet_ntop(AF_INET6, &a.sin6_addr, shown, sizeof shown);
    return !strcmp(shown, text) && ntohs(a.sin6_port) == at;
}

static void names(int protocol)
{
    struct sockaddr_in q = address4("127.1.2.3", 55), l = address4("127.0.0.1", 0);
    struct sockaddr_in6 six = address6("::1", 77), mapped = address6("::ffff:127.0.0.1", 0);
    struct sockaddr un = {0}, peer;
    socklen_t size = sizeof peer;
    int s = socket(AF_INET, SOCK_RAW, protocol), t = socket(AF_INET6, SOCK_RAW, protocol);
    CHECK(is_named(s, 0, "0.0.0.0", protocol) && is_named(t, 0, "::", protocol));
    CHECK(option(s, 0, IP_PROTOCOL) == protocol);
    CHECK(bind(s, (SA *)&q, sizeof q) == 0 && is_named(s, 0, "127.1.2.3", protocol));
    CHECK(bind(s, (SA *)&l, sizeof l) == 0 && is_named(s, 0, "127.0.0.1", protocol));
    CHECK(bind(t, (SA *)&six, sizeof six) == 0 && is_named(t, 0, "::1", protocol));
    CHECK(connect(s, (SA *)&q, sizeof q) == 0 && is_named(s, 1, "127.1.2.3", 55));
    CHECK_ERR(bind(s, (SA *)&l, sizeof l), EINVAL);
    CHECK(connect(s, (SA *)&l, sizeof l) == 0);
    CHECK_ERR(getpeername(s, &peer, &size), ENOTCONN);  // without a port there is no peer
    CHECK(connect(s, &un, sizeof un) == 0 && is_named(s, 0, "0.0.0.0", 0));
    CHECK(connect(t, &un, sizeof un) == 0 && is_named(t, 0, "::", 0));
    close(s), close(t);

    s = socket(AF_INET, SOCK_RAW, protocol), t = socket(AF_INET6, SOCK_RAW, protocol);
    CHECK(connect(s, (SA *)&q, sizeof q) == 0 && is_named(s, 0, "127.0.0.1", protocol));
    CHECK(connect(t, (SA *)&six, sizeof six) == 0 && is_named(t, 0, "::1", protocol));
    CHECK(is_named(t, 1, "::1", 77));
    CHECK_ERR(connect(t, (SA *)&q, sizeof q), EAFNOSUPPORT);
    close(t);
    t = socket(AF_INET6, SOCK_RAW, protocol);
    CHECK(connect(t, (SA *)&mapped, sizeof mapped) == 0);
    CHECK(is_named(t, 0, "::ffff:127.0.0.1", protocol));
    close(s), close(t);
}

static void bound(void)
{
    struct sockaddr_in6 mapped = address6("::ffff:127.0.0.1", 0), group = address6("ff02::1", 0);
    struct sockaddr_in all = address4("255.255.255.255", 0), there = address4("10.1.1.1", 0);
    int s = socket(AF_INET, SOCK_RAW, 253), t = socket(AF_INET6, SOCK_RAW, 253);
    CHECK(bind(s, (SA *)&all, sizeof all) == 0);
    CHECK_ERR(bind(s, (SA *)&there, sizeof there), EADDRNOTAVAIL);
    CHECK_ERR(bind(t, (SA *)&mapped, sizeof mapped), EADDRNOTAVAIL);
    CHECK_ERR(bind(t, (SA *)&group, sizeof group), EINVAL);
    CHECK_ERR(connect(t, (SA *)&group, sizeof group), EINVAL);
    CHECK_ERR(sendto(t, "a", 1, 0, (SA *)&mapped, sizeof mapped), ENETUNREACH);
    close(s), close(t);
}

static void more(void)
{
    char text[64];
    struct sockaddr_in l = address4("127.0.0.1", 0), q = address4("127.1.2.3", 0);
    struct sockaddr_in6 six = address6("::1", 0);
    struct sockaddr un = {0};
    int s = socket(AF_INET, SOCK_RAW, 253), t = socket(AF_INET6, SOCK_RAW, 253);
    CHECK(sendto(s, "ab", 2, MSG_MORE, (SA *)&l, sizeof l) == 2);
    CHECK_ERR(recv(s, text, sizeof text, MSG_DONTWAIT), EAGAIN);
    CHECK(sendto(s, "c", 1, 0, (SA *)&q, sizeof q) == 1);
    CHECK(queued(s, FIONREAD) == 23);
    CHECK(recv(s, text, sizeof text, MSG_DONTWAIT) == 23 && !memcmp(text + 20, "abc", 3));
    CHECK(!memcmp(text + 16, &q.sin_addr, 4));  // where the last part went
    CHECK(sendto(t, "ab", 2, MSG_MORE, (SA *)&six, sizeof six) == 2);
    CHECK_ERR(recv(t, text, sizeof text, MSG_DONTWAIT), EAGAIN);
    CHECK(sendto(t, "c", 1, 0, (SA *)&six, sizeof six) == 1);
    CHECK(queued(t, FIONREAD) == 3 && recv(t, text, sizeof text, MSG_DONTWAIT) == 3);
    CHECK_ERR(sendto(s, NULL, 6, MSG_OOB, (SA *)&l, 15), EOPNOTSUPP);
    CHECK_ERR(sendto(s, "a", 1, 0, (SA *)&l, 15), EINVAL);
    CHECK_ERR(shutdown(s, SHUT_WR), ENOTCONN);
    CHECK(sendto(s, "a", 1, 0, (SA *)&l, sizeof l) == 1 && recv(s, text, 64, MSG_DONTWAIT) == 21);
    CHECK(connect(s, (SA *)&l, sizeof l) == 0 && connect(s, &un, sizeof un) == 0);
    CHECK(sendto(s, "a", 1, 0, (SA *)&l, sizeof l) == 1);
    CHECK_ERR(recv(s, text, sizeof text, MSG_DONTWAIT), EAGAIN);  // it is not in the table now
    close(s), close(t);
}

/* The broadcast address of the loopback. */
static void broadcast(void)
{
    char text[64], control[100];
    struct sockaddr_in b = address4("127.255.255.255", 0), all = address4("255.255.255.255", 9);
    struct sockaddr_in any = {AF_INET}, l = loopback(0);
    int s = socket(AF_INET, SOCK_RAW, 253), u = socket(AF_INET, SOCK_DGRAM, 0);
    int hears = socket(AF_INET, SOCK_DGRAM, 0), here = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_ERR(sendto(s, "a", 1, 0, (SA *)&b, sizeof b), EACCES);
    CHECK_ERR(connect(s, (SA *)&b, sizeof b), EACCES);
    CHECK(set_option(s, SOL_SOCKET, SO_BROADCAST, 1) == 0);
    CHECK(sendto(s, "a", 1, 0, (SA *)&b, sizeof b) == 1);
    CHECK(recv(s, text, sizeof text, MSG_DONTWAIT) == 21 && !memcmp(text + 16, &b.sin_addr, 4));

    CHECK(bind(hears, (SA *)&any, sizeof any) == 0 && set_option(hears, 0, IP_PKTINFO, 1) == 0);
    CHECK(bind_to(here, 0) == 0);
    b.sin_port = htons(port(hears));
    CHECK_ERR(sendto(u, "b", 1, 0, (SA *)&b, sizeof b), EACCES);
    CHECK_ERR(connect(u, (SA *)&b, sizeof b), EACCES);
    CHECK_ERR(sendto(u, "b", 1, 0, (SA *)&all, sizeof all), ENETUNREACH);
    CHECK(set_option(u, SOL_SOCKET, SO_BROADCAST, 1) == 0);
    CHECK(sendto(u, "b", 1, 0, (SA *)&b, sizeof b) == 1);
    struct iovec iov = {text, sizeof text};
    struct msghdr m = {NULL, 0, &iov, 1, control, sizeof control};
    CHECK(recvmsg(hears, &m, MSG_DONTWAIT) == 1);
    struct in_pktinfo *info = (void *)CMSG_DATA(CMSG_FIRSTHDR(&m));
    CHECK(info->ipi_addr.s_addr == b.sin_addr.s_addr);
    CHECK(info->ipi_spec_dst.s_addr == htonl(INADDR_LOOPBACK));
    CHECK(connect(u, (SA *)&b, sizeof b) == 0 && send(u, "b", 1, 0) == 1);
    CHECK(set_option(u, SOL_SOCKET, SO_BROADCAST, 0) == 0);
    CHECK(send(u, "b", 1, 0) == 1);  // the way was found before
    CHECK_ERR(sendto(u, "b", 1, 0, (SA *)&b, sizeof b), EACCES);
    CHECK(recv(hears, text, 9, MSG_DONTWAIT) == 1 && recv(hears, text, 9, MSG_DONTWAIT) == 1);
    CHECK_ERR(recv(hears, text, 9, MSG_DONTWAIT), EAGAIN);
    b.sin_port = htons(port(here));
    CHECK(set_option(u, SOL_SOCKET, SO_BROADCAST, 1) == 0);
    CHECK(sendto(u, "b", 1, 0, (SA *)&b, sizeof b) == 1);
    CHECK_ERR(recv(here, text, 9, MSG_DONTWAIT), EAGAIN);  // bound to another address
    int stream = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERR(connect(stream, (SA *)&b, sizeof b), ENETUNREACH);
    close(stream), close(s), close(u), close(hears), close(here);
}

/* A control message may name addresses of ours alone, and a protocol. */
static int send_from(int fd, int level, int name, const void *data, int size, SA *to, int length)
{
    union {
        struct cmsghdr head;
        char room[100];
    } control = {.head = {CMSG_LEN(size), level, name}};
    struct iovec iov = {"abcd", 4};
    struct msghdr m = {to, length, &iov, 1, &control, CMSG_SPACE(size)};
    memcpy(CMSG_DATA(&control.head), data, size);
    return sendmsg(fd, &m, 0);
}

static void sources(void)
{
    struct sockaddr_in l = address4("127.0.0.1", 999);
    struct sockaddr_in6 six = address6("::1", 999), foreign = address6("::3", 0);
    struct in_pktinfo source = {0, address4("10.9.9.9", 0).sin_addr};
    struct in6_pktinfo source6 = {foreign.sin6_addr, 0};
    int s = socket(AF_INET, SOCK_DGRAM, 0), t = socket(AF_INET6, SOCK_DGRAM, 0), bad[] = {0, 256};
    for (int i = 0; i < 2; i++)
        CHECK_ERR(send_from(s, 0, IP_PROTOCOL, bad + i, 4, (SA *)&l, sizeof l), EINVAL);
    CHECK_ERR(send_from(s, 0, IP_PKTINFO, &source, 12, (SA *)&l, sizeof l), ENETUNREACH);
    CHECK(set_option(s, 0, IP_FREEBIND, 1) == 0);
    CHECK_ERR(send_from(s, 0, IP_PKTINFO, &source, 12, (SA *)&l, sizeof l), ENETUNREACH);
    CHECK(set_option(s, 0, IP_TRANSPARENT, 1) == 0);
    CHECK(send_from(s, 0, IP_PKTINFO, &source, 12, (SA *)&l, sizeof l) == 4);
    CHECK_ERR(send_from(t, 41, IPV6_PKTINFO, &source6, 20, (SA *)&six, sizeof six), EINVAL);
    CHECK(set_option(t, 0, IP_FREEBIND, 1) == 0 && option(t, 41, IPV6_FREEBIND) == 1);
    CHECK(send_from(t, 41, IPV6_PKTINFO, &source6, 20, (SA *)&six, sizeof six) == 4);
    CHECK(set_option(t, 41, IPV6_FREEBIND, 0) == 0 && option(t, 0, IP_FREEBIND) == 0);
    CHECK(set_option(t, 41, IPV6_TRANSPARENT, 1) == 0 && option(t, 0, IP_TRANSPARENT) == 1);
    CHECK(send_from(t, 41, IPV6_PKTINFO, &source6, 20, (SA *)&six, sizeof six) == 4);
    CHECK(option(s, 0, IP_PROTOCOL) == port(s));
    close(s), close(t);
}

/* Nothing of IPv6 is left: there is no address to send from. */
static void without_ipv6(void)
{
    struct {
        struct nlmsghdr head;
        struct ifaddrmsg address;
        struct rtattr local;
        struct in6_addr ip;
    } request = {{sizeof request, RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK},
                 {AF_INET6, 128, 0, 0, 1}, {20, IFA_LOCAL}, IN6ADDR_LOOPBACK_INIT};
    int route = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    char answer[200];
    CHECK(send(route, &request, sizeof request, 0) == sizeof request);
    CHECK(recv(route, answer, sizeof answer, 0) > 0 && *(int *)(answer + 16) == 0);
    struct sockaddr_in6 l = address6("::1", 9), any = address6("::", 9);
    int u = socket(AF_INET6, SOCK_DGRAM, 0), s = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK_ERR(connect(u, (SA *)&l, sizeof l), EADDRNOTAVAIL);
    CHECK_ERR(connect(u, (SA *)&any, sizeof any), EADDRNOTAVAIL);
    CHECK_ERR(sendto(u, "a", 1, 0, (SA *)&l, sizeof l), EADDRNOTAVAIL);
    CHECK_ERR(bind(u, (SA *)&l, sizeof l), EINVAL);  // a port it has
    CHECK_ERR(connect(s, (SA *)&l, sizeof l), EADDRNOTAVAIL);
    CHECK_ERR(bind(s, (SA *)&l, sizeof l), EADDRNOTAVAIL);
    close(u), close(s), close(route);
}

int main(void)
{
    own_network();
    names(253), names(IPPROTO_ICMP), names(IPPROTO_RAW);
    bound();
    more();
    broadcast();
    sources();
    without_ipv6();
    return 0;
}
