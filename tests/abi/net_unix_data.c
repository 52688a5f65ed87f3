/* AF_UNIX: what pairs of every type send, receive, peek at, shut and lose. */
#define _GNU_SOURCE
#include "abi.h"
#include "net_unix.h"

static char b[400000];

/* SO_TIMESTAMP of datagrams, also of those that were sent before it was asked for. */
static void stamps(void)
{
    int pair[2];
    char text[9], control[64];
    struct iovec v = {text, sizeof text};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control};
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    CHECK(write(pair[0], "early", 5) == 5);
    CHECK(set_option(pair[1], SOL_SOCKET, SO_TIMESTAMP, 1) == 0);
    CHECK(write(pair[0], "late", 4) == 4);
    for (int size = 5; size > 3; size--) {
        m.msg_controllen = sizeof control;
        CHECK(recvmsg(pair[1], &m, 0) == size && m.msg_controllen == 32);
        struct cmsghdr *c = (void *)control;
        CHECK(c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMP);
        CHECK(((struct timeval *)CMSG_DATA(c))->tv_sec > 1600000000);
    }
    struct timeval last;
    CHECK_ERR(ioctl(pair[1], SIOCGSTAMP, &last), ENOTTY);
    close(pair[0]), close(pair[1]);
}

int main(void)
{
    stamps();
    signal(SIGPIPE, SIG_IGN);
    int f[2];
    char buf[100];

    for (int kind = 1; kind <= 5; kind++) {
        if (kind == 3 || kind == 4)
            continue;

        CHECK(socketpair(AF_UNIX, kind, 0, f) == 0);
        CHECK(events(f[0]) == POLLOUT);
        CHECK(own_name(f[0]) == 0);
        CHECK((int)name_size == 2);
        CHECK(peer_name(f[0]) == 0);
        CHECK((int)name_size == 2);
        CHECK(send(f[0], "hello", 5, 0) == 5);
        CHECK(send(f[0], "", 0, 0) == 0);
        CHECK(send(f[0], "world", 5, 0) == 5);
        CHECK(events(f[1]) == (POLLIN | POLLOUT));
        EACH(queued(f[1], FIONREAD), 10, 5, 10);
        CHECK(queued(f[0], TIOCOUTQ) > 0);
        CHECK(recv(f[1], buf, 3, MSG_PEEK) == 3);
        EACH(recv(f[1], buf, 3, MSG_TRUNC | MSG_PEEK), 3, 5, 5);
        CHECK(recv(f[1], buf, 0, MSG_DONTWAIT | MSG_PEEK) == 0);
        CHECK_ERR(recv(f[1], 0, 10, MSG_DONTWAIT), EFAULT);
        EACH(recv(f[1], buf, 3, 0), 3, 0, 0);
        CHECK(recv(f[1], buf, 0, MSG_DONTWAIT) == 0);
        EACH(recv(f[1], buf, 20, MSG_DONTWAIT), 7, -EAGAIN, -EAGAIN);
        CHECK_ERR(recv(f[1], buf, 20, MSG_DONTWAIT), EAGAIN);
        CHECK_ERR(recv(f[1], buf, 20, MSG_DONTWAIT), EAGAIN);
        EACH(recv(f[1], buf, 1, MSG_OOB), -EINVAL, -EOPNOTSUPP, -EOPNOTSUPP);
        CHECK_ERR(recv(f[1], buf, 1, MSG_ERRQUEUE | MSG_DONTWAIT), EAGAIN);
        EACH(send(f[0], "abc", 3, MSG_OOB), 3, -EOPNOTSUPP, -EOPNOTSUPP);
        EACH(events(f[1]), (POLLIN | POLLPRI | POLLOUT), POLLOUT, POLLOUT);
        EACH(queued(f[1], SIOCATMARK), 0, -EOPNOTSUPP, -EOPNOTSUPP);
        EACH(recv(f[1], buf, 10, MSG_DONTWAIT), 2, -EAGAIN, -EAGAIN);
        EACH(queued(f[1], SIOCATMARK), 1, -EOPNOTSUPP, -EOPNOTSUPP);
        EACH(recv(f[1], buf, 10, MSG_OOB), 1, -EOPNOTSUPP, -EOPNOTSUPP);
        CHECK_ERR(recv(f[1], buf, 10, MSG_DONTWAIT), EAGAIN);

        {
            struct msghdr m = {0};
            struct iovec v = {buf, 2};
            m.msg_iov = &v;
            m.msg_iovlen = 1;
            m.msg_name = &name;
            m.msg_namelen = sizeof name;
            send(f[0], "abc", 3, MSG_EOR);
            CHECK(recvmsg(f[1], &m, 0) == 2);
            EACH(m.msg_flags, 0, 32, 32);
            CHECK(m.msg_namelen == 0);
            m.msg_namelen = -1;
            CHECK_ERR(recvmsg(f[1], &m, MSG_DONTWAIT), EINVAL);
            m.msg_namelen = 0;
            m.msg_iovlen = 1025;
            CHECK_ERR(recvmsg(f[1], &m, MSG_DONTWAIT), EMSGSIZE);
            m.msg_iovlen = 1;
            m.msg_iov = 0;
            CHECK_ERR(recvmsg(f[1], &m, MSG_DONTWAIT), EFAULT);
            CHECK_ERR(recvmsg(f[1], (void *)8, MSG_DONTWAIT), EFAULT);
            CHECK_ERR(sendmsg(f[1], (void *)8, MSG_DONTWAIT), EFAULT);
            while (recv(f[1], b, 100, MSG_DONTWAIT) > 0)
                ;
        }
        EACH(send_to_path(f[0], "nope"), -EISCONN, -ENOENT, 1);
        CHECK(shutdown(f[0], SHUT_WR) == 0);
        CHECK(events(f[0]) == POLLOUT);
        EACH(events(f[1]), (POLLIN | POLLOUT | POLLRDHUP), POLLOUT, (POLLIN | POLLOUT | POLLRDHUP));
        EACH(recv(f[1], buf, 1, MSG_DONTWAIT), 0, -EAGAIN, 1);
        CHECK_ERR(send(f[0], "x", 1, 0), EPIPE);
        CHECK(send(f[1], "y", 1, 0) == 1);
        CHECK(shutdown(f[1], SHUT_RD) == 0);
        CHECK_ERR(send(f[0], "x", 1, 0), EPIPE);
        CHECK(recv(f[0], buf, 2, 0) == 1);
        CHECK(shutdown(f[0], SHUT_RD) == 0);
        CHECK_ERR(send(f[1], "y", 1, 0), EPIPE);
        CHECK(events(f[0]) == (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
        EACH(events(f[1]), (POLLIN | POLLOUT | POLLHUP | POLLRDHUP), (POLLIN | POLLOUT | POLLRDHUP),
             (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
        close(f[0]);
        EACH(events(f[1]), (POLLIN | POLLOUT | POLLHUP | POLLRDHUP), (POLLIN | POLLOUT | POLLRDHUP),
             (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
        EACH(send(f[1], "y", 1, 0), -EPIPE, -ECONNREFUSED, -EPIPE);
        EACH(send(f[1], "y", 1, 0), -EPIPE, -ENOTCONN, -EPIPE);
        EACH(recv(f[1], buf, 1, MSG_DONTWAIT), 0, -EAGAIN, 0);
        EACH(peer_name(f[1]), 0, -ENOTCONN, 0);
        close(f[1]);

        socketpair(AF_UNIX, kind, 0, f);
        send(f[1], "unread", 6, 0);
        close(f[0]);
        EACH(events(f[1]), (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP), POLLOUT,
             (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
        EACH(recv(f[1], buf, 1, MSG_DONTWAIT), -ECONNRESET, -EAGAIN, -ECONNRESET);
        EACH(recv(f[1], buf, 1, MSG_DONTWAIT), 0, -EAGAIN, 0);
        EACH(send(f[1], "x", 1, 0), -EPIPE, -ECONNREFUSED, -EPIPE);
        close(f[1]);

        socketpair(AF_UNIX, kind, 0, f);
        send(f[0], "data", 4, 0);
        close(f[0]);
        EACH(events(f[1]), (POLLIN | POLLOUT | POLLHUP | POLLRDHUP), (POLLIN | POLLOUT),
             (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
        CHECK(recv(f[1], buf, 10, 0) == 4);
        EACH(recv(f[1], buf, 10, MSG_DONTWAIT), 0, -EAGAIN, 0);
        close(f[1]);

        socketpair(AF_UNIX, kind, 0, f);
        set_option(f[0], 1, SO_SNDBUF, 0);
        CHECK(option(f[0], 1, SO_SNDBUF) == 4608);
        EACH(send(f[0], b, 4600, MSG_DONTWAIT), 4480, -EMSGSIZE, -EMSGSIZE);
        EACH(send(f[0], b, 4570, MSG_DONTWAIT) > 0, 0, 1, 1);
        CHECK_ERR(send(f[0], b, 4570, MSG_DONTWAIT) > 0 ? 1 : -1, EAGAIN);
        CHECK(events(f[0]) == 0);
        set_timeout(f[0], SO_SNDTIMEO, 10);
        CHECK_ERR(send(f[0], b, 4570, 0) < 0 ? -1 : 1, EAGAIN);
        close(f[0]);
        close(f[1]);

        socketpair(AF_UNIX, kind, 0, f);
        CHECK(send(f[0], b, 212960, MSG_DONTWAIT) == 212960);
        EACH(send(f[0], b, 212961, MSG_DONTWAIT) < 0 ? -1 : 1, -EAGAIN, -EMSGSIZE, -EMSGSIZE);
        EACH(send(f[0], b, 300000, MSG_DONTWAIT) < 0 ? -1 : 1, -EAGAIN, -EMSGSIZE, -EMSGSIZE);
        int n = 0;
        while (send(f[0], b, 1, MSG_DONTWAIT) == 1)
            n++;
        close(f[0]);
        close(f[1]);
        socketpair(AF_UNIX, kind, 0, f);
        n = 0;
        while (send(f[0], b, 1, MSG_DONTWAIT) == 1)
            n++;
        CHECK(n == 278);
        CHECK(events(f[0]) == 0);
        recv(f[1], b, 1, 0);
        CHECK(events(f[0]) == 0);
        CHECK(send(f[0], b, 1, MSG_DONTWAIT) == 1);
        close(f[0]);
        close(f[1]);

        socketpair(AF_UNIX, kind, 0, f);
        CHECK(set_option(f[1], 1, SO_PEEK_OFF, 0) == 0);
        send(f[0], "abcd", 4, 0);
        send(f[0], "efgh", 4, 0);
        CHECK(recv(f[1], buf, 3, MSG_PEEK) == 3);
        CHECK(option(f[1], 1, SO_PEEK_OFF) == 3);
        EACH(recv(f[1], buf, 3, MSG_PEEK), 3, 1, 1);
        CHECK(buf[0] == 100);
        EACH(option(f[1], 1, SO_PEEK_OFF), 6, 4, 4);
        EACH(recv(f[1], buf, 10, MSG_PEEK), 2, 4, 4);
        EACH(buf[0], 103, 101, 101);
        CHECK(option(f[1], 1, SO_PEEK_OFF) == 8);
        CHECK_ERR(recv(f[1], buf, 10, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
        CHECK(recv(f[1], buf, 3, 0) == 3);
        EACH(option(f[1], 1, SO_PEEK_OFF), 5, 4, 4);
        CHECK(set_option(f[1], 1, SO_PEEK_OFF, -1) == 0);
        CHECK(set_option(f[1], 1, SO_PEEK_OFF, -2) == 0);
        close(f[0]);
        close(f[1]);

        set_timeout((socketpair(AF_UNIX, kind, 0, f), f[0]), SO_RCVTIMEO, 10);
        CHECK_ERR(recv(f[0], buf, 1, 0), EAGAIN);
        CHECK(option(f[0], 1, SO_RCVLOWAT) == 1);
        CHECK(set_option(f[0], 1, SO_RCVLOWAT, 3) == 0);
        send(f[1], "ab", 2, 0);
        CHECK(events(f[0]) == (POLLIN | POLLOUT));
        CHECK(recv(f[0], buf, 10, 0) == 2);
        {
            struct ucred u;
            socklen_t z = sizeof u;
            CHECK(getsockopt(f[0], 1, SO_PEERCRED, &u, &z) == 0);
            CHECK(u.pid == getpid());
            z = 4;
            CHECK(getsockopt(f[0], 1, SO_PEERCRED, &u, &z) == 0);
            CHECK(z == 4);
        }
        close(f[0]);
        close(f[1]);
    }
    return 0;
}
