/* Calls on sockets in states that are not for them: connections that are over, no addresses,
   options of other kinds. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

#include <linux/filter.h>
#include <linux/netlink.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static void reset_by(int fd)
{
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

/* A connection that is over is still there for connect and listen, but the port is given back. */
static void over(void)
{
    struct sockaddr_in a;
    socklen_t size = sizeof a;
    SA none = {0};
    int s, t, l = listener(3);
    make_pair(&s, &t);
    int p = port(s);
    reset_by(t);
    wait_for(s, POLLHUP);
    CHECK(option(s, SOL_SOCKET, SO_ERROR) == ECONNRESET);
    CHECK_ERR(listen(s, 1), EINVAL);
    CHECK_ERR(connect_to(s, port(l)), EISCONN);
    CHECK(port(s) == p);
    CHECK_ERR(getpeername(s, (SA *)&a, &size), ENOTCONN);
    CHECK(getsockopt(s, SOL_SOCKET, SO_PEERNAME, &a, &size) == 0 && size == 16);
    CHECK(bind_to(s, 0) == 0);
    CHECK(connect(s, &none, sizeof none) == 0);
    CHECK(listens_again(s, 1));
    close(s), close(l);

    l = socket(AF_INET, SOCK_STREAM, 0);
    s = listener(1), p = port(s);
    close(s);
    fcntl(l, F_SETFL, O_NONBLOCK);
    CHECK(connect_to(l, p) == -1 && (errno == EINPROGRESS || errno == ECONNREFUSED));
    wait_for(l, POLLHUP);
    CHECK_ERR(listen(l, 1), EINVAL);
    CHECK_ERR(connect_to(l, p), ECONNREFUSED);
    CHECK(listens_again(l, 1));
    close(l);
}

static void shut(void)
{
    for (int how = 0; how < 3; how++) {
        int l = listener(1), s = socket(AF_INET, SOCK_STREAM, 0);
        fcntl(s, F_SETFL, O_NONBLOCK);
        connect_to(s, port(l));
        wait_for(s, POLLOUT);
        CHECK(shutdown(s, how) == 0);
        CHECK_ERR(connect_to(s, port(l)), EISCONN);
        close(s), close(l);
    }
}

static void peek_offset(void)
{
    char b[9];
    int s, t;
    make_pair(&s, &t);
    CHECK(set_option(t, SOL_SOCKET, SO_PEEK_OFF, 2) == 0);
    CHECK(send(s, "abcdef", 6, 0) == 6);
    wait_for(t, POLLIN);
    CHECK(recv(t, b, 3, MSG_PEEK) == 3 && memcmp(b, "cde", 3) == 0);
    CHECK(option(t, SOL_SOCKET, SO_PEEK_OFF) == 5);
    CHECK(recv(t, b, 9, MSG_PEEK) == 1 && b[0] == 'f');
    CHECK_ERR(recv(t, b, 9, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
    CHECK(recv(t, b, 4, 0) == 4 && memcmp(b, "abcd", 4) == 0);
    CHECK(option(t, SOL_SOCKET, SO_PEEK_OFF) == 2);
    CHECK_ERR(recv(t, b, 9, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
    CHECK(recv(t, b, 9, 0) == 2);
    CHECK(option(t, SOL_SOCKET, SO_PEEK_OFF) == 0);
    close(s), close(t);
    s = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    CHECK_ERR(set_option(s, SOL_SOCKET, SO_PEEK_OFF, 2), EOPNOTSUPP);
    close(s);
}

/* An address of no length is none for some and a wrong one for others. */
static void no_address(void)
{
    struct sockaddr_in a = loopback(9);
    int pair[2], s;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(sendto(pair[0], "x", 1, 0, (SA *)&a, 0) == 1);
    close(pair[0]), close(pair[1]);
    s = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK_ERR(sendto(s, "x", 1, 0, (SA *)&a, 0), ENOTCONN);
    close(s);
    s = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_ERR(sendto(s, "x", 1, 0, (SA *)&a, 0), EINVAL);
    close(s);
    s = socket(AF_INET6, SOCK_DGRAM, 0);
    a.sin_family = 99;
    CHECK_ERR(sendto(s, "x", 1, 0, (SA *)&a, sizeof a), EINVAL);
    close(s);
    s = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    CHECK_ERR(sendto(s, "xy", 2, 0, (SA *)&a, 0), EDESTADDRREQ);
    a = loopback(0);
    a.sin_family = AF_UNSPEC;
    CHECK(sendto(s, "12345678", 8, 0, (SA *)&a, sizeof a) == 8);
    CHECK_ERR(recv(s, &a, 8, MSG_OOB), EOPNOTSUPP);
    CHECK(connect_to(s, 0) == 0);
    CHECK_ERR(bind_to(s, 0), EINVAL);
    close(s);
    s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    CHECK_ERR(send(s, "x", 1, MSG_OOB), ENOTCONN);
    CHECK_ERR(recv(s, &a, 1, MSG_OOB), ENOTCONN);
    close(s);
}

static void options(void)
{
    int s = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET6, SOCK_DGRAM, 0), v = 1;
    int n = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), g = socket(AF_INET6, SOCK_RAW, 58);
    socklen_t size = 3;
    CHECK(ioctl(s, SIOCOUTQNSD, &v) == 0 && v == 0);
    CHECK_ERR(option(s, SOL_SOCKET, SO_PEERGROUPS), ENODATA);
    CHECK_ERR(option(u, SOL_SOCKET, SO_PEERPIDFD), ENODATA);
    CHECK_ERR(set_option(s, SOL_SOCKET, SO_ZEROCOPY, 2), EINVAL);
    CHECK_ERR(set_option(s, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0), EINVAL);
    CHECK(set_option(s, IPPROTO_TCP, TCP_FASTOPEN, 70000) == 0);
    CHECK(option(s, IPPROTO_TCP, TCP_FASTOPEN) == 4096);
    CHECK(set_option(s, IPPROTO_TCP, TCP_DEFER_ACCEPT, 70000) == 0);
    CHECK(option(s, IPPROTO_TCP, TCP_DEFER_ACCEPT) == 29887);
    CHECK_ERR(set_option(s, IPPROTO_IP, IP_RECVFRAGSIZE, 1), EINVAL);
    CHECK(set_option(u, IPPROTO_IP, IP_RECVFRAGSIZE, 7) == 0);
    CHECK(option(u, IPPROTO_IP, IP_MULTICAST_ALL) == 0);
    CHECK_ERR(setsockopt(u, IPPROTO_IPV6, 0, &v, 3), ENOPROTOOPT);
    CHECK_ERR(setsockopt(u, IPPROTO_IPV6, IPV6_TCLASS, &v, 3), EINVAL);
    CHECK_ERR(setsockopt(u, IPPROTO_IPV6, IPV6_UNICAST_IF, &v, 8), EINVAL);
    CHECK_ERR(setsockopt(u, IPPROTO_IPV6, IPV6_PKTINFO, &v, 0), EINVAL);
    CHECK_ERR(set_option(g, IPPROTO_IPV6, IPV6_V6ONLY, 1), EINVAL);
    CHECK_ERR(setsockopt(g, SOL_RAW, 3, &v, 3), EINVAL);
    CHECK(setsockopt(n, SOL_NETLINK, NETLINK_PKTINFO, &v, 3) == 0);
    CHECK_ERR(setsockopt(n, SOL_NETLINK, 99, &v, 3), ENOPROTOOPT);
    CHECK(getsockopt(s, IPPROTO_IP, IP_PROTOCOL, &v, &size) == 0 && size == 1);
    close(s), close(u), close(n), close(g);
}

/* A control message of one of the options of a datagram: exactly so long. */
static long with(int fd, int level, int type, int value, int size)
{
    char control[64] = {0};
    struct iovec v = {"xy", 2};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control};
    struct cmsghdr *c = (void *)control;
    c->cmsg_len = CMSG_LEN(size), c->cmsg_level = level, c->cmsg_type = type;
    memcpy(CMSG_DATA(c), &value, 4);
    m.msg_controllen = CMSG_SPACE(size);
    return RESULT(sendmsg(fd, &m, 0));
}

static void control_messages(void)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0), r = socket(AF_INET, SOCK_DGRAM, 0);
    int six = socket(AF_INET6, SOCK_DGRAM, 0), n = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    struct sockaddr_in6 a = {AF_INET6, htons(9), 0, IN6ADDR_LOOPBACK_INIT};
    char b[9];
    bind_to(r, 0);
    connect_to(s, port(r));
    CHECK(with(s, 1, SO_MARK, 1, 4) == 2 && with(s, 1, SO_MARK, 1, 8) == -EINVAL);
    CHECK(with(s, 1, SO_TIMESTAMPING, 2, 4) == 2 && with(s, 1, SO_TIMESTAMPING, 2, 2) == -EINVAL);
    CHECK(with(s, 1, SO_TIMESTAMPING, 4, 4) == -EINVAL);
    CHECK(with(s, 0, IP_TTL, 3, 1) == -EINVAL && with(s, 0, IP_TTL, 3, 4) == 2);
    CHECK(with(s, 0, IP_TOS, 3, 1) == 2 && with(s, 0, IP_TOS, 3, 2) == -EINVAL);
    CHECK(with(s, 17, UDP_SEGMENT, 2, 4) == -EINVAL && with(s, 17, UDP_SEGMENT, 2, 2) == 2);
    while (recv(r, b, sizeof b, MSG_DONTWAIT) >= 0)
        ;
    CHECK(send(s, "xy", 2, 0x10) == 2); /* MSG_PROBE */
    CHECK_ERR(recv(r, b, sizeof b, MSG_DONTWAIT), EAGAIN);
    CHECK(bind(six, (SA *)&(struct sockaddr_in6){AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT}, 28) == 0);
    a.sin6_port = htons(port(six));
    CHECK(connect(six, (SA *)&a, sizeof a) == 0);
    CHECK(with(six, 0, IP_TTL, 3, 1) == 2); /* not for IPv6 */
    CHECK(with(six, 41, IPV6_HOPLIMIT, 3, 1) == -EINVAL && with(six, 41, IPV6_HOPLIMIT, 3, 4) == 2);
    CHECK(with(six, 41, IPV6_DONTFRAG, 2, 4) == -EINVAL && with(six, 41, IPV6_DONTFRAG, 1, 4) == 2);
    CHECK(with(n, 1, SCM_RIGHTS, 1, 4) == -EINVAL);
    close(s), close(r), close(six), close(n);
}

int main(void)
{
    over();
    shut();
    peek_offset();
    no_address();
    options();
    control_messages();
    return 0;
}
