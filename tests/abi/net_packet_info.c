/* Which interface the control messages IP_PKTINFO and IPV6_PKTINFO and the option IPV6_PKTINFO choose
 * for what is sent: ip(7), ipv6(7), RFC 3542, 6. Needs root. */
#define _GNU_SOURCE
#include "net_links.h"

#include <errno.h>
#include <netinet/ip6.h>

#define NODAD 0x02

static int devices[2], next_header = IPPROTO_UDP;
static unsigned index_of[2];

static void add_address6(const char *name, const char *ip)
{
    struct {
        struct nlmsghdr head;
        struct ifaddrmsg about;
        struct rtattr attribute;
        struct in6_addr ip;
    } asked = {{sizeof asked, RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE},
               {AF_INET6, 64, NODAD, 0, if_nametoindex(name)},
               {RTA_LENGTH(16), IFA_LOCAL}};
    char answer[1000];
    int sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    CHECK(inet_pton(AF_INET6, ip, &asked.ip) == 1);
    CHECK(send(sock, &asked, sizeof asked, 0) == sizeof asked && recv(sock, answer, 1000, 0) > 0);
    CHECK(((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)answer))->error == 0);
    close(sock);
}

static void make_devices(void)
{
    const char *names[] = {"one", "two"}, *v4[] = {"10.8.0.1", "10.8.1.1"},
               *v6[] = {"fe80::1", "fe80::2"};
    for (int i = 0; i < 2; i++) {
        char path[80];
        devices[i] = make_up(names[i], IFF_TUN | IFF_NO_PI, v4[i], "255.255.255.0");
        CHECK(fcntl(devices[i], F_SETFL, O_NONBLOCK) == 0);
        index_of[i] = if_nametoindex(names[i]);
        sprintf(path, "proc/sys/net/ipv6/conf/%s/disable_ipv6", names[i]);
        CHECK(write_text(path, "0") == 1);
        add_address6(names[i], v6[i]);
    }
}

/* A datagram with a control message of an interface: 0, or the errno. */
static int send_by(int sock, const void *to, int size, int level, int kind, int index)
{
    char space[CMSG_SPACE(sizeof(struct in6_pktinfo))] = {0}, data[] = "12345678";
    struct iovec piece = {data, 8};
    struct msghdr message = {(void *)to, size, &piece, 1, space, 0, 0};
    struct cmsghdr *first = (void *)space;
    int body = level == IPPROTO_IP ? sizeof(struct in_pktinfo) : sizeof(struct in6_pktinfo);
    *first = (struct cmsghdr){CMSG_LEN(body), level, kind};
    if (level == IPPROTO_IP)
        ((struct in_pktinfo *)CMSG_DATA(first))->ipi_ifindex = index;
    else
        ((struct in6_pktinfo *)CMSG_DATA(first))->ipi6_ifindex = index;
    message.msg_controllen = CMSG_SPACE(body);
    data[0] = 8; /* an echo request, if it is for that */
    data[1] = 0;
    return sendmsg(sock, &message, 0) == 8 ? 0 : errno;
}

static int send4(int sock, const char *to, int index)
{
    struct sockaddr_in at = place(to, 9);
    return send_by(sock, &at, sizeof at, IPPROTO_IP, IP_PKTINFO, index);
}

static int send6(int sock, const char *to, int index, int scope)
{
    struct sockaddr_in6 at = {AF_INET6, htons(9), .sin6_scope_id = scope};
    CHECK(inet_pton(AF_INET6, to, &at.sin6_addr) == 1);
    return send_by(sock, &at, sizeof at, IPPROTO_IPV6, IPV6_PKTINFO, index);
}

/* Which device got a packet of this version, and only that one: its number, and from where. */
static int came_by(int version, char *from)
{
    unsigned char packet[2000];
    int found = -1;
    for (int i = 0; i < 2; i++)
        while (read(devices[i], packet, sizeof packet) > 0) {
            struct ip6_hdr *six = (void *)packet;
            if (packet[0] >> 4 != version) continue;
            if (version == 6 && six->ip6_nxt != next_header) continue;
            if (next_header == IPPROTO_ICMPV6 && packet[40] != 128) continue;
            CHECK(found < 0);
            found = i;
            if (version == 4)
                inet_ntop(AF_INET, packet + 12, from, 64);
            else
                inet_ntop(AF_INET6, packet + 8, from, 64);
        }
    return found;
}

static int goes4(int sock, const char *to, int index)
{
    static const char *own[] = {"10.8.0.1", "10.8.1.1"};
    char from[64];
    int error = send4(sock, to, index), by = came_by(4, from);
    CHECK(error ? by < 0 : by >= 0 && !strcmp(from, own[by]));
    return error ? -error : by;
}

static void ip4(int sock)
{
    int on = 1;
    struct ip_mreqn chosen = {.imr_ifindex = index_of[0]};
    CHECK(goes4(sock, "224.0.0.9", 0) == -ENETUNREACH);
    CHECK(goes4(sock, "224.0.0.9", index_of[0]) == 0);
    CHECK(goes4(sock, "224.0.0.9", index_of[1]) == 1);
    CHECK(goes4(sock, "239.1.2.3", index_of[1]) == 1);
    CHECK(goes4(sock, "224.0.0.9", 9999) == -ENODEV);
    CHECK(setsockopt(sock, IPPROTO_IP, IP_MULTICAST_IF, &chosen, sizeof chosen) == 0);
    CHECK(goes4(sock, "224.0.0.9", 0) == 0);
    CHECK(goes4(sock, "224.0.0.9", index_of[1]) == 1);
    CHECK(goes4(sock, "255.255.255.255", index_of[1]) == -EACCES);
    CHECK(setsockopt(sock, SOL_SOCKET, SO_BROADCAST, &on, sizeof on) == 0);
    CHECK(goes4(sock, "255.255.255.255", 0) == -ENETUNREACH);
    CHECK(goes4(sock, "255.255.255.255", index_of[1]) == 1);
    CHECK(goes4(sock, "10.8.1.9", 0) == 1);
    CHECK(goes4(sock, "10.8.1.9", index_of[1]) == 1);
    CHECK(goes4(sock, "192.0.2.1", 0) == -ENETUNREACH);
    close(sock);
}

static void bound4(void)
{
    int sock = control();
    CHECK(setsockopt(sock, SOL_SOCKET, SO_BINDTODEVICE, "one", 4) == 0);
    CHECK(goes4(sock, "224.0.0.9", 0) == 0);
    CHECK(goes4(sock, "224.0.0.9", index_of[1]) == 1);
    close(sock);
}

static int goes6(int sock, const char *to, int index, int scope)
{
    char from[64];
    came_by(6, from); /* what the kernel says of itself */
    int error = send6(sock, to, index, scope), by = came_by(6, from);
    CHECK(error ? by < 0 : by >= 0 && !strncmp(from, "fe80:", 5));
    return error ? -error : by;
}

static void ip6(void)
{
    int sock = socket(AF_INET6, SOCK_DGRAM, 0);
    int first = index_of[0], second = index_of[1];
    CHECK(goes6(sock, "ff02::9", second, 0) == 1);
    CHECK(goes6(sock, "ff02::9", first, 0) == 0);
    CHECK(goes6(sock, "fe80::9", second, 0) == 1);
    CHECK(goes6(sock, "fe80::9", first, 0) == 0);
    CHECK(goes6(sock, "ff02::9", 9999, 0) == -ENODEV);
    CHECK(goes6(sock, "ff02::9", 0, second) == 1);
    CHECK(goes6(sock, "ff02::9", 0, first) == 0);
    CHECK(goes6(sock, "fe80::9", 0, second) == 1);
    CHECK(goes6(sock, "fe80::9", 0, first) == 0);
    CHECK(goes6(sock, "fe80::9", second, first) == -EINVAL);
    CHECK(setsockopt(sock, IPPROTO_IPV6, IPV6_MULTICAST_IF, &first, sizeof first) == 0);
    CHECK(goes6(sock, "ff02::9", 0, 0) == 0);
    CHECK(goes6(sock, "ff02::9", second, 0) == 1);
    CHECK(setsockopt(sock, SOL_SOCKET, SO_BINDTODEVICE, "one", 4) == 0);
    CHECK(goes6(sock, "ff02::9", first, 0) == 0);
    CHECK(goes6(sock, "ff02::9", second, 0) == -EINVAL);
    CHECK(goes6(sock, "fe80::9", second, 0) == -EINVAL);
    close(sock);
}

static int stick(int sock, int index)
{
    struct in6_pktinfo info = {.ipi6_ifindex = index};
    return setsockopt(sock, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info) ? -errno : 0;
}

/* Without a control message: the device, or the errno. */
static int plain6(int sock, const char *to, int scope)
{
    struct sockaddr_in6 at = {AF_INET6, htons(next_header == IPPROTO_UDP ? 9 : 0),
                              .sin6_scope_id = scope};
    char from[64], request[8] = {(char)128};
    CHECK(!to || inet_pton(AF_INET6, to, &at.sin6_addr) == 1);
    came_by(6, from);
    int sent = sendto(sock, request, 8, 0, to ? (void *)&at : NULL, to ? sizeof at : 0);
    int error = errno, by = came_by(6, from);
    CHECK(sent == 8 ? by >= 0 && !strncmp(from, "fe80:", 5) : by < 0);
    return sent == 8 ? by : -error;
}

/* The option IPV6_PKTINFO is for what nothing else has chosen. Linux heeds no address in it. */
static void sticky(void)
{
    struct in6_pktinfo info;
    socklen_t size = sizeof info;
    char from[64];
    int sock = socket(AF_INET6, SOCK_DGRAM, 0);
    int first = index_of[0], second = index_of[1];
    struct sockaddr_in6 to = {AF_INET6, htons(9)}, own;
    CHECK_ERR(setsockopt(sock, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info - 1), EINVAL);
    CHECK_ERR(getsockopt(sock, IPPROTO_IPV6, IPV6_PKTINFO, &info, &size), ENOPROTOOPT);
    CHECK(stick(sock, 9999) == 0 && plain6(sock, "ff02::9", 0) == -ENETUNREACH);
    CHECK(stick(sock, -1) == 0 && plain6(sock, "ff02::9", 0) == -ENETUNREACH);
    CHECK(stick(sock, second) == 0);
    CHECK(setsockopt(sock, IPPROTO_IPV6, IPV6_MULTICAST_IF, &first, sizeof first) == 0);
    CHECK(plain6(sock, "ff02::9", 0) == 1 && plain6(sock, "ff05::9", 0) == 1);
    CHECK(plain6(sock, "fe80::9", 0) == 1);
    CHECK(plain6(sock, "ff02::9", first) == 0 && plain6(sock, "fe80::9", first) == 0);
    CHECK(goes6(sock, "ff02::9", first, 0) == -EINVAL && goes6(sock, "ff02::9", 0, 0) == 1);
    CHECK(inet_pton(AF_INET6, "::ffff:10.8.0.9", &to.sin6_addr) == 1);
    CHECK(sendto(sock, "x", 1, 0, (void *)&to, sizeof to) == 1 && came_by(4, from) == 0);
    CHECK(inet_pton(AF_INET6, "fe80::9", &to.sin6_addr) == 1);
    CHECK_ERR(connect(sock, (void *)&to, sizeof to), EINVAL);
    CHECK(inet_pton(AF_INET6, "ff05::9", &to.sin6_addr) == 1);
    CHECK(connect(sock, (void *)&to, sizeof to) == 0 && plain6(sock, NULL, 0) == 1);
    size = sizeof own;
    CHECK(getsockname(sock, (void *)&own, &size) == 0);
    CHECK(inet_ntop(AF_INET6, &own.sin6_addr, from, 64) && !strncmp(from, "fe80:", 5));
    close(sock);
    sock = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(setsockopt(sock, SOL_SOCKET, SO_BINDTODEVICE, "one", 4) == 0);
    CHECK(stick(sock, second) == -EINVAL && stick(sock, 0) == -EINVAL && stick(sock, first) == 0);
    CHECK(setsockopt(sock, SOL_SOCKET, SO_BINDTODEVICE, "two", 4) == 0);
    CHECK(plain6(sock, "ff02::9", 0) == 1);
    close(sock);
}

/* ping sockets heed it, raw sockets do not but in connect(2). */
static void sticky_icmp(void)
{
    int first = index_of[0], second = index_of[1];
    CHECK(write_text("proc/sys/net/ipv4/ping_group_range", "0 0") == 3);
    next_header = IPPROTO_ICMPV6;
    int ping = socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6);
    int raw = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    CHECK(stick(ping, second) == 0 && stick(raw, second) == 0);
    CHECK(setsockopt(ping, IPPROTO_IPV6, IPV6_MULTICAST_IF, &first, sizeof first) == 0);
    CHECK(setsockopt(raw, IPPROTO_IPV6, IPV6_MULTICAST_IF, &first, sizeof first) == 0);
    CHECK(plain6(ping, "ff02::9", 0) == 1 && plain6(ping, "fe80::9", 0) == 1);
    CHECK(plain6(ping, "fe80::9", first) == 0);
    CHECK(plain6(raw, "ff02::9", 0) == 0);
    next_header = IPPROTO_UDP;
    close(ping);
    close(raw);
}

static int bound_to(int sock)
{
    int index;
    socklen_t size = sizeof index;
    CHECK(getsockopt(sock, SOL_SOCKET, SO_BINDTOIFINDEX, &index, &size) == 0);
    return index;
}

/* Who is connected to an address that each link has is bound to the one that was named. */
static void connected6(void)
{
    struct sockaddr_in6 to = {AF_INET6, htons(9), .sin6_scope_id = index_of[1]};
    struct sockaddr none = {AF_UNSPEC};
    char from[64];
    int sock = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(inet_pton(AF_INET6, "fe80::9", &to.sin6_addr) == 1);
    CHECK(connect(sock, (void *)&to, sizeof to) == 0 && bound_to(sock) == (int)index_of[1]);
    CHECK(send(sock, "x", 1, 0) == 1 && came_by(6, from) == 1);
    to.sin6_scope_id = index_of[0];
    CHECK_ERR(connect(sock, (void *)&to, sizeof to), EINVAL);
    CHECK(connect(sock, &none, sizeof none) == 0 && bound_to(sock) == 0);
    CHECK(connect(sock, (void *)&to, sizeof to) == 0 && bound_to(sock) == (int)index_of[0]);
    CHECK(send(sock, "x", 1, 0) == 1 && came_by(6, from) == 0);
    CHECK(connect(sock, &none, sizeof none) == 0);
    to.sin6_scope_id = 0;
    CHECK(inet_pton(AF_INET6, "ff02::9", &to.sin6_addr) == 1);
    CHECK(setsockopt(sock, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index_of[1], sizeof index_of[1]) == 0);
    CHECK(connect(sock, (void *)&to, sizeof to) == 0 && bound_to(sock) == (int)index_of[1]);
    close(sock);
}

/* connect(2) that fails has bound the socket to the interface, and to a port if it has one. */
static void not_connected6(int type, int protocol)
{
    struct sockaddr_in6 to = {AF_INET6, .sin6_scope_id = 9999}, own;
    struct sockaddr none = {AF_UNSPEC};
    socklen_t size = sizeof own;
    int sock = socket(AF_INET6, type, protocol);
    CHECK(inet_pton(AF_INET6, "fe80::9", &to.sin6_addr) == 1);
    CHECK_ERR(connect(sock, (void *)&to, sizeof to), ENETUNREACH);
    CHECK_ERR(getpeername(sock, (void *)&own, &size), ENOTCONN);
    CHECK(bound_to(sock) == 9999);
    CHECK(getsockname(sock, (void *)&own, &size) == 0);
    CHECK(type == SOCK_RAW || own.sin6_port);
    to.sin6_scope_id = index_of[0];
    CHECK_ERR(connect(sock, (void *)&to, sizeof to), EINVAL);
    CHECK(connect(sock, &none, sizeof none) == 0 && bound_to(sock) == 0);
    CHECK(connect(sock, (void *)&to, sizeof to) == 0 && bound_to(sock) == (int)index_of[0]);
    close(sock);
}

/* Of equal addresses the one that was added last is the source: ipv6_link_dev_addr(). */
static void newest6(void)
{
    struct sockaddr_in6 to = {AF_INET6, htons(9)}, own;
    socklen_t size = sizeof own;
    int sock = socket(AF_INET6, SOCK_DGRAM, 0);
    add_address6("two", "fd00::1");
    add_address6("two", "fd00::2");
    CHECK(inet_pton(AF_INET6, "fd00::8", &to.sin6_addr) == 1);
    CHECK(connect(sock, (void *)&to, sizeof to) == 0);
    CHECK(getsockname(sock, (void *)&own, &size) == 0 && own.sin6_addr.s6_addr[15] == 2);
    close(sock);
}

int main(void)
{
    own_tun_network();
    make_devices();
    ip4(control());
    ip4(socket(AF_INET, SOCK_RAW, 200));
    bound4();
    ip6();
    connected6();
    not_connected6(SOCK_DGRAM, 0);
    not_connected6(SOCK_RAW, 200);
    sticky();
    sticky_icmp();
    not_connected6(SOCK_DGRAM, IPPROTO_ICMPV6);
    newest6();
    return 0;
}
