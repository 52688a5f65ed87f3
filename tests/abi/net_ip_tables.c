/* iptables without nftables: tables as one piece of memory, by socket options, and what they do to
 * traffic of the loopback. Needs root. */
#define _GNU_SOURCE
#include "net_own.h"
#include "ns.h"

#include <limits.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>

#define ACCEPT (-NF_ACCEPT - 1)
#define DROP (-NF_DROP - 1)
#define FILTER 0xe
#define POLICY 152 /* bytes of an entry with a verdict alone */
#define EMPTY 632  /* of a filter table without rules */

static char blob[8192] __attribute__((aligned(8)));
static int size, count, raw;
static unsigned begins[NF_INET_NUMHOOKS], ends[NF_INET_NUMHOOKS];

/* --- what is handed over */

static void start(void)
{
    size = count = 0;
    memset(begins, 0, sizeof begins);
    memset(ends, 0, sizeof ends);
}

static struct ipt_entry *entry(const void *matches, int before, const void *target, int behind)
{
    struct ipt_entry *made = (void *)(blob + size);
    memset(made, 0, sizeof *made);
    made->target_offset = sizeof *made + before;
    made->next_offset = made->target_offset + behind;
    if (before) memcpy((char *)made + sizeof *made, matches, before);
    memcpy((char *)made + made->target_offset, target, behind);
    size += made->next_offset;
    count++;
    return made;
}

static struct ipt_entry *verdict(int value)
{
    struct xt_standard_target target;
    memset(&target, 0, sizeof target);
    target.target.u.user.target_size = sizeof target;
    target.verdict = value;
    return entry(NULL, 0, &target, sizeof target);
}

static void error(const char *name)
{
    struct xt_error_target target;
    memset(&target, 0, sizeof target);
    target.target.u.user.target_size = sizeof target;
    strcpy(target.target.u.user.name, "ERROR");
    strcpy(target.errorname, name);
    entry(NULL, 0, &target, sizeof target);
}

struct udp_match {
    struct xt_entry_match head;
    struct xt_udp udp;
} __attribute__((aligned(8)));

/* Of UDP to a port, by a match of this name and revision. */
static struct ipt_entry *to_port(int port, int value, const char *name, int revision)
{
    struct xt_standard_target target;
    struct udp_match match;
    memset(&target, 0, sizeof target);
    memset(&match, 0, sizeof match);
    target.target.u.user.target_size = sizeof target;
    target.verdict = value;
    match.head.u.user.match_size = sizeof match;
    match.head.u.user.revision = revision;
    strcpy(match.head.u.user.name, name);
    match.udp.spts[1] = 0xffff;
    match.udp.dpts[0] = match.udp.dpts[1] = port;
    struct ipt_entry *made = entry(&match, sizeof match, &target, sizeof target);
    made->ip.proto = IPPROTO_UDP;
    return made;
}

/* The end of the rules of INPUT, then the other hooks of a filter table. */
static void policies(void)
{
    for (int hook = NF_INET_LOCAL_IN; hook <= NF_INET_LOCAL_OUT; hook++) {
        begins[hook] = hook == NF_INET_LOCAL_IN ? 0 : size;
        ends[hook] = size;
        verdict(ACCEPT);
    }
}

static int replace(const char *name, int hooks, int counters, struct xt_counters *old)
{
    static char whole[sizeof(struct ipt_replace) + sizeof blob] __attribute__((aligned(8)));
    struct ipt_replace *head = (void *)whole;
    memset(head, 0, sizeof *head);
    strcpy(head->name, name);
    head->valid_hooks = hooks;
    head->num_entries = count;
    head->size = size;
    head->num_counters = counters;
    head->counters = old;
    memcpy(head->hook_entry, begins, sizeof begins);
    memcpy(head->underflow, ends, sizeof ends);
    memcpy(whole + sizeof *head, blob, size);
    return setsockopt(raw, SOL_IP, IPT_SO_SET_REPLACE, whole, sizeof *head + size) ? errno : 0;
}

/* --- what is told */

static int info(const char *name, struct ipt_getinfo *found, int length)
{
    socklen_t told = length;
    memset(found, 0xa5, sizeof *found);
    strcpy(found->name, name);
    return getsockopt(raw, SOL_IP, IPT_SO_GET_INFO, found, &told) ? errno : told != length;
}

static char room[sizeof(struct ipt_get_entries) + sizeof blob] __attribute__((aligned(8)));

static int entries(const char *name, unsigned wanted, int length)
{
    struct ipt_get_entries *asked = (void *)room;
    socklen_t told = length;
    memset(room, 0, sizeof room);
    strcpy(asked->name, name);
    asked->size = wanted;
    return getsockopt(raw, SOL_IP, IPT_SO_GET_ENTRIES, asked, &told) ? errno : told != length;
}

static struct ipt_entry *told(int at)
{
    return (void *)(room + sizeof(struct ipt_get_entries) + at);
}

static int revision(int option, const char *name, int number)
{
    struct xt_get_revision asked;
    socklen_t length = sizeof asked;
    memset(&asked, 0, sizeof asked);
    strcpy(asked.name, name);
    asked.revision = number;
    int found = getsockopt(raw, SOL_IP, option, &asked, &length) ? errno : 0;
    CHECK(length == sizeof asked && asked.revision == number);
    return found;
}

static void tables(void)
{
    struct ipt_getinfo found;
    CHECK(info("filter", &found, sizeof found) == 0);
    CHECK(!strcmp(found.name, "filter") && found.valid_hooks == FILTER);
    CHECK(found.num_entries == 4 && found.size == EMPTY);
    for (int hook = 1; hook < 4; hook++)
        CHECK(found.hook_entry[hook] == (hook - 1) * POLICY &&
              found.underflow[hook] == found.hook_entry[hook]);
    CHECK(found.hook_entry[0] == UINT_MAX && found.underflow[4] == UINT_MAX);
    CHECK(entries("filter", EMPTY, sizeof(struct ipt_get_entries) + EMPTY) == 0);
    CHECK(told(0)->next_offset == POLICY && told(0)->target_offset == sizeof(struct ipt_entry));
    CHECK(((struct xt_standard_target *)(told(0) + 1))->verdict == ACCEPT);
    CHECK(!strcmp(((struct xt_error_target *)(told(3 * POLICY) + 1))->errorname, "ERROR"));
    CHECK(info("mangle", &found, sizeof found) == 0 && found.valid_hooks == 0x1f);
    CHECK(info("raw", &found, sizeof found) == 0 && found.valid_hooks == 0x9);

    CHECK(info("nosuch", &found, sizeof found) == ENOENT);
    CHECK(info("filter", &found, sizeof found - 1) == EINVAL);
    CHECK(entries("filter", EMPTY, sizeof(struct ipt_get_entries) - 1) == EINVAL);
    CHECK(entries("filter", EMPTY, EMPTY) == EINVAL);
    CHECK(entries("filter", EMPTY + 8, sizeof(struct ipt_get_entries) + EMPTY + 8) == EAGAIN);
    CHECK(entries("nosuch", EMPTY, sizeof(struct ipt_get_entries) + EMPTY) == ENOENT);
    CHECK(revision(IPT_SO_GET_REVISION_MATCH, "udp", 0) == 0);
    CHECK(revision(IPT_SO_GET_REVISION_MATCH, "udp", 9) == EPROTONOSUPPORT);
    CHECK(revision(IPT_SO_GET_REVISION_MATCH, "nosuch", 0) == ENOENT);
    CHECK(revision(IPT_SO_GET_REVISION_TARGET, "REJECT", 0) == 0);
    CHECK(revision(IPT_SO_GET_REVISION_TARGET, "REJECT", 9) == EPROTONOSUPPORT);

    /* any socket of the family does, for who has the right; which is looked at first */
    socklen_t length = sizeof found;
    int stream = socket(AF_INET, SOCK_STREAM, 0), six = socket(AF_INET6, SOCK_DGRAM, 0);
    strcpy(found.name, "filter");
    CHECK(getsockopt(stream, SOL_IP, IPT_SO_GET_INFO, &found, &length) == 0);
    CHECK_ERR(getsockopt(stream, IPPROTO_IPV6, IP6T_SO_GET_INFO, &found, &length), EOPNOTSUPP);
    CHECK_ERR(setsockopt(stream, IPPROTO_IPV6, IP6T_SO_SET_REPLACE, &found, 84), ENOPROTOOPT);
    strcpy(found.name, "filter");
    CHECK(getsockopt(six, IPPROTO_IPV6, IP6T_SO_GET_INFO, &found, &length) == 0);
    CHECK(found.num_entries == 4 && found.size == 3 * 208 + 232);
    CHECK_ERR(getsockopt(raw, SOL_IP, IPT_SO_GET_INFO, (void *)16, &length), EFAULT);
    CHECK_ERR(setsockopt(raw, SOL_IP, IPT_SO_SET_REPLACE, (void *)16, 96), EFAULT);
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK_ERR(getsockopt(stream, SOL_IP, IPT_SO_GET_INFO, (void *)16, &length), EPERM);
        CHECK_ERR(setsockopt(stream, SOL_IP, IPT_SO_SET_REPLACE, (void *)16, 1), EPERM);
    });
    close(stream);
    close(six);
}

/* A filter table with one rule of its own at INPUT, and a chain. */
static int with(void (*rule)(void))
{
    start();
    rule();
    policies();
    error("chain");
    verdict(XT_RETURN);
    error("ERROR");
    return replace("filter", FILTER, 4, NULL);
}

#define CHAIN (4 * POLICY + 176)
static int changed;
static void plain(void) { verdict(ACCEPT); }
static void far_away(void) { verdict(0x7ffffff8); }
static void between(void) { verdict(CHAIN + 8); }
static void nothing(void) { verdict(0); }
static void unknown(void) { to_port(1, DROP, "nosuch", 0); }
static void newer(void) { to_port(1, DROP, "udp", 9); }
static void newer_of_all(void) { to_port(1, DROP, "mark", 9); }
static void wrong_size(void) { to_port(1, DROP, "conntrack", 3); }
static void without(void) { to_port(1, DROP, "udp", 0)->ip.proto = 0; }
static void flags(void) { verdict(ACCEPT)->ip.flags = 0x80; }
static void inverted(void) { verdict(ACCEPT)->ip.invflags = 0x80; }
static void offset(void) { verdict(ACCEPT)->target_offset = changed; }
static void next(void) { verdict(ACCEPT)->next_offset = changed; }

static void errors(void)
{
    CHECK(with(far_away) == ELOOP);
    CHECK(with(between) == ELOOP);
    CHECK(with(nothing) == EINVAL);
    CHECK(with(unknown) == ENOENT);
    CHECK(with(newer) == ENOENT);
    CHECK(with(newer_of_all) == EPROTOTYPE);
    CHECK(with(wrong_size) == EINVAL);
    CHECK(with(without) == EINVAL);
    CHECK(with(flags) == EINVAL);
    CHECK(with(inverted) == EINVAL);
    int offsets[] = {0, 8, 111, 120, 121, 152, 65528}, sizes[] = {0, 8, 112, 144, 151, 65528};
    for (int i = 0; i < 7; i++) {
        changed = offsets[i];
        CHECK(with(offset) == EINVAL);
    }
    for (int i = 0; i < 6; i++) {
        changed = sizes[i];
        CHECK(with(next) == EINVAL);
    }

    start();
    policies();
    error("ERROR");
    CHECK(replace("filter", FILTER, 0, NULL) == EINVAL);
    CHECK(replace("filter", FILTER, INT_MAX / 16, NULL) == ENOMEM);
    CHECK(replace("filter", FILTER, 3, NULL) == EAGAIN);
    CHECK(replace("filter", FILTER & ~8, 4, NULL) == EINVAL);
    CHECK(replace("mangle", FILTER, 4, NULL) == EINVAL);
    CHECK(replace("nosuch", FILTER, 4, NULL) == ENOENT);
    count++;
    CHECK(replace("filter", FILTER, 4, NULL) == EINVAL);
    count--;
    ends[3] -= POLICY;
    CHECK(replace("filter", FILTER, 4, NULL) == EINVAL);
    ends[3] += POLICY;
    /* a chain that jumps to itself */
    start();
    verdict(CHAIN);
    policies();
    error("chain");
    verdict(CHAIN);
    error("ERROR");
    CHECK(replace("filter", FILTER, 4, NULL) == ELOOP);
    /* old counters that cannot be told are no error */
    start();
    policies();
    error("ERROR");
    CHECK(replace("filter", FILTER, 4, (void *)16) == 0);
    CHECK(with(plain) == 0);
    start();
    policies();
    error("ERROR");
    CHECK(replace("filter", FILTER, 4, NULL) == EAGAIN);
    CHECK(replace("filter", FILTER, 7, NULL) == 0);
}

/* --- traffic */

static struct sockaddr_in at(int port)
{
    return (struct sockaddr_in){AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}};
}

static int receiver(int type, int port)
{
    struct sockaddr_in own = at(port);
    int sock = socket(AF_INET, type, 0);
    CHECK(bind(sock, (void *)&own, sizeof own) == 0);
    if (type == SOCK_STREAM) CHECK(listen(sock, 5) == 0);
    return sock;
}

static void datagram(int port)
{
    struct sockaddr_in to = at(port);
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(sendto(sock, "x", 1, 0, (void *)&to, sizeof to) == 1);
    close(sock);
}

static int has_one(int sock)
{
    char byte;
    return recv(sock, &byte, 1, MSG_DONTWAIT) == 1;
}

static void filtering(void)
{
    int lost = receiver(SOCK_DGRAM, 7002), plain = receiver(SOCK_DGRAM, 7003);
    struct xt_counters old[8];
    start();
    int jump = 4 * POLICY + sizeof(struct udp_match) + 176; /* behind the chain's name */
    to_port(7002, jump, "udp", 0);
    policies();
    error("chain");
    verdict(DROP);
    error("ERROR");
    CHECK(replace("filter", FILTER, 4, NULL) == 0);
    for (int i = 0; i < 2; i++) datagram(7002), datagram(7003);
    CHECK(!has_one(lost) && has_one(plain));
    CHECK(entries("filter", size, sizeof(struct ipt_get_entries) + size) == 0);
    CHECK(told(0)->counters.pcnt == 2 && told(0)->counters.bcnt == 2 * 29);
    CHECK(told(jump)->counters.pcnt == 2);

    struct {
        struct xt_counters_info head;
        struct xt_counters more[7];
    } added;
    memset(&added, 0, sizeof added);
    strcpy(added.head.name, "filter");
    added.head.num_counters = 7;
    added.more[0].pcnt = 5;
    int length = sizeof(struct xt_counters_info) + sizeof added.more;
    CHECK_ERR(setsockopt(raw, SOL_IP, IPT_SO_SET_ADD_COUNTERS, &added, length - 1), EINVAL);
    CHECK(setsockopt(raw, SOL_IP, IPT_SO_SET_ADD_COUNTERS, &added, length) == 0);
    added.head.num_counters = 6;
    CHECK_ERR(setsockopt(raw, SOL_IP, IPT_SO_SET_ADD_COUNTERS, &added, length - 16), EINVAL);

    start();
    policies();
    error("ERROR");
    CHECK(replace("filter", FILTER, 7, old) == 0 && old[0].pcnt == 7 && old[0].bcnt == 58);
    datagram(7002);
    CHECK(has_one(lost));
    close(lost);
    close(plain);
}

static void redirected(void)
{
    struct {
        struct xt_entry_match head;
        struct xt_tcp tcp;
    } __attribute__((aligned(8))) match;
    struct {
        struct xt_entry_target head;
        struct nf_nat_ipv4_multi_range_compat range;
    } __attribute__((aligned(8))) target;
    int tcp = receiver(SOCK_STREAM, 7014), hooks = 0x1b;
    struct sockaddr_in to = at(7013), was;
    socklen_t length = sizeof was;
    memset(&match, 0, sizeof match);
    memset(&target, 0, sizeof target);
    match.head.u.user.match_size = sizeof match;
    strcpy(match.head.u.user.name, "tcp");
    match.tcp.spts[1] = 0xffff;
    match.tcp.dpts[0] = match.tcp.dpts[1] = 7013;
    target.head.u.user.target_size = sizeof target;
    strcpy(target.head.u.user.name, "REDIRECT");
    target.range.rangesize = 1;
    target.range.range[0].flags = NF_NAT_RANGE_PROTO_SPECIFIED;
    target.range.range[0].min.tcp.port = target.range.range[0].max.tcp.port = htons(7014);
    for (int kept = 0; kept < 2; kept++) {
        start();
        for (int hook = 0; hook < NF_INET_NUMHOOKS; hook++) {
            if (!(hooks & 1 << hook)) continue;
            begins[hook] = size;
            if (hook == (kept ? NF_INET_LOCAL_OUT : NF_INET_POST_ROUTING))
                entry(&match, sizeof match, &target, sizeof target)->ip.proto = IPPROTO_TCP;
            ends[hook] = size;
            verdict(ACCEPT);
        }
        error("ERROR");
        CHECK(replace("filter", hooks, 4, NULL) == EINVAL); /* a target of another table */
        CHECK(replace("nat", hooks, 5, NULL) == (kept ? 0 : EINVAL)); /* or of other hooks */
    }
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (void *)&to, sizeof to) == 0);
    int server = accept(tcp, NULL, NULL);
    CHECK(server >= 0);
    CHECK(getsockopt(server, SOL_IP, SO_ORIGINAL_DST, &was, &length) == 0);
    CHECK(length == sizeof was && was.sin_port == htons(7013));
    CHECK(entries("nat", size, sizeof(struct ipt_get_entries) + size) == 0);
    CHECK(told(begins[NF_INET_LOCAL_OUT])->counters.pcnt == 1);
    start();
    for (int hook = 0; hook < NF_INET_NUMHOOKS; hook++)
        if (hooks & 1 << hook) begins[hook] = ends[hook] = size, verdict(ACCEPT);
    error("ERROR");
    CHECK(replace("nat", hooks, 6, NULL) == 0);
    int other = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERR(connect(other, (void *)&to, sizeof to), ECONNREFUSED);
    char names[256];
    read_text("proc/net/ip_tables_names", names, sizeof names);
    CHECK(strstr(names, "nat\n") && strstr(names, "filter\n"));
    close(client);
    close(server);
    close(other);
    close(tcp);
}

int main(void)
{
    struct ipt_getinfo found;
    own_network();
    raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    CHECK(raw >= 0);
    if (info("filter", &found, sizeof found)) /* where they are modules, as iptables(8) does it */
        system("modprobe -a iptable_filter iptable_nat iptable_mangle iptable_raw ip6table_filter");
    tables();
    errors();
    filtering();
    redirected();
    return 0;
}
