/* Two networks, and a program that carries what leaves one into the other: a VPN of a page.
   As packets and as frames, with and without what is left to do. Needs root. */
#define _GNU_SOURCE
#include "net_tun.h"

#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <signal.h>
#include <sys/prctl.h>

#define PORT 7000
#define STREAM 400000
#define NODAD 0x02

/* RTM_NEWADDR of IPv6. */
static void add_address6(const char *name, const char *text)
{
    struct {
        struct nlmsghdr head;
        struct ifaddrmsg info;
        struct rtattr attribute;
        struct in6_addr ip;
    } request = {{sizeof request, RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE},
                 {AF_INET6, 64, NODAD, 0, if_nametoindex(name)},
                 {20, IFA_LOCAL}};
    char answer[1000];
    int sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    CHECK(inet_pton(AF_INET6, text, &request.ip) == 1);
    CHECK(send(sock, &request, sizeof request, 0) == sizeof request);
    CHECK(recv(sock, answer, sizeof answer, 0) > 0);
    CHECK(((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)answer))->error == 0);
    close(sock);
}

static int at_port(int family, int kind)
{
    int sock = socket(family, kind, 0), one = 1;
    struct sockaddr_in6 any6 = {AF_INET6, htons(PORT)};
    struct sockaddr_in any = {AF_INET, htons(PORT)};
    if (family == AF_INET6) {
        CHECK(setsockopt(sock, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) == 0);
        CHECK(bind(sock, (void *)&any6, sizeof any6) == 0);
    } else {
        CHECK(bind(sock, (void *)&any, sizeof any) == 0);
    }
    CHECK(kind == SOCK_DGRAM || listen(sock, 5) == 0);
    return sock;
}

static pid_t start(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    return child;
}

static void relay(int one, int two)
{
    static char data[70000];
    struct pollfd both[2] = {{one, POLLIN}, {two, POLLIN}};
    for (;;) {
        CHECK(poll(both, 2, -1) > 0);
        for (int i = 0; i < 2; i++) {
            if (!(both[i].revents & POLLIN)) continue;
            int got = read(both[i].fd, data, sizeof data);
            CHECK(got > 0 && write(both[1 - i].fd, data, got) == got);
        }
    }
}

static void echo(int listener, int datagrams)
{
    static char data[70000];
    struct pollfd some[3] = {{listener, POLLIN}, {datagrams, POLLIN}, {-1, POLLIN}};
    for (;;) {
        CHECK(poll(some, 3, -1) > 0);
        if (some[0].revents) CHECK((some[2].fd = accept(listener, NULL, NULL)) >= 0);
        if (some[1].revents) {
            struct sockaddr_storage from;
            socklen_t size = sizeof from;
            int got = recvfrom(datagrams, data, sizeof data, 0, (void *)&from, &size);
            CHECK(got >= 0 && sendto(datagrams, data, got, 0, (void *)&from, size) == got);
        }
        if (some[2].fd >= 0 && some[2].revents) {
            int got = read(some[2].fd, data, sizeof data);
            CHECK(got >= 0);
            for (int at = 0, done; at < got; at += done)
                CHECK((done = write(some[2].fd, data + at, got - at)) > 0);
            if (!got) close(some[2].fd), some[2].fd = -1;
        }
    }
}

static void exchange(const void *server, socklen_t size)
{
    static char sent[STREAM], got[STREAM];
    int family = ((const struct sockaddr *)server)->sa_family;
    int sock = socket(family, SOCK_STREAM, 0), at = 0, done;
    CHECK(connect(sock, server, size) == 0);
    for (int i = 0; i < STREAM; i++) sent[i] = i * 31 + i / 4093;
    pid_t writer = start();
    if (!writer) {
        for (int i = 0; i < STREAM; i += done) CHECK((done = write(sock, sent + i, STREAM - i)) > 0);
        CHECK(shutdown(sock, SHUT_WR) == 0);
        _exit(0);
    }
    while ((done = read(sock, got + at, STREAM - at)) > 0) at += done;
    CHECK(at == STREAM && !memcmp(sent, got, STREAM) && status_of(writer) == 0);
    close(sock);
    sock = socket(family, SOCK_DGRAM, 0);
    CHECK(connect(sock, server, size) == 0);
    for (int i = 0; i < 5000; i += 999) { /* larger than the MTU, too */
        CHECK(send(sock, sent, i, 0) == i && recv(sock, got, STREAM, 0) == i);
        CHECK(!memcmp(sent, got, i));
    }
    close(sock);
}

static void ping(struct sockaddr_in *to)
{
    unsigned char answer[200];
    int sock = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    struct icmphdr asked = {ICMP_ECHO, .un.echo = {htons(9), htons(1)}};
    asked.checksum = htons(~sum_of(&asked, sizeof asked, 0));
    CHECK(sock >= 0 && sendto(sock, &asked, sizeof asked, 0, (void *)to, sizeof *to) == 8);
    CHECK(recv(sock, answer, sizeof answer, 0) == 28 && answer[20] == ICMP_ECHOREPLY);
    CHECK(!memcmp(answer + 24, &asked.un, 4));
    close(sock);
}

static void carried(int flags, int offload)
{
    struct sockaddr_in server = place("10.8.0.2", PORT);
    struct sockaddr_in6 server6 = {AF_INET6, htons(PORT)};
    pid_t children[3];
    CHECK(inet_pton(AF_INET6, "fd00::2", &server6.sin6_addr) == 1);
    int here = open("/proc/self/ns/net", O_RDONLY);
    CHECK(here >= 0 && unshare(CLONE_NEWNET) == 0);
    int two = make_up("two", flags, "10.8.0.2", "255.255.255.0");
    add_address6("two", "fd00::2");
    for (int i = 0; i < 2; i++) {
        int family = i ? AF_INET6 : AF_INET;
        int listener = at_port(family, SOCK_STREAM), datagrams = at_port(family, SOCK_DGRAM);
        if (!(children[i] = start())) echo(listener, datagrams);
        close(listener);
        close(datagrams);
    }
    CHECK(setns(here, CLONE_NEWNET) == 0);
    int one = make_up("one", flags, "10.8.0.1", "255.255.255.0");
    add_address6("one", "fd00::1");
    CHECK(ioctl(one, TUNSETOFFLOAD, offload) == 0 && ioctl(two, TUNSETOFFLOAD, offload) == 0);
    if (!(children[2] = start())) relay(one, two);
    ping(&server);
    exchange(&server, sizeof server);
    exchange(&server6, sizeof server6);
    for (int i = 0; i < 3; i++) {
        CHECK(kill(children[i], SIGKILL) == 0);
        status_of(children[i]);
    }
    close(one);
    close(two);
    close(here);
    CHECK(if_nametoindex("one") == 0);
}

int main(void)
{
    own_tun_network();
    CHECK(write_text(NO_IPV6, "0") == 1);
    carried(IFF_TUN | IFF_NO_PI, 0);
    carried(IFF_TUN, 0);
    carried(IFF_TAP, 0);
    carried(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6);
    carried(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6);
    return 0;
}
