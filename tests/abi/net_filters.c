/* Filters of sockets: what their loads reach, what they may take, and that many of them are heard of
 * by the end of one send. socket(7), Documentation/networking/filter.rst. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"
#include "net_own.h"

#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <sys/resource.h>

#define MANY 200
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static unsigned char buf[4096];
static struct sock_filter longest[BPF_MAXINSNS];

static long attach(int fd, struct sock_filter *code, unsigned length)
{
    struct sock_fprog program = {length, code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

/* The socket takes what one load finds there, and nothing else. */
static void only(int fd, unsigned size, unsigned at, unsigned value)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | size | BPF_ABS, at), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, -1), BPF_STMT(BPF_RET | BPF_K, 0)};
    CHECK(attach(fd, code, LENGTH(code)) == 0);
}

static void hello(int family, int port_)
{
    int s = socket(family, SOCK_DGRAM, 0);
    struct sockaddr_in a = loopback(across(port_));
    struct sockaddr_in6 b = {AF_INET6, htons(port_), 0, IN6ADDR_LOOPBACK_INIT, 0};
    b.sin6_addr = address6_of(across(0) >> 16);
    long sent = family == AF_INET ? sendto(s, "hello", 5, 0, (SA *)&a, sizeof a)
                                  : sendto(s, "hello", 5, 0, (SA *)&b, sizeof b);
    CHECK(sent == 5);
    close(s);
}

static int comes(int fd)
{
    int count = 0;
    while (recv(fd, buf, sizeof buf, MSG_DONTWAIT) >= 0)
        count++;
    CHECK_ERR(recv(fd, buf, sizeof buf, MSG_DONTWAIT), EAGAIN);
    return count;
}

/* Whether the packet of `family` passes, once for each time that the socket sees it. */
#define PASSES(fd, family, size, at, value, times)    \
    do {                                              \
        only(fd, size, at, value);                    \
        hello(family, 4001);                          \
        CHECK(comes(fd) == (times));                  \
    } while (0)

static void of_udp(void)
{
    int s = other_socket(AF_INET, SOCK_DGRAM, 0), six = other_socket(AF_INET6, SOCK_DGRAM, 0);
    int on = 1;
    struct sockaddr_in6 any = {AF_INET6, htons(4001), 0, IN6ADDR_ANY_INIT, 0};
    CHECK(setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0);
    CHECK(bind_to(s, 4001) == 0 && bind(six, (SA *)&any, sizeof any) == 0);
    PASSES(s, AF_INET, BPF_H, 2, 4001, 1);
    PASSES(s, AF_INET, BPF_B, 8, 'h', 1);
    PASSES(s, AF_INET, BPF_B, 9, 'h', 0);
    PASSES(s, AF_INET, BPF_B, SKF_NET_OFF, 0x45, 1);
    PASSES(s, AF_INET, BPF_B, SKF_NET_OFF + 9, IPPROTO_UDP, 1);
    PASSES(s, AF_INET, BPF_W, SKF_NET_OFF + 16, ntohl(address_of(is_far(s)).s_addr), 1);
    PASSES(s, AF_INET, BPF_H, SKF_LL_OFF + 12, ETH_P_IP, 1);
    PASSES(s, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_PROTOCOL, ETH_P_IP, 1);
    PASSES(s, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_PKTTYPE, PACKET_HOST, 1);
    PASSES(s, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_IFINDEX, 1, !parted());
    PASSES(s, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_HATYPE, parted() ? 1 : 772, 1);
    PASSES(s, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_PAY_OFFSET, 8, 1);
    PASSES(s, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_MARK, 0, 1);
    PASSES(s, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT, 0, 1);
    PASSES(s, AF_INET, BPF_W, 10, 0, 0); /* beyond the end: nothing is let in */
    PASSES(s, AF_INET, BPF_W, SKF_NET_OFF + 60000, 0, 0);
    PASSES(six, AF_INET6, BPF_B, SKF_NET_OFF + 6, IPPROTO_UDP, 1);
    PASSES(six, AF_INET6, BPF_H, SKF_LL_OFF + 12, ETH_P_IPV6, 1);
    PASSES(six, AF_INET6, BPF_H, 2, 4001, 1);
    PASSES(six, AF_INET6, BPF_W, SKF_AD_OFF + SKF_AD_PAY_OFFSET, 8, 1);
    close(s);
    close(six);
}

static void of_raw(void)
{
    int heard = other_socket(AF_INET, SOCK_DGRAM, 0), s = other_socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    CHECK(bind_to(heard, 4001) == 0);
    PASSES(s, AF_INET, BPF_B, 0, 0x45, 1);
    PASSES(s, AF_INET, BPF_H, 22, 4001, 1);
    PASSES(s, AF_INET, BPF_B, SKF_NET_OFF + 9, IPPROTO_UDP, 1);
    PASSES(s, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_PROTOCOL, ETH_P_IP, 1);
    close(s);
    close(heard);
}

/* Each sees a packet go out and come in. */
static void of_packets(void)
{
    int heard = socket(AF_INET, SOCK_DGRAM, 0);
    int raw = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    int cooked = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL));
    CHECK(bind_to(heard, 4001) == 0);
    PASSES(raw, AF_INET, BPF_H, 12, ETH_P_IP, 2);
    PASSES(raw, AF_INET, BPF_B, 14, 0x45, 2);
    PASSES(raw, AF_INET, BPF_B, SKF_NET_OFF, 0x45, 2);
    PASSES(raw, AF_INET, BPF_H, SKF_LL_OFF + 12, ETH_P_IP, 2);
    PASSES(raw, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_PKTTYPE, PACKET_OUTGOING, 1);
    PASSES(raw, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_PAY_OFFSET, 42, 2);
    comes(cooked);
    PASSES(cooked, AF_INET, BPF_B, 0, 0x45, 2);
    PASSES(cooked, AF_INET, BPF_H, SKF_LL_OFF + 12, ETH_P_IP, 2);
    PASSES(cooked, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_IFINDEX, 1, 2);
    PASSES(cooked, AF_INET, BPF_W, SKF_AD_OFF + SKF_AD_PAY_OFFSET, 28, 2);
    close(raw);
    close(cooked);
    close(heard);
}

/* Between Unix sockets there is neither a link header nor a device: such a load ends with A. */
static void of_unix(void)
{
    int pair[2];
    struct sock_filter no_device[] = {BPF_STMT(BPF_LD | BPF_IMM, 3),
                                      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_IFINDEX),
                                      BPF_STMT(BPF_RET | BPF_K, 0)},
                       no_link[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SKF_LL_OFF),
                                    BPF_STMT(BPF_RET | BPF_K, -1)};
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    CHECK(attach(pair[1], no_device, LENGTH(no_device)) == 0);
    CHECK(send(pair[0], "hello", 5, 0) == 5);
    CHECK(recv(pair[1], buf, 9, MSG_DONTWAIT) == 3);
    CHECK(attach(pair[1], no_link, LENGTH(no_link)) == 0);
    send(pair[0], "hello", 5, 0);
    CHECK_ERR(recv(pair[1], buf, 9, MSG_DONTWAIT), EAGAIN);
    close(pair[0]);
    close(pair[1]);
}

static void fill(struct sock_filter step)
{
    for (int i = 0; i < BPF_MAXINSNS - 1; i++)
        longest[i] = step;
    longest[BPF_MAXINSNS - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0xffff);
}

/* net.core.optmem_max: what Linux makes of a program counts, the new one beside the old one. */
static void limits(void)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0), value = 0;
    FILE *file = fopen("/proc/sys/net/core/optmem_max", "r");
    CHECK(file && fscanf(file, "%d", &value) == 1 && value == 131072);
    fclose(file);
    fill((struct sock_filter)BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 1));
    for (int i = 0; i < 5; i++)
        CHECK(attach(s, longest, BPF_MAXINSNS) == 0);
    CHECK_ERR(attach(s, longest, BPF_MAXINSNS + 1), EINVAL);
    fill((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 8));
    CHECK_ERR(attach(s, longest, BPF_MAXINSNS), ENOMEM);
    CHECK(attach(s, longest + BPF_MAXINSNS - 600, 600) == 0);
    CHECK(attach(s, longest + BPF_MAXINSNS - 500, 500) == 0);
    CHECK_ERR(attach(s, longest + BPF_MAXINSNS - 700, 700), ENOMEM);
    CHECK(set_option(s, SOL_SOCKET, SO_LOCK_FILTER, 1) == 0);
    CHECK_ERR(attach(s, NULL, 1), EPERM);
    close(s);
}

/* One send, and all have it. */
static void many(void)
{
    int fds[MANY];
    struct rlimit files = {1024, 1024};
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    fill((struct sock_filter)BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 1));
    int heard = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind_to(heard, 4001) == 0);
    for (int i = 0; i < MANY; i++) {
        fds[i] = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
        CHECK(fds[i] >= 0 && attach(fds[i], longest, BPF_MAXINSNS) == 0);
    }
    for (int round = 0; round < 3; round++) {
        hello(AF_INET, 4001);
        for (int i = 0; i < MANY; i++)
            CHECK(comes(fds[i]) == 2);
        CHECK(comes(heard) == 1);
    }
    for (int i = 0; i < MANY; i++)
        close(fds[i]);
    close(heard);
}

int main(void)
{
    own_network();
    of_udp();
    of_raw();
    if (parted()) /* the others would see the calls to the far end, or are about one end */
        return 0;
    of_packets();
    of_unix();
    limits();
    many();
    return 0;
}
