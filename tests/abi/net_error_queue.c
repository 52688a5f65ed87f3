/* The queue of errors: what is too large, what nobody takes, and which option of which family
   counts; IPV6_RECVPATHMTU and IPV6_DONTFRAG. */
#define _GNU_SOURCE
#include "abi.h"
#include "net_own.h"

#include <linux/errqueue.h>

#ifndef IPV6_RECVPATHMTU
#define IPV6_RECVPATHMTU 60
#define IPV6_PATHMTU 61
#define IPV6_DONTFRAG 62
#endif

static char big[70000];

static struct sockaddr_in6 address6(const char *text, int port)
{
    struct sockaddr_in6 a = {AF_INET6, htons(port)};
    CHECK(inet_pton(AF_INET6, text, &a.sin6_addr) == 1);
    return a;
}

static int send_to(int fd, int size, const char *text, int port)
{
    struct sockaddr_in6 a = address6(text, port);
    return sendto(fd, big, size, 0, (SA *)&a, sizeof a);
}

static int error_of(int fd)
{
    return option(fd, SOL_SOCKET, SO_ERROR);
}

/* What the last receive gave. */
static struct sockaddr_in6 from;
static struct sock_extended_err error;
static struct sockaddr_in6 offender;
static struct {
    struct sockaddr_in6 address;
    unsigned mtu;
} path;
static int level, flags;

static int receive(int fd, int how)
{
    char data[100], control[600];
    struct sockaddr_in6 address;
    struct iovec iov = {data, sizeof data};
    struct msghdr m = {&address, sizeof address, &iov, 1, control, sizeof control};
    int got = recvmsg(fd, &m, how | MSG_DONTWAIT);
    if (got < 0)
        return -errno;
    from = address;
    flags = m.msg_flags;
    level = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        level = c->cmsg_level;
        if (level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PATHMTU) {
            CHECK(c->cmsg_len == CMSG_LEN(sizeof path));
            memcpy(&path, CMSG_DATA(c), sizeof path);
            continue;
        }
        CHECK(c->cmsg_type == (level == IPPROTO_IP ? IP_RECVERR : IPV6_RECVERR));
        size_t size = level == IPPROTO_IP ? 16 : 28;
        CHECK(c->cmsg_len == CMSG_LEN(sizeof error + size));
        memcpy(&error, CMSG_DATA(c), sizeof error);
        memcpy(&offender, CMSG_DATA(c) + sizeof error, size);
    }
    return got;
}

/* One entry of our own about a datagram that is too large, and no more. */
static void too_large(int fd, int mtu, int at)
{
    CHECK(events(fd) & POLLERR);
    CHECK(error_of(fd) == 0);
    CHECK(receive(fd, MSG_ERRQUEUE) == 0 && flags == MSG_ERRQUEUE);
    CHECK(error.ee_errno == EMSGSIZE && error.ee_origin == SO_EE_ORIGIN_LOCAL);
    CHECK(error.ee_type == 0 && error.ee_code == 0 && error.ee_info == mtu && !error.ee_data);
    CHECK(offender.sin6_family == 0);
    CHECK(ntohs(from.sin6_port) == at);
    CHECK(receive(fd, MSG_ERRQUEUE) == -EAGAIN);
    CHECK(!(events(fd) & POLLERR));
}

static int made(int option_level, int name)
{
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(fd >= 0);
    if (name)
        CHECK(set_option(fd, option_level, name, 1) == 0);
    return fd;
}

static void sizes(void)
{
    int fd = made(IPPROTO_IPV6, IPV6_RECVERR);
    CHECK(send_to(fd, 65527, "::1", 9) == 65527);
    CHECK(receive(fd, MSG_ERRQUEUE) == 100 && error.ee_errno == ECONNREFUSED);
    CHECK_ERR(send_to(fd, 65528, "::1", 9), EMSGSIZE);
    too_large(fd, 65536, 9);
    CHECK(level == IPPROTO_IPV6 && from.sin6_family == AF_INET6);
    CHECK(!memcmp(&from.sin6_addr, &in6addr_loopback, 16));
    CHECK_ERR(send_to(fd, 66000, "::1", 9), EMSGSIZE);
    too_large(fd, 65536, 9);
    CHECK(set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO) == 0);
    CHECK(send_to(fd, 65488, "::1", 9) == 65488);
    CHECK(receive(fd, MSG_ERRQUEUE) == 100);
    CHECK_ERR(send_to(fd, 65489, "::1", 9), EMSGSIZE);
    too_large(fd, 65536, 9);
    CHECK(set_option(fd, IPPROTO_IPV6, IPV6_MTU, 1300) == 0);
    CHECK_ERR(send_to(fd, 1253, "::1", 9), EMSGSIZE);
    too_large(fd, 1300, 9);
    CHECK(send_to(fd, 1252, "::1", 9) == 1252);
    CHECK(set_option(fd, IPPROTO_IPV6, IPV6_RECVERR, 0) == 0);
    CHECK(receive(fd, MSG_ERRQUEUE) == -EAGAIN);
    CHECK_ERR(send_to(fd, 66000, "::1", 9), EMSGSIZE);
    CHECK(receive(fd, MSG_ERRQUEUE) == -EAGAIN);
    close(fd);

    struct sockaddr_in a = loopback(9);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(set_option(fd, IPPROTO_IP, IP_RECVERR, 1) == 0);
    CHECK_ERR(sendto(fd, big, 65508, 0, (SA *)&a, sizeof a), EMSGSIZE);
    too_large(fd, 65535, 0);
    CHECK(level == IPPROTO_IP && ((struct sockaddr_in *)&from)->sin_addr.s_addr == htonl(0x7f000001));
    CHECK_ERR(sendto(fd, big, 65536, 0, (SA *)&a, sizeof a), EMSGSIZE);
    CHECK(receive(fd, MSG_ERRQUEUE) == -EAGAIN);  // no packet was begun
    CHECK(connect_to(fd, 9) == 0);
    CHECK_ERR(send(fd, big, 65508, 0), EMSGSIZE);
    too_large(fd, 65535, 9);
    close(fd);
}

/* IP_RECVERR is for IPv4 and mapped addresses, IPV6_RECVERR for IPv6. */
static void families(void)
{
    int four = made(IPPROTO_IP, IP_RECVERR), six = made(IPPROTO_IPV6, IPV6_RECVERR);
    CHECK(send_to(four, 5, "::1", 9) == 5);
    CHECK(receive(four, MSG_ERRQUEUE) == -EAGAIN && error_of(four) == 0);
    CHECK_ERR(send_to(four, 65528, "::1", 9), EMSGSIZE);
    CHECK(receive(four, MSG_ERRQUEUE) == -EAGAIN);
    CHECK(send_to(six, 5, "::ffff:127.0.0.1", 9) == 5);
    CHECK(receive(six, MSG_ERRQUEUE) == -EAGAIN && error_of(six) == 0);
    CHECK_ERR(send_to(six, 65508, "::ffff:127.0.0.1", 9), EMSGSIZE);
    CHECK(receive(six, MSG_ERRQUEUE) == -EAGAIN);

    CHECK(send_to(four, 5, "::ffff:127.0.0.1", 9) == 5);
    CHECK(error_of(four) == ECONNREFUSED && receive(four, MSG_ERRQUEUE) == 5);
    CHECK(level == IPPROTO_IPV6 && error.ee_origin == SO_EE_ORIGIN_ICMP && error.ee_type == 3);
    CHECK(offender.sin6_family == AF_INET6 && offender.sin6_addr.s6_addr[12] == 127);
    CHECK_ERR(send_to(four, 65508, "::ffff:127.0.0.1", 9), EMSGSIZE);
    too_large(four, 65535, 0);
    CHECK(level == IPPROTO_IPV6 && from.sin6_addr.s6_addr[12] == 127);
    CHECK(send_to(six, 5, "::1", 9) == 5);
    CHECK(receive(six, MSG_ERRQUEUE) == 5 && error.ee_origin == SO_EE_ORIGIN_ICMP6);
    close(four), close(six);

    six = made(IPPROTO_IPV6, IPV6_RECVERR);
    struct sockaddr_in6 a = address6("::ffff:127.0.0.1", 9);
    CHECK(connect(six, (SA *)&a, sizeof a) == 0 && send(six, big, 5, 0) == 5);
    CHECK(receive(six, MSG_ERRQUEUE) == -EAGAIN && error_of(six) == ECONNREFUSED);
    close(six);
}

/* Errors of both kinds in their order: only those of others are in SO_ERROR. */
static void mixed(void)
{
    int fd = made(IPPROTO_IPV6, IPV6_RECVERR);
    CHECK_ERR(send_to(fd, 65528, "::1", 9), EMSGSIZE);
    CHECK(send_to(fd, 3, "::1", 9) == 3);
    CHECK_ERR(send_to(fd, 65528, "::1", 9), EMSGSIZE);
    CHECK_ERR(send_to(fd, 3, "::1", 9), ECONNREFUSED);
    CHECK(send_to(fd, 4, "::1", 9) == 4);
    CHECK(receive(fd, MSG_ERRQUEUE) == 0 && error.ee_errno == EMSGSIZE);
    CHECK(error_of(fd) == ECONNREFUSED);
    CHECK(receive(fd, MSG_ERRQUEUE) == 3 && error_of(fd) == 0);
    CHECK(receive(fd, MSG_ERRQUEUE) == 0 && error_of(fd) == ECONNREFUSED);
    CHECK(receive(fd, MSG_ERRQUEUE) == 4 && error_of(fd) == 0);
    CHECK(receive(fd, MSG_ERRQUEUE) == -EAGAIN);
    close(fd);
}

static void path_mtu(void)
{
    int fd = made(IPPROTO_IPV6, IPV6_RECVPATHMTU);
    CHECK_ERR(send_to(fd, 65528, "::1", 9), EMSGSIZE);
    CHECK(receive(fd, 0) == -EAGAIN);
    CHECK(set_option(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1) == 0);
    CHECK_ERR(send_to(fd, 65489, "::1", 9), EMSGSIZE);
    CHECK(receive(fd, MSG_ERRQUEUE) == -EAGAIN && events(fd) == POLLOUT);
    CHECK(receive(fd, MSG_PEEK) == 0 && level == IPPROTO_IPV6);
    CHECK(path.mtu == 65536 && path.address.sin6_family == AF_INET6 && !path.address.sin6_port);
    CHECK(!memcmp(&path.address.sin6_addr, &in6addr_loopback, 16) && !from.sin6_port);
    CHECK(receive(fd, 0) == -EAGAIN);
    CHECK(set_option(fd, IPPROTO_IPV6, IPV6_MTU, 1280) == 0);
    CHECK_ERR(send_to(fd, 1233, "::1", 9), EMSGSIZE);
    CHECK(send_to(fd, 1232, "::1", 9) == 1232);
    CHECK(recv(fd, big, 1, 0) == 0);  // without waiting
    CHECK(set_option(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 0) == 0);
    CHECK(send_to(fd, 1233, "::1", 9) == 1233);
    close(fd);

    /* The option of one datagram. */
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.head = {CMSG_LEN(sizeof(int)), IPPROTO_IPV6, IPV6_DONTFRAG}};
    struct sockaddr_in6 a = address6("::1", 9);
    struct iovec iov = {big, 65489};
    struct msghdr m = {&a, sizeof a, &iov, 1, &control, sizeof control};
    fd = made(0, 0);
    *(int *)CMSG_DATA(&control.head) = 1;
    CHECK_ERR(sendmsg(fd, &m, 0), EMSGSIZE);
    *(int *)CMSG_DATA(&control.head) = 0;
    CHECK(sendmsg(fd, &m, 0) == 65489);
    CHECK(set_option(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1) == 0);
    CHECK(sendmsg(fd, &m, 0) == 65489);
    close(fd);
}

/* What is held back for more goes with what does not fit. */
static void corked(void)
{
    char byte[8];
    struct sockaddr_in a = {AF_INET};
    socklen_t size = sizeof a;
    int fd = socket(AF_INET, SOCK_DGRAM, 0), hears = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind_to(hears, 0) == 0 && connect_to(fd, port(hears)) == 0);
    CHECK(send(fd, big, 65000, MSG_MORE) == 65000);
    CHECK_ERR(send(fd, big, 65000, 0), EMSGSIZE);
    CHECK(send(fd, "x", 1, 0) == 1);
    CHECK(recv(hears, byte, sizeof byte, MSG_DONTWAIT) == 1);
    close(fd), close(hears);
}

/* What getsockopt(2) says of the way, and raw sockets. */
static void link_mtu(void)
{
    struct ifreq lo = {"lo"};
    int four = socket(AF_INET, SOCK_DGRAM, 0), six = made(0, 0), mapped = made(0, 0);
    struct sockaddr_in6 a = address6("::1", 9), m = address6("::ffff:127.0.0.1", 9);
    CHECK(connect_to(four, 9) == 0 && connect(six, (SA *)&a, sizeof a) == 0);
    CHECK(connect(mapped, (SA *)&m, sizeof m) == 0);
    CHECK(option(four, IPPROTO_IP, IP_MTU) == 65535);
    CHECK(option(six, IPPROTO_IPV6, IPV6_MTU) == 65536);
    CHECK(option(mapped, IPPROTO_IPV6, IPV6_MTU) == 65535);
    lo.ifr_mtu = 2000;
    CHECK(ioctl(four, SIOCSIFMTU, &lo) == 0);
    close(four);
    four = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(connect_to(four, 9) == 0 && option(four, IPPROTO_IP, IP_MTU) == 2000);
    CHECK(set_option(four, IPPROTO_IP, IP_RECVERR, 1) == 0);
    CHECK(set_option(four, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO) == 0);
    CHECK_ERR(send(four, big, 1973, 0), EMSGSIZE);
    too_large(four, 2000, 9);
    CHECK(send(four, big, 1972, 0) == 1972);

    int header = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    struct sockaddr_in to = loopback(0);
    CHECK(set_option(header, IPPROTO_IP, IP_RECVERR, 1) == 0);
    CHECK_ERR(sendto(header, big, 2001, 0, (SA *)&to, sizeof to), EMSGSIZE);
    too_large(header, 2000, 0);
    lo.ifr_mtu = 65536;
    CHECK(ioctl(four, SIOCSIFMTU, &lo) == 0);
    close(four), close(six), close(mapped), close(header);

    int raw = socket(AF_INET6, SOCK_RAW, 253), icmp = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    CHECK(set_option(raw, IPPROTO_IPV6, IPV6_RECVERR, 1) == 0);
    CHECK(set_option(icmp, IPPROTO_IPV6, IPV6_RECVERR, 1) == 0);
    CHECK_ERR(send_to(raw, 65536, "::1", 0), EMSGSIZE);
    too_large(raw, 65536, 0);
    big[0] = 5, big[1] = 6;
    CHECK_ERR(send_to(icmp, 65536, "::1", 0), EMSGSIZE);
    too_large(icmp, 65536, 0x506);  // type and code stand where a port would
    big[0] = big[1] = 0;
    CHECK(set_option(icmp, IPPROTO_IPV6, IPV6_DONTFRAG, 1) == 0);
    CHECK_ERR(send_to(icmp, 65497, "::1", 0), EMSGSIZE);
    CHECK(set_option(raw, IPPROTO_IPV6, IPV6_DONTFRAG, 1) == 0);
    CHECK(send_to(raw, 65497, "::1", 0) == 65497);  // of a protocol that is not asked
    close(raw), close(icmp);
}

/* Of an error that came with a packet is told what would be told of the packet; many are kept. */
static void told(void)
{
    char data[8], control[400];
    struct sockaddr_in a = loopback(9);
    struct iovec iov = {data, sizeof data};
    struct msghdr m = {NULL, 0, &iov, 1, control, sizeof control};
    int fd = socket(AF_INET, SOCK_DGRAM, 0), kinds[5] = {0}, many = 0;
    CHECK(set_option(fd, 0, IP_RECVERR, 1) == 0 && set_option(fd, 0, IP_PKTINFO, 1) == 0);
    CHECK(set_option(fd, 0, IP_RECVTOS, 1) == 0 && set_option(fd, 0, IP_RECVORIGDSTADDR, 1) == 0);
    CHECK(sendto(fd, "abcdef", 6, 0, (SA *)&a, sizeof a) == 6);
    CHECK(recvmsg(fd, &m, MSG_ERRQUEUE) == 6);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        kinds[many++] = c->cmsg_type;
    CHECK(many == 4 && kinds[0] == IP_PKTINFO && kinds[1] == IP_TOS);
    CHECK(kinds[2] == IP_ORIGDSTADDR && kinds[3] == IP_RECVERR);
    struct in_pktinfo *info = (void *)CMSG_DATA(CMSG_FIRSTHDR(&m));
    CHECK(info->ipi_addr.s_addr == htonl(INADDR_LOOPBACK) && info->ipi_spec_dst.s_addr == 0);

    for (many = 0; many < 300; many++)
        sendto(fd, "a", 1, 0, (SA *)&a, sizeof a);
    for (many = 0; recv(fd, data, 1, MSG_ERRQUEUE) == 1; many++)
        ;
    CHECK(many > 100);
    CHECK(sendto(fd, "a", 1, 0, (SA *)&a, sizeof a) == 1 && !(events(fd) & POLLPRI));
    CHECK(set_option(fd, SOL_SOCKET, SO_SELECT_ERR_QUEUE, 1) == 0);
    CHECK((events(fd) & (POLLERR | POLLPRI)) == (POLLERR | POLLPRI));
    close(fd);
}

int main(void)
{
    own_network();
    told();
    sizes();
    families();
    mixed();
    path_mtu();
    corked();
    link_mtu();
    return 0;
}
