/* Ping sockets: who may have one, where they are bound, what they send and receive. */
#define _GNU_SOURCE
#include "abi.h"
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

static void echoes(void)
{
    int s = ping4();
    struct icmphdr h = {8};
    struct sockaddr_in a = loopback(9);
    char text[99];
    CHECK(sendto(s, &h, sizeof h, 0, (SA *)&a, sizeof a) == 8); /* the kernel makes the checksum */
    CHECK(port(s) != 0);
    CHECK(recvfrom(s, text, 99, MSG_DONTWAIT, (SA *)&a4, (al = sizeof a4, &al)) == 8);
    CHECK(text[0] == 0 && a4.sin_port == 0 && *(unsigned short *)(text + 4) == htons(port(s)));
    CHECK(connect_to(s, 0) == 0);
    CHECK_ERR(getpeername(s, (SA *)&a4, &al), ENOTCONN);
    CHECK(send(s, &h, 8, 0) == 8 && recv(s, text, 99, MSG_DONTWAIT) == 8);
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
    struct sockaddr_in6 six = {AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT};
    CHECK(sendto(s, &h, 8, 0, (SA *)&six, sizeof six) == 8);
    CHECK(recv(s, text, 99, MSG_DONTWAIT) == 8 && (unsigned char)text[0] == 129);
    close(s);
}

int main(void)
{
    allowed();
    bound();
    echoes();
    CHECK(umount("proc") == 0 && rmdir("proc") == 0);
    return 0;
}
