/* Options of IPPROTO_IP and IPPROTO_IPV6, SO_BINDTODEVICE, multicast groups. */
#define _GNU_SOURCE
#include "abi.h"
#include "net.h"

#include <linux/filter.h>
#include <net/if.h>
static char buf[300];
static socklen_t n;

static int get(int fd, int l, int o, int size)
{
    memset(buf, 0, 300);
    n = size;
    return getsockopt(fd, l, o, buf, &n);
}

static int put(int fd, int l, int o, int v, int size)
{
    memset(buf, 0, 300);
    *(int *)buf = v;
    return setsockopt(fd, l, o, buf, size);
}

static int kept(int fd, int l, int o, int v)
{
    return set_option(fd, l, o, v) < 0 ? -1 : option(fd, l, o);
}

static void device(void)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(get(s, 1, SO_BINDTODEVICE, 16) == 0);
    CHECK((int)n == 0);
    CHECK(setsockopt(s, 1, SO_BINDTODEVICE, "lo", 3) == 0);
    CHECK(get(s, 1, SO_BINDTODEVICE, 16) == 0);
    CHECK((int)n == 3);
    CHECK(strcmp(buf, "lo") == 0);
    CHECK_ERR(get(s, 1, SO_BINDTODEVICE, 2), EINVAL);
    CHECK(option(s, 1, SO_BINDTOIFINDEX) == 1);
    CHECK_ERR(setsockopt(s, 1, SO_BINDTODEVICE, "nosuch", 6), ENODEV);
    CHECK(setsockopt(s, 1, SO_BINDTODEVICE, "", 0) == 0);
    CHECK(option(s, 1, SO_BINDTOIFINDEX) == 0);
    close(s);
}

static void ip(int k)
{
    int s = socket(AF_INET, k, 0);
    CHECK_ERR(kept(s, 0, IP_TTL, 0), EINVAL);
    CHECK(kept(s, 0, IP_TTL, 255) == 255);
    CHECK_ERR(kept(s, 0, IP_TTL, 256), EINVAL);
    CHECK(kept(s, 0, IP_TTL, -1) == 64);
    CHECK_ERR(kept(s, 0, IP_TTL, -2), EINVAL);
    CHECK(RESULT(kept(s, 0, IP_TOS, 0xff)) == (k == SOCK_DGRAM ? 255 : 252));
    CHECK(kept(s, 0, IP_TOS, 0x1234) == 52);
    CHECK(put(s, 0, IP_TOS, 16, 1) == 0);
    CHECK(option(s, 0, IP_TOS) == 16);
    CHECK(get(s, 0, IP_TOS, 1) == 0);
    CHECK((int)n == 1);
    CHECK(buf[0] == 16);
    CHECK(kept(s, 0, IP_MTU_DISCOVER, 5) == 5);
    CHECK_ERR(kept(s, 0, IP_MTU_DISCOVER, 6), EINVAL);
    CHECK(RESULT(kept(s, 0, IP_MULTICAST_TTL, 7)) == (k == SOCK_DGRAM ? 7 : -EINVAL));
    CHECK_ERR(kept(s, 0, IP_MULTICAST_TTL, 256), EINVAL);
    CHECK(kept(s, 0, IP_MULTICAST_LOOP, 0) == 0);
    CHECK(kept(s, 0, IP_RECVERR, 1) == 1);
    CHECK(kept(s, 0, IP_PKTINFO, 1) == 1);
    CHECK(kept(s, 0, IP_FREEBIND, 1) == 1);
    CHECK(kept(s, 0, IP_MINTTL, 5) == 5);
    CHECK_ERR(kept(s, 0, IP_MINTTL, 256), EINVAL);
    CHECK_ERR(kept(s, 0, IP_HDRINCL, 1), ENOPROTOOPT);
    CHECK(kept(s, 0, IP_LOCAL_PORT_RANGE, 0x90008000) == -1879015424);
    CHECK_ERR(kept(s, 0, IP_LOCAL_PORT_RANGE, 0x80009000), EINVAL);
    CHECK_ERR(option(s, 0, IP_MTU), ENOTCONN);
    CHECK_ERR(kept(s, 0, 99, 1), ENOPROTOOPT);
    CHECK_ERR(option(s, 41, IPV6_V6ONLY), EOPNOTSUPP);
    CHECK_ERR(set_option(s, 41, IPV6_V6ONLY, 1), ENOPROTOOPT);
    CHECK_ERR(option(s, 255, 1), EOPNOTSUPP);
    CHECK_ERR(set_option(s, 255, 1, 1), ENOPROTOOPT);
    struct ip_mreqn m = {{htonl(0xe1020304)}, {htonl(0x7f000001)}, 0};
    CHECK(RESULT(setsockopt(s, 0, IP_ADD_MEMBERSHIP, &m, 8)) == (k == SOCK_DGRAM ? 0 : -EPROTO));
    CHECK(RESULT(setsockopt(s, 0, IP_ADD_MEMBERSHIP, &m, 12)) ==
          (k == SOCK_DGRAM ? -EADDRINUSE : -EPROTO));
    CHECK(RESULT(setsockopt(s, 0, IP_DROP_MEMBERSHIP, &m, 12)) == (k == SOCK_DGRAM ? 0 : -EPROTO));
    CHECK(RESULT(setsockopt(s, 0, IP_DROP_MEMBERSHIP, &m, 12)) ==
          (k == SOCK_DGRAM ? -EADDRNOTAVAIL : -EPROTO));
    m.imr_multiaddr.s_addr = htonl(0x0a000001);
    CHECK(RESULT(setsockopt(s, 0, IP_ADD_MEMBERSHIP, &m, 12)) ==
          (k == SOCK_DGRAM ? -EINVAL : -EPROTO));
    CHECK(RESULT(setsockopt(s, 0, IP_ADD_MEMBERSHIP, &m, 7)) ==
          (k == SOCK_DGRAM ? -EINVAL : -EPROTO));
    CHECK(RESULT(setsockopt(s, 0, IP_MULTICAST_IF, &m.imr_address, 4)) ==
          (k == SOCK_DGRAM ? 0 : -EINVAL));
    CHECK(get(s, 0, IP_MULTICAST_IF, 4) == 0);
    CHECK(RESULT(*(int *)buf == htonl(0x7f000001)) == (k == SOCK_DGRAM ? 1 : 0));
    close(s);
}

static void ip6(int k)
{
    int s = socket(AF_INET6, k, 0);
    CHECK_ERR(kept(s, 41, IPV6_UNICAST_HOPS, 256), EINVAL);
    CHECK(kept(s, 41, IPV6_UNICAST_HOPS, -1) == 64);
    CHECK(kept(s, 41, IPV6_UNICAST_HOPS, 3) == 3);
    CHECK(kept(s, 41, IPV6_TCLASS, 0x50) == 80);
    CHECK_ERR(kept(s, 41, IPV6_TCLASS, 256), EINVAL);
    CHECK(kept(s, 41, IPV6_V6ONLY, 2) == 1);
    CHECK_ERR(put(s, 41, IPV6_V6ONLY, 1, 1), EINVAL);
    CHECK(kept(s, 41, IPV6_RECVPKTINFO, 2) == 1);
    CHECK_ERR(kept(s, 41, IPV6_MTU_DISCOVER, 6), EINVAL);
    CHECK(kept(s, 41, IPV6_DONTFRAG, 1) == 1);
    CHECK(kept(s, 41, IPV6_AUTOFLOWLABEL, 0) == 0);
    CHECK_ERR(option(s, 41, IPV6_MTU), ENOTCONN);
    CHECK_ERR(kept(s, 41, 199, 1), ENOPROTOOPT);
    CHECK(kept(s, 0, IP_TTL, 9) == 9);
    CHECK(RESULT(kept(s, 41, IPV6_MULTICAST_HOPS, 9)) == (k == SOCK_DGRAM ? 9 : -ENOPROTOOPT));
    CHECK_ERR(kept(s, 41, IPV6_MULTICAST_LOOP, 2), EINVAL);
    CHECK(kept(s, 41, IPV6_FREEBIND, 1) == 1);
    struct ipv6_mreq m = {0};
    inet_pton(AF_INET6, "ff02::99", &m.ipv6mr_multiaddr);
    m.ipv6mr_interface = 1;
    CHECK(RESULT(setsockopt(s, 41, IPV6_JOIN_GROUP, &m, 20)) == (k == SOCK_DGRAM ? 0 : -EPROTO));
    CHECK(RESULT(setsockopt(s, 41, IPV6_JOIN_GROUP, &m, 20)) ==
          (k == SOCK_DGRAM ? -EADDRINUSE : -EPROTO));
    CHECK(RESULT(setsockopt(s, 41, IPV6_LEAVE_GROUP, &m, 20)) == (k == SOCK_DGRAM ? 0 : -EPROTO));
    CHECK(RESULT(setsockopt(s, 41, IPV6_LEAVE_GROUP, &m, 20)) ==
          (k == SOCK_DGRAM ? -EADDRNOTAVAIL : -EPROTO));
    CHECK_ERR(setsockopt(s, 41, IPV6_JOIN_GROUP, &m, 19), EINVAL);
    close(s);
}

static void nothing_given(void)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0), v = 77;
    socklen_t size = 0;
    CHECK(set_option(s, 0, IP_TOS, 8) == 0);
    CHECK(getsockopt(s, 0, IP_TOS, &v, &size) == 0 && size == 0 && v == 77);
    CHECK(setsockopt(s, 0, IP_TOS, &v, 0) == 0 && option(s, 0, IP_TOS) == 0);
    CHECK_ERR(setsockopt(s, 0, IP_TTL, &v, 0), EINVAL);
    CHECK(set_option(s, 1, SO_RCVBUFFORCE, 8388609) == 0 && option(s, 1, SO_RCVBUF) == 16777218);
    CHECK(set_option(s, 1, SO_SNDBUFFORCE, 8388609) == 0 && option(s, 1, SO_SNDBUF) == 16777218);
    CHECK(set_option(s, 1, SO_SNDBUFFORCE, -256) == 0 && option(s, 1, SO_SNDBUF) == 4608);
    CHECK_ERR(setsockopt(s, 1, SO_BINDTODEVICE, "none", 5), ENODEV);
    struct ip_mreqn nowhere = {.imr_ifindex = 1000};
    CHECK_ERR(setsockopt(s, 0, IP_MULTICAST_IF, &nowhere, sizeof nowhere), EADDRNOTAVAIL);
    close(s);
}

/* Only the old options refuse a stream. */
static void groups_of_streams(void)
{
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in group = {AF_INET, 0, {htonl(0xe0010203)}};
    struct group_req wanted = {.gr_interface = 1};
    memcpy(&wanted.gr_group, &group, sizeof group);
    struct ip_mreqn old = {group.sin_addr, {0}, 1};
    CHECK_ERR(setsockopt(s, 0, IP_ADD_MEMBERSHIP, &old, sizeof old), EPROTO);
    CHECK_ERR(setsockopt(s, 0, MCAST_LEAVE_GROUP, &wanted, sizeof wanted), EADDRNOTAVAIL);
    CHECK(setsockopt(s, 0, MCAST_JOIN_GROUP, &wanted, sizeof wanted) == 0);
    CHECK(bind_to(s, 0) == 0 && listen(s, 1) == 0);
    int c = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect_to(c, port(s)) == 0);
    int a = accept(s, NULL, NULL);
    CHECK_ERR(setsockopt(a, 0, MCAST_LEAVE_GROUP, &wanted, sizeof wanted), EADDRNOTAVAIL);
    CHECK(setsockopt(s, 0, MCAST_LEAVE_GROUP, &wanted, sizeof wanted) == 0);
    close(a), close(c), close(s);
    s = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK_ERR(setsockopt(s, 41, MCAST_JOIN_GROUP, &wanted, sizeof wanted), EADDRNOTAVAIL);
    CHECK(setsockopt(s, 0, MCAST_JOIN_GROUP, &wanted, sizeof wanted) == 0);
    close(s);
}

int main(void)
{
    nothing_given();
    groups_of_streams();
    device();
    ip(SOCK_STREAM);
    ip(SOCK_DGRAM);
    ip6(SOCK_STREAM);
    ip6(SOCK_DGRAM);
    return 0;
}
