/* Dumps of AF_NETLINK: what changes while they are read, and what is wrong with them. */
#define _GNU_SOURCE
#include "net_own.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

static char buf[32768];

static void ask(int s, int type, int flags, const void *body, int size)
{
    struct {
        struct nlmsghdr h;
        char body[64];
    } q = {{NLMSG_LENGTH(size), type, NLM_F_REQUEST | flags, 7}};
    memcpy(q.body, body, size);
    CHECK(send(s, &q, q.h.nlmsg_len, 0) == q.h.nlmsg_len);
}

/* One more address, or one less, of the loopback. */
static void change(int type, int number)
{
    struct {
        struct ifaddrmsg m;
        struct rtattr a;
        unsigned address;
    } q = {{AF_INET, 32, 0, 0, 1}, {8, IFA_LOCAL}, htonl(0x0a000000 + number)};
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    ask(s, type, NLM_F_ACK | (type == RTM_NEWADDR ? NLM_F_CREATE : 0), &q, sizeof q);
    CHECK(recv(s, buf, sizeof buf, 0) > 0);
    struct nlmsghdr *h = (void *)buf;
    CHECK(h->nlmsg_type == NLMSG_ERROR && *(int *)NLMSG_DATA(h) == 0);
    close(s);
}

/* How many messages say that something has changed; `between` is done after the first part. */
static int interrupted(int type, void (*between)(void))
{
    struct ifinfomsg m = {0};
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), found = 0, done = 0;
    ask(s, type, NLM_F_DUMP, &m, sizeof m);
    while (!done) {
        int size = recv(s, buf, 3000, MSG_PEEK | MSG_TRUNC);
        CHECK(size > 0 && recv(s, buf, sizeof buf, 0) == size);
        for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, size); h = NLMSG_NEXT(h, size)) {
            found += (h->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
            done |= h->nlmsg_type == NLMSG_DONE;
        }
        if (between)
            between();
        between = NULL;
    }
    close(s);
    return found;
}

static void nothing(void) {}
static void one_more(void) { change(RTM_NEWADDR, 5000); }
static void one_less(void) { change(RTM_DELADDR, 700); }

static void changed_meanwhile(void)
{
    for (int i = 1; i <= 800; i++)
        change(RTM_NEWADDR, i);
    CHECK(interrupted(RTM_GETADDR, nothing) == 0);
    CHECK(interrupted(RTM_GETADDR, one_more) == 1);
    CHECK(interrupted(RTM_GETADDR, one_less) == 1);
    change(RTM_DELADDR, 5000);
    CHECK(interrupted(RTM_GETLINK, one_more) == 0);
}

/* The end says what is wrong. */
static void wrong(int type, const void *body, int size, int error)
{
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    CHECK(set_option(s, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1) == 0);
    ask(s, type, NLM_F_DUMP, body, size);
    CHECK(recv(s, buf, sizeof buf, 0) == NLMSG_LENGTH(4));
    struct nlmsghdr *h = (void *)buf;
    CHECK(h->nlmsg_type == NLMSG_DONE && h->nlmsg_flags & NLM_F_MULTI);
    CHECK(*(int *)NLMSG_DATA(h) == -error);
    CHECK_ERR(recv(s, buf, sizeof buf, MSG_DONTWAIT), EAGAIN);
    close(s);
}

int main(void)
{
    struct ifinfomsg link = {.ifi_index = 1};
    struct ifaddrmsg address = {.ifa_index = 999};
    struct {
        struct rtmsg m;
        struct rtattr a;
        int table;
    } route = {{AF_INET}, {8, RTA_TABLE}, 12345};
    char rule[12] = {77};
    own_network();
    wrong(RTM_GETLINK, &link, sizeof link, EINVAL);
    wrong(RTM_GETADDR, &address, sizeof address, ENODEV);
    wrong(RTM_GETROUTE, &route, sizeof route, ENOENT);
    wrong(RTM_GETRULE, rule, sizeof rule, EAFNOSUPPORT);
    changed_meanwhile();
    return 0;
}
