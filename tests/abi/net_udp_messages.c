/* UDP: control messages both ways, sendmmsg and recvmmsg. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

#include <linux/errqueue.h>
static char b[70000];

static struct sockaddr_in6 a6;

static int u(void)
{
    return socket(AF_INET, SOCK_DGRAM, 0);
}

static int ub_(void)
{
    int f = u();
    bind_to(f, 0);
    return f;
}

/* At the other end. */
static int ob_(void)
{
    int f = other_socket(AF_INET, SOCK_DGRAM, 0);
    bind_to(f, 0);
    return f;
}

static int st(int fd, int p, int n, int fl)
{
    struct sockaddr_in a = loopback(p);
    return sendto(fd, b, n, fl, (SA *)&a, sizeof a);
}

static char ctl[512];
static struct msghdr m;
static struct iovec iv;

static int rm(int fd, int fl)
{
    memset(ctl, 0, 512);
    m = (struct msghdr){&a6, sizeof a6, &iv, 1, ctl, 512, 0};
    iv.iov_base = b;
    iv.iov_len = 100;
    return recvmsg(fd, &m, fl);
}

static int cm(int l, int t)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == l && c->cmsg_type == t)
            return c->cmsg_len - CMSG_LEN(0) >= 4 ? *(int *)CMSG_DATA(c)
                                                  : *(unsigned char *)CMSG_DATA(c);
    return -5;
}

static int ncm(void)
{
    int n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        n++;
    return n;
}

static void messages(void)
{
    int s, d;
    s = ub_();
    d = ob_();
    set_option(d, 0, IP_PKTINFO, 1);
    set_option(d, 0, IP_RECVTTL, 1);
    set_option(d, 0, IP_RECVTOS, 1);
    set_option(d, 1, SO_TIMESTAMP, 1);
    set_option(s, 0, IP_TTL, 33);
    set_option(s, 0, IP_TOS, 0x1c);
    CHECK(st(s, port(d), 2, 0) == 2);
    CHECK(rm(d, 0) == 2);
    CHECK(ncm() == 4);
    CHECK(parted() ? cm(0, IP_PKTINFO) > 1 : cm(0, IP_PKTINFO) == 1);
    CHECK(cm(0, IP_TTL) == 33);
    CHECK(cm(0, IP_TOS) == 28);
    CHECK(cm(1, SO_TIMESTAMP) != -5 == 1);
    CHECK(m.msg_controllen == 112);
    set_option(d, 1, SO_TIMESTAMPNS, 1);
    CHECK(st(s, port(d), 2, 0) == 2);
    CHECK(rm(d, 0) == 2);
    CHECK(cm(1, SO_TIMESTAMPNS) != -5 == 1);
    CHECK(cm(1, SO_TIMESTAMP) == -5);
    CHECK(option(d, 1, SO_TIMESTAMP) == 0);
    CHECK(option(d, 1, SO_TIMESTAMPNS) == 1);

    {
        char cb[64] = {0};
        struct sockaddr_in y = loopback(port(d));
        struct iovec v = {b, 1};
        struct msghdr h = {&y, 16, &v, 1, cb, CMSG_SPACE(4), 0};
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = 0;
        c->cmsg_type = IP_TTL;
        c->cmsg_len = CMSG_LEN(4);
        *(int *)CMSG_DATA(c) = 77;
        CHECK(sendmsg(s, &h, 0) == 1);
        CHECK(rm(d, 0) == 1);
        CHECK(cm(0, IP_TTL) == 77);
        *(int *)CMSG_DATA(c) = 0;
        CHECK_ERR(sendmsg(s, &h, 0), EINVAL);
        *(int *)CMSG_DATA(c) = 256;
        CHECK_ERR(sendmsg(s, &h, 0), EINVAL);
        c->cmsg_type = IP_TOS;
        *(int *)CMSG_DATA(c) = 8;
        CHECK(sendmsg(s, &h, 0) == 1);
        CHECK(rm(d, 0) == 1);
        CHECK(cm(0, IP_TOS) == 8);
        c->cmsg_type = 99;
        CHECK_ERR(sendmsg(s, &h, 0), EINVAL);
        c->cmsg_level = 99;
        CHECK(sendmsg(s, &h, 0) == 1);
        c->cmsg_len = 3;
        CHECK_ERR(sendmsg(s, &h, 0), EINVAL);
        h.msg_controllen = 5;
        CHECK(sendmsg(s, &h, 0) == 1);
        h.msg_control = 0;
        h.msg_controllen = 8;
        CHECK_ERR(sendmsg(s, &h, 0), EFAULT);
        h.msg_controllen = 0;
        h.msg_namelen = 4;
        CHECK_ERR(sendmsg(s, &h, 0), EINVAL);
        h.msg_name = 0;
        CHECK_ERR(sendmsg(s, &h, 0), EDESTADDRREQ);
        h.msg_name = &y;
        h.msg_namelen = 200;
        CHECK(sendmsg(s, &h, 0) == 1);
        h.msg_namelen = 16;
        h.msg_iovlen = 0;
        CHECK(sendmsg(s, &h, 0) == 0);
        h.msg_iovlen = 2000;
        CHECK_ERR(sendmsg(s, &h, 0), EMSGSIZE);
    }
    while (recv(d, b, 9, MSG_DONTWAIT) >= 0)
        ;
    {
        struct mmsghdr h[4] = {0};
        struct iovec v[4];
        struct sockaddr_in y = loopback(port(d));
        for (int i = 0; i < 4; i++) {
            v[i] = (struct iovec){b, i + 1};
            h[i].msg_hdr = (struct msghdr){&y, 16, &v[i], 1};
        }
        CHECK(sendmmsg(s, h, 4, 0) == 4);
        CHECK(h[3].msg_len == 4);
        h[2].msg_hdr.msg_namelen = 3;
        CHECK(sendmmsg(s, h, 4, 0) == 2);
        CHECK_ERR(sendmmsg(s, h + 2, 1, 0), EINVAL);
        CHECK(sendmmsg(s, h, 0, 0) == 0);
        for (int i = 0; i < 4; i++) {
            v[i].iov_len = 10;
            h[i].msg_hdr.msg_namelen = 16;
        }
        CHECK(recvmmsg(d, h, 3, 0, 0) == 3);
        CHECK(h[2].msg_len == 3);
        struct timespec ts = {0, 20000000};
        CHECK(recvmmsg(d, h, 4, MSG_WAITFORONE, &ts) == 3);
        CHECK(h[0].msg_len == 4);
        CHECK_ERR(recvmmsg(d, h, 4, MSG_DONTWAIT, 0), EAGAIN);
        ts.tv_nsec = -1;
        CHECK_ERR(recvmmsg(d, h, 4, MSG_DONTWAIT, &ts), EINVAL);
        ts = (struct timespec){0, 5000000};
        st(s, port(d), 1, 0);
        usleep(10000);
        set_timeout(d, SO_RCVTIMEO, 20);
        CHECK(recvmmsg(d, h, 4, 0, &ts) == 1);
        CHECK(recvmmsg(d, h, 0, MSG_DONTWAIT, 0) == 0);
        CHECK_ERR(recvmmsg(d, (void *)8, 1, MSG_DONTWAIT, 0), EFAULT);
        st(s, port(d), 1, 0);
        CHECK_ERR(recvmmsg(d, (void *)8, 1, MSG_DONTWAIT, 0), EFAULT);
        CHECK_ERR(recvmmsg(99, (void *)8, 1, 0, (void *)8), EFAULT);
        CHECK_ERR(recvmmsg(d, h, 1, MSG_ERRQUEUE, 0), EAGAIN);
    }
    close(s);
    close(d);
}

static long asked(int fd)
{
    struct timespec t = {0};
    return ioctl(fd, SIOCGSTAMPNS, &t) ? -1 : t.tv_sec * 1000000000 + t.tv_nsec;
}

/* SIOCGSTAMP: not before something was read, then now, and from then on when packets came. */
static void last_stamp(void)
{
    char c[9];
    int to = other_socket(AF_INET, SOCK_DGRAM, 0), from = socket(AF_INET, SOCK_DGRAM, 0);
    bind_to(to, 0);
    connect_to(from, port(to));
    send(from, "x", 1, 0);
    CHECK(recv(to, c, 9, 0) == 1);
    long first = asked(to);
    CHECK(first > 0 && asked(to) == first);
    send(from, "x", 1, 0);
    CHECK(recv(to, c, 9, 0) == 1);
    long second = asked(to);
    CHECK(second > first);
    set_option(to, SOL_SOCKET, SO_TIMESTAMP, 1);
    send(from, "x", 1, 0);
    CHECK(recv(to, c, 9, 0) == 1);
    CHECK(asked(to) == second);
    close(to);

    to = other_socket(AF_INET, SOCK_DGRAM, 0);
    bind_to(to, 0);
    connect_to(from, port(to));
    set_option(to, SOL_SOCKET, SO_TIMESTAMP, 1);
    CHECK_ERR(asked(to), ENOENT);
    send(from, "x", 1, 0);
    CHECK(recv(to, c, 9, 0) == 1);
    CHECK_ERR(asked(to), ENOENT);
    close(to), close(from);
    to = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERR(asked(to), ENOENT);
    close(to);
}

/* Connected to port 0: there is no name to tell. */
static void port_0(void)
{
    struct sockaddr_in a;
    socklen_t size = sizeof a;
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(connect_to(s, 0) == 0);
    CHECK_ERR(getpeername(s, (SA *)&a, &size), ENOTCONN);
    CHECK(connect_to(s, 7) == 0);
    CHECK(getpeername(s, (SA *)&a, &size) == 0);
    close(s);
}

int main(void)
{
    last_stamp();
    port_0();
    messages();
    return 0;
}
