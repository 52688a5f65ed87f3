/* Options of IPPROTO_TCP;
 classic BPF filters on sockets. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

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

static void tcp(void)
{
    int s = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(kept(s, 6, TCP_NODELAY, 7) == 1);
    CHECK(kept(s, 6, TCP_MAXSEG, 0) == 536);
    CHECK_ERR(kept(s, 6, TCP_MAXSEG, 87), EINVAL);
    CHECK(kept(s, 6, TCP_MAXSEG, 1000) == 1000);
    CHECK(kept(s, 6, TCP_CORK, 1) == 1);
    CHECK_ERR(kept(s, 6, TCP_KEEPIDLE, 0), EINVAL);
    CHECK(kept(s, 6, TCP_KEEPIDLE, 32767) == 32767);
    CHECK_ERR(kept(s, 6, TCP_KEEPIDLE, 32768), EINVAL);
    CHECK_ERR(kept(s, 6, TCP_KEEPINTVL, 32768), EINVAL);
    CHECK_ERR(kept(s, 6, TCP_KEEPCNT, 128), EINVAL);
    CHECK(kept(s, 6, TCP_KEEPCNT, 127) == 127);
    CHECK_ERR(kept(s, 6, TCP_SYNCNT, 0), EINVAL);
    CHECK(kept(s, 6, TCP_SYNCNT, 127) == 127);
    CHECK_ERR(kept(s, 6, TCP_SYNCNT, 128), EINVAL);
    CHECK(kept(s, 6, TCP_LINGER2, -5) == -1);
    CHECK(kept(s, 6, TCP_LINGER2, 0) == 60);
    CHECK(kept(s, 6, TCP_LINGER2, 121) == 120);
    CHECK(kept(s, 6, TCP_DEFER_ACCEPT, -1) == 0);
    CHECK(kept(s, 6, TCP_DEFER_ACCEPT, 1) == 1);
    CHECK(kept(s, 6, TCP_DEFER_ACCEPT, 4) == 7);
    CHECK(kept(s, 6, TCP_WINDOW_CLAMP, 1) == 1152);
    CHECK(kept(s, 6, TCP_WINDOW_CLAMP, 5000) == 5000);
    CHECK(kept(s, 6, TCP_WINDOW_CLAMP, 0) == 0);
    CHECK(kept(s, 6, TCP_QUICKACK, 0) == 0);
    CHECK(kept(s, 6, TCP_QUICKACK, 5) == 1);
    CHECK_ERR(kept(s, 6, TCP_USER_TIMEOUT, -1), EINVAL);
    CHECK(kept(s, 6, TCP_USER_TIMEOUT, 5) == 5);
    CHECK(kept(s, 6, TCP_FASTOPEN, 5) == 5);
    CHECK_ERR(kept(s, 6, TCP_FASTOPEN, -1), EINVAL);
    CHECK_ERR(kept(s, 6, TCP_FASTOPEN_CONNECT, 2), EINVAL);
    CHECK(kept(s, 6, TCP_NOTSENT_LOWAT, -1) == -1);
    CHECK_ERR(kept(s, 6, TCP_THIN_LINEAR_TIMEOUTS, 2), EINVAL);
    CHECK(kept(s, 6, TCP_THIN_DUPACK, 1) == 0);
    CHECK(kept(s, 6, TCP_INQ, 1) == 1);
    CHECK_ERR(kept(s, 6, TCP_INQ, 2), EINVAL);
    CHECK(kept(s, 6, TCP_SAVE_SYN, 2) == 2);
    CHECK(setsockopt(s, 6, TCP_CONGESTION, "reno", 4) == 0);
    CHECK(get(s, 6, TCP_CONGESTION, 16) == 0);
    CHECK((int)n == 16);
    CHECK(strcmp(buf, "reno") == 0);
    CHECK(get(s, 6, TCP_CONGESTION, 2) == 0);
    CHECK((int)n == 2);
    CHECK_ERR(setsockopt(s, 6, TCP_CONGESTION, "nosuch", 6), ENOENT);
    CHECK_ERR(setsockopt(s, 6, TCP_CONGESTION, "", 0), EINVAL);
    CHECK(get(s, 6, TCP_INFO, 300) == 0);
    CHECK((int)n >= 192);
    CHECK(buf[0] == 7);
    CHECK(get(s, 6, TCP_INFO, 1) == 0);
    CHECK((int)n == 1);
    CHECK_ERR(put(s, 6, TCP_INFO, 1, 4), ENOPROTOOPT);
    CHECK_ERR(put(s, 6, TCP_NODELAY, 1, 3), EINVAL);
    CHECK_ERR(kept(s, 6, 999, 1), ENOPROTOOPT);
    CHECK_ERR(option(s, 17, UDP_CORK), EOPNOTSUPP);
    CHECK_ERR(set_option(s, 17, UDP_CORK, 1), ENOPROTOOPT);
    close(s);
}

static void filters(void)
{
    int s = socket(2, 2, 0), d = other_socket(2, 2, 0);
    bind_to(d, 0);
    connect_to(s, port(d));
    struct sock_filter none[] = {BPF_STMT(BPF_RET | BPF_K, 0)},
                       half[] = {BPF_STMT(BPF_RET | BPF_K, 10)},
                       bad[] = {BPF_STMT(BPF_LD | BPF_IMM, 0)},
                       port_is[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 8),
                                    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1),
                                    BPF_STMT(BPF_RET | BPF_K, -1), BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog p = {1, none};
    CHECK_ERR(put(d, 1, SO_DETACH_FILTER, 0, 4), ENOENT);
    CHECK_ERR(setsockopt(d, 1, SO_ATTACH_FILTER, &p, 15), EINVAL);
    CHECK(setsockopt(d, 1, SO_ATTACH_FILTER, &p, 16) == 0);
    send(s, "x", 1, 0);
    CHECK_ERR(recv(d, buf, 9, MSG_DONTWAIT), EAGAIN);
    p.filter = half;
    CHECK(setsockopt(d, 1, SO_ATTACH_FILTER, &p, 16) == 0);
    send(s, "xyz", 3, 0);
    CHECK(recv(d, buf, 9, MSG_DONTWAIT) == 2);
    p = (struct sock_fprog){4, port_is};
    CHECK(setsockopt(d, 1, SO_ATTACH_FILTER, &p, 16) == 0);
    send(s, "no", 2, 0);
    send(s, "yes", 3, 0);
    CHECK(recv(d, buf, 9, MSG_DONTWAIT) == 3);
    CHECK(get(d, 1, SO_GET_FILTER, 100) == 0);
    CHECK((int)n == 4);
    p = (struct sock_fprog){1, bad};
    CHECK_ERR(setsockopt(d, 1, SO_ATTACH_FILTER, &p, 16), EINVAL);
    p.len = 0;
    CHECK_ERR(setsockopt(d, 1, SO_ATTACH_FILTER, &p, 16), EINVAL);
    p.len = 1;
    p.filter = (void *)8;
    CHECK_ERR(setsockopt(d, 1, SO_ATTACH_FILTER, &p, 16), EFAULT);
    CHECK(put(d, 1, SO_DETACH_FILTER, 0, 4) == 0);
    CHECK(set_option(d, 1, SO_LOCK_FILTER, 1) == 0);
    CHECK_ERR(set_option(d, 1, SO_LOCK_FILTER, 0), EPERM);
    p.filter = none;
    CHECK_ERR(setsockopt(d, 1, SO_ATTACH_FILTER, &p, 16), EPERM);
    CHECK_ERR(put(d, 1, SO_DETACH_FILTER, 0, 4), EPERM);
    close(s);
    close(d);
}

int main(void)
{
    tcp();
    filters();
    return 0;
}
