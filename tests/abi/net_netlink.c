/* AF_NETLINK: names, options, dumps of links, addresses and routes, errors;
 ioctls over interfaces. */
#define _GNU_SOURCE
#include "abi.h"
#include "net.h"

#include <linux/ethtool.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
static char buf[40000];
static int got, last, multi, lo;
static unsigned seq = 7;

static int ask(int s, int type, int flags, const void *body, int n)
{
    struct {
        struct nlmsghdr h;
        char b[200];
    } q = {{NLMSG_LENGTH(n), type, flags, ++seq, 0}};

    memcpy(q.b, body, n);
    return send(s, &q, q.h.nlmsg_len, 0);
}

/* answers: how many, the last type or -error */
static int answers(int s)
{
    got = lo = multi = 0;
    last = -7777;
    for (;;) {
        int n = recv(s, buf, sizeof buf, MSG_DONTWAIT);
        if (n < 0)
            return last;
        for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            got++;
            multi |= h->nlmsg_flags & NLM_F_MULTI;
            if (h->nlmsg_seq != seq)
                last = -8888;
            else if (h->nlmsg_type == NLMSG_ERROR) {
                last = ((struct nlmsgerr *)NLMSG_DATA(h))->error;
                return last;
            } else
                last = h->nlmsg_type;
            if (h->nlmsg_type == NLMSG_DONE)
                return last;
        }
    }
}

static void sockets(void)
{
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), d;
    struct sockaddr_nl a = {0}, b;
    socklen_t n = sizeof a;
    CHECK_ERR(socket(AF_NETLINK, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
    CHECK_ERR(socket(AF_NETLINK, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
    CHECK_ERR(socket(AF_NETLINK, SOCK_RAW, 99), EPROTONOSUPPORT);
    CHECK_ERR(socket(AF_NETLINK, SOCK_RAW, -1), EPROTONOSUPPORT);
    CHECK((d = socket(AF_NETLINK, SOCK_DGRAM, 0)) > 0);
    CHECK(getsockname(s, (SA *)&a, &n) == 0);
    CHECK(n == 12);
    CHECK(a.nl_family == 16);
    CHECK(a.nl_pid == 0);
    CHECK(events(s) == POLLOUT);
    CHECK_ERR(listen(s, 1), EOPNOTSUPP);
    CHECK_ERR(accept(s, 0, 0), EOPNOTSUPP);
    CHECK_ERR(shutdown(s, 2), EOPNOTSUPP);
    CHECK_ERR(recv(s, buf, 9, MSG_DONTWAIT), EAGAIN);
    CHECK_ERR(send(s, "", 0, 0), ENODATA);
    a.nl_family = AF_NETLINK;
    CHECK(bind(s, (SA *)&a, sizeof a) == 0);
    n = sizeof a;
    getsockname(s, (SA *)&a, &n);
    CHECK(a.nl_pid == getpid());
    CHECK(bind(s, (SA *)&a, sizeof a) == 0);
    b = a;
    b.nl_pid++;
    CHECK_ERR(bind(s, (SA *)&b, sizeof b), EINVAL);
    CHECK_ERR(bind(d, (SA *)&a, sizeof a), EADDRINUSE);
    CHECK_ERR(bind(d, (SA *)&a, 4), EINVAL);
    b.nl_family = AF_INET;
    CHECK_ERR(bind(d, (SA *)&b, sizeof b), EINVAL);
    b.nl_family = AF_NETLINK;
    b.nl_pid = 0;
    CHECK(bind(d, (SA *)&b, sizeof b) == 0);
    n = sizeof b;
    getsockname(d, (SA *)&b, &n);
    CHECK((b.nl_pid != a.nl_pid && b.nl_pid != 0) == 1);
    n = sizeof b;
    CHECK(getpeername(d, (SA *)&b, &n) == 0);
    CHECK(b.nl_pid == 0);
    CHECK_ERR(connect(d, (SA *)&a, 3), EINVAL);
    CHECK(connect(d, (SA *)&a, sizeof a) == 0);
    b.nl_pid = 0;
    CHECK(connect(d, (SA *)&b, sizeof b) == 0);
    CHECK(option(s, 1, SO_DOMAIN) == 16);
    CHECK(option(s, 1, SO_TYPE) == 3);
    CHECK(option(s, 1, SO_PROTOCOL) == 0);
    CHECK(option(s, 1, SO_PASSCRED) == 0);
    CHECK(option(s, SOL_NETLINK, NETLINK_PKTINFO) == 0);
    CHECK(set_option(s, SOL_NETLINK, NETLINK_EXT_ACK, 1) == 0);
    CHECK_ERR(set_option(s, SOL_NETLINK, 99, 1), ENOPROTOOPT);
    CHECK_ERR(set_option(s, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, 0), EINVAL);
    CHECK(set_option(s, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, 1) == 0);
    CHECK(set_option(s, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, 1) == 0);
    CHECK_ERR(set_option(s, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, 9999), EINVAL);
    close(s);
    close(d);
}

static void dumps(void)
{
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    struct rtgenmsg g = {AF_UNSPEC};
    struct ifinfomsg li = {0};
    struct ifaddrmsg ad = {0};
    struct rtmsg rt = {0};
    struct ndmsg nd = {0};

    CHECK(ask(s, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &g, 1) == 17);
    CHECK(answers(s) == NLMSG_DONE);
    CHECK(got >= 2 && multi);
    CHECK(ask(s, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &li, sizeof li) == 32);
    CHECK(answers(s) == NLMSG_DONE);
    CHECK(ask(s, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &ad, sizeof ad) == 24);
    CHECK(answers(s) == NLMSG_DONE);
    CHECK(got >= 3);
    ad.ifa_family = AF_INET;
    ask(s, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &ad, sizeof ad);
    CHECK(answers(s) == NLMSG_DONE);
    CHECK(got >= 2);
    CHECK(ask(s, RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, &rt, sizeof rt) == 28);
    CHECK(answers(s) == NLMSG_DONE);
    CHECK(ask(s, RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, &nd, sizeof nd) == 28);
    CHECK(answers(s) == NLMSG_DONE);

    li.ifi_index = 1;
    ask(s, RTM_GETLINK, NLM_F_REQUEST, &li, sizeof li);
    CHECK(answers(s) == RTM_NEWLINK);
    CHECK(got == 1);
    ask(s, RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, &li, sizeof li);
    CHECK(answers(s) == 0);
    CHECK(got == 2);
    li.ifi_index = 9999;
    ask(s, RTM_GETLINK, NLM_F_REQUEST, &li, sizeof li);
    CHECK(answers(s) == -19);
    li.ifi_index = 0;
    ask(s, RTM_GETLINK, NLM_F_REQUEST, &li, sizeof li);
    CHECK(answers(s) == -22);
    ask(s, RTM_GETLINK, NLM_F_REQUEST, &g, 1);
    CHECK(answers(s) == -22);
    ask(s, RTM_GETLINK, NLM_F_DUMP, &g, 1);
    CHECK(answers(s) == -7777);
    ask(s, RTM_GETADDR, NLM_F_REQUEST, &ad, sizeof ad);
    CHECK(answers(s) == -95);
    ask(s, 5000, NLM_F_REQUEST, &g, 1);
    CHECK(answers(s) == -95);
    ask(s, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, &g, 1);
    CHECK(answers(s) == 0);
    ask(s, NLMSG_DONE, NLM_F_REQUEST, &g, 1);
    CHECK(answers(s) == -7777);
    CHECK(send(s, "short", 5, 0) == 5);
    CHECK(answers(s) == -7777);

    struct {
        struct ifinfomsg i;
        struct rtattr a;
        char n[8];
    } nm = {{0}, {4 + 3, IFLA_IFNAME}, "lo"};

    ask(s, RTM_GETLINK, NLM_F_REQUEST, &nm, sizeof nm);
    CHECK(answers(s) == RTM_NEWLINK);
    strcpy(nm.n, "xy");
    ask(s, RTM_GETLINK, NLM_F_REQUEST, &nm, sizeof nm);
    CHECK(answers(s) == -19);

    struct {
        struct rtmsg r;
        struct rtattr a;
        unsigned d;
    } to = {{AF_INET, 32}, {8, RTA_DST}, htonl(0x7f000001)};

    ask(s, RTM_GETROUTE, NLM_F_REQUEST, &to, sizeof to);
    CHECK(answers(s) == RTM_NEWROUTE);

    {
        ask(s, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &g, 1);
        CHECK(recv(s, buf, 1, MSG_PEEK) == 1);
        CHECK(recv(s, buf, 0, MSG_PEEK | MSG_TRUNC) > 100);
        struct sockaddr_nl a;
        struct iovec v = {buf, 5};
        struct msghdr m = {&a, sizeof a, &v, 1};
        CHECK(recvmsg(s, &m, 0) == 5);
        CHECK(m.msg_flags == MSG_TRUNC);
        CHECK(m.msg_namelen == 12);
        CHECK(a.nl_pid == 0);
        answers(s);
    }
    {
        struct ifaddrmsg n = {AF_INET, 8, 0, RT_SCOPE_HOST, 1};

        struct {
            struct ifaddrmsg i;
            struct rtattr a;
            unsigned x;
        } q = {n, {8, IFA_LOCAL}, htonl(0x7f000905)};

        ask(s, RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &q, sizeof q);
        CHECK(answers(s) == 0);
        ask(s, RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &q, sizeof q);
        CHECK(answers(s) == -17);
        ask(s, RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK, &q, sizeof q);
        CHECK(answers(s) == 0);
        ask(s, RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK, &q, sizeof q);
        CHECK(answers(s) == -99);
    }
    close(s);
    if (fork() == 0) {
        setresuid(9, 9, 9);
        s = socket(AF_NETLINK, SOCK_RAW, 0);
        struct ifaddrmsg n = {AF_INET, 8, 0, 0, 1};
        ask(s, RTM_DELADDR, NLM_F_REQUEST, &n, sizeof n);
        CHECK(answers(s) == -1);
        ask(s, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &g, 1);
        CHECK(answers(s) == NLMSG_DONE);
        fflush(stdout);
        _exit(0);
    }
    int st;
    wait(&st);
}

/* one that is replaced stays where it is, with its prefix and its label */
static void replaced_addresses(void)
{
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    int make = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
    struct rtgenmsg g = {AF_INET6};
    struct {
        struct ifaddrmsg i;
        struct rtattr a;
        unsigned char x[16];
    } q = {{AF_INET6, 64, IFA_F_NODAD, 0, 1}, {20, IFA_LOCAL}, {0xfd, 0, 0, 9}};

    for (q.x[15] = 1; q.x[15] < 3; q.x[15]++) {
        ask(s, RTM_NEWADDR, make | NLM_F_EXCL, &q, sizeof q);
        CHECK(answers(s) == 0);
    }
    q.x[15] = 1;
    q.i.ifa_prefixlen = 48;
    q.i.ifa_flags = IFA_F_HOMEADDRESS;
    ask(s, RTM_NEWADDR, make | NLM_F_EXCL | NLM_F_REPLACE, &q, sizeof q);
    CHECK(answers(s) == -17);
    ask(s, RTM_NEWADDR, make | NLM_F_REPLACE, &q, sizeof q);
    CHECK(answers(s) == 0);
    ask(s, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &g, sizeof g);
    int n = recv(s, buf, sizeof buf, 0), seen = 0;
    for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
        struct ifaddrmsg *m = NLMSG_DATA(h);
        unsigned char *ip = RTA_DATA(IFA_RTA(m));
        if (h->nlmsg_type != RTM_NEWADDR || ip[0] != 0xfd || ip[3] != 9)
            continue;
        CHECK(ip[15] == 2 - seen++);
        CHECK(m->ifa_prefixlen == 64);
        CHECK((m->ifa_flags & IFA_F_HOMEADDRESS) == (ip[15] == 1 ? IFA_F_HOMEADDRESS : 0));
    }
    CHECK(seen == 2);
    answers(s);
    q.i.ifa_prefixlen = 64;
    for (q.x[15] = 1; q.x[15] < 3; q.x[15]++) {
        ask(s, RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK, &q, sizeof q);
        CHECK(answers(s) == 0);
    }
    struct {
        struct ifaddrmsg i;
        struct rtattr a;
        unsigned x;
        struct rtattr l;
        char label[8];
    } v = {{AF_INET, 8, 0, RT_SCOPE_HOST, 1}, {8, IFA_LOCAL}, htonl(0x7f000905),
           {12, IFA_LABEL}, "lo:one"};
    ask(s, RTM_NEWADDR, make, &v, sizeof v);
    CHECK(answers(s) == 0);
    strcpy(v.label, "lo:two");
    ask(s, RTM_NEWADDR, make, &v, sizeof v);
    CHECK(answers(s) == -17);
    ask(s, RTM_NEWADDR, make | NLM_F_REPLACE, &v, sizeof v);
    CHECK(answers(s) == 0);
    g.rtgen_family = AF_INET;
    ask(s, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &g, sizeof g);
    n = recv(s, buf, sizeof buf, 0);
    CHECK(memmem(buf, n, "lo:one", 6) != 0);
    CHECK(memmem(buf, n, "lo:two", 6) == 0);
    answers(s);
    ask(s, RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK, &v, sizeof v);
    CHECK(answers(s) == -99);
    strcpy(v.label, "lo:one");
    ask(s, RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK, &v, sizeof v);
    CHECK(answers(s) == 0);
    close(s);
}

static void ioctls(void)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq r = {"lo"};
    CHECK(ioctl(s, SIOCGIFINDEX, &r) == 0);
    CHECK(r.ifr_ifindex == 1);
    CHECK(ioctl(s, SIOCGIFFLAGS, &r) == 0);
    CHECK(r.ifr_flags == 73);
    CHECK(ioctl(s, SIOCGIFMTU, &r) == 0);
    CHECK(r.ifr_mtu == 65536);
    CHECK(ioctl(s, SIOCGIFADDR, &r) == 0);
    CHECK(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr == htonl(0x7f000001));
    CHECK(ioctl(s, SIOCGIFNETMASK, &r) == 0);
    CHECK(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr == htonl(0xff000000));
    CHECK(ioctl(s, SIOCGIFHWADDR, &r) == 0);
    CHECK(r.ifr_hwaddr.sa_family == 772);
    r.ifr_ifindex = 1;
    CHECK(ioctl(s, SIOCGIFNAME, &r) == 0);
    CHECK(strcmp(r.ifr_name, "lo") == 0);
    r.ifr_ifindex = 999;
    CHECK_ERR(ioctl(s, SIOCGIFNAME, &r), ENODEV);
    strcpy(r.ifr_name, "nosuch");
    CHECK_ERR(ioctl(s, SIOCGIFINDEX, &r), ENODEV);
    CHECK_ERR(ioctl(s, SIOCGIFADDR, &r), ENODEV);
    CHECK_ERR(ioctl(s, SIOCGIFFLAGS, (void *)8), EFAULT);
    CHECK_ERR(ioctl(s, 0x8999, &r), ENOTTY);
    CHECK_ERR(ioctl(s, 0x8999, (void *)8), EFAULT);
    CHECK_ERR(ioctl(s, 0x80108906, &r), ENOENT); /* SIOCGSTAMP_NEW */
    CHECK_ERR(ioctl(s, TCGETS, &r), ENOTTY);
    struct ifreq list[8];
    struct ifconf c = {sizeof list, {(void *)list}};
    CHECK(ioctl(s, SIOCGIFCONF, &c) == 0);
    CHECK(c.ifc_len >= 40);
    CHECK(strcmp(list[0].ifr_name, "lo") == 0);
    c.ifc_len = 39;
    CHECK(ioctl(s, SIOCGIFCONF, &c) == 0);
    CHECK(c.ifc_len == 0);
    c.ifc_buf = 0;
    CHECK(ioctl(s, SIOCGIFCONF, &c) == 0);
    CHECK(c.ifc_len >= 40);
    int one = getpid();
    CHECK(ioctl(s, FIOSETOWN, &one) == 0);
    one = 0;
    CHECK(ioctl(s, FIOGETOWN, &one) == 0);
    CHECK(one == getpid());
    CHECK(ioctl(s, SIOCGPGRP, &one) == 0);
    one = 1 << 29;
    CHECK_ERR(ioctl(s, SIOCSPGRP, &one), ESRCH);
    one = 1;
    CHECK(ioctl(s, FIONBIO, &one) == 0);
    CHECK(fcntl(s, F_GETFL) == (O_RDWR | O_NONBLOCK));
    CHECK(if_nametoindex("lo") == 1);
    int u = socket(AF_UNIX, 1, 0);
    CHECK(ioctl(u, SIOCGIFINDEX, &(struct ifreq){"lo"}) == 0);
    CHECK_ERR(ioctl(u, SIOCGIFADDR, &(struct ifreq){"lo"}), ENOTTY);
    CHECK(ioctl(u, SIOCGIFCONF, &c) == 0);
}

/* The answers of a dump, then its end in a message of its own. */
static void end_of_dump(void)
{
    struct {
        struct nlmsghdr h;
        struct ifinfomsg m;
    } ask = {{sizeof ask, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 7}};
    char one[8];
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), kind = 0, messages = 0;
    CHECK(send(s, &ask, sizeof ask, 0) == sizeof ask);
    CHECK(recv(s, one, sizeof one, MSG_TRUNC | MSG_PEEK) > 100);
    while (kind != NLMSG_DONE) {
        long size = recv(s, buf, sizeof buf, 0);
        CHECK(size >= (long)sizeof(struct nlmsghdr));
        kind = ((struct nlmsghdr *)buf)->nlmsg_type;
        messages++;
    }
    CHECK(messages >= 2);
    CHECK_ERR(recv(s, buf, sizeof buf, MSG_DONTWAIT), EAGAIN);
    close(s);
}

static long ask_ethtool(int s, const char *name, void *what)
{
    struct ifreq r = {0};
    strcpy(r.ifr_name, name);
    r.ifr_data = what;
    return RESULT(ioctl(s, SIOCETHTOOL, &r));
}

static void ethtool(void)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct ethtool_ts_info stamps = {.cmd = ETHTOOL_GET_TS_INFO, .phc_index = 5};
    CHECK(ask_ethtool(s, "lo", &stamps) == 0);
    CHECK(stamps.so_timestamping == 0x1a && stamps.phc_index == -1);
    struct ethtool_value one = {ETHTOOL_GLINK};
    CHECK(ask_ethtool(s, "lo", &one) == 0 && one.data == 1);
    one.cmd = ETHTOOL_GTSO;
    CHECK(ask_ethtool(s, "lo", &one) == 0 && one.data == 1);
    struct { struct ethtool_sset_info info; unsigned count; } sets = {{ETHTOOL_GSSET_INFO}};
    sets.info.sset_mask = 1 << ETH_SS_FEATURES | 1ull << 63;
    CHECK(ask_ethtool(s, "lo", &sets) == 0 && sets.info.sset_mask == 1 << ETH_SS_FEATURES);
    CHECK(sets.count > 5 && sets.count < 200);
    static struct { struct ethtool_gstrings head; char names[200][ETH_GSTRING_LEN]; } all;
    all.head = (struct ethtool_gstrings){ETHTOOL_GSTRINGS, ETH_SS_FEATURES, sets.count};
    CHECK(ask_ethtool(s, "lo", &all) == 0 && all.head.len == sets.count);
    struct { struct ethtool_gfeatures head; struct ethtool_get_features_block blocks[3]; } told;
    told.head = (struct ethtool_gfeatures){ETHTOOL_GFEATURES, 3};
    CHECK(ask_ethtool(s, "lo", &told) == 0 && told.head.size == (sets.count + 31) / 32);
    for (unsigned i = 0; i < sets.count; i++)
        if (strcmp(all.names[i], "tx-tcp-segmentation") == 0)
            CHECK(told.blocks[i / 32].active & 1u << i % 32);
    struct ethtool_drvinfo driver = {ETHTOOL_GDRVINFO};
    CHECK(ask_ethtool(s, "lo", &driver) == -EOPNOTSUPP);
    CHECK(ask_ethtool(s, "none", &one) == -ENODEV);
    CHECK(ask_ethtool(s, "lo", (void *)1) == -EFAULT);
    close(s);
}

int main(void)
{
    end_of_dump();
    ethtool();
    sockets();
    dumps();
    replaced_addresses();
    ioctls();
    return 0;
}
