/* Options of SOL_SOCKET: values, lengths, pointers, what cannot be set. */
#define _GNU_SOURCE
#include "abi.h"
#include "net.h"
#include "ptrace.h"

#include <linux/filter.h>
#include <net/if.h>
static char buf[300];
static socklen_t n;

static int get(int fd, int l, int o, int size)
{
    memset(buf, 0, 300);
    n = size;
    return getsockopt(fd, l, o, buf, &n);
}

static int put(int fd, int l, int o, int v, int size)
{
    memset(buf, 0, 300);
    *(int *)buf = v;
    return setsockopt(fd, l, o, buf, size);
}

static int kept(int fd, int l, int o, int v)
{
    return set_option(fd, l, o, v) < 0 ? -1 : option(fd, l, o);
}

static void common(int f, int k)
{
    int s = socket(f, k, 0);

    CHECK(option(s, 1, SO_TYPE) == k);
    CHECK(option(s, 1, SO_DOMAIN) == f);
    CHECK(option(s, 1, SO_ERROR) == 0);
    CHECK_ERR(put(s, 1, SO_TYPE, 1, 4), ENOPROTOOPT);
    CHECK_ERR(put(s, 1, SO_ERROR, 1, 4), ENOPROTOOPT);
    CHECK_ERR(put(s, 1, SO_ACCEPTCONN, 1, 4), ENOPROTOOPT);
    CHECK_ERR(put(s, 1, SO_DOMAIN, 1, 4), ENOPROTOOPT);
    CHECK_ERR(put(s, 1, SO_PROTOCOL, 1, 4), ENOPROTOOPT);

    CHECK(kept(s, 1, SO_REUSEADDR, 5) == 1);
    CHECK(kept(s, 1, SO_KEEPALIVE, 1) == 1);
    CHECK(kept(s, 1, SO_BROADCAST, -1) == 1);
    CHECK(kept(s, 1, SO_OOBINLINE, 1) == 1);
    CHECK(kept(s, 1, SO_DONTROUTE, 1) == 1);
    CHECK(kept(s, 1, SO_NO_CHECK, 1) == 1);
    CHECK(kept(s, 1, SO_PRIORITY, 6) == 6);
    CHECK(kept(s, 1, SO_MARK, 5) == 5);
    CHECK(kept(s, 1, SO_RCVLOWAT, 0) == 1);
    CHECK(kept(s, 1, SO_RCVLOWAT, -1) > 1000000);
    CHECK_ERR(kept(s, 1, SO_SNDLOWAT, 3), ENOPROTOOPT);
    CHECK(option(s, 1, SO_SNDLOWAT) == 1);
    CHECK(kept(s, 1, SO_RCVBUF, 0) == 2304);
    CHECK(kept(s, 1, SO_RCVBUF, 5000) == 10000);
    if (f != AF_UNIX && k == SOCK_STREAM)
        CHECK(kept(s, 1, SO_RCVLOWAT, 100000) == 5000);
    CHECK(kept(s, 1, SO_SNDBUF, 0) == 4608);
    CHECK(kept(s, 1, SO_SNDBUF, 5000) == 10000);
    CHECK_ERR(kept(s, 1, SO_RCVBUFFORCE, 6000), ENOPROTOOPT);
    CHECK(option(s, 1, SO_RCVBUF) == 12000);
    CHECK(kept(s, 1, SO_TIMESTAMP, 1) == 1);
    CHECK(kept(s, 1, SO_TIMESTAMPNS, 1) == 1);
    CHECK(option(s, 1, SO_TIMESTAMP) == 0);
    CHECK(kept(s, 1, SO_LOCK_FILTER, 1) == 1);
    CHECK_ERR(kept(s, 1, SO_LOCK_FILTER, 0), EPERM);
    CHECK_ERR(put(s, 1, SO_REUSEADDR, 1, 3), EINVAL);
    CHECK_ERR(put(s, 1, SO_REUSEADDR, 1, -1), EINVAL);
    CHECK_ERR(put(s, 1, SO_REUSEADDR, 1, 0), EINVAL);
    CHECK_ERR(setsockopt(s, 1, SO_REUSEADDR, (void *)8, 4), EFAULT);
    CHECK_ERR(setsockopt(s, 1, SO_REUSEADDR, 0, 4), EFAULT);
    CHECK_ERR(put(s, 1, 999, 1, 4), ENOPROTOOPT);
    CHECK_ERR(put(s, 1, 999, 1, 3), EINVAL);
    CHECK_ERR(get(s, 1, 999, 4), ENOPROTOOPT);
    CHECK_ERR(get(s, 1, 999, 0), ENOPROTOOPT);
    CHECK(RESULT(put(s, 999, 1, 1, 4)) == (f == AF_UNIX ? -EOPNOTSUPP : -ENOPROTOOPT));

    CHECK(get(s, 1, SO_REUSEADDR, 0) == 0);
    CHECK((int)n == 0);
    CHECK(get(s, 1, SO_REUSEADDR, 1) == 0);
    CHECK((int)n == 1);
    CHECK(buf[0] == 1);
    CHECK(get(s, 1, SO_REUSEADDR, 100) == 0);
    CHECK((int)n == 4);
    CHECK_ERR(getsockopt(s, 1, SO_REUSEADDR, (void *)8, &n), EFAULT);
    CHECK_ERR(getsockopt(s, 1, SO_REUSEADDR, buf, (void *)8), EFAULT);
    CHECK_ERR(get(s, 1, SO_REUSEADDR, -1), EINVAL);

    struct linger li = {7, 9};
    CHECK_ERR(setsockopt(s, 1, SO_LINGER, &li, 4), EINVAL);
    CHECK(setsockopt(s, 1, SO_LINGER, &li, 8) == 0);
    CHECK(get(s, 1, SO_LINGER, 100) == 0);
    CHECK((int)n == 8);
    CHECK(*(int *)buf == 1);
    CHECK(((int *)buf)[1] == 9);
    struct timeval t = {3, 500000};
    CHECK_ERR(setsockopt(s, 1, SO_RCVTIMEO, &t, 8), EINVAL);
    CHECK(setsockopt(s, 1, SO_RCVTIMEO, &t, 16) == 0);
    CHECK(get(s, 1, SO_RCVTIMEO, 100) == 0);
    CHECK((int)n == 16);
    CHECK(((long *)buf)[1] == 500000);
    t.tv_usec = 1000000;
    CHECK_ERR(setsockopt(s, 1, SO_RCVTIMEO, &t, 16), EDOM);
    t = (struct timeval){-1, 0};
    CHECK(setsockopt(s, 1, SO_SNDTIMEO, &t, 16) == 0);
    CHECK(get(s, 1, SO_SNDTIMEO, 16) == 0);
    CHECK(*(long *)buf == 0);
    CHECK(get(s, 1, SO_PEERCRED, 12) == 0);
    CHECK((int)n == 12);
    CHECK_ERR(get(s, 1, SO_PEERNAME, 16), ENOTCONN);
    CHECK(get(s, 1, SO_COOKIE, 8) == 0);
    CHECK_ERR(get(s, 1, SO_COOKIE, 4), EINVAL);
    CHECK(get(s, 1, SO_MEMINFO, 100) == 0);
    CHECK((int)n == 36);
    close(s);
}

/* Longer than 64 bits of nanoseconds. */
static void longest_timeout(void)
{
    struct timeval t = {1L << 50, 0};
    int pair[2], status;
    char byte;

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) == 0);
    pid_t child = fork();
    if (child == 0) {
        while (state_of(getppid()) != 'S') /* it reads */
            usleep(1000);
        _exit(write(pair[1], "x", 1) != 1);
    }
    CHECK(read(pair[0], &byte, 1) == 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    common(AF_INET, SOCK_STREAM);
    common(AF_INET, SOCK_DGRAM);
    common(AF_UNIX, SOCK_STREAM);
    common(AF_UNIX, SOCK_DGRAM);
    common(AF_UNIX, SOCK_SEQPACKET);
    longest_timeout();
    return 0;
}
