/* UDP: sending to, connected, refused, error queue, cork, peeks. */
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

static void basics(void)
{
    int s, d;
    char buf[100];

    s = u();
    CHECK(events(s) == POLLOUT);
    CHECK_ERR(send(s, "x", 1, 0), EDESTADDRREQ);
    CHECK_ERR(send(s, "", 0, 0), EDESTADDRREQ);
    CHECK_ERR(recv(s, buf, 1, MSG_DONTWAIT), EAGAIN);
    CHECK_ERR(shutdown(s, SHUT_WR), ENOTCONN);
    CHECK_ERR(listen(s, 1), EOPNOTSUPP);
    CHECK_ERR(accept(s, 0, 0), EOPNOTSUPP);
    CHECK(events(s) == POLLOUT);
    CHECK(port(s) > 0);
    CHECK_ERR(shutdown(s, 5), EINVAL);

    s = ub_();
    d = ob_();
    CHECK(st(s, port(d), 5, 0) == 5);
    CHECK(st(s, port(d), 0, 0) == 0);
    CHECK(st(s, port(d), 7, 0) == 7);
    CHECK(events(d) == (POLLIN | POLLOUT));
    CHECK(queued(d, FIONREAD) == 5);
    CHECK(recv(d, buf, 2, MSG_PEEK) == 2);
    CHECK(recv(d, buf, 2, MSG_PEEK | MSG_TRUNC) == 5);
    CHECK(recv(d, buf, 2, 0) == 2);
    CHECK(queued(d, FIONREAD) == 0);
    CHECK(recv(d, buf, 2, 0) == 0);
    CHECK_ERR(recv(d, 0, 2, 0), EFAULT);
    CHECK_ERR(recv(d, buf, 2, MSG_DONTWAIT), EAGAIN);
    CHECK_ERR(recv(d, buf, 2, MSG_OOB | MSG_DONTWAIT), EAGAIN);
    CHECK_ERR(recv(d, buf, 2, MSG_ERRQUEUE), EAGAIN);

    CHECK(st(s, port(d), 65507, 0) == 65507);
    CHECK_ERR(st(s, port(d), 65508, 0), EMSGSIZE);
    CHECK(recv(d, b, 70000, 0) == 65507);
    CHECK_ERR(st(s, port(d), 5, MSG_OOB), EOPNOTSUPP);
    CHECK_ERR(st(s, 0, 5, 0), EINVAL);
    CHECK_ERR(sendto(s, b, 1, 0, (SA *)&a4, 2), EINVAL);
    {
        struct sockaddr_in6 x = {AF_INET6};
        CHECK_ERR(sendto(s, b, 1, 0, (SA *)&x, sizeof x), EAFNOSUPPORT);
        struct sockaddr_in y = loopback(port(d));
        y.sin_family = 0;
        CHECK(sendto(s, b, 1, 0, (SA *)&y, 16) == 1);
        y.sin_family = AF_INET;
        CHECK_ERR(sendto(s, b, 1, 0, (SA *)&y, 8), EINVAL);
        CHECK_ERR(sendto(s, 0, 1, 0, (SA *)&y, 16), EFAULT);
        CHECK(sendto(s, 0, 0, 0, (SA *)&y, 16) == 0);
        y.sin_addr.s_addr = htonl(0x7fffffff);
        CHECK_ERR(sendto(s, b, 1, 0, (SA *)&y, 16), EACCES);
        y.sin_addr.s_addr = parted() ? address_of(is_far(d)).s_addr : 0;
        CHECK(sendto(s, b, 1, 0, (SA *)&y, 16) == 1);
    }
    CHECK(rm(d, MSG_DONTWAIT) == 1);
    CHECK(m.msg_namelen == 16);
    CHECK(rm(d, MSG_DONTWAIT) == 0);
    CHECK(rm(d, MSG_DONTWAIT) == 1);

    CHECK(st(s, port(d), 50, MSG_MORE) == 50);
    CHECK(st(s, port(d), 20, 0) == 20);
    CHECK(recv(d, buf, 100, MSG_DONTWAIT) == 70);
    CHECK(queued(s, TIOCOUTQ) == 0);
    CHECK_ERR(queued(s, SIOCATMARK), ENOTTY);

    CHECK(set_option(s, 17, UDP_CORK, 1) == 0);
    CHECK(st(s, port(d), 3, 0) == 3);
    CHECK_ERR(recv(d, buf, 9, MSG_DONTWAIT), EAGAIN);
    CHECK(st(s, port(s), 3, 0) == 3);
    CHECK(set_option(s, 17, UDP_CORK, 0) == 0);
    CHECK(recv(d, buf, 9, MSG_DONTWAIT) == 6);

    CHECK_ERR(shutdown(d, SHUT_RD), ENOTCONN);
    CHECK(events(d) == (POLLIN | POLLOUT | POLLRDHUP));
    CHECK_ERR(recv(d, buf, 1, MSG_DONTWAIT), EAGAIN);
    CHECK(recv(d, buf, 1, 0) == 0);
    CHECK(st(s, port(d), 3, 0) == 3);
    CHECK(recv(d, buf, 9, MSG_DONTWAIT) == 3);
    close(s);
    close(d);
}

static void connected(void)
{
    int s, d, e;
    char buf[100];

    s = ub_();
    d = ob_();
    e = ub_();
    CHECK(connect_to(s, port(d)) == 0);
    CHECK(st(e, port(s), 3, 0) == 3);
    CHECK_ERR(recv(s, buf, 9, MSG_DONTWAIT), EAGAIN);
    CHECK(st(d, port(s), 4, 0) == 4);
    CHECK(recv(s, buf, 9, MSG_DONTWAIT) == 4);
    CHECK(st(s, port(e), 5, 0) == 5);
    CHECK(recv(e, buf, 9, MSG_DONTWAIT) == 5);
    CHECK(send(s, "q", 1, 0) == 1);
    CHECK(recv(d, buf, 9, MSG_DONTWAIT) == 1);
    CHECK(connect_to(s, port(e)) == 0);
    CHECK(send(s, "q", 1, 0) == 1);
    CHECK(recv(e, buf, 9, MSG_DONTWAIT) == 1);
    {
        SA z = {0};
        CHECK(connect(s, &z, sizeof z) == 0);
        CHECK_ERR(connect(s, &z, 1), EINVAL);
        CHECK(connect(s, &z, 2) == 0);
        CHECK_ERR(send(s, "q", 1, 0), EDESTADDRREQ);
        al = sizeof a4;
        CHECK_ERR(getpeername(s, (SA *)&a4, &al), ENOTCONN);
        CHECK(port(s) > 0);
    }
    int p = port(d);
    close(d);
    CHECK(connect_to(s, p) == 0);
    CHECK(send(s, "x", 1, 0) == 1);
    wait_for(s, POLLERR);
    CHECK(events(s) == (POLLOUT | POLLERR));
    CHECK_ERR(send(s, "x", 1, 0), ECONNREFUSED);
    CHECK(send(s, "x", 1, 0) == 1);
    wait_for(s, POLLERR);
    CHECK_ERR(recv(s, buf, 1, MSG_DONTWAIT), ECONNREFUSED);
    CHECK_ERR(recv(s, buf, 1, MSG_DONTWAIT), EAGAIN);
    CHECK(send(s, "x", 1, 0) == 1);
    wait_for(s, POLLERR);
    CHECK(option(s, 1, SO_ERROR) == 111);
    CHECK(option(s, 1, SO_ERROR) == 0);
    CHECK(st(e, p, 1, 0) == 1);
    CHECK(events(e) == POLLOUT);
    CHECK(st(e, p, 1, 0) == 1);

    CHECK(shutdown(s, SHUT_WR) == 0);
    CHECK_ERR(send(s, "x", 1, 0), EPIPE);
    CHECK(events(s) == POLLOUT);
    CHECK(shutdown(s, SHUT_RD) == 0);
    CHECK(events(s) == (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
    CHECK(recv(s, buf, 1, 0) == 0);

    close(s);
    s = u();
    CHECK(connect_to(s, 0) == 0);
    CHECK(port(s) > 0);
    CHECK(send(s, "x", 1, 0) == 1);
    {
        SA z = {0};
        CHECK(connect(s, &z, sizeof z) == 0);
        CHECK((port(s) & 0xffff) == 0);
    }
    {
        struct sockaddr_in y = loopback(9);
        y.sin_addr.s_addr = htonl(0x7fffffff);
        CHECK_ERR(connect(s, (SA *)&y, 16), EACCES);
        set_option(s, 1, SO_BROADCAST, 1);
        CHECK(connect(s, (SA *)&y, 16) == 0);
        CHECK_ERR(bind(s, (SA *)&y, 16), EINVAL);
    }
    close(s);
    close(e);
}

static void errors(void)
{
    int s, d;
    char buf[100];
    d = ob_();
    int p = port(d);
    close(d);

    s = ub_();
    set_option(s, 0, IP_RECVERR, 1);
    CHECK(st(s, p, 6, 0) == 6);
    wait_for(s, POLLERR);
    CHECK(events(s) == (POLLOUT | POLLERR));
    CHECK(rm(s, MSG_ERRQUEUE) == 6);
    CHECK(m.msg_flags == 8192);
    CHECK(cm(0, IP_RECVERR) == 111);
    CHECK(ntohs(((struct sockaddr_in *)&a6)->sin_port) == (p & 0xffff));
    CHECK(m.msg_namelen == 16);
    CHECK(m.msg_controllen == 48);
    CHECK(events(s) == POLLOUT);
    CHECK_ERR(rm(s, MSG_ERRQUEUE), EAGAIN);
    CHECK(st(s, p, 6, 0) == 6);
    wait_for(s, POLLERR);
    CHECK(option(s, 1, SO_ERROR) == 111);
    CHECK(events(s) == (POLLOUT | POLLERR));
    CHECK_ERR(rm(s, MSG_DONTWAIT), EAGAIN);
    CHECK(rm(s, MSG_ERRQUEUE) == 6);
    CHECK(st(s, p, 6, 0) == 6);
    wait_for(s, POLLERR);
    CHECK_ERR(st(s, p, 6, 0), ECONNREFUSED);
    CHECK(st(s, p, 6, 0) == 6);
    CHECK(set_option(s, 0, IP_RECVERR, 0) == 0);
    CHECK_ERR(rm(s, MSG_ERRQUEUE), EAGAIN);
    close(s);
}

static void peeks(void)
{
    int s = ub_(), d = ob_();
    char buf[20];
    CHECK(option(d, 1, SO_PEEK_OFF) == -1);
    CHECK(set_option(d, 1, SO_PEEK_OFF, 0) == 0);
    st(s, port(d), 4, 0);
    st(s, port(d), 4, 0);
    CHECK(recv(d, buf, 3, MSG_PEEK) == 3);
    CHECK(recv(d, buf, 3, MSG_PEEK) == 1);
    CHECK(option(d, 1, SO_PEEK_OFF) == 4);
    CHECK(recv(d, buf, 9, MSG_PEEK) == 4);
    CHECK_ERR(recv(d, buf, 9, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
    CHECK(recv(d, buf, 9, 0) == 4);
    CHECK(option(d, 1, SO_PEEK_OFF) == 4);
    CHECK(set_option(d, 1, SO_PEEK_OFF, -1) == 0);
    CHECK(recv(d, buf, 9, MSG_PEEK) == 4);
    CHECK(recv(d, buf, 9, 0) == 4);
    CHECK(set_option(d, 1, SO_RCVBUF, 1) == 0);
    int n = 0;
    for (int i = 0; i < 20; i++)
        st(s, port(d), 100, 0);
    while (recv(d, b, 200, MSG_DONTWAIT) > 0)
        n++;
    CHECK(n == 2);
    close(s);
    close(d);
}

/* An attempt to send gives a port, whatever comes of it; who is connected hears only of its peer. */
static void attempts(void)
{
    int s = u(), r = ob_(), gone = ob_(), p = port(gone);
    close(gone);
    CHECK_ERR(st(s, 0, 1, 0), EINVAL);
    CHECK(port(s) > 0);
    CHECK(connect_to(s, port(r)) == 0);
    CHECK(st(s, p, 1, 0) == 1); /* nobody is there */
    CHECK(option(s, SOL_SOCKET, SO_ERROR) == 0);
    CHECK(send(s, b, 1, 0) == 1);
    close(s), close(r);
}

int main(void)
{
    attempts();
    basics();
    connected();
    errors();
    peeks();
    return 0;
}
