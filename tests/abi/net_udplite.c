/* UDP-Lite (RFC 3828): sockets of their own beside UDP, and how much of a datagram is covered. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

#ifndef IPPROTO_UDPLITE
#define IPPROTO_UDPLITE 136
#endif
#define SEND_COVERAGE 10
#define RECV_COVERAGE 11

static int udplite(int family) {
    int fd = socket(family, SOCK_DGRAM, IPPROTO_UDPLITE);
    CHECK(fd >= 0);
    return fd;
}

/* At the other end. */
static int far_udplite(void) {
    int fd = other_socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
    CHECK(fd >= 0);
    return fd;
}

static void set(int fd, int level, int name, int value) {
    CHECK(setsockopt(fd, level, name, &value, sizeof value) == 0);
}

static int get(int fd, int level, int name) {
    int value = -1;
    socklen_t size = sizeof value;
    CHECK(getsockopt(fd, level, name, &value, &size) == 0 && size == sizeof value);
    return value;
}

static struct sockaddr_in bound(int fd) {
    struct sockaddr_in at = loopback(is_far(fd) << 16);
    socklen_t size = sizeof at;
    CHECK(bind(fd, (void *)&at, sizeof at) == 0);
    CHECK(getsockname(fd, (void *)&at, &size) == 0 && at.sin_port);
    return at;
}

static void kinds(void) {
    CHECK_ERR(socket(AF_INET, SOCK_STREAM, IPPROTO_UDPLITE), EPROTONOSUPPORT);
    int fd = udplite(AF_INET);
    CHECK(get(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDPLITE);
    CHECK(get(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM);
    close(fd);
    close(udplite(AF_INET6));
}

/* A port of UDP is another one. */
static void ports(void) {
    int lite = far_udplite(), udp = other_socket(AF_INET, SOCK_DGRAM, 0);
    int other = far_udplite(), from_here = udplite(AF_INET);
    struct sockaddr_in at = bound(lite), from;
    socklen_t size = sizeof from;
    char data[8];
    CHECK(bind(udp, (void *)&at, sizeof at) == 0);
    CHECK_ERR(bind(other, (void *)&at, sizeof at), EADDRINUSE);
    CHECK(sendto(from_here, "lite", 4, 0, (void *)&at, sizeof at) == 4);
    CHECK_ERR(recv(udp, data, sizeof data, MSG_DONTWAIT), EAGAIN);
    CHECK(recvfrom(lite, data, sizeof data, 0, (void *)&from, &size) == 4);
    CHECK(!memcmp(data, "lite", 4) && from.sin_addr.s_addr == loopback(is_far(from_here) << 16).sin_addr.s_addr);
    close(lite);
    CHECK(connect(from_here, (void *)&at, sizeof at) == 0);
    CHECK(send(from_here, "x", 1, 0) == 1);
    wait_for(from_here, POLLERR);
    CHECK_ERR(send(from_here, "x", 1, 0), ECONNREFUSED);
    close(udp), close(other), close(from_here);
}

static void options(void) {
    int fd = udplite(AF_INET), udp = socket(AF_INET, SOCK_DGRAM, 0), value = 20;
    CHECK(get(fd, IPPROTO_UDPLITE, SEND_COVERAGE) == 0);
    int name;
    for (name = SEND_COVERAGE; name <= RECV_COVERAGE; name++) {
        set(fd, IPPROTO_UDPLITE, name, 20);
        CHECK(get(fd, IPPROTO_UDPLITE, name) == 20 && get(fd, IPPROTO_UDP, name) == 20);
        set(fd, IPPROTO_UDP, name, 3); /* the header at least */
        CHECK(get(fd, IPPROTO_UDPLITE, name) == 8);
        set(fd, IPPROTO_UDPLITE, name, 99999);
        CHECK(get(fd, IPPROTO_UDPLITE, name) == 65535);
        set(fd, IPPROTO_UDPLITE, name, 0);
        CHECK(get(fd, IPPROTO_UDPLITE, name) == 0);
        CHECK_ERR(setsockopt(udp, IPPROTO_UDPLITE, name, &value, sizeof value), ENOPROTOOPT);
        CHECK(get(udp, IPPROTO_UDP, name) == 0);
    }
    set(fd, IPPROTO_UDPLITE, UDP_CORK, 1);
    CHECK(get(fd, IPPROTO_UDP, UDP_CORK) == 1 && get(fd, IPPROTO_UDPLITE, UDP_CORK) == 1);
    CHECK_ERR(setsockopt(fd, IPPROTO_UDPLITE, SEND_COVERAGE, &value, 3), EINVAL);
    close(fd), close(udp);
}

static int arrives(int from, int to, struct sockaddr_in at, int size) {
    char data[64] = {0};
    CHECK(sendto(from, data, size, 0, (void *)&at, sizeof at) == size);
    int got = recv(to, data, sizeof data, MSG_DONTWAIT);
    CHECK(got == size || got == -1);
    return got == size;
}

/* A receiver may refuse what is covered too little. */
static void coverage(void) {
    int from = udplite(AF_INET), to = far_udplite();
    struct sockaddr_in at = bound(to);
    set(from, IPPROTO_UDPLITE, SEND_COVERAGE, 20);
    CHECK(arrives(from, to, at, 40));
    set(to, IPPROTO_UDPLITE, RECV_COVERAGE, 20);
    CHECK(arrives(from, to, at, 40));
    set(to, IPPROTO_UDPLITE, RECV_COVERAGE, 21);
    CHECK(!arrives(from, to, at, 40));
    CHECK(arrives(from, to, at, 4)); /* covered as a whole */
    set(to, IPPROTO_UDPLITE, RECV_COVERAGE, 0);
    CHECK(!arrives(from, to, at, 40)); /* asks for everything */
    set(from, IPPROTO_UDPLITE, SEND_COVERAGE, 0);
    CHECK(arrives(from, to, at, 40));
    close(from), close(to);
}

int main(void) {
    kinds();
    ports();
    options();
    coverage();
    return 0;
}
