/* Which way a packet takes: rules, tables, several next hops, ways that lead nowhere. Needs root. */
#define _GNU_SOURCE
#include "net_links.h"

#include <linux/fib_rules.h>

static struct rtmsg *begin_route(int kind, int flags, int type)
{
    struct rtmsg *route = (void *)&request.info;
    begin(kind, flags);
    request.head.nlmsg_len = NLMSG_LENGTH(sizeof *route);
    *route = (struct rtmsg){.rtm_family = AF_INET, .rtm_protocol = RTPROT_STATIC,
                            .rtm_type = type, .rtm_table = RT_TABLE_MAIN};
    return route;
}

static void add_ip(int kind, const char *ip)
{
    unsigned raw = inet_addr(ip);
    add(kind, &raw, 4);
}

/* To one address, or to all (NULL), by a gateway, in a table. */
static int route(int kind, int type, const char *to, const char *gateway, int table)
{
    int flags = kind == RTM_NEWROUTE ? NLM_F_CREATE | NLM_F_EXCL : 0;
    struct rtmsg *route = begin_route(kind, flags, type);
    if (to) route->rtm_dst_len = 32, add_ip(RTA_DST, to);
    if (gateway) add_ip(RTA_GATEWAY, gateway);
    add(RTA_TABLE, &table, 4);
    return ask();
}

/* The index of the interface by which a packet would go, or an errno, negative. */
static int way(const char *to, const char *from, int mark)
{
    static char answer[4096];
    int sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), found = 0;
    struct rtmsg *route = begin_route(RTM_GETROUTE, 0, 0);
    request.head.nlmsg_flags = NLM_F_REQUEST;
    route->rtm_dst_len = 32, add_ip(RTA_DST, to);
    if (from) route->rtm_src_len = 32, add_ip(RTA_SRC, from);
    if (mark) add(RTA_MARK, &mark, 4);
    CHECK(send(sock, &request, request.head.nlmsg_len, 0) == request.head.nlmsg_len);
    int left = recv(sock, answer, sizeof answer, 0);
    close(sock);
    struct nlmsghdr *head = (void *)answer;
    if (head->nlmsg_type == NLMSG_ERROR) return ((struct nlmsgerr *)NLMSG_DATA(head))->error;
    struct rtattr *each = (void *)(answer + NLMSG_LENGTH(sizeof *route));
    for (left -= NLMSG_LENGTH(sizeof *route); RTA_OK(each, left); each = RTA_NEXT(each, left))
        if (each->rta_type == RTA_OIF) found = *(int *)RTA_DATA(each);
    return found;
}

static struct fib_rule_hdr *begin_rule(int kind, int action, int table)
{
    struct fib_rule_hdr *rule = (void *)&request.info;
    begin(kind, kind == RTM_NEWRULE ? NLM_F_CREATE | NLM_F_EXCL : 0);
    request.head.nlmsg_len = NLMSG_LENGTH(sizeof *rule);
    *rule = (struct fib_rule_hdr){.family = AF_INET, .action = action, .table = table};
    return rule;
}

static int rule(int kind, int action, int table, unsigned priority)
{
    begin_rule(kind, action, table);
    add(FRA_PRIORITY, &priority, 4);
    return ask();
}

/* From which address a socket with a mark would send, or an errno, negative. */
static long source_to(const char *ip, int mark)
{
    struct sockaddr_in to = place(ip, 9), own = {0};
    socklen_t size = sizeof own;
    int sock = control();
    CHECK(setsockopt(sock, SOL_SOCKET, SO_MARK, &mark, sizeof mark) == 0);
    long found = connect(sock, (void *)&to, sizeof to) ? -errno : 0;
    if (!found) CHECK(getsockname(sock, (void *)&own, &size) == 0);
    close(sock);
    return found ? found : (long)own.sin_addr.s_addr;
}

#define ONE ((long)inet_addr("10.6.0.1"))
#define TWO ((long)inet_addr("10.7.0.1"))
#define FAR "198.51.100.9"

static void marks(int a, int c)
{
    unsigned mark = 7, mask = 0xF;
    CHECK(source_to(FAR, 0) == ONE && source_to(FAR, 7) == ONE);
    begin_rule(RTM_NEWRULE, FR_ACT_TO_TBL, 100);
    add(FRA_FWMARK, &mark, 4);
    add(FRA_FWMASK, &mask, 4);
    CHECK(ask() == 0 && ask() == 0); /* a priority of its own each */
    CHECK(source_to(FAR, 7) == TWO && source_to(FAR, 0x17) == TWO && source_to(FAR, 6) == ONE);
    CHECK(way(FAR, NULL, 7) == c && way(FAR, NULL, 6) == a);
    begin_rule(RTM_DELRULE, 0, 100);
    CHECK(ask() == 0 && ask() == 0 && ask() == ENOENT);
    CHECK(source_to(FAR, 7) == ONE);
}

static void sources(int a, int c)
{
    unsigned priority = 500;
    struct fib_rule_hdr *rule = begin_rule(RTM_NEWRULE, FR_ACT_TO_TBL, 100);
    rule->src_len = 24;
    add_ip(FRA_SRC, "10.7.0.0");
    add(FRA_PRIORITY, &priority, 4);
    CHECK(ask() == 0 && ask() == EEXIST);
    CHECK(way(FAR, NULL, 0) == a && way(FAR, "10.6.0.1", 0) == a && way(FAR, "10.7.0.1", 0) == c);
    rule = begin_rule(RTM_NEWRULE, FR_ACT_TO_TBL, 100);
    rule->src_len = 33;
    add_ip(FRA_SRC, "10.7.0.0");
    CHECK(ask() == EINVAL);
    rule = begin_rule(RTM_DELRULE, 0, 0);
    add(FRA_PRIORITY, &priority, 4);
    CHECK(ask() == 0 && way(FAR, "10.7.0.1", 0) == a);
}

static void actions(int a, int c)
{
    unsigned nothing = 0, target = 600, here = 300;
    CHECK(rule(RTM_NEWRULE, FR_ACT_PROHIBIT, 0, 300) == 0 && source_to(FAR, 0) == -EACCES);
    CHECK(rule(RTM_DELRULE, FR_ACT_PROHIBIT, 0, 300) == 0);
    CHECK(rule(RTM_NEWRULE, FR_ACT_UNREACHABLE, 0, 300) == 0 && source_to(FAR, 0) == -ENETUNREACH);
    CHECK(rule(RTM_DELRULE, 0, 0, 300) == 0);
    CHECK(rule(RTM_NEWRULE, FR_ACT_BLACKHOLE, 0, 300) == 0 && source_to(FAR, 0) == -EINVAL);
    CHECK(rule(RTM_DELRULE, 0, 0, 300) == 0 && source_to(FAR, 0) == ONE);
    /* the default route of main does not count, and what comes then does */
    begin_rule(RTM_NEWRULE, FR_ACT_TO_TBL, RT_TABLE_MAIN);
    add(FRA_PRIORITY, &here, 4);
    add(FRA_SUPPRESS_PREFIXLEN, &nothing, 4);
    CHECK(ask() == 0 && rule(RTM_NEWRULE, FR_ACT_TO_TBL, 100, 301) == 0);
    CHECK(way(FAR, NULL, 0) == c && way("10.6.0.77", NULL, 0) == a);
    begin_rule(RTM_NEWRULE, FR_ACT_GOTO, 0);
    add(FRA_PRIORITY, &nothing, 4);
    add(FRA_GOTO, &target, 4);
    CHECK(ask() == 0 && way(FAR, NULL, 0) == c); /* nobody is there yet */
    CHECK(rule(RTM_NEWRULE, FR_ACT_NOP, 0, 600) == 0 && way(FAR, NULL, 0) == a);
    target = 0;
    begin_rule(RTM_NEWRULE, FR_ACT_GOTO, 0);
    add(FRA_GOTO, &target, 4);
    CHECK(ask() == EINVAL);
    CHECK(rule(RTM_DELRULE, FR_ACT_GOTO, 0, 0) == EINVAL);
    target = 600;
    begin_rule(RTM_DELRULE, FR_ACT_GOTO, 0);
    add(FRA_PRIORITY, &nothing, 4);
    add(FRA_GOTO, &target, 4);
    CHECK(ask() == 0 && rule(RTM_DELRULE, 0, 0, 300) == 0);
    CHECK(rule(RTM_DELRULE, 0, 0, 301) == 0 && rule(RTM_DELRULE, 0, 0, 600) == 0);
    CHECK(rule(RTM_DELRULE, 0, 0, 999) == ENOENT);
    /* table local may come later */
    CHECK(rule(RTM_NEWRULE, FR_ACT_TO_TBL, RT_TABLE_LOCAL, 100) == 0);
    CHECK(rule(RTM_DELRULE, 0, RT_TABLE_LOCAL, 0) == 0);
    CHECK(way("10.6.0.1", NULL, 0) == 1 && way("10.6.0.77", NULL, 0) == a);
    CHECK(rule(RTM_NEWRULE, FR_ACT_TO_TBL, RT_TABLE_LOCAL, 0) == 0);
    CHECK(rule(RTM_DELRULE, 0, RT_TABLE_LOCAL, 100) == 0);
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK(rule(RTM_NEWRULE, FR_ACT_NOP, 0, 9) == EPERM);
    });
}

static void nowhere(void)
{
    CHECK(route(RTM_NEWROUTE, RTN_UNREACHABLE, "203.0.113.1", NULL, RT_TABLE_MAIN) == 0);
    CHECK(route(RTM_NEWROUTE, RTN_PROHIBIT, "203.0.113.2", NULL, RT_TABLE_MAIN) == 0);
    CHECK(route(RTM_NEWROUTE, RTN_BLACKHOLE, "203.0.113.3", NULL, RT_TABLE_MAIN) == 0);
    CHECK(route(RTM_NEWROUTE, RTN_THROW, "203.0.113.4", NULL, RT_TABLE_MAIN) == 0);
    CHECK(source_to("203.0.113.1", 0) == -EHOSTUNREACH && source_to("203.0.113.2", 0) == -EACCES);
    CHECK(source_to("203.0.113.3", 0) == -EINVAL && source_to("203.0.113.4", 0) == -ENETUNREACH);
    CHECK(way("203.0.113.1", NULL, 0) == -EHOSTUNREACH && way("203.0.113.3", NULL, 0) == -EINVAL);
    CHECK(route(RTM_NEWROUTE, RTN_BLACKHOLE, "203.0.113.5", "10.6.0.2", RT_TABLE_MAIN) == EINVAL);
    for (int i = 1; i < 5; i++) {
        char ip[] = "203.0.113.0";
        ip[10] += i;
        CHECK(route(RTM_DELROUTE, 0, ip, NULL, RT_TABLE_MAIN) == 0);
        CHECK(source_to(ip, 0) == ONE);
    }
}

static void add_hop(int index, const char *gateway, int weight)
{
    struct rtnexthop *hop = (void *)((char *)&request + NLMSG_ALIGN(request.head.nlmsg_len));
    *hop = (struct rtnexthop){sizeof *hop, 0, weight - 1, index};
    request.head.nlmsg_len += sizeof *hop;
    if (gateway) add_ip(RTA_GATEWAY, gateway);
    hop->rtnh_len = (char *)&request + request.head.nlmsg_len - (char *)hop;
}

static int by_both(int kind, int a, int c)
{
    int flags = kind == RTM_NEWROUTE ? NLM_F_CREATE | NLM_F_EXCL : 0;
    struct rtmsg *route = begin_route(kind, flags, RTN_UNICAST);
    route->rtm_dst_len = 16, add_ip(RTA_DST, "100.64.0.0");
    struct rtattr *nest = add(RTA_MULTIPATH, "", 0);
    add_hop(a, "10.6.0.2", 1);
    add_hop(c, "10.7.0.2", 3);
    end(nest);
    return ask();
}

static void several(int a, int c)
{
    int found[2] = {0};
    char ip[32];
    CHECK(by_both(RTM_NEWROUTE, a, c) == 0 && by_both(RTM_NEWROUTE, a, c) == EEXIST);
    for (int i = 1; i <= 200; i++) {
        sprintf(ip, "100.64.%d.%d", i, 255 - i);
        int index = way(ip, NULL, 0);
        CHECK((index == a || index == c) && way(ip, NULL, 0) == index);
        found[index == c]++;
    }
    CHECK(found[0] > 10 && found[1] > found[0]);
    set_up("c", 0);
    for (int i = 1; i <= 20; i++) {
        sprintf(ip, "100.64.%d.1", i);
        CHECK(way(ip, NULL, 0) == a);
    }
    set_up("c", 1);
    CHECK(by_both(RTM_DELROUTE, a, c) == 0 && by_both(RTM_DELROUTE, a, c) == ESRCH);
    struct rtmsg *route = begin_route(RTM_NEWROUTE, NLM_F_CREATE, RTN_UNICAST);
    route->rtm_dst_len = 32, add_ip(RTA_DST, "100.64.0.1");
    struct {
        struct rtnexthop hop;
        int rest;
    } wrong = {{sizeof wrong.hop, 0, 0, a}, 1};
    add(RTA_MULTIPATH, &wrong, sizeof wrong);
    CHECK(ask() == EINVAL);
}

static void other_family(int a)
{
    struct {
        unsigned short family;
        unsigned char ip[16];
    } __attribute__((packed)) via = {AF_INET6, {0xFE, 0x80, [15] = 9}};
    for (int size = sizeof via; size >= 0; size -= 9) {
        struct rtmsg *route = begin_route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, RTN_UNICAST);
        route->rtm_dst_len = 32, add_ip(RTA_DST, "203.0.113.9");
        add(RTA_OIF, &a, 4);
        add(RTA_VIA, &via, size);
        CHECK(ask() == (size == sizeof via ? 0 : EINVAL));
    }
    CHECK(way("203.0.113.9", NULL, 0) == a && source_to("203.0.113.9", 0) == ONE);
    CHECK(route(RTM_DELROUTE, 0, "203.0.113.9", NULL, RT_TABLE_MAIN) == 0);
}

/* Replies take the way of their own source. */
static void talking(int there)
{
    unsigned priority = 500;
    pid_t child = echo_in(there, "d", "10.7.0.2");
    struct fib_rule_hdr *rule = begin_rule(RTM_NEWRULE, FR_ACT_TO_TBL, 101);
    rule->dst_len = 32;
    add_ip(FRA_DST, "10.7.0.2");
    add(FRA_PRIORITY, &priority, 4);
    CHECK(ask() == 0);
    CHECK(route(RTM_NEWROUTE, RTN_PROHIBIT, "10.7.0.2", NULL, 101) == 0);
    CHECK(source_to("10.7.0.2", 0) == -EACCES);
    CHECK(route(RTM_DELROUTE, 0, "10.7.0.2", NULL, 101) == 0);
    talk("10.7.0.2");
    CHECK(status_of(child) == 0);
}

int main(void)
{
    own_tun_network();
    int there = other_network();
    CHECK(write_text(NO_IPV6, "0") == 1);
    CHECK(make_pair("a", "b", there) == 0 && make_pair("c", "d", there) == 0);
    address("a", "10.6.0.1");
    address("c", "10.7.0.1");
    int a = if_nametoindex("a"), c = if_nametoindex("c");
    CHECK(route(RTM_NEWROUTE, RTN_UNICAST, NULL, "10.6.0.2", RT_TABLE_MAIN) == 0);
    CHECK(route(RTM_NEWROUTE, RTN_UNICAST, NULL, "10.7.0.2", 100) == 0);
    marks(a, c);
    sources(a, c);
    actions(a, c);
    nowhere();
    several(a, c);
    other_family(a);
    talking(there);
    return 0;
}
