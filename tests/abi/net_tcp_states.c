/* TCP: states from socket to close, refusals, half close, resets. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

static char b[200000];

static void unconnected(void)
{
    int c, s, l;
    char buf[100];

    c = socket(AF_INET, SOCK_STREAM, 0);

    CHECK(events(c) == (POLLOUT | POLLHUP));
    CHECK_ERR(send(c, "x", 1, 0), EPIPE);
    CHECK_ERR(send(c, "", 0, 0), EPIPE);
    CHECK_ERR(recv(c, buf, 1, 0), ENOTCONN);
    CHECK_ERR(recv(c, buf, 0, 0), ENOTCONN);
    CHECK_ERR(shutdown(c, 2), ENOTCONN);
    CHECK_ERR(shutdown(c, 7), EINVAL);
    CHECK(listen(c, -1) == 0);
    CHECK(events(c) == 0);
    CHECK(port(c) > 0);

    CHECK_ERR(accept4(c, 0, 0, 0x40), EINVAL);
    CHECK_ERR(recv(c, buf, 1, 0), ENOTCONN);
    CHECK_ERR(send(c, buf, 1, 0), EPIPE);
    CHECK_ERR(queued(c, FIONREAD), EINVAL);
    CHECK_ERR(queued(c, TIOCOUTQ), EINVAL);
    CHECK(queued(c, SIOCATMARK) == 0);
    CHECK_ERR(connect_to(c, port(c)), EISCONN);
    CHECK(option(c, SOL_SOCKET, SO_ACCEPTCONN) == 1);

    CHECK(shutdown(c, SHUT_WR) == 0);
    CHECK(events(c) == 0);
    CHECK(shutdown(c, SHUT_RD) == 0);
    CHECK(events(c) == (POLLOUT | POLLHUP));
    CHECK(option(c, SOL_SOCKET, SO_ACCEPTCONN) == 0);
    CHECK_ERR(shutdown(c, SHUT_RD), ENOTCONN);
    CHECK(listen(c, 1) == 0);
    close(c);
}

static void refused(void)
{
    int c, s, l, p;
    char buf[100];

    c = socket(AF_INET, SOCK_STREAM, 0);
    l = listener(1);
    p = port(l);
    close(l);

    CHECK_ERR(connect_to(c, p), ECONNREFUSED);
    CHECK(events(c) == (POLLOUT | POLLHUP));
    CHECK(option(c, SOL_SOCKET, SO_ERROR) == 0);
    CHECK(port(c) > 0);
    CHECK_ERR(connect_to(c, p), ECONNREFUSED);
    CHECK_ERR(recv(c, buf, 1, 0), ENOTCONN);
    CHECK_ERR(send(c, buf, 1, 0), EPIPE);
    CHECK(events(c) == (POLLOUT | POLLHUP));
    close(c);

    c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERR(connect_to(c, p), EINPROGRESS);
    wait_for(c, POLLOUT);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    CHECK(option(c, SOL_SOCKET, SO_ERROR) == 111);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
    CHECK_ERR(connect_to(c, p), ECONNABORTED);
    wait_for(c, POLLOUT);
    CHECK_ERR(connect_to(c, p), EINPROGRESS);
    wait_for(c, POLLERR);
    CHECK_ERR(connect_to(c, p), ECONNREFUSED);
    wait_for(c, POLLOUT);
    CHECK_ERR(recv(c, buf, 1, 0), ENOTCONN);
    CHECK_ERR(recv(c, buf, 1, 0), ENOTCONN);
    CHECK_ERR(send(c, buf, 1, 0), EPIPE);
    CHECK_ERR(connect_to(c, p), EINPROGRESS);
    close(c);
}

static void non_blocking(void)
{
    int c, s, l;
    char buf[100];

    l = listener(5);
    c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERR(connect_to(c, port(l)), EINPROGRESS);
    wait_for(c, POLLOUT);
    CHECK(events(c) == POLLOUT);
    CHECK(option(c, SOL_SOCKET, SO_ERROR) == 0);
    CHECK(connect_to(c, port(l)) == 0);
    CHECK_ERR(connect_to(c, port(l)), EISCONN);
    CHECK(events(l) == POLLIN);
    s = accept(l, 0, 0);
    CHECK(events(s) == POLLOUT);
    CHECK(events(l) == 0);
    CHECK(option(c, IPPROTO_TCP, TCP_MAXSEG) == (parted() ? 1448 : 32741));
    CHECK(option(s, SOL_SOCKET, SO_RCVBUF) == 131072);
    CHECK(option(c, SOL_SOCKET, SO_RCVBUF) == 131072);
    CHECK(option(l, SOL_SOCKET, SO_RCVBUF) == 131072);
    CHECK(option(l, SOL_SOCKET, SO_SNDBUF) == 16384);

    CHECK((fcntl(s, F_GETFL) & O_NONBLOCK) == 0);
    CHECK_ERR(listen(s, 1), EINVAL);
    CHECK_ERR(bind_to(s, 0), EINVAL);
    CHECK_ERR(accept(s, 0, 0), EINVAL);
}

static void half_close(void)
{
    int c, s, l;
    char buf[100];
    make_pair(&c, &s);

    CHECK(shutdown(c, SHUT_WR) == 0);
    CHECK(events(c) == POLLOUT);
    wait_for(s, POLLRDHUP);
    CHECK(events(s) == (POLLIN | POLLOUT | POLLRDHUP));
    CHECK_ERR(send(c, "x", 1, 0), EPIPE);
    CHECK(recv(s, buf, 10, 0) == 0);
    CHECK(recv(s, buf, 10, MSG_DONTWAIT) == 0);
    CHECK(send(s, "abc", 3, 0) == 3);
    wait_for(c, POLLIN);
    CHECK(events(c) == (POLLIN | POLLOUT));
    CHECK(recv(c, buf, 10, 0) == 3);
    CHECK_ERR(recv(c, buf, 10, MSG_DONTWAIT), EAGAIN);
    CHECK(shutdown(s, SHUT_WR) == 0);
    wait_for(c, POLLHUP);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
    CHECK(events(s) == (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
    CHECK(recv(c, buf, 10, 0) == 0);
    CHECK_ERR(shutdown(c, SHUT_RD), ENOTCONN);
    CHECK_ERR(shutdown(s, SHUT_RD), ENOTCONN);
    CHECK_ERR(send(s, "x", 1, 0), EPIPE);
    CHECK(option(c, SOL_SOCKET, SO_ERROR) == 0);
    {
        socklen_t z = sizeof a4;
        CHECK_ERR(getpeername(c, (SA *)&a4, &z), ENOTCONN);
        z = sizeof a4;
        CHECK_ERR(getpeername(s, (SA *)&a4, &z), ENOTCONN);
    }
    close(c);
    close(s);
}

static void shut_for_reading(void)
{
    int c, s, l;
    char buf[100];

    make_pair(&c, &s);
    CHECK(shutdown(c, SHUT_RD) == 0);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLRDHUP));
    CHECK(recv(c, buf, 1, 0) == 0);
    CHECK(recv(c, buf, 1, MSG_DONTWAIT) == 0);
    CHECK(send(s, "abc", 3, 0) == 3);
    wait_for(c, POLLIN);
    CHECK(recv(c, buf, 2, 0) == 2);
    CHECK(recv(c, buf, 10, 0) == 1);
    CHECK(events(s) == POLLOUT);
    CHECK(send(s, "abc", 3, 0) == 3);
    close(c);
    close(s);
}

static void closed_with_unread(void)
{
    int c, s, l;
    char buf[100];

    make_pair(&c, &s);
    CHECK(send(c, "abc", 3, 0) == 3);
    wait_for(s, POLLIN);
    close(s);
    wait_for(c, POLLIN);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    CHECK_ERR(send(c, "x", 1, 0), ECONNRESET);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
    CHECK_ERR(send(c, "x", 1, 0), EPIPE);
    CHECK(recv(c, buf, 1, 0) == 0);
    close(c);

    make_pair(&c, &s);
    CHECK(send(c, "abc", 3, 0) == 3);
    CHECK(send(s, "def", 3, 0) == 3);
    wait_for(s, POLLIN);
    wait_for(c, POLLIN);
    close(s);
    wait_for(c, POLLERR);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    CHECK(recv(c, buf, 10, 0) == 3);
    CHECK_ERR(recv(c, buf, 10, 0), ECONNRESET);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
    close(c);
}

static void linger_0(void)
{
    int c, s, l;
    char buf[100];

    make_pair(&c, &s);
    {
        struct linger li = {1, 0};
        CHECK(setsockopt(s, SOL_SOCKET, SO_LINGER, &li, sizeof li) == 0);
    }
    close(s);
    wait_for(c, POLLIN);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    CHECK_ERR(recv(c, buf, 1, 0), ECONNRESET);
    CHECK(recv(c, buf, 1, 0) == 0);
    CHECK_ERR(send(c, buf, 1, 0), EPIPE);
    {
        socklen_t z = sizeof a4;
        CHECK_ERR(getpeername(c, (SA *)&a4, &z), ENOTCONN);
        CHECK(port(c) > 0);
    }
    close(c);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);

    unconnected();

    refused();

    non_blocking();

    half_close();

    shut_for_reading();

    closed_with_unread();

    linger_0();

    return 0;
}
