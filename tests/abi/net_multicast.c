/* A connection to oneself, control messages of TCP, ports that are in use, multicast and broadcast
 * on the loopback. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

static char buf[3000];

static void more(void)
{
    int s = socket(2, 1, 0), c, l;
    CHECK(option(s, 1, SO_INCOMING_CPU) == -1);
    CHECK(option(s, 1, SO_BUSY_POLL) == 0);
    CHECK(option(s, 6, TCP_FASTOPEN) == 0);
    CHECK(option(s, 0, IP_PROTOCOL) == 0);

    struct sockaddr_in x = loopback(1);
    l = listener(3);
    close(s);

    s = socket(2, 1, 0);
    set_option(s, 6, TCP_FASTOPEN_CONNECT, 1);
    CHECK(connect_to(s, port(l)) == 0);
    CHECK(send(s, "later", 5, 0) == 5);
    c = accept(l, 0, 0);
    CHECK(recv(c, buf, 9, 0) == 5);
    close(s);
    close(c);

    s = socket_at(port(l), 2, SOCK_STREAM, 0);
    CHECK_ERR(bind_to(s, port(l)), EADDRINUSE);
    CHECK_ERR(connect_to(s, port(s)), ECONNREFUSED);
    close(s);
    s = socket(2, 1, 0);
    CHECK(bind_to(s, 0) == 0);
    CHECK(connect_to(s, port(s)) == 0);
    CHECK(send(s, "self", 4, 0) == 4);
    CHECK(recv(s, buf, 9, MSG_DONTWAIT) == 4);
    CHECK(events(s) == POLLOUT);
    close(s);
    close(l);

    make_pair(&s, &c);
    set_option(s, 1, SO_ZEROCOPY, 1);
    CHECK(option(s, 1, SO_ZEROCOPY) == 1);
    close(s);
    close(c);

    make_pair(&s, &c);
    struct msghdr m = {0};
    struct iovec v = {buf, 9};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    char cb[200];
    m.msg_control = cb;
    m.msg_controllen = 200;
    set_option(c, 6, TCP_INQ, 1);
    send(s, "abcdefghijklmnop", 16, 0);
    wait_for(c, POLLIN);
    CHECK(recvmsg(c, &m, 0) == 9);
    CHECK(m.msg_controllen == 24);
    CHECK(*(int *)CMSG_DATA((struct cmsghdr *)cb) == 7);
    close(s);
    close(c);

    make_pair(&s, &c);
    set_option(c, 1, SO_TIMESTAMP, 1);
    send(s, "ab", 2, 0);
    wait_for(c, POLLIN);
    m.msg_controllen = 200;
    CHECK(recvmsg(c, &m, 0) == 2);
    /* a stamp may be missing: Linux turns them on a little later than the option */
    CHECK(m.msg_controllen == 32 || m.msg_controllen == 0);
    close(s);
    close(c);

    l = other_socket(2, 1, 0);
    CHECK(listen(l, 5) == 0);
    CHECK(port(l) > 0);
    s = socket(2, 1, 0);
    CHECK(connect_to(s, port(l)) == 0);
    CHECK(listen(l, 0) == 0);
    c = accept(l, 0, 0);
    CHECK(c > 0);
    CHECK_ERR(bind_to(c, 1), EINVAL);
    close(c);
    close(s);
    close(l);

    l = listener(5);
    int p = port(l);
    s = socket(2, 1, 0);
    connect_to(s, p);
    c = accept(l, 0, 0);
    close(l);
    l = other_socket(2, 1, 0);
    CHECK_ERR(bind_to(l, p), EADDRINUSE);
    set_option(l, 1, SO_REUSEADDR, 1);
    CHECK_ERR(bind_to(l, p), EADDRINUSE);
    close(l);
    close(s);
    close(c);
    l = other_socket(2, 1, 0);
    CHECK(parted() || bind_to(l, p) == 0); /* once the last FIN is acknowledged */
    close(l);
}

static void multicast(void)
{
    int a = other_socket(2, 2, 0), b = other_socket(2, 2, 0), s = socket(2, 2, 0);
    struct sockaddr_in any = {AF_INET};
    set_option(a, 1, SO_REUSEADDR, 1);
    set_option(b, 1, SO_REUSEADDR, 1);
    CHECK(bind(a, (SA *)&any, 16) == 0);
    any.sin_port = htons(port(a));
    CHECK(bind(b, (SA *)&any, 16) == 0);
    struct ip_mreqn m = {{htonl(0xe1020304)}, address_of(is_far(a)), 0};
    CHECK(setsockopt(a, 0, IP_ADD_MEMBERSHIP, &m, 12) == 0);
    m.imr_multiaddr.s_addr = 0, m.imr_address = address_of(is_far(s));
    CHECK(setsockopt(s, 0, IP_MULTICAST_IF, &m, 12) == 0);
    struct sockaddr_in g = {AF_INET, any.sin_port, {htonl(0xe1020304)}};
    CHECK(sendto(s, "mc", 2, 0, (SA *)&g, 16) == 2);
    CHECK(recv(a, buf, 9, MSG_DONTWAIT) == 2);
    CHECK(recv(b, buf, 9, MSG_DONTWAIT) == 2);
    CHECK(set_option(b, 0, IP_MULTICAST_ALL, 0) == 0);
    CHECK(sendto(s, "mc", 2, 0, (SA *)&g, 16) == 2);
    CHECK(recv(a, buf, 9, MSG_DONTWAIT) == 2);
    CHECK_ERR(recv(b, buf, 9, MSG_DONTWAIT), EAGAIN);
    CHECK(set_option(s, 0, IP_MULTICAST_LOOP, 0) == 0);
    CHECK(sendto(s, "mc", 2, 0, (SA *)&g, 16) == 2);
    CHECK(recv(a, buf, 9, MSG_DONTWAIT) == 2);
    set_option(s, 1, SO_BROADCAST, 1);
    struct sockaddr_in br = {AF_INET, any.sin_port, {htonl(parted() ? 0x0a0900ff : 0x7fffffff)}};
    CHECK(sendto(s, "bc", 2, 0, (SA *)&br, 16) == 2);
    CHECK(recv(a, buf, 9, MSG_DONTWAIT) == 2);
    CHECK(recv(b, buf, 9, MSG_DONTWAIT) == 2);
    CHECK(connect_to(s, port(a)) == 0);
    CHECK(port(s) > 0);
    close(a);
    close(b);
    close(s);
}

/* A socket that has an address of the loopback sends there, wherever the default route leads. */
static void by_source(void)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0), r = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in any = {AF_INET}, all = {AF_INET, 0, {0xffffffff}}, from;
    CHECK(bind_to(s, 0) == 0);
    CHECK(bind(r, (SA *)&any, sizeof any) == 0);
    all.sin_port = htons(port(r));
    CHECK_ERR(sendto(s, "x", 1, 0, (SA *)&all, sizeof all), EACCES);
    set_option(s, 1, SO_BROADCAST, 1);
    CHECK(sendto(s, "x", 1, 0, (SA *)&all, sizeof all) == 1);
    CHECK(recvfrom(r, buf, 9, MSG_DONTWAIT, (SA *)&from, (al = sizeof from, &al)) == 1);
    CHECK(from.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    close(r);
    r = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind(r, (SA *)&all, sizeof all) == 0);
    CHECK(sendto(s, "x", 1, 0, (SA *)&all, sizeof all) == 1);
    CHECK(recv(r, buf, 9, MSG_DONTWAIT) == 1);
    close(r);

    struct ip_mreqn m = {{htonl(0xe1020305)}, {0}, 1};
    r = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind(r, (SA *)&any, sizeof any) == 0);
    CHECK(setsockopt(r, 0, IP_ADD_MEMBERSHIP, &m, sizeof m) == 0);
    all.sin_addr = m.imr_multiaddr, all.sin_port = htons(port(r));
    CHECK(sendto(s, "x", 1, 0, (SA *)&all, sizeof all) == 1);
    CHECK(recv(r, buf, 9, MSG_DONTWAIT) == 1);
    close(s), close(r);
}

int main(void)
{
    if (!parted()) /* it is about the loopback */
        by_source();
    signal(SIGPIPE, SIG_IGN);
    more();
    multicast();
    return 0;
}
