/* IPv6 and IPv4 through it: mapped addresses, IPV6_V6ONLY, control messages, errors;
 arguments of socket(2). */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

static char buf[100];

static struct sockaddr_in6 g6;
static socklen_t gl;

/* An address of the loopback; of two machines that of one of them. */
static const char *at_end(const char *ip, int far_end)
{
    static char text[64], four[64];
    struct in_addr v4 = address_of(far_end);
    struct in6_addr v6 = address6_of(far_end);
    if (!parted() || (strcmp(ip, "::1") && strcmp(ip, "::ffff:127.0.0.1")))
        return ip;
    if (!strcmp(ip, "::1"))
        return inet_ntop(AF_INET6, &v6, text, sizeof text);
    snprintf(text, sizeof text, "::ffff:%s", inet_ntop(AF_INET, &v4, four, sizeof four));
    return text;
}

static struct sockaddr_in6 six(const char *ip, int p)
{
    struct sockaddr_in6 a = {AF_INET6, htons(p)};
    inet_pton(AF_INET6, at_end(ip, p >> 16 & 1), &a.sin6_addr);
    return a;
}

static int b6(int fd, const char *ip, int p)
{
    struct sockaddr_in6 a = six(ip, p | is_far(fd) << 16);
    return bind(fd, (SA *)&a, sizeof a);
}

static int c6(int fd, const char *ip, int p)
{
    struct sockaddr_in6 a = six(ip, p);
    return connect(fd, (SA *)&a, sizeof a);
}

static int s6(int fd, const char *ip, int p)
{
    struct sockaddr_in6 a = six(ip, p);
    return sendto(fd, "hi", 2, 0, (SA *)&a, sizeof a);
}

static int name(int fd, const char *ip)
{
    char t[99];
    gl = sizeof g6;
    if (getsockname(fd, (SA *)&g6, &gl))
        return -1;
    return !strcmp(inet_ntop(AF_INET6, &g6.sin6_addr, t, 99), at_end(ip, is_far(fd)));
}

static int peer(int fd, const char *ip)
{
    char t[99];
    gl = sizeof g6;
    if (getpeername(fd, (SA *)&g6, &gl))
        return -1;
    return !strcmp(inet_ntop(AF_INET6, &g6.sin6_addr, t, 99), at_end(ip, !is_far(fd)));
}

static void streams(void)
{
    int l, c, s;
    l = other_socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(b6(l, "::", 0) == 0);
    CHECK(name(l, "::") == 1);
    CHECK(gl == 28);
    CHECK(listen(l, 3) == 0);
    c = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(c6(c, "::1", port(l)) == 0);
    CHECK(name(c, "::1") == 1);
    CHECK(peer(c, "::1") == 1);
    s = accept(l, 0, 0);
    CHECK(name(s, "::1") == 1);
    close(c);
    close(s);
    c = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect_to(c, port(l)) == 0);
    s = accept(l, (SA *)&g6, (gl = sizeof g6, &gl));
    CHECK(gl == 28);
    CHECK(name(s, "::ffff:127.0.0.1") == 1);
    CHECK(peer(s, "::ffff:127.0.0.1") == 1);
    close(c);
    close(s);
    c = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(c6(c, "::ffff:127.0.0.1", port(l)) == 0);
    CHECK(name(c, "::ffff:127.0.0.1") == 1);
    s = accept(l, 0, 0);
    CHECK(option(s, IPPROTO_IP, IP_TTL) == 64);
    CHECK(option(c, 41, IPV6_UNICAST_HOPS) == 64);
    close(c);
    close(s);
    c = socket(AF_INET6, SOCK_STREAM, 0);
    if (!parted()) { /* here */
        CHECK(c6(c, "::", port(l)) == 0);
        CHECK(peer(c, "::1") == 1);
    }
    close(c);
    CHECK_ERR(set_option(l, 41, IPV6_V6ONLY, 1), EINVAL);
    CHECK(option(l, 41, IPV6_V6ONLY) == 0);
    close(l);

    l = other_socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(set_option(l, 41, IPV6_V6ONLY, 1) == 0);
    CHECK_ERR(b6(l, "::ffff:127.0.0.1", 0), EINVAL);
    CHECK(b6(l, "::", 0) == 0);
    CHECK(listen(l, 1) == 0);
    c = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERR(connect_to(c, port(l)), ECONNREFUSED);
    close(c);
    s = socket_at(port(l), AF_INET, SOCK_STREAM, 0);
    CHECK(bind_to(s, port(l)) == 0);
    CHECK(listen(s, 1) == 0);
    close(s);
    c = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK_ERR(c6(c, "::ffff:127.0.0.1", port(l)), ECONNREFUSED);
    CHECK(set_option(c, 41, IPV6_V6ONLY, 1) == 0);
    CHECK_ERR(c6(c, "::ffff:127.0.0.1", port(l)), ENETUNREACH);
    close(c);
    close(l);

    l = other_socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(b6(l, "::1", 0) == 0);
    listen(l, 1);
    c = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERR(connect_to(c, port(l)), ECONNREFUSED);
    close(c);
    c = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(b6(c, "::ffff:127.0.0.1", 0) == 0);
    CHECK_ERR(c6(c, "::1", port(l)), EAFNOSUPPORT);
    close(c);
    c = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(b6(c, "::1", 0) == 0);
    CHECK_ERR(c6(c, "::ffff:127.0.0.1", port(l)), ENETUNREACH);
    CHECK_ERR(b6(c, "::1", 0), EINVAL);
    close(c);
    close(l);

    c = socket(AF_INET6, SOCK_STREAM, 0);
    {
        struct sockaddr_in a = loopback(0);
        CHECK_ERR(bind(c, (SA *)&a, sizeof a), EINVAL);
        CHECK_ERR(bind(c, (SA *)&a, 28), EAFNOSUPPORT);
        CHECK_ERR(connect(c, (SA *)&a, sizeof a), EINVAL);
        struct sockaddr_in6 x = six("::1", is_far(c) << 16);
        CHECK(bind(c, (SA *)&x, 24) == 0);
        CHECK(port(c) > 0);
        x = six("::1", 1);
        CHECK_ERR(connect(c, (SA *)&x, 20), EINVAL);
        CHECK_ERR(connect(c, (SA *)&x, 23), EINVAL);
        x.sin6_family = 0;
        CHECK(connect(c, (SA *)&x, 24) == 0);
    }
    close(c);
    c = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK_ERR(b6(c, "2001:db8::5", 0), EADDRNOTAVAIL);
    CHECK_ERR(b6(c, "ff02::1", 0), EINVAL);
    CHECK_ERR(b6(c, "::ffff:10.9.8.7", 0), EADDRNOTAVAIL);
    CHECK_ERR(b6(c, "fe80::1", 0), EINVAL);
    CHECK_ERR(c6(c, "ff02::1", 9), ENETUNREACH);
    close(c);

    CHECK_ERR(socket(AF_INET6, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    CHECK_ERR(socket(AF_INET6, 7, 0), ESOCKTNOSUPPORT);
    CHECK_ERR(socket(AF_INET6, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
    CHECK_ERR(socket(AF_INET6, SOCK_RAW, 0), EPROTONOSUPPORT);
    CHECK_ERR(socket(AF_INET, SOCK_RAW, 0), EPROTONOSUPPORT);
    CHECK_ERR(socket(AF_INET, SOCK_STREAM, 300), EINVAL);
    CHECK_ERR(socket(AF_INET, SOCK_STREAM, -1), EINVAL);
    CHECK_ERR(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP), EPROTONOSUPPORT);
    CHECK_ERR(socket(AF_INET, SOCK_RDM, 0), ESOCKTNOSUPPORT);
    CHECK_ERR(socket(AF_INET, 0, 0), ESOCKTNOSUPPORT);
    CHECK_ERR(socket(AF_INET, 0, IPPROTO_TCP), ESOCKTNOSUPPORT);
}

static void datagrams(void)
{
    int a, b;
    a = other_socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(b6(a, "::", 0) == 0);
    b = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(s6(b, "::1", port(a)) == 2);
    CHECK(recvfrom(a, buf, 9, 0, (SA *)&g6, (gl = sizeof g6, &gl)) == 2);
    CHECK(gl == 28);
    CHECK(s6(b, "::ffff:127.0.0.1", port(a)) == 2);
    CHECK(recvfrom(a, buf, 9, 0, (SA *)&g6, (gl = sizeof g6, &gl)) == 2);
    CHECK(IN6_IS_ADDR_V4MAPPED(&g6.sin6_addr) == 1);
    {
        struct sockaddr_in x = loopback(port(a));
        CHECK(sendto(b, "x", 1, 0, (SA *)&x, 16) == 1);
        CHECK(recv(a, buf, 9, MSG_DONTWAIT) == 1);
        CHECK(connect(b, (SA *)&x, 16) == 0);
        CHECK(peer(b, "::ffff:127.0.0.1") == 1);
        CHECK_ERR(s6(b, "::1", port(a)), EAFNOSUPPORT);
        x.sin_family = 0;
        CHECK(connect(b, (SA *)&x, 16) == 0);
        CHECK(c6(b, "::1", port(a)) == 0);
        CHECK(name(b, "::1") == 1);
        CHECK(s6(b, "::ffff:127.0.0.1", port(a)) == 2);
    }
    close(b);
    b = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(connect_to(b, port(a)) == 0);
    CHECK(send(b, "x", 1, 0) == 1);
    CHECK(recv(a, buf, 9, MSG_DONTWAIT) == 2);
    close(b);
    b = socket(AF_INET6, SOCK_DGRAM, 0);
    set_option(b, 41, IPV6_V6ONLY, 1);
    CHECK_ERR(s6(b, "::ffff:127.0.0.1", port(a)), ENETUNREACH);
    CHECK_ERR(s6(b, "::1", 0), EINVAL);
    CHECK(s6(b, parted() ? "::1" : "::", port(a)) == 2);
    CHECK(recv(a, buf, 9, MSG_DONTWAIT) == 1);

    set_option(a, 41, IPV6_RECVPKTINFO, 1);
    set_option(a, 41, IPV6_RECVHOPLIMIT, 1);
    set_option(a, 41, IPV6_RECVTCLASS, 1);
    set_option(b, 41, IPV6_UNICAST_HOPS, 7);
    set_option(b, 41, IPV6_TCLASS, 0x20);
    CHECK(s6(b, "::1", port(a)) == 2);
    {
        char cb[256];
        struct iovec v = {buf, 9};
        struct msghdr m = {&g6, sizeof g6, &v, 1, cb, 256};
        CHECK(recvmsg(a, &m, 0) == 2);
        CHECK(m.msg_controllen == 88);
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
            if (c->cmsg_type == IPV6_HOPLIMIT)
                CHECK(*(int *)CMSG_DATA(c) == 64);
            else if (c->cmsg_type == IPV6_TCLASS)
                CHECK(*(int *)CMSG_DATA(c) == 0);
            else if (c->cmsg_type == IPV6_PKTINFO)
                CHECK((((struct in6_pktinfo *)CMSG_DATA(c))->ipi6_ifindex == 1) == !parted());
            else
                CHECK(c->cmsg_type == -1);
        }
    }
    {
        int p = port(a);
        close(a);
        CHECK(c6(b, "::1", p) == 0);
        CHECK(send(b, "x", 1, 0) == 1);
        wait_for(b, POLLERR);
        CHECK(events(b) == (POLLOUT | POLLERR));
        CHECK_ERR(send(b, "x", 1, 0), ECONNREFUSED);
        set_option(b, 41, IPV6_RECVERR, 1);
        CHECK(send(b, "x", 1, 0) == 1);
        wait_for(b, POLLERR);
        char cb[256];
        struct iovec v = {buf, 9};
        struct msghdr m = {&g6, sizeof g6, &v, 1, cb, 256};
        CHECK(recvmsg(b, &m, MSG_ERRQUEUE) == 1);
        CHECK(m.msg_flags == 8192);
        CHECK(m.msg_controllen == 64);
        CHECK(((struct cmsghdr *)cb)->cmsg_level == 41);
        CHECK(((struct cmsghdr *)cb)->cmsg_type == 25);
    }
    close(b);
}

/* An address that a program chooses is of one family: no IPv4 through such a socket. */
static void one_family(void)
{
    int s = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(b6(s, "::1", 0) == 0);
    CHECK(option(s, 41, IPV6_V6ONLY) == 1);
    CHECK_ERR(s6(s, "::ffff:127.0.0.1", 9), ENETUNREACH);
    CHECK_ERR(c6(s, "::ffff:127.0.0.1", 9), ENETUNREACH);
    close(s);
    s = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(c6(s, "::1", 9) == 0);
    CHECK(option(s, 41, IPV6_V6ONLY) == 0);
    int r = other_socket(AF_INET, SOCK_DGRAM, 0);
    bind_to(r, 0);
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    CHECK(s6(s, "::ffff:127.0.0.1", port(r)) == 2);
    CHECK(recvfrom(r, buf, 9, 0, (SA *)&from, &size) == 2);
    CHECK(from.sin_addr.s_addr == address_of(is_far(s)).s_addr);
    close(s), close(r);
    s = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK_ERR(b6(s, "ff02::1", 0), EINVAL);
    close(s);
}

static int becomes_v4(int s)
{
    return set_option(s, 41, IPV6_ADDRFORM, AF_INET);
}

static void address_form(void)
{
    struct sockaddr_in a;
    socklen_t size = sizeof a;
    SA none = {0};
    int s = socket(AF_INET6, SOCK_DGRAM, 0), l;
    if (of_host() && becomes_v4(s) == -1 && errno == ENOPROTOOPT) {
        close(s);
        return;
    }
    CHECK_ERR(becomes_v4(s), ENOTCONN);
    CHECK_ERR(option(s, 41, IPV6_ADDRFORM), ENOTCONN);
    CHECK(c6(s, "::ffff:127.0.0.1", 9) == 0);
    CHECK_ERR(set_option(s, 41, IPV6_ADDRFORM, AF_INET6), EINVAL);
    CHECK(option(s, 41, IPV6_ADDRFORM) == AF_INET6);
    CHECK(becomes_v4(s) == 0);
    CHECK(option(s, 1, SO_DOMAIN) == AF_INET);
    CHECK(getsockname(s, (SA *)&a, &size) == 0 && size == 16 && a.sin_family == AF_INET);
    CHECK_ERR(option(s, 41, IPV6_V6ONLY), EOPNOTSUPP);
    CHECK_ERR(becomes_v4(s), ENOPROTOOPT);
    CHECK(connect_to(s, 10) == 0);
    close(s);

    s = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(c6(s, "::1", 9) == 0);
    CHECK_ERR(becomes_v4(s), EADDRNOTAVAIL);
    close(s);
    s = socket(AF_INET6, SOCK_RAW, 99);
    CHECK_ERR(becomes_v4(s), ENOPROTOOPT);
    CHECK_ERR(option(s, 41, IPV6_ADDRFORM), ENOPROTOOPT);
    close(s);

    l = listener(3);
    s = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(c6(s, "::ffff:127.0.0.1", port(l)) == 0);
    CHECK(becomes_v4(s) == 0);
    size = sizeof a;
    CHECK(getpeername(s, (SA *)&a, &size) == 0 && size == 16);
    CHECK(connect(s, &none, sizeof none) == 0);
    CHECK(bind_to(s, 0) == 0);
    CHECK(listen(s, 3) == 0);
    close(s), close(l);
}

int main(void)
{
    streams();
    datagrams();
    one_family();
    address_form();
    return 0;
}
