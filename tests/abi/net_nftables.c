/* nftables over netlink: batches that count as a whole, what is told of tables, and what rules do to
 * traffic of the loopback. Needs root. */
#define _GNU_SOURCE
#include "net_own.h"
#include "ns.h"

#include <linux/icmp.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <poll.h>

static char batch[16384];
static int size;
static int nl;

static struct nlmsghdr *message(int type, int flags, int family, int resource)
{
    struct nlmsghdr *head = (void *)(batch + size);
    struct nfgenmsg *about = (void *)(head + 1);
    memset(head, 0, sizeof *head + sizeof *about);
    *head = (struct nlmsghdr){sizeof *head + sizeof *about, type, NLM_F_REQUEST | flags, size + 1};
    about->nfgen_family = family;
    about->res_id = htons(resource);
    size += head->nlmsg_len;
    return head;
}

static struct nlmsghdr *last;

static void *put(int kind, const void *data, int length)
{
    struct nlattr *made = (void *)(batch + size);
    memset(made, 0, NLA_HDRLEN + NLA_ALIGN(length));
    made->nla_type = kind;
    made->nla_len = NLA_HDRLEN + length;
    memcpy(made + 1, data, length);
    size += NLA_ALIGN(made->nla_len);
    last->nlmsg_len = batch + size - (char *)last;
    return made;
}

static void number(int kind, unsigned value)
{
    value = htonl(value);
    put(kind, &value, 4);
}

static void name(int kind, const char *value) { put(kind, value, strlen(value) + 1); }

static struct nlattr *nest(int kind) { return put(kind | NLA_F_NESTED, "", 0); }

static void end(struct nlattr *outer) { outer->nla_len = batch + size - (char *)outer; }

static void begin(unsigned generation)
{
    size = 0;
    last = message(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
    if (generation) number(NFNL_BATCH_GENID, generation);
}

static void add(int kind, int flags, int family)
{
    last = message(NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_ACK | flags, family, 0);
}

/* The first errno of the answers, or 0; how many there are. */
static int answers;

static int answered(void)
{
    char data[65536];
    int found = 0;
    answers = 0;
    for (;;) {
        int length = recv(nl, data, sizeof data, MSG_DONTWAIT);
        if (length < 0) return found;
        for (struct nlmsghdr *each = (void *)data; NLMSG_OK(each, (unsigned)length);
             each = NLMSG_NEXT(each, length)) {
            CHECK(each->nlmsg_type == NLMSG_ERROR);
            int error = -((struct nlmsgerr *)NLMSG_DATA(each))->error;
            answers++;
            if (!found) found = error;
        }
    }
}

static int commit(void)
{
    last = message(NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
    CHECK(send(nl, batch, size, 0) == size);
    return answered();
}

static void table(const char *called)
{
    add(NFT_MSG_NEWTABLE, NLM_F_CREATE, NFPROTO_IPV4);
    name(NFTA_TABLE_NAME, called);
}

static void chain(const char *called, int hook, int priority, const char *type)
{
    add(NFT_MSG_NEWCHAIN, NLM_F_CREATE, NFPROTO_IPV4);
    name(NFTA_CHAIN_TABLE, "t");
    name(NFTA_CHAIN_NAME, called);
    if (hook < 0) return;
    struct nlattr *place = nest(NFTA_CHAIN_HOOK);
    number(NFTA_HOOK_HOOKNUM, hook);
    number(NFTA_HOOK_PRIORITY, priority);
    end(place);
    name(NFTA_CHAIN_TYPE, type);
}

static struct nlattr *expressions;

static void rule(const char *in)
{
    add(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, NFPROTO_IPV4);
    name(NFTA_RULE_TABLE, "t");
    name(NFTA_RULE_CHAIN, in);
    expressions = nest(NFTA_RULE_EXPRESSIONS);
}

static struct nlattr *element, *details;

static void expression(const char *called)
{
    element = nest(NFTA_LIST_ELEM);
    name(NFTA_EXPR_NAME, called);
    details = nest(NFTA_EXPR_DATA);
}

static void done(void)
{
    end(details);
    end(element);
    end(expressions);
}

static void value(int kind, const void *data, int length)
{
    struct nlattr *outer = nest(kind);
    put(NFTA_DATA_VALUE, data, length);
    end(outer);
}

static void equals(const void *data, int length)
{
    expression("cmp");
    number(NFTA_CMP_SREG, NFT_REG_1);
    number(NFTA_CMP_OP, NFT_CMP_EQ);
    value(NFTA_CMP_DATA, data, length);
    done();
}

static void to_port(int protocol, int port)
{
    unsigned char number_of = protocol;
    unsigned short wanted = htons(port);
    expression("meta");
    number(NFTA_META_DREG, NFT_REG_1);
    number(NFTA_META_KEY, NFT_META_L4PROTO);
    done();
    equals(&number_of, 1);
    expression("payload");
    number(NFTA_PAYLOAD_DREG, NFT_REG_1);
    number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER);
    number(NFTA_PAYLOAD_OFFSET, 2);
    number(NFTA_PAYLOAD_LEN, 2);
    done();
    equals(&wanted, 2);
}

static void counter(void)
{
    expression("counter");
    done();
}

static void verdict(int code, const char *to)
{
    expression("immediate");
    number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    struct nlattr *data = nest(NFTA_IMMEDIATE_DATA), *inner = nest(NFTA_DATA_VERDICT);
    number(NFTA_VERDICT_CODE, code);
    if (to) name(NFTA_VERDICT_CHAIN, to);
    end(inner);
    end(data);
    done();
}

/* Messages of a dump, or of one that is asked for. */
static int told(int kind, int flags, const char *called, int attribute)
{
    static char data[65536];
    int found = 0;
    size = 0;
    last = message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, NFPROTO_IPV4, 0);
    if (called) name(attribute, called);
    CHECK(send(nl, batch, size, 0) == size);
    for (;;) {
        int length = recv(nl, data, sizeof data, 0);
        CHECK(length > 0);
        for (struct nlmsghdr *each = (void *)data; NLMSG_OK(each, (unsigned)length);
             each = NLMSG_NEXT(each, length)) {
            if (each->nlmsg_type == NLMSG_ERROR)
                return ((struct nlmsgerr *)NLMSG_DATA(each))->error;
            if (each->nlmsg_type == NLMSG_DONE) return found;
            found++;
            if (!(each->nlmsg_flags & NLM_F_MULTI)) return found;
        }
    }
}

static unsigned generation(void)
{
    char data[4096];
    size = 0;
    last = message(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, 0, AF_UNSPEC, 0);
    CHECK(send(nl, batch, size, 0) == size && recv(nl, data, sizeof data, 0) > 0);
    struct nlmsghdr *head = (void *)data;
    CHECK(head->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN));
    struct nlattr *first = (void *)(data + sizeof *head + sizeof(struct nfgenmsg));
    CHECK(first->nla_type == NFTA_GEN_ID && first->nla_len == 8);
    return ntohl(*(unsigned *)(first + 1));
}

static void flush(void)
{
    begin(0);
    add(NFT_MSG_DELTABLE, 0, AF_UNSPEC);
    CHECK(commit() == 0);
}

static void batches(void)
{
    begin(0);
    table("t");
    chain("c", -1, 0, NULL);
    chain("in", NF_INET_LOCAL_IN, 0, "filter");
    rule("c");
    counter();
    verdict(NF_ACCEPT, NULL);
    CHECK(commit() == 0 && answers == 4);
    CHECK(told(NFT_MSG_GETTABLE, NLM_F_DUMP, NULL, 0) == 1);
    CHECK(told(NFT_MSG_GETCHAIN, NLM_F_DUMP, NULL, 0) == 2);
    CHECK(told(NFT_MSG_GETRULE, NLM_F_DUMP, NULL, 0) == 1);
    CHECK(told(NFT_MSG_GETTABLE, 0, "t", NFTA_TABLE_NAME) == 1);
    CHECK(told(NFT_MSG_GETTABLE, 0, "u", NFTA_TABLE_NAME) == -ENOENT);
    /* all or nothing: the second rule leads nowhere */
    begin(0);
    table("u");
    rule("c");
    verdict(NF_DROP, NULL);
    rule("c");
    verdict(NFT_JUMP, "nowhere");
    CHECK(commit() == ENOENT && answers == 3);
    CHECK(told(NFT_MSG_GETTABLE, NLM_F_DUMP, NULL, 0) == 1);
    CHECK(told(NFT_MSG_GETRULE, NLM_F_DUMP, NULL, 0) == 1);
    /* without an end nothing counts */
    begin(0);
    table("u");
    CHECK(send(nl, batch, size, 0) == size && answered() == 0);
    CHECK(told(NFT_MSG_GETTABLE, NLM_F_DUMP, NULL, 0) == 1);
    /* of another generation */
    unsigned now = generation();
    begin(now + 1);
    table("u");
    CHECK(commit() == ERESTART);
    begin(now);
    table("u");
    CHECK(commit() == 0 && generation() == now + 1);
    flush();
    CHECK(told(NFT_MSG_GETTABLE, NLM_F_DUMP, NULL, 0) == 0);
}

static int once(void)
{
    int error = commit();
    begin(0);
    table("t");
    return error;
}

static void errors(void)
{
    begin(0);
    table("t");
    chain("a", -1, 0, NULL);
    chain("b", -1, 0, NULL);
    chain("base", NF_INET_LOCAL_IN, 0, "filter");
    CHECK(once() == 0);
    chain("x", NF_INET_LOCAL_IN, 0, "nothing");
    CHECK(once() == ENOENT);
    chain("x", NF_INET_FORWARD, 0, "nat");
    CHECK(once() == EOPNOTSUPP);
    rule("none");
    CHECK(once() == ENOENT);
    rule("a");
    expression("nothing");
    done();
    CHECK(once() == ENOENT);
    rule("a");
    expression("cmp");
    done();
    CHECK(once() == EINVAL);
    rule("a");
    expression("meta");
    number(NFTA_META_DREG, 99);
    number(NFTA_META_KEY, NFT_META_IIF);
    done();
    CHECK(once() == ERANGE);
    rule("a");
    verdict(NFT_JUMP, "base");
    CHECK(once() == EOPNOTSUPP);
    rule("a");
    verdict(7, NULL);
    CHECK(once() == EINVAL);
    rule("base");
    expression("masq");
    done();
    CHECK(once() == EOPNOTSUPP);
    /* what is in use stays */
    rule("a");
    verdict(NFT_JUMP, "b");
    CHECK(once() == 0);
    add(NFT_MSG_DELCHAIN, 0, NFPROTO_IPV4);
    name(NFTA_CHAIN_TABLE, "t");
    name(NFTA_CHAIN_NAME, "b");
    CHECK(once() == EBUSY);
    add(NFT_MSG_DELCHAIN, 0, NFPROTO_IPV4);
    name(NFTA_CHAIN_TABLE, "t");
    name(NFTA_CHAIN_NAME, "a");
    add(NFT_MSG_DELCHAIN, 0, NFPROTO_IPV4);
    name(NFTA_CHAIN_TABLE, "t");
    name(NFTA_CHAIN_NAME, "b");
    CHECK(once() == 0);
    add(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, NFPROTO_IPV4);
    name(NFTA_TABLE_NAME, "t");
    CHECK(once() == EEXIST);
    add(NFT_MSG_DELTABLE, 0, NFPROTO_IPV4);
    name(NFTA_TABLE_NAME, "none");
    CHECK(once() == ENOENT);
    /* a message by itself changes nothing */
    size = 0;
    table("alone");
    CHECK(send(nl, batch, size, 0) == size && answered() == EINVAL);
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK(told(NFT_MSG_GETTABLE, NLM_F_DUMP, NULL, 0) == -EPERM);
    });
    flush();
}

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

/* The errno of a datagram's sending. */
static int datagram(int port)
{
    struct sockaddr_in to = at(port);
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    int sent = sendto(sock, "x", 1, 0, (void *)&to, sizeof to), found = sent == 1 ? 0 : errno;
    close(sock);
    return found;
}

static int connection(int port)
{
    struct sockaddr_in to = at(port);
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    int found = connect(sock, (void *)&to, sizeof to) == 0 ? 0 : errno;
    close(sock);
    return found;
}

static int has_one(int sock)
{
    char byte;
    return recv(sock, &byte, 1, MSG_DONTWAIT) == 1;
}

static void filtering(void)
{
    int plain = receiver(SOCK_DGRAM, 7001), lost = receiver(SOCK_DGRAM, 7002);
    int stream = receiver(SOCK_STREAM, 7004);
    begin(0);
    table("t");
    chain("in", NF_INET_LOCAL_IN, 0, "filter");
    chain("out", NF_INET_LOCAL_OUT, 0, "filter");
    chain("refused", -1, 0, NULL);
    rule("in");
    to_port(IPPROTO_UDP, 7002);
    counter();
    verdict(NF_DROP, NULL);
    rule("out");
    to_port(IPPROTO_UDP, 7003);
    verdict(NF_DROP, NULL);
    rule("in");
    to_port(IPPROTO_TCP, 7004);
    verdict(NFT_JUMP, "refused");
    rule("refused");
    expression("reject");
    number(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST);
    unsigned char none = 0;
    put(NFTA_REJECT_ICMP_CODE, &none, 1);
    done();
    CHECK(commit() == 0);
    CHECK(datagram(7001) == 0 && has_one(plain));
    CHECK(datagram(7002) == 0 && !has_one(lost));
    CHECK(datagram(7003) == EPERM);
    CHECK(connection(7004) == ECONNREFUSED);
    flush();
    CHECK(datagram(7002) == 0 && has_one(lost));
    CHECK(connection(7004) == 0);
    close(plain);
    close(lost);
    close(stream);
}

static void elsewhere(int protocol, int port, int other)
{
    unsigned short wanted = htons(other);
    rule("dnat");
    to_port(protocol, port);
    expression("immediate");
    number(NFTA_IMMEDIATE_DREG, NFT_REG_1);
    value(NFTA_IMMEDIATE_DATA, &wanted, 2);
    done();
    expression("redir");
    number(NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1);
    number(NFTA_REDIR_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED);
    done();
}

/* The port of the target that a connection had before it was redirected, or -errno. */
static int original(int sock, socklen_t room)
{
    struct sockaddr_in was;
    socklen_t length = room;
    if (getsockopt(sock, SOL_IP, SO_ORIGINAL_DST, &was, &length) != 0) return -errno;
    CHECK(length == room && was.sin_family == AF_INET);
    CHECK(was.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    return ntohs(was.sin_port);
}

static void redirected(void)
{
    int udp = receiver(SOCK_DGRAM, 7012), tcp = receiver(SOCK_STREAM, 7014);
    struct sockaddr_in to = at(7013), peer;
    socklen_t length = sizeof peer;
    begin(0);
    table("t");
    chain("dnat", NF_INET_LOCAL_OUT, -100, "nat");
    elsewhere(IPPROTO_UDP, 7011, 7012);
    elsewhere(IPPROTO_TCP, 7013, 7014);
    CHECK(commit() == 0);
    CHECK(datagram(7011) == 0 && has_one(udp));
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (void *)&to, sizeof to) == 0);
    CHECK(getpeername(client, (void *)&peer, &length) == 0 && peer.sin_port == htons(7013));
    int server = accept(tcp, NULL, NULL);
    CHECK(server >= 0);
    CHECK(getsockname(server, (void *)&peer, &length) == 0 && peer.sin_port == htons(7014));
    CHECK(write(client, "x", 1) == 1 && has_one(server));
    CHECK(write(server, "y", 1) == 1 && has_one(client));
    CHECK(original(server, sizeof peer) == 7013 && original(client, sizeof peer) == 7013);
    CHECK(original(server, sizeof peer - 1) == -EINVAL);
    CHECK(original(tcp, sizeof peer) == -ENOENT && original(udp, sizeof peer) == -ENOPROTOOPT);
    close(client);
    close(server);
    flush();
    CHECK(datagram(7011) == 0 && !has_one(udp));
    close(udp);
    close(tcp);
}

/* The next expressions are for packets of ICMP of this type that go to 127.0.0.N. */
static void echo_to(int type, int last_byte)
{
    unsigned char protocol = IPPROTO_ICMP, kind = type;
    unsigned address = htonl(INADDR_LOOPBACK - 1 + last_byte);
    expression("meta");
    number(NFTA_META_DREG, NFT_REG_1);
    number(NFTA_META_KEY, NFT_META_L4PROTO);
    done();
    equals(&protocol, 1);
    for (int is_address = 0; is_address < 2; is_address++) {
        expression("payload");
        number(NFTA_PAYLOAD_DREG, NFT_REG_1);
        number(NFTA_PAYLOAD_BASE,
               is_address ? NFT_PAYLOAD_NETWORK_HEADER : NFT_PAYLOAD_TRANSPORT_HEADER);
        number(NFTA_PAYLOAD_OFFSET, is_address ? 16 : 0);
        number(NFTA_PAYLOAD_LEN, is_address ? 4 : 1);
        done();
        if (is_address) equals(&address, 4);
        else equals(&kind, 1);
    }
}

/* An echo request to 127.0.0.N: the errno of its sending, or which N has answered; 0: nobody. */
static int echo(int sock, int last_byte)
{
    unsigned char answer[64];
    struct icmphdr request = {.type = ICMP_ECHO, .un.echo.id = htons(7), .checksum = ~htons(0x0807)};
    struct sockaddr_in to = {AF_INET, 0, {htonl(INADDR_LOOPBACK - 1 + last_byte)}};
    if (sendto(sock, &request, sizeof request, 0, (void *)&to, sizeof to) != sizeof request)
        return -errno;
    int found = recv(sock, answer, sizeof answer, MSG_DONTWAIT);
    if (found < 0) return errno == EAGAIN ? 0 : -errno;
    CHECK(found == 28 && answer[20] == ICMP_ECHOREPLY && answer[24] == 0 && answer[25] == 7);
    return answer[15];
}

static void echoes(void)
{
    int sock = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), on = 1;
    struct icmp_filter replies = {~(1u << ICMP_ECHOREPLY)};
    CHECK(setsockopt(sock, SOL_RAW, ICMP_FILTER, &replies, sizeof replies) == 0);
    CHECK(echo(sock, 2) == 2);
    struct sockaddr_in rejecting = {AF_INET, 0, {htonl(INADDR_LOOPBACK + 7)}};
    begin(0);
    table("t");
    chain("in", NF_INET_LOCAL_IN, 0, "filter");
    chain("out", NF_INET_LOCAL_OUT, 0, "filter");
    chain("dnat", NF_INET_LOCAL_OUT, -100, "nat");
    rule("in");
    echo_to(ICMP_ECHO, 2);
    verdict(NF_DROP, NULL);
    rule("out");
    echo_to(ICMP_ECHO, 3);
    verdict(NF_DROP, NULL);
    rule("in");
    echo_to(ICMP_ECHO, 4);
    expression("reject");
    number(NFTA_REJECT_TYPE, NFT_REJECT_ICMP_UNREACH);
    unsigned char host = ICMP_HOST_UNREACH;
    put(NFTA_REJECT_ICMP_CODE, &host, 1);
    done();
    rule("out");
    echo_to(ICMP_ECHO, 8);
    expression("reject");
    number(NFTA_REJECT_TYPE, NFT_REJECT_ICMP_UNREACH);
    put(NFTA_REJECT_ICMP_CODE, &host, 1);
    done();
    unsigned there = htonl(INADDR_LOOPBACK + 6);
    rule("dnat");
    echo_to(ICMP_ECHO, 5);
    expression("immediate");
    number(NFTA_IMMEDIATE_DREG, NFT_REG_1);
    value(NFTA_IMMEDIATE_DATA, &there, 4);
    done();
    expression("nat");
    number(NFTA_NAT_TYPE, NFT_NAT_DNAT);
    number(NFTA_NAT_FAMILY, NFPROTO_IPV4);
    number(NFTA_NAT_REG_ADDR_MIN, NFT_REG_1);
    done();
    rule("in");
    echo_to(ICMP_ECHO, 7);
    counter();
    CHECK(commit() == 0);
    CHECK(echo(sock, 1) == 1);
    CHECK(echo(sock, 2) == 0);
    CHECK(echo(sock, 3) == -EPERM);
    CHECK(echo(sock, 4) == 0);
    CHECK(echo(sock, 8) == -EPERM);
    /* too short for ICMP to say what it is about */
    CHECK(sendto(sock, "\x8", 2, 0, (void *)&rejecting, sizeof rejecting) == -1 && errno == EPERM);
    CHECK(setsockopt(sock, SOL_IP, IP_RECVERR, &on, sizeof on) == 0);
    CHECK(echo(sock, 4) == -EHOSTUNREACH);
    CHECK(echo(sock, 5) == 5);
    flush();
    CHECK(echo(sock, 2) == 2);
    CHECK(echo(sock, 3) == 3);
    close(sock);
}

/* Rules that make each answer to an echo a request again: thousands of them follow each other. */
static void answers_turned(void)
{
    int sock = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    unsigned char protocol = IPPROTO_ICMP, reply = ICMP_ECHOREPLY, request = ICMP_ECHO;
    unsigned long long once = htobe64(1), an_hour = htobe64(3600);
    struct icmp_filter none = {~0u}, replies = {~(1u << ICMP_ECHOREPLY)};
    CHECK(setsockopt(sock, SOL_RAW, ICMP_FILTER, &none, sizeof none) == 0);
    begin(0);
    table("t");
    chain("out", NF_INET_LOCAL_OUT, 0, "filter");
    rule("out");
    expression("meta");
    number(NFTA_META_DREG, NFT_REG_1);
    number(NFTA_META_KEY, NFT_META_L4PROTO);
    done();
    equals(&protocol, 1);
    expression("payload");
    number(NFTA_PAYLOAD_DREG, NFT_REG_1);
    number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER);
    number(NFTA_PAYLOAD_OFFSET, 0);
    number(NFTA_PAYLOAD_LEN, 1);
    done();
    equals(&reply, 1);
    expression("limit");
    put(NFTA_LIMIT_RATE, &once, 8);
    put(NFTA_LIMIT_UNIT, &an_hour, 8);
    number(NFTA_LIMIT_BURST, 5000);
    done();
    expression("immediate");
    number(NFTA_IMMEDIATE_DREG, NFT_REG_1);
    value(NFTA_IMMEDIATE_DATA, &request, 1);
    done();
    expression("payload");
    number(NFTA_PAYLOAD_SREG, NFT_REG_1);
    number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER);
    number(NFTA_PAYLOAD_OFFSET, 0);
    number(NFTA_PAYLOAD_LEN, 1);
    number(NFTA_PAYLOAD_CSUM_TYPE, NFT_PAYLOAD_CSUM_INET);
    number(NFTA_PAYLOAD_CSUM_OFFSET, 2);
    done();
    CHECK(commit() == 0);
    CHECK(echo(sock, 2) == 0);
    flush();
    CHECK(setsockopt(sock, SOL_RAW, ICMP_FILTER, &replies, sizeof replies) == 0);
    CHECK(echo(sock, 2) == 2);
    close(sock);
}

static void extensions(void)
{
    for (int known = 0; known < 2; known++) {
        char data[4096];
        size = 0;
        last = message(NFNL_SUBSYS_NFT_COMPAT << 8 | NFNL_MSG_COMPAT_GET, 0, NFPROTO_IPV4, 0);
        name(NFTA_COMPAT_NAME, known ? "conntrack" : "nothing");
        number(NFTA_COMPAT_REV, 3);
        number(NFTA_COMPAT_TYPE, 0);
        CHECK(send(nl, batch, size, 0) == size && recv(nl, data, sizeof data, 0) > 0);
        struct nlmsghdr *head = (void *)data;
        if (known)
            CHECK(head->nlmsg_type == (NFNL_SUBSYS_NFT_COMPAT << 8 | NFNL_MSG_COMPAT_GET));
        else
            CHECK(head->nlmsg_type == NLMSG_ERROR &&
                  ((struct nlmsgerr *)NLMSG_DATA(head))->error == -ENOENT);
    }
}

int main(void)
{
    own_network();
    nl = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    CHECK(nl >= 0);
    batches();
    errors();
    filtering();
    redirected();
    echoes();
    answers_turned();
    extensions();
    return 0;
}
