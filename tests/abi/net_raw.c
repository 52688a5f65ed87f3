/* Raw sockets: ICMP echo, filters, headers of one's own, UDP seen and made, rights. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

#include <netinet/ip_icmp.h>
#include <netinet/ip.h>
#include <netinet/icmp6.h>

#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif
static unsigned char buf[3000];

static int ping(int s, int type, int id)
{
    struct icmphdr h = {type, 0, 0, {.echo = {htons(id), htons(1)}}};
    unsigned short *w = (void *)&h;
    unsigned sum = 0;
    for (int i = 0; i < 4; i++)
        sum += w[i];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    h.checksum = ~sum;
    struct sockaddr_in a = loopback(across(0));
    return sendto(s, &h, 8, 0, (SA *)&a, 16);
}

static void icmp(void)
{
    int s = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    CHECK(events(s) == POLLOUT);
    CHECK_ERR(send(s, "x", 1, 0), EDESTADDRREQ);
    CHECK_ERR(recv(s, buf, 9, MSG_DONTWAIT), EAGAIN);
    CHECK_ERR(listen(s, 1), EOPNOTSUPP);
    CHECK_ERR(shutdown(s, 2), ENOTCONN);
    CHECK(parted() || ping(s, 8, 77) == 8); /* there the answer comes later */
    close(s);
    s = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    CHECK(ping(s, 8, 77) == 8);
    for (int type = parted() ? 0 : 8; type >= 0; type -= 8) {
        CHECK(recvfrom(s, buf, 3000, 0, (SA *)&a4, (al = 16, &al)) == 28);
        CHECK(al == 16);
        CHECK(ntohs(a4.sin_port) == 0);
        CHECK(buf[0] == 69);
        CHECK(buf[20] == type);
        CHECK(buf[9] == 1);
    }
    CHECK_ERR(recv(s, buf, 3000, MSG_DONTWAIT), EAGAIN);
    unsigned f = 1 << 8;
    CHECK(setsockopt(s, SOL_RAW, 1, &f, 4) == 0);
    CHECK(ping(s, 8, 5) == 8);
    CHECK(recv(s, buf, 3000, 0) == 28);
    CHECK(buf[20] == 0);
    CHECK_ERR(recv(s, buf, 3000, MSG_DONTWAIT), EAGAIN);
    CHECK(bind_to(s, 0) == 0);
    CHECK((port(s) & 0xffff) == 1);
    CHECK(connect_to(s, across(0)) == 0);
    CHECK((port(s) & 0xffff) == 1);
    CHECK(option(s, 0, IP_HDRINCL) == 0);
    CHECK(option(s, 1, SO_PROTOCOL) == 1);
    CHECK(option(s, 1, SO_TYPE) == 3);
    CHECK(send(s, buf + 20, 8, 0) == 8);
    {
        SA z = {0};
        CHECK(connect(s, &z, sizeof z) == 0);
        CHECK_ERR(send(s, buf, 8, 0), EDESTADDRREQ);
        struct sockaddr_in6 x = {AF_INET6};
        CHECK_ERR(connect(s, (SA *)&x, 28), EAFNOSUPPORT);
        CHECK(bind(s, (SA *)&x, 28) == 0);
        CHECK_ERR(bind(s, (SA *)&a4, 3), EINVAL);
        a4.sin_addr.s_addr = htonl(0x0a090807);
        CHECK_ERR(bind(s, (SA *)&a4, 16), EADDRNOTAVAIL);
    }
    close(s);
}

static void any(void)
{
    int a = socket(AF_INET, SOCK_RAW, 253), b = other_socket(AF_INET, SOCK_RAW, 253);
    struct sockaddr_in x = loopback(across(7));
    CHECK(sendto(a, "hello", 5, 0, (SA *)&x, 16) == 5);
    CHECK(recvfrom(b, buf, 99, 0, (SA *)&a4, (al = 16, &al)) == 25);
    CHECK(memcmp(buf + 20, "hello", 5) == 0);
    CHECK(ntohs(a4.sin_port) == 0);
    CHECK(parted() || recv(a, buf, 99, MSG_DONTWAIT) == 25);
    CHECK(((struct iphdr *)buf)->ttl == 64);
    CHECK(ntohs(((struct iphdr *)buf)->tot_len) == 25);
    CHECK(((struct iphdr *)buf)->protocol == 253);
    set_option(a, 0, IP_TTL, 9);
    sendto(a, "hello", 5, 0, (SA *)&x, 16);
    CHECK(recv(b, buf, 3, MSG_TRUNC) == 25);
    CHECK(buf[0] == 69);
    if (parted()) {
        sendto(a, "hello", 5, 0, (SA *)&x, 16);
        CHECK(recv(b, buf, 99, 0) == 25 && buf[8] == 9);
        close(a), close(b);
        return;
    }
    CHECK(recv(a, buf, 99, 0) == 25);
    CHECK(buf[8] == 9);
    CHECK(set_option(a, 0, IP_HDRINCL, 1) == 0);
    CHECK(option(a, 0, IP_HDRINCL) == 1);
    CHECK_ERR(sendto(a, "short", 5, 0, (SA *)&x, 16), EINVAL);

    struct {
        struct iphdr h;
        char d[4];
    } p = {{5, 4, 0, 0, 0, 0, 33, 253, 0, htonl(0x7f000001), htonl(0x7f000001)}, "abc"};

    CHECK(sendto(a, &p, 24, 0, (SA *)&x, 16) == 24);
    CHECK(recv(b, buf, 99, 0) == 24);
    CHECK(buf[8] == 33);
    CHECK(ntohs(((struct iphdr *)buf)->tot_len) == 24);
    CHECK(((struct iphdr *)buf)->check != 0);
    close(a);
    close(b);
    a = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    CHECK(option(a, 0, IP_HDRINCL) == 1);
    CHECK(sendto(a, &p, 24, 0, (SA *)&x, 16) == 24);
    CHECK_ERR(recv(a, buf, 9, MSG_DONTWAIT), EAGAIN);
    close(a);
}

static void udp(void)
{
    int r = other_socket(AF_INET, SOCK_RAW, IPPROTO_UDP), u = socket(AF_INET, SOCK_DGRAM, 0),
        d = other_socket(AF_INET, SOCK_DGRAM, 0), s = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    bind_to(d, 0);
    bind_to(u, 0);
    struct sockaddr_in x = loopback(port(d));
    CHECK(sendto(u, "data", 4, 0, (SA *)&x, 16) == 4);
    CHECK(recv(r, buf, 99, MSG_DONTWAIT) == 32);
    CHECK(recv(d, buf, 9, 0) == 4);
    unsigned char p[12] = {0};
    *(short *)p = htons(port(u));
    *(short *)(p + 2) = htons(port(d));
    p[5] = 12;
    memcpy(p + 8, "raw!", 4);
    CHECK(sendto(s, p, 12, 0, (SA *)&x, 16) == 12);
    wait_for(d, POLLIN);
    CHECK(recv(d, buf, 99, MSG_DONTWAIT) == 4);
    close(r), close(s);
    close(u);
    close(d);
}

static void six(void)
{
    int s = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    struct sockaddr_in6 a = {AF_INET6};
    a.sin6_addr = address6_of(across(0) >> 16);
    struct icmp6_hdr h = {128, 0, 0};
    CHECK(sendto(s, &h, 8, 0, (SA *)&a, 28) == 8);
    do /* on a link there are neighbours, too */
        CHECK(recv(s, buf, 99, 0) >= 8);
    while (parted() && buf[0] != 129);
    if (!parted()) {
        CHECK(buf[0] == 128);
        CHECK(recv(s, buf, 99, 0) == 8);
        CHECK(buf[0] == 129);
    }
    struct icmp6_filter f;
    ICMP6_FILTER_SETBLOCKALL(&f);
    CHECK(setsockopt(s, IPPROTO_ICMPV6, ICMP6_FILTER, &f, 32) == 0);
    CHECK(sendto(s, &h, 8, 0, (SA *)&a, 28) == 8);
    CHECK_ERR(recv(s, buf, 99, MSG_DONTWAIT), EAGAIN);
    CHECK(option(s, 41, IPV6_CHECKSUM) == 2);
    close(s);
    s = socket(AF_INET6, SOCK_RAW, 253);
    int r = other_socket(AF_INET6, SOCK_RAW, 253);
    CHECK(sendto(s, "six", 3, 0, (SA *)&a, 28) == 3);
    CHECK(recv(r, buf, 99, 0) == 3);
    close(r);
    a.sin6_port = htons(5);
    CHECK_ERR(sendto(s, "six", 3, 0, (SA *)&a, 28), EINVAL);
    close(s);
}

static long from_254(int fd)
{
    memset(buf, 0, 99);
    return RESULT(recvfrom(fd, buf, 99, MSG_DONTWAIT, (SA *)&a4, (al = 16, &al)));
}

/* A header of the program's own is kept, but for what the kernel fills in. */
static void own_header(void)
{
    int s = socket(AF_INET, SOCK_RAW, IPPROTO_RAW), r = socket(AF_INET, SOCK_RAW, 254);
    struct sockaddr_in x = loopback(0);

    struct {
        struct iphdr h;
        char d[12];
    } p = {{5, 4, 4, htons(1), htons(0x1234), 0, 33, 254, 1, htonl(0x7f000005),
            htonl(INADDR_LOOPBACK)}};

    struct iphdr *got = (void *)buf;
    CHECK(sendto(s, &p, sizeof p, 0, (SA *)&x, 16) == sizeof p);
    CHECK(from_254(r) == sizeof p);
    CHECK(got->id == p.h.id && got->tos == 4 && got->ttl == 33 && got->frag_off == 0);
    CHECK(ntohs(got->tot_len) == sizeof p && got->saddr == p.h.saddr);
    CHECK(a4.sin_addr.s_addr == p.h.saddr);
    unsigned sum = 0;
    for (int i = 0; i < 20; i += 2)
        sum += *(unsigned short *)(buf + i);
    CHECK(((sum & 0xffff) + (sum >> 16)) % 0xffff == 0);
    p.h.saddr = p.h.id = 0;
    CHECK(sendto(s, &p, sizeof p, 0, (SA *)&x, 16) == sizeof p);
    CHECK(from_254(r) == sizeof p);
    CHECK(got->id != 0 && got->saddr == htonl(INADDR_LOOPBACK));
    p.h.ihl = 15;
    CHECK_ERR(sendto(s, &p, sizeof p, 0, (SA *)&x, 16), EINVAL);
    p.h.ihl = 5;
    p.h.version = 6;
    CHECK(sendto(s, &p, sizeof p, 0, (SA *)&x, 16) == sizeof p);
    CHECK(from_254(r) == -EAGAIN);
    CHECK_ERR(sendto(s, &p, 19, 0, (SA *)&x, 16), EINVAL);
    close(s);
    s = socket(AF_INET, SOCK_RAW, 254);
    set_option(s, 0, IP_TOS, 0x10);
    CHECK(sendto(s, "abc", 3, 0, (SA *)&x, 16) == 3);
    CHECK(from_254(r) == 23 && got->tos == 0x10);
    close(s), close(r);
}

static void echo_with_errors(void)
{
    int s = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), u = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    int g = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    struct sockaddr_in x = loopback(0);
    struct sockaddr_in6 x6 = {AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT};
    struct icmphdr h = {8};
    CHECK(sendto(s, &h, 8, 0, (SA *)&x, 16) == 8); /* the checksum is wrong */
    CHECK(recv(s, buf, 99, 0) == 28 && buf[20] == 8);
    CHECK_ERR(recv(s, buf, 99, MSG_DONTWAIT), EAGAIN);
    CHECK(sendto(s, &h, 7, 0, (SA *)&x, 16) == 7); /* too short to be seen */
    CHECK_ERR(recv(s, buf, 99, MSG_DONTWAIT), EAGAIN);
    CHECK_ERR(sendto(s, &h, 0, 0, (SA *)&x, 16), EFAULT);

    unsigned f;
    struct icmp6_filter f6;
    socklen_t size = sizeof f6;
    CHECK_ERR(getsockopt(s, IPPROTO_ICMPV6, ICMP6_FILTER, &f6, &size), EOPNOTSUPP);
    CHECK_ERR(setsockopt(s, IPPROTO_ICMPV6, ICMP6_FILTER, &f6, 32), ENOPROTOOPT);
    CHECK(getsockopt(g, IPPROTO_ICMPV6, ICMP6_FILTER, &f6, &size) == 0 && size == 32);
    CHECK_ERR(getsockopt(g, SOL_RAW, 1, &f, &size), ENOPROTOOPT);
    CHECK_ERR(setsockopt(g, SOL_RAW, 1, &f, 4), ENOPROTOOPT);
    CHECK_ERR(getsockopt(u, SOL_RAW, 1, &f, &size), EOPNOTSUPP);
    CHECK_ERR(setsockopt(u, SOL_RAW, 1, &f, 4), EOPNOTSUPP);

    h.type = 128;
    CHECK(sendto(g, &h, 8, 0, (SA *)&x6, 28) == 8); /* of ICMPv6 the kernel makes it */
    CHECK(recv(g, buf, 99, 0) == 8 && !memcmp(buf, "\x80\0\x7f\xbb\0\0\0", 8));
    CHECK(recv(g, buf, 99, 0) == 8 && !memcmp(buf, "\x81\0\x7e\xbb\0\0\0", 8));
    CHECK_ERR(sendto(g, &h, 3, 0, (SA *)&x6, 28), EINVAL);
    CHECK(sendto(g, &h, 4, 0, (SA *)&x6, 28) == 4);
    CHECK(recv(g, buf, 99, 0) == 4);
    close(s), close(u), close(g);
}

static void checksums6(void)
{
    int g = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), s = socket(AF_INET6, SOCK_RAW, 254),
        r = socket(AF_INET6, SOCK_RAW, 254);
    struct sockaddr_in6 x6 = {AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT};
    CHECK_ERR(set_option(g, 41, IPV6_CHECKSUM, 2), EINVAL);
    CHECK(set_option(g, SOL_RAW, IPV6_CHECKSUM, 2) == 0);
    CHECK_ERR(set_option(g, SOL_RAW, IPV6_CHECKSUM, 3), EINVAL);
    CHECK(option(s, 41, IPV6_CHECKSUM) == -1);
    CHECK(set_option(s, 41, IPV6_CHECKSUM, 2) == 0 && option(s, SOL_RAW, IPV6_CHECKSUM) == 2);
    CHECK_ERR(set_option(s, 41, IPV6_CHECKSUM, 3), EINVAL);
    CHECK(set_option(s, 41, IPV6_CHECKSUM, -5) == 0 && option(s, 41, IPV6_CHECKSUM) == -1);
    CHECK_ERR(setsockopt(s, 41, IPV6_CHECKSUM, buf, 3), EINVAL);
    CHECK(set_option(s, 41, IPV6_CHECKSUM, 4) == 0);
    CHECK_ERR(sendto(s, "abcde", 5, 0, (SA *)&x6, 28), EINVAL);
    CHECK(sendto(s, "abcdef", 6, 0, (SA *)&x6, 28) == 6);
    CHECK(recv(r, buf, 99, 0) == 6 && !memcmp(buf, "abcd\x3a\x33", 6));
    CHECK(recv(s, buf, 99, 0) == 6);
    CHECK(set_option(r, 41, IPV6_CHECKSUM, 2) == 0);
    CHECK(set_option(s, 41, IPV6_CHECKSUM, -1) == 0);
    CHECK(sendto(s, "abcdef", 6, 0, (SA *)&x6, 28) == 6); /* it is wrong */
    CHECK(recv(s, buf, 99, 0) == 6);
    CHECK_ERR(recv(r, buf, 99, MSG_DONTWAIT), EAGAIN);
    CHECK_ERR(option(s, 0, IP_HDRINCL), ENOPROTOOPT);
    CHECK_ERR(set_option(s, 0, IP_TTL, 3), ENOPROTOOPT);
    close(g), close(s), close(r);
}

static void own_header6(void)
{
    int s = socket(AF_INET6, SOCK_RAW, IPPROTO_RAW), r = socket(AF_INET6, SOCK_RAW, 254);
    struct sockaddr_in6 x6 = {AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT}, from;
    unsigned char p[44] = {0x60, [5] = 4, [6] = 254, [7] = 21, [23] = 9, [39] = 1, [40] = 'a'};
    socklen_t size = sizeof from;
    CHECK_ERR(sendto(s, p, 39, 0, (SA *)&x6, 28), EINVAL);
    CHECK(sendto(s, p, 44, 0, (SA *)&x6, 28) == 44);
    CHECK(recvfrom(r, buf, 99, 0, (SA *)&from, &size) == 4 && buf[0] == 'a');
    CHECK(from.sin6_addr.s6_addr[15] == 9);
    p[5] = 9;
    CHECK(sendto(s, p, 40, 0, (SA *)&x6, 28) == 40);
    CHECK_ERR(recv(r, buf, 99, MSG_DONTWAIT), EAGAIN);
    CHECK(option(r, 41, IPV6_HDRINCL) == 0 && option(s, 41, IPV6_HDRINCL) == 1);
    CHECK(set_option(r, 41, IPV6_HDRINCL, 1) == 0 && option(r, 41, IPV6_HDRINCL) == 1);
    close(s), close(r);
}

static void rights(void)
{
    if (fork() == 0) {
        CHECK(setresuid(9, 9, 9) == 0);
        CHECK_ERR(socket(AF_INET, SOCK_RAW, 1), EPERM);
        CHECK_ERR(socket(AF_INET6, SOCK_RAW, 58), EPERM);
        CHECK_ERR(socket(AF_INET, SOCK_RAW, 0), EPROTONOSUPPORT);
        int s = socket(2, 1, 0);
        CHECK_ERR(set_option(s, 1, SO_MARK, 1), EPERM);
        CHECK_ERR(set_option(s, 1, SO_PRIORITY, 7), EPERM);
        CHECK_ERR(set_option(s, 1, SO_RCVBUFFORCE, 7), EPERM);
        CHECK_ERR(set_option(s, 1, SO_DEBUG, 1), EACCES);
        CHECK_ERR(set_option(s, 0, IP_TRANSPARENT, 1), EPERM);
        CHECK_ERR(bind_to(s, 80), EACCES);
        CHECK_ERR(bind_to(s, 1023), EACCES);
        CHECK(bind_to(s, 1024) == 0);
        fflush(stdout);
        _exit(0);
    }
    int st;
    wait(&st);
}

int main(void)
{
    icmp();
    any();
    udp();
    six();
    if (parted()) /* the others see what they send */
        return 0;
    own_header();
    own_header6();
    echo_with_errors();
    checksums6();
    rights();
    return 0;
}
