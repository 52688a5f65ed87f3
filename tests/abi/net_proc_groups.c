/* /proc/net/igmp, igmp6, dev_mcast, mcfilter: which groups interfaces are members of; fib_trie: routes
 * as a tree. Needs root. */
#define _GNU_SOURCE
#include "net_links.h"

#include <net/route.h>

static char text[1 << 16];

static char *table(const char *name)
{
    char path[100];
    sprintf(path, "proc/self/net/%s", name);
    read_text(path, text, sizeof text);
    return text;
}

static int has(const char *name, const char *line)
{
    if (strstr(table(name), line)) return 1;
    fprintf(stderr, "%s:\n%snot %s", name, text, line);
    return 0;
}

static int is(const char *name, const char *whole)
{
    if (!strcmp(table(name), whole)) return 1;
    fprintf(stderr, "%s:\n%snot\n%s", name, text, whole);
    return 0;
}

#define IGMP "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"
#define IGMP_LO "1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n"
#define OF_127(indent)                                                                         \
    indent "  +-- 127.0.0.0/8 2 0 2\n"                                                         \
    indent "     +-- 127.0.0.0/31 1 0 0\n"                                                     \
    indent "        |-- 127.0.0.0\n" indent "           /8 host LOCAL\n"                       \
    indent "        |-- 127.0.0.1\n" indent "           /32 host LOCAL\n"                      \
    indent "     |-- 127.255.255.255\n" indent "        /32 link BROADCAST\n"
#define OF_TAP                                                                                 \
    "     +-- 10.8.0.0/24 2 0 2\n"                                                             \
    "        +-- 10.8.0.0/31 1 0 0\n"                                                          \
    "           |-- 10.8.0.0\n              /24 link UNICAST\n"                                \
    "           |-- 10.8.0.1\n              /32 host LOCAL\n"                                  \
    "        |-- 10.8.0.255\n           /32 link BROADCAST\n"

static void loopback(void)
{
    CHECK(is("fib_trie", "") && is("igmp", IGMP) && is("dev_mcast", ""));
    CHECK(is("mcfilter", "Idx Device        MCA        SRC    INC    EXC\n"));
    CHECK(is("mcfilter6", "Idx Device                Multicast Address                   "
                          "Source Address    INC    EXC\n"));
    set_up("lo", 1);
    CHECK(is("igmp", IGMP IGMP_LO));
    CHECK(has("igmp6", "1    lo              ff020000000000000000000000000001     1 0000000C 0\n"
                       "1    lo              ff010000000000000000000000000001     1 00000008 0\n"));
    CHECK(is("fib_trie", "Main:\n" OF_127("") "Local:\n" OF_127("")));
}

static void route(const char *to, const char *mask, const char *by, int flags)
{
    struct rtentry wanted = {.rt_flags = RTF_UP | flags};
    int sock = control();
    *(struct sockaddr_in *)&wanted.rt_dst = place(to, 0);
    *(struct sockaddr_in *)&wanted.rt_genmask = place(mask, 0);
    *(struct sockaddr_in *)&wanted.rt_gateway = place(by, 0);
    CHECK(ioctl(sock, SIOCADDRT, &wanted) == 0);
    close(sock);
}

static void routes(void)
{
#define TWO "  +-- 0.0.0.0/1 2 0 2\n" OF_TAP OF_127("   ")
    CHECK(is("fib_trie", "Main:\n" TWO "Local:\n" TWO));
    route("0.0.0.0", "0.0.0.0", "10.8.0.9", RTF_GATEWAY);
    route("10.0.0.0", "255.0.0.0", "10.8.0.9", RTF_GATEWAY);
    route("10.8.0.0", "255.255.0.0", "10.8.0.9", RTF_GATEWAY);
    CHECK(has("fib_trie", "|-- 0.0.0.0\n"));
    CHECK(strstr(text, "|-- 10.0.0.0\n") && strstr(text, "/8 universe UNICAST\n"));
    CHECK(strstr(text, "|-- 10.8.0.0\n"));
    char *first = strstr(text, "/24 link UNICAST\n"), *second = strstr(text, "/16 universe UNICAST\n");
    CHECK(first && second > first);
}

static void groups(void)
{
    int index = if_nametoindex("tap"), one = control(), two = control();
    int six = socket(AF_INET6, SOCK_DGRAM, 0);
    struct ip_mreqn group = {.imr_ifindex = index};
    struct ipv6_mreq group6 = {.ipv6mr_interface = index};
    char line[400];
    CHECK(inet_pton(AF_INET, "239.130.2.3", &group.imr_multiaddr) == 1);
    CHECK(inet_pton(AF_INET6, "ff05::1:77", &group6.ipv6mr_multiaddr) == 1);
    CHECK(setsockopt(one, 0, IP_ADD_MEMBERSHIP, &group, sizeof group) == 0);
    CHECK(setsockopt(two, 0, IP_ADD_MEMBERSHIP, &group, sizeof group) == 0);
    CHECK(setsockopt(six, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &group6, sizeof group6) == 0);
    sprintf(line, IGMP IGMP_LO "%d\ttap       :     2      V3\n"
            "\t\t\t\t030282EF     2 0:00000000\t\t0\n"
            "\t\t\t\t010000E0     1 0:00000000\t\t0\n", index);
    CHECK(is("igmp", line));
    sprintf(line, "%-4d tap             ff050000000000000000000000010077     1 00000004 0\n", index);
    CHECK(has("igmp6", line));
    sprintf(line, "%-4d tap             ff020000000000000000000000000001     1 0000000C 0\n", index);
    CHECK(has("igmp6", line));
    sprintf(line, "%-4d tap             1     0     01005e020203\n", index);
    CHECK(has("dev_mcast", line));
    sprintf(line, "%-4d tap             1     0     01005e000001\n", index);
    CHECK(has("dev_mcast", line));
    sprintf(line, "%-4d tap             1     0     333300010077\n", index);
    CHECK(has("dev_mcast", line));
    close(one);
    CHECK(has("igmp", "\t\t\t\t030282EF     1 0:00000000\t\t0\n"));
    close(two);
    close(six);
    CHECK(!strstr(table("igmp"), "030282EF") && !strstr(table("dev_mcast"), "01005e020203"));
    CHECK(!strstr(table("igmp6"), "ff05"));
}

int main(void)
{
    own_tun_network();
    loopback();
    make_up("tap", IFF_TAP | IFF_NO_PI, "10.8.0.1", "255.255.255.0");
    routes();
    groups();
    return 0;
}
