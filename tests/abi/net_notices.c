/* Notices of netlink groups when links and addresses change, and which groups a socket is in. */
#define _GNU_SOURCE
#include "abi.h"
#include "net_own.h"

#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

static int asks, hears, plain;
static char answer[8192];
static struct nlmsghdr *const notice = (void *)answer;

/* The next notice of a type; others are skipped. NULL: none has come. */
static void *next(int type)
{
    while (recv(hears, answer, sizeof answer, MSG_DONTWAIT) > 0)
        if (notice->nlmsg_type == type)
            return NLMSG_DATA(notice);
    return NULL;
}

static void *attribute(int size, int kind)
{
    int left = notice->nlmsg_len - NLMSG_LENGTH(size);
    struct rtattr *one = (void *)(answer + NLMSG_LENGTH(NLMSG_ALIGN(size)));
    for (; RTA_OK(one, left); one = RTA_NEXT(one, left))
        if (one->rta_type == kind)
            return RTA_DATA(one);
    return NULL;
}

static int ask(int type, int flags, void *body, int size, int kind, const void *data, int length)
{
    char request[512] = {0}, reply[512];
    struct nlmsghdr *head = (void *)request;
    struct rtattr *one = (void *)(request + NLMSG_SPACE(size));
    *head = (struct nlmsghdr){NLMSG_SPACE(size), type, NLM_F_REQUEST | NLM_F_ACK | flags, 7};
    memcpy(NLMSG_DATA(head), body, size);
    if (kind) {
        one->rta_type = kind, one->rta_len = RTA_LENGTH(length);
        memcpy(RTA_DATA(one), data, length);
        head->nlmsg_len += RTA_SPACE(length);
    }
    CHECK(send(asks, request, head->nlmsg_len, 0) == head->nlmsg_len);
    CHECK(recv(asks, reply, sizeof reply, 0) > 0);
    return *(int *)(reply + sizeof *head);
}

static int set_link(unsigned flags, unsigned change, int kind, const void *data, int length)
{
    struct ifinfomsg link = {AF_UNSPEC, 0, 0, 1, flags, change};
    return ask(RTM_SETLINK, 0, &link, sizeof link, kind, data, length);
}

/* A notice of the link, with this name and MTU, and what of its flags has changed. */
static void link_is(const char *name, unsigned mtu, unsigned change)
{
    struct ifinfomsg *link = next(RTM_NEWLINK);
    CHECK(link != NULL && link->ifi_index == 1 && link->ifi_change == change);
    CHECK(notice->nlmsg_seq == 0 && notice->nlmsg_pid == 0);
    CHECK(!strcmp(attribute(sizeof *link, IFLA_IFNAME), name));
    CHECK(*(unsigned *)attribute(sizeof *link, IFLA_MTU) == mtu);
}

static void quiet(void)
{
    CHECK_ERR(recv(hears, answer, sizeof answer, MSG_DONTWAIT), EAGAIN);
}

static void join(int group)
{
    CHECK(set_option(hears, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group) == 0);
}

static void leave(int group)
{
    CHECK(set_option(hears, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, group) == 0);
}

static void links(void)
{
    unsigned number = 1500;
    struct ifreq lo = {"lo"};
    join(RTNLGRP_LINK);
    CHECK(set_link(0, 0, IFLA_MTU, &number, 4) == 0);
    link_is("lo", 1500, 0);
    CHECK(set_link(0, 0, IFLA_MTU, &number, 4) == 0);
    quiet();
    lo.ifr_mtu = 2000;
    CHECK(ioctl(plain, SIOCSIFMTU, &lo) == 0);
    link_is("lo", 2000, 0);
    number = 500;
    CHECK(set_link(0, 0, IFLA_TXQLEN, &number, 4) == 0);
    link_is("lo", 2000, 0);
    lo.ifr_qlen = 77;
    CHECK(ioctl(plain, SIOCSIFTXQLEN, &lo) == 0);
    link_is("lo", 2000, 0);
    CHECK(set_link(0, IFF_UP, 0, NULL, 0) == 0);
    link_is("lo", 2000, IFF_UP);
    CHECK(set_link(0, 0, IFLA_IFNAME, "lo2", 4) == 0);
    link_is("lo2", 2000, 0);
    CHECK(set_link(IFF_UP, IFF_UP, 0, NULL, 0) == 0);
    link_is("lo2", 2000, IFF_UP);
    CHECK(set_link(0, 0, IFLA_IFNAME, "lo", 3) == 0);  // it may be up
    link_is("lo", 2000, 0);
    strcpy(lo.ifr_newname, "eth7");
    CHECK(ioctl(plain, SIOCSIFNAME, &lo) == 0);
    link_is("eth7", 2000, 0);
    strcpy(lo.ifr_name, "eth7");
    strcpy(lo.ifr_newname, "l%d");
    CHECK(ioctl(plain, SIOCSIFNAME, &lo) == 0);
    link_is("l0", 2000, 0);
    static const char *const bad[] = {"", ".", "..", "a/b", "a b", "a:b", "%d%d", "a%x"};
    strcpy(lo.ifr_name, "l0");
    for (int i = 0; i < 8; i++) {
        strcpy(lo.ifr_newname, bad[i]);
        CHECK_ERR(ioctl(plain, SIOCSIFNAME, &lo), EINVAL);
        if (*bad[i])
            CHECK(set_link(0, 0, IFLA_IFNAME, bad[i], strlen(bad[i]) + 1) == -EINVAL);
    }
    strcpy(lo.ifr_newname, "l0");
    CHECK(ioctl(plain, SIOCSIFNAME, &lo) == 0);
    quiet();
    strcpy(lo.ifr_newname, "lo");
    CHECK(ioctl(plain, SIOCSIFNAME, &lo) == 0);
    strcpy(lo.ifr_name, "lo");
    lo.ifr_mtu = 65536;
    CHECK(ioctl(plain, SIOCSIFMTU, &lo) == 0);
    leave(RTNLGRP_LINK);
    while (next(-1))
        ;
}

static int change_address(int type, int family, int prefix, const char *ip)
{
    char bytes[16];
    struct ifaddrmsg head = {family, prefix, 0, 0, 1};
    CHECK(inet_pton(family, ip, bytes) == 1);
    int flags = type == RTM_NEWADDR ? NLM_F_CREATE : 0;
    return ask(type, flags, &head, sizeof head, IFA_LOCAL, bytes, family == AF_INET ? 4 : 16);
}

static void address_is(int type, int family, const char *ip, const char *label, int sequence)
{
    char bytes[16];
    inet_pton(family, ip, bytes);
    struct ifaddrmsg *head = next(type);
    CHECK(head != NULL && head->ifa_family == family && head->ifa_index == 1);
    CHECK(notice->nlmsg_seq == sequence && !notice->nlmsg_pid == !sequence);
    CHECK(!memcmp(attribute(sizeof *head, IFA_ADDRESS), bytes, family == AF_INET ? 4 : 16));
    CHECK(!label || !strcmp(attribute(sizeof *head, IFA_LABEL), label));
}

static void addresses(void)
{
    struct ifreq lo = {"lo"};
    join(RTNLGRP_IPV4_IFADDR), join(RTNLGRP_IPV6_IFADDR);
    CHECK(change_address(RTM_NEWADDR, AF_INET, 32, "10.0.0.1") == 0);
    address_is(RTM_NEWADDR, AF_INET, "10.0.0.1", "lo", 7);
    CHECK(change_address(RTM_DELADDR, AF_INET, 32, "10.0.0.1") == 0);
    address_is(RTM_DELADDR, AF_INET, "10.0.0.1", "lo", 7);
    CHECK(change_address(RTM_NEWADDR, AF_INET6, 128, "fd00::1") == 0);
    address_is(RTM_NEWADDR, AF_INET6, "fd00::1", NULL, 0);
    CHECK(change_address(RTM_DELADDR, AF_INET6, 128, "fd00::1") == 0);
    address_is(RTM_DELADDR, AF_INET6, "fd00::1", NULL, 0);
    quiet();
    lo.ifr_flags = 0;
    CHECK(ioctl(plain, SIOCSIFFLAGS, &lo) == 0);
    address_is(RTM_DELADDR, AF_INET6, "::1", NULL, 0);
    quiet();  // an IPv4 address stays where a link is down
    lo.ifr_flags = IFF_UP;
    CHECK(ioctl(plain, SIOCSIFFLAGS, &lo) == 0);
    address_is(RTM_NEWADDR, AF_INET6, "::1", NULL, 0);
    quiet();
    CHECK(set_link(0, 0, IFLA_IFNAME, "lo2", 4) == 0);
    address_is(RTM_NEWADDR, AF_INET, "127.0.0.1", "lo2", 0);
    CHECK(set_link(0, 0, IFLA_IFNAME, "lo", 3) == 0);
    address_is(RTM_NEWADDR, AF_INET, "127.0.0.1", "lo", 0);
    struct sockaddr_in ip = {AF_INET, 0, {htonl(0x7f000002)}};
    memcpy(&lo.ifr_addr, &ip, sizeof ip);
    CHECK(ioctl(plain, SIOCSIFADDR, &lo) == 0);
    address_is(RTM_DELADDR, AF_INET, "127.0.0.1", "lo", 0);
    address_is(RTM_NEWADDR, AF_INET, "127.0.0.2", "lo", 0);
    leave(RTNLGRP_IPV4_IFADDR), leave(RTNLGRP_IPV6_IFADDR);
    while (next(-1))
        ;
}

static int members(int fd, void *to, socklen_t *size)
{
    return getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, to, size);
}

/* Whole words as far as there is room, and how many bytes all of them are. */
static void memberships(void)
{
    unsigned words[4];
    socklen_t size = sizeof words;
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    CHECK(members(fd, words, &size) == 0 && size == 0);  // it never asked for a group
    size = sizeof words;
    CHECK(members(fd, NULL, &size) == 0 && size == 0);
    CHECK(set_option(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, 1) == 0);
    CHECK(set_option(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, 33) == 0);
    for (int room = 0; room < 16; room++) {
        memset(words, 0x55, sizeof words);
        size = room;
        CHECK(members(fd, words, &size) == 0 && size == 8);
        CHECK(words[0] == (room < 4 ? 0x55555555 : 1) && words[1] == (room < 8 ? 0x55555555 : 1));
        CHECK(words[2] == 0x55555555);
    }
    size = -1;
    CHECK_ERR(members(fd, words, &size), EINVAL);
    size = 8;
    CHECK_ERR(members(fd, NULL, &size), EFAULT);
    CHECK(set_option(fd, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, 1) == 0);
    CHECK(set_option(fd, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, 33) == 0);
    CHECK(members(fd, words, &size) == 0 && size == 8 && !words[0] && !words[1]);
    close(fd);

    struct sockaddr_nl bound = {AF_NETLINK, 0, 0, 0x80000000};
    fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK);
    CHECK(bind(fd, (SA *)&bound, sizeof bound) == 0);
    size = sizeof words;
    CHECK(members(fd, words, &size) == 0 && size == 4 && words[0] == 0x80000000);
    CHECK_ERR(set_option(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, 33), EINVAL);
    close(fd);
}

int main(void)
{
    struct sockaddr_nl any = {AF_NETLINK};
    own_network();
    plain = socket(AF_INET, SOCK_DGRAM, 0);
    asks = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    hears = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    CHECK(bind(asks, (SA *)&any, sizeof any) == 0 && bind(hears, (SA *)&any, sizeof any) == 0);
    links();
    addresses();
    memberships();
    return 0;
}
