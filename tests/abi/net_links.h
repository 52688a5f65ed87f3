/* Interfaces that netlink makes, and somebody who echoes behind one of them. */
#ifndef NET_LINKS_H
#define NET_LINKS_H

#include "net_tun.h"

#include <fcntl.h>
#include <linux/veth.h>
#include <signal.h>
#include <sys/prctl.h>

static struct {
    struct nlmsghdr head;
    struct ifinfomsg info;
    char rest[1000];
} request;

static inline void begin(int kind, int flags)
{
    memset(&request, 0, sizeof request);
    request.head = (struct nlmsghdr){NLMSG_LENGTH(sizeof request.info), kind,
                                     NLM_F_REQUEST | NLM_F_ACK | flags};
}

static inline void *add(int kind, const void *value, int size)
{
    struct rtattr *attribute = (void *)((char *)&request + NLMSG_ALIGN(request.head.nlmsg_len));
    attribute->rta_type = kind;
    attribute->rta_len = RTA_LENGTH(size);
    memcpy(RTA_DATA(attribute), value, size);
    request.head.nlmsg_len = NLMSG_ALIGN(request.head.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
    return attribute;
}

static inline void end(struct rtattr *nest)
{
    nest->rta_len = (char *)&request + request.head.nlmsg_len - (char *)nest;
}

/* The errno, or 0. */
static inline int ask(void)
{
    char answer[4096];
    int sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    CHECK(send(sock, &request, request.head.nlmsg_len, 0) == request.head.nlmsg_len);
    CHECK(recv(sock, answer, sizeof answer, 0) > 0);
    close(sock);
    CHECK(((struct nlmsghdr *)answer)->nlmsg_type == NLMSG_ERROR);
    return -((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)answer))->error;
}

static inline int make_link(const char *name, const char *kind)
{
    begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    if (name) add(IFLA_IFNAME, name, strlen(name) + 1);
    struct rtattr *nest = add(IFLA_LINKINFO, "", 0);
    add(IFLA_INFO_KIND, kind, strlen(kind));
    end(nest);
    return ask();
}

static inline int make_pair(const char *name, const char *peer, int peer_namespace)
{
    struct ifinfomsg info = {0};
    begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    if (name) add(IFLA_IFNAME, name, strlen(name) + 1);
    struct rtattr *nest = add(IFLA_LINKINFO, "", 0);
    add(IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = add(IFLA_INFO_DATA, "", 0);
    struct rtattr *other = add(VETH_INFO_PEER, &info, sizeof info);
    if (peer) add(IFLA_IFNAME, peer, strlen(peer) + 1);
    if (peer_namespace >= 0) add(IFLA_NET_NS_FD, &peer_namespace, 4);
    end(other);
    end(data);
    end(nest);
    return ask();
}

static inline int delete_link(const char *name)
{
    begin(RTM_DELLINK, 0);
    request.info.ifi_index = if_nametoindex(name);
    return ask();
}

static inline int move_link(const char *name, int namespace, const char *wanted)
{
    begin(RTM_SETLINK, 0);
    request.info.ifi_index = if_nametoindex(name);
    if (wanted) add(IFLA_IFNAME, wanted, strlen(wanted) + 1);
    add(IFLA_NET_NS_FD, &namespace, 4);
    return ask();
}

static inline void address(const char *name, const char *ip)
{
    set_address(name, SIOCSIFADDR, ip);
    set_address(name, SIOCSIFNETMASK, "255.255.255.0");
    set_up(name, 1);
}

/* Another network, whose loopback is down too; this one stays ours. */
static inline int other_network(void)
{
    int here = open("/proc/self/ns/net", O_RDONLY);
    CHECK(here >= 0 && unshare(CLONE_NEWNET) == 0);
    int made = open("/proc/self/ns/net", O_RDONLY);
    CHECK(made >= 0 && setns(here, CLONE_NEWNET) == 0);
    close(here);
    return made;
}

static inline pid_t echo_in(int namespace, const char *name, const char *ip)
{
    static char data[65536];
    int ready[2];
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    if (child) {
        char byte;
        CHECK(read(ready[0], &byte, 1) == 1);
        close(ready[0]);
        close(ready[1]);
        return child;
    }
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && setns(namespace, CLONE_NEWNET) == 0);
    address(name, ip);
    struct sockaddr_in at = place(ip, 7);
    int listener = socket(AF_INET, SOCK_STREAM, 0), got;
    CHECK(bind(listener, (void *)&at, sizeof at) == 0 && listen(listener, 5) == 0);
    int datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind(datagrams, (void *)&at, sizeof at) == 0 && write(ready[1], "", 1) == 1);
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    CHECK((got = recvfrom(datagrams, data, sizeof data, 0, (void *)&from, &size)) > 0);
    CHECK(sendto(datagrams, data, got, 0, (void *)&from, size) == got);
    int sock = accept(listener, NULL, NULL);
    while ((got = read(sock, data, sizeof data)) > 0) CHECK(write(sock, data, got) == got);
    _exit(got);
}

static inline void talk(const char *ip)
{
    static char sent[200000], got[200000];
    struct sockaddr_in to = place(ip, 7), other = place(ip, 8);
    int sock = control(), at = 0, done;
    CHECK(sendto(sock, sent, 5000, 0, (void *)&to, sizeof to) == 5000);
    CHECK(recv(sock, got, sizeof got, 0) == 5000);
    CHECK(connect(sock, (void *)&other, sizeof other) == 0 && send(sock, "x", 1, 0) == 1);
    CHECK_ERR(recv(sock, got, sizeof got, 0), ECONNREFUSED);
    close(sock);
    sock = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(sock, (void *)&to, sizeof to) == 0);
    for (int i = 0; i < (int)sizeof sent; i++) sent[i] = i * 17 + i / 999;
    pid_t writer = fork();
    if (!writer) {
        for (int i = 0; i < (int)sizeof sent; i += done)
            CHECK((done = write(sock, sent + i, sizeof sent - i)) > 0);
        _exit(shutdown(sock, SHUT_WR) != 0);
    }
    while ((done = read(sock, got + at, sizeof got - at)) > 0) at += done;
    CHECK(at == sizeof sent && !memcmp(sent, got, at) && status_of(writer) == 0);
    close(sock);
    sock = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERR(connect(sock, (void *)&other, sizeof other), ECONNREFUSED);
    close(sock);
}

#endif
