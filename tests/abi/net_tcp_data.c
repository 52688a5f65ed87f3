/* TCP: flags, held back bytes, urgent data, time-outs, backlog, inherited options, addresses. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

static char b[200000];

static void message_flags(void)
{
    int c, s, l;
    char buf[100];

    make_pair(&c, &s);
    CHECK(send(c, "hello", 5, 0) == 5);
    wait_for(s, POLLIN);
    CHECK(recv(s, buf, 3, MSG_PEEK) == 3);
    CHECK(recv(s, buf, 3, MSG_TRUNC) == 3);
    CHECK(recv(s, 0, 100, MSG_TRUNC | MSG_PEEK) == 2);
    CHECK(recv(s, buf, 3, 0) == 2);
    CHECK_ERR(recv(s, buf, 3, MSG_DONTWAIT), EAGAIN);
    CHECK_ERR(recv(s, buf, 3, MSG_ERRQUEUE), EAGAIN);
    CHECK_ERR(recv(s, buf, 1, MSG_OOB), EINVAL);
    CHECK_ERR(recv(s, buf, 0, MSG_DONTWAIT), EAGAIN);
    CHECK_ERR(recv(s, (void *)8, 5, MSG_DONTWAIT), EAGAIN);
    CHECK_ERR(recvfrom(s, buf, 0, MSG_DONTWAIT, (void *)8, (void *)8), EAGAIN);
    CHECK(read(s, buf, 0) == 0);

    CHECK(send(c, "x", 1, MSG_MORE) == 1);
    CHECK_ERR(recv(s, buf, 1, MSG_DONTWAIT), EAGAIN);
    CHECK(send(c, "y", 1, 0) == 1);
    wait_for(s, POLLIN);
    usleep(1000);
    CHECK(recv(s, buf, 4, 0) == 2);
    CHECK(queued(s, FIONREAD) == 0);
    CHECK(set_option(c, 6, TCP_CORK, 1) == 0);
    CHECK(send(c, "abcd", 4, 0) == 4);
    CHECK_ERR(recv(s, buf, 9, MSG_DONTWAIT), EAGAIN);
    CHECK(queued(c, TIOCOUTQ) == 4);
    CHECK(set_option(c, 6, TCP_CORK, 0) == 0);
    wait_for(s, POLLIN);
    CHECK(recv(s, buf, 9, MSG_DONTWAIT) == 4);
    CHECK(send(c, "", 0, 0) == 0);
    CHECK_ERR(send(c, 0, 5, 0), EFAULT);
    CHECK(sendto(c, "q", 1, 0, (SA *)&a4, sizeof a4) == 1);
    CHECK(sendto(c, "q", 1, 0, (SA *)&a4, 1) == 1);
    CHECK(recv(s, buf, 2, MSG_WAITALL) == 2); /* two segments */
    CHECK(send(c, "z", 1, MSG_DONTROUTE | MSG_CONFIRM | MSG_EOR) == 1);
    wait_for(s, POLLIN);
    {
        struct msghdr m = {0};
        struct iovec v = {buf, 1};
        m.msg_iov = &v;
        m.msg_iovlen = 1;
        m.msg_name = &a4;
        m.msg_namelen = sizeof a4;
        CHECK(recvmsg(s, &m, 0) == 1);
        CHECK(m.msg_namelen == 0);
        CHECK(m.msg_flags == 0);
        al = 33;
        CHECK_ERR(recvfrom(s, buf, 1, MSG_DONTWAIT, (SA *)&a4, &al), EAGAIN);
        send(c, "z", 1, 0);
        wait_for(s, POLLIN);
        CHECK(recvfrom(s, buf, 1, MSG_DONTWAIT, (SA *)&a4, &al) == 1);
        CHECK(al == 0);
    }
}

static void urgent(void)
{
    int c, s, l;
    char buf[100];
    make_pair(&c, &s);

    CHECK(send(c, "abc", 3, MSG_OOB) == 3);
    wait_for(s, POLLPRI);
    CHECK(events(s) == (POLLIN | POLLPRI | POLLOUT));
    CHECK(queued(s, FIONREAD) == 2);
    CHECK(queued(s, SIOCATMARK) == 0);
    CHECK(recv(s, buf, 10, 0) == 2);
    CHECK(queued(s, SIOCATMARK) == 1);
    CHECK(events(s) == (POLLPRI | POLLOUT));
    CHECK(recv(s, buf, 10, MSG_OOB) == 1);
    CHECK(buf[0] == 99);
    CHECK(events(s) == POLLOUT);
    CHECK_ERR(recv(s, buf, 10, MSG_OOB), EINVAL);
    CHECK_ERR(recv(s, buf, 10, MSG_DONTWAIT), EAGAIN);
    CHECK(queued(s, SIOCATMARK) == 0);
    send(c, "d", 1, 0);
    wait_for(s, POLLIN);
    CHECK(queued(s, SIOCATMARK) == 0);
    CHECK_ERR(recv(s, buf, 10, MSG_OOB), EINVAL);
    CHECK(recv(s, buf, 10, 0) == 1);
    CHECK(buf[0] == 100);

    CHECK(set_option(s, SOL_SOCKET, SO_OOBINLINE, 1) == 0);
    CHECK(send(c, "xyz", 3, MSG_OOB) == 3);
    wait_for(s, POLLPRI);
    CHECK_ERR(recv(s, buf, 1, MSG_OOB), EINVAL);
    CHECK(recv(s, buf, 10, 0) == 2);
    CHECK(queued(s, SIOCATMARK) == 1);
    CHECK(events(s) == (POLLIN | POLLPRI | POLLOUT));
    CHECK(recv(s, buf, 10, 0) == 1);
    CHECK(buf[0] == 122);
    CHECK(events(s) == POLLOUT);
    close(c);
    close(s);
}

static void timeouts_and_full_buffers(void)
{
    int c, s, l;
    char buf[100];

    make_pair(&c, &s);
    set_timeout(s, SO_RCVTIMEO, 20);
    CHECK_ERR(recv(s, buf, 1, 0), EAGAIN);
    CHECK_ERR(recv(s, buf, 1, MSG_WAITALL), EAGAIN);
    set_timeout(s, SO_RCVTIMEO, 0);
    CHECK(set_option(s, SOL_SOCKET, SO_RCVLOWAT, 3) == 0);
    send(c, "ab", 2, 0);
    usleep(1000);
    CHECK(events(s) == POLLOUT);
    CHECK(queued(s, FIONREAD) == 2);
    CHECK(recv(s, buf, 1, MSG_DONTWAIT) == 1);
    send(c, "cd", 2, 0);
    usleep(1000);
    CHECK(events(s) == (POLLIN | POLLOUT));
    CHECK(recv(s, buf, 10, 0) == 3);
    /* no more can come before something is read, however much is wanted */
    {
        int near, far;
        make_pair(&near, &far);
        CHECK(set_option(far, SOL_SOCKET, SO_RCVLOWAT, 1 << 20) == 0);
        fcntl(near, F_SETFL, O_NONBLOCK);
        for (int i = 0; i < 1000 && !(events(far) & POLLIN); i++) {
            while (send(near, b, sizeof b, 0) > 0)
                ;
            usleep(1000);
        }
        CHECK(events(far) & POLLIN);
        close(near);
        close(far);
    }

    fcntl(c, F_SETFL, O_NONBLOCK);
    long n, t = 0;
    do
        while ((n = send(c, b, sizeof b, 0)) > 0)
            t += n;
    while (parted() && has_within(c, POLLOUT, 300)); /* the other end's buffer grows */
    while (send(c, b, 1, 0) > 0) /* there was some room, if too little for poll */
        ;
    CHECK(n == -1);
    CHECK(t > 100000 && t < 20000000);
    CHECK((events(c) & POLLOUT) == 0);
    set_timeout(c, SO_SNDTIMEO, 20);
    fcntl(c, F_SETFL, 0);
    CHECK_ERR(send(c, b, 1, 0) < 1 ? -1 : 1, EAGAIN);
    while (recv(s, b, sizeof b, MSG_DONTWAIT) > 0)
        ;
    usleep(2000);
    while (recv(s, b, sizeof b, MSG_DONTWAIT) > 0)
        ;
    wait_for(c, POLLOUT);
    CHECK(events(c) == POLLOUT);
    close(c);
    close(s);
}

static void backlog(void)
{
    int c, s, l;
    char buf[100];

    l = listener(0);
    int f[4];
    for (int i = 0; i < 3; i++) {
        f[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect_to(f[i], port(l));
    }
    usleep(2000);
    CHECK(events(f[0]) == POLLOUT);
    CHECK(events(f[1]) == 0);
    CHECK(events(f[2]) == 0);
    set_timeout(f[2], SO_SNDTIMEO, 10);
    fcntl(f[2], F_SETFL, 0);
    CHECK_ERR(connect_to(f[2], port(l)), EALREADY);
    CHECK(shutdown(f[2], SHUT_WR) == 0);
    CHECK_ERR(recv(f[2], buf, 1, MSG_DONTWAIT), ECONNRESET);
    CHECK(events(f[2]) == (POLLOUT | POLLHUP));
    CHECK(option(f[2], SOL_SOCKET, SO_ERROR) == 0);
    close(l);
}

static void inherited(void)
{
    int c, s, l;
    char buf[100];

    l = listener(2);
    set_option(l, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(l, 6, TCP_NODELAY, 1);
    set_option(l, 6, TCP_KEEPIDLE, 99);
    set_option(l, 0, IP_TOS, 8);
    set_option(l, 0, IP_TTL, 9);
    set_option(l, SOL_SOCKET, SO_PRIORITY, 3);
    set_timeout(l, SO_RCVTIMEO, 500);
    set_option(l, SOL_SOCKET, SO_RCVLOWAT, 5);
    set_option(l, SOL_SOCKET, SO_REUSEADDR, 1);
    c = socket(AF_INET, SOCK_STREAM, 0);
    connect_to(c, port(l));
    s = accept(l, 0, 0);
    CHECK(option(s, SOL_SOCKET, SO_KEEPALIVE) == 1);
    CHECK(option(s, 6, TCP_NODELAY) == 1);
    CHECK(option(s, 6, TCP_KEEPIDLE) == 99);
    CHECK(option(s, 0, IP_TOS) == 8);
    CHECK(option(s, 0, IP_TTL) == 9);
    CHECK(option(s, SOL_SOCKET, SO_PRIORITY) == 0);
    CHECK(option(s, SOL_SOCKET, SO_RCVLOWAT) == 5);
    CHECK(option(s, SOL_SOCKET, SO_REUSEADDR) == 1);
    {
        struct timeval tv = {0};
        socklen_t z = 16;
        getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, &z);
        CHECK(tv.tv_usec == 500000);
    }
    close(s);
    close(c);
    close(l);
}

static void addresses(void)
{
    int c;

    {
        struct sockaddr_in6 a6 = {AF_INET6};
        char raw[32] = {0};
        struct sockaddr_in bad = loopback(1);
        c = socket(AF_INET, SOCK_STREAM, 0);
        CHECK_ERR(connect(c, (SA *)&a6, sizeof a6), EAFNOSUPPORT);
        CHECK_ERR(bind(c, (SA *)&a6, sizeof a6), EAFNOSUPPORT);
        CHECK_ERR(connect(c, (SA *)&bad, 8), EINVAL);
        CHECK_ERR(bind(c, (SA *)&bad, 8), EINVAL);
        CHECK_ERR(bind(c, (SA *)&bad, 2), EINVAL);
        CHECK_ERR(connect(c, (SA *)&bad, 1), EINVAL);
        bad.sin_family = AF_UNIX;
        CHECK_ERR(bind(c, (SA *)&bad, 16), EAFNOSUPPORT);
        CHECK_ERR(connect(c, (SA *)&bad, 16), EAFNOSUPPORT);
        bad = loopback(0);
        CHECK_ERR(connect(c, (SA *)&bad, 16), ECONNREFUSED);
        bad.sin_addr.s_addr = htonl(0xe0000001);
        CHECK(bind(c, (SA *)&bad, 16) == 0);
        CHECK_ERR(connect(c, (SA *)&bad, 16), ENETUNREACH);
        c = socket(AF_INET, SOCK_STREAM, 0);
        bad.sin_addr.s_addr = -1;
        CHECK(bind(c, (SA *)&bad, 16) == 0);
        CHECK_ERR(connect(c, (SA *)&bad, 16), ENETUNREACH);
        c = socket(AF_INET, SOCK_STREAM, 0);
        bad.sin_addr.s_addr = htonl(0x7fffffff);
        bad.sin_port = htons(80);
        CHECK_ERR(connect(c, (SA *)&bad, 16), ENETUNREACH);
        bad.sin_addr.s_addr = 0;
        bad.sin_port = 0;
        bad.sin_family = 0;
        CHECK(bind(c, (SA *)&bad, 16) == 0);
        CHECK(port(c) > 0);
    }
}

static void fast_open(void)
{
    char c[9];
    int l = listener(3), s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = loopback(port(l));
    CHECK_ERR(sendto(s, "abc", 3, MSG_NOSIGNAL, (SA *)&a, sizeof a), EPIPE);
    CHECK_ERR(send(s, "abc", 3, MSG_FASTOPEN), EINVAL);
    CHECK(sendto(s, "abc", 3, MSG_FASTOPEN, (SA *)&a, sizeof a) == 3);
    int r = accept(l, NULL, NULL);
    wait_for(r, POLLIN);
    CHECK(recv(r, c, 9, 0) == 3);
    CHECK_ERR(sendto(s, "abc", 3, MSG_FASTOPEN, (SA *)&a, sizeof a), EISCONN);
    close(s), close(r), close(l);
    s = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERR(sendto(s, "abc", 3, MSG_FASTOPEN, (SA *)&a, sizeof a), ECONNREFUSED);
    CHECK_ERR(sendto(s, "abc", 3, MSG_FASTOPEN, (SA *)&a, 2), EINVAL);
    close(s);
}

int main(void)
{
    fast_open();
    signal(SIGPIPE, SIG_IGN);

    message_flags();

    urgent();

    timeouts_and_full_buffers();

    backlog();

    inherited();

    addresses();

    return 0;
}
