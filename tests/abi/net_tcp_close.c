/* TCP: the other end closes, disconnects, stops listening. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

static char b[200000];

static void written_after_close(void)
{
    int c, s, l;
    char buf[100];

    make_pair(&c, &s);
    close(s);
    wait_for(c, POLLIN);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLRDHUP));
    CHECK(send(c, "x", 1, 0) == 1);
    wait_for(c, POLLERR);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    CHECK_ERR(send(c, "x", 1, 0), EPIPE);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
    CHECK(recv(c, buf, 1, 0) == 0);
    CHECK(option(c, SOL_SOCKET, SO_ERROR) == 0);
    CHECK_ERR(shutdown(c, SHUT_WR), ENOTCONN);
    close(c);
}

static void disconnected(void)
{
    int c, s, l;
    char buf[100];

    make_pair(&c, &s);
    {
        SA u = {0};
        CHECK(connect(c, &u, sizeof u) == 0);
    }
    CHECK(events(c) == (POLLOUT | POLLERR | POLLHUP));
    CHECK(port(c) > 0);
    wait_for(s, POLLIN);
    CHECK(events(s) == (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    CHECK_ERR(recv(s, buf, 1, 0), ECONNRESET);
    CHECK_ERR(recv(c, buf, 1, 0), ECONNRESET);
    l = listener(1);
    CHECK(connect_to(c, port(l)) == 0);
    {
        SA u = {0};
        CHECK(connect(l, &u, sizeof u) == 0);
        CHECK_ERR(connect(l, &u, 1), EINVAL);
        CHECK(connect(l, &u, 2) == 0);
    }
    CHECK(option(l, SOL_SOCKET, SO_ACCEPTCONN) == 0);
    CHECK(port(l) > 0);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    CHECK_ERR(recv(c, buf, 1, 0), ECONNRESET);
    close(c);
    close(s);
    close(l);
}

static void listener_closed(void)
{
    int c, s, l;
    char buf[100];

    l = listener(5);
    c = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect_to(c, port(l)) == 0);
    close(l);
    wait_for(c, POLLIN);
    CHECK(events(c) == (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    CHECK_ERR(recv(c, buf, 1, 0), ECONNRESET);
    CHECK(recv(c, buf, 1, 0) == 0);
    close(c);
}

static void client_gone_before_accept(void)
{
    int c, s, l;
    char buf[100];

    l = listener(5);
    c = socket(AF_INET, SOCK_STREAM, 0);
    connect_to(c, port(l));
    CHECK(send(c, "hi", 2, 0) == 2);
    close(c);
    al = sizeof a4;
    s = accept(l, (SA *)&a4, &al);
    CHECK(s > 0);
    CHECK(recv(s, buf, 10, 0) == 2);
    CHECK(recv(s, buf, 10, 0) == 0);
    CHECK(al == 16);
    close(s);

    c = socket(AF_INET, SOCK_STREAM, 0);
    connect_to(c, port(l));
    {
        struct linger li = {1, 0};
        setsockopt(c, SOL_SOCKET, SO_LINGER, &li, sizeof li);
    }
    close(c);
    usleep(1000);
    CHECK(events(l) == POLLIN);
    al = sizeof a4;
    s = accept(l, (SA *)&a4, &al);
    CHECK(s > 0);
    CHECK_ERR(recv(s, buf, 10, 0), ECONNRESET);
    CHECK(recv(s, buf, 10, 0) == 0);
    al = sizeof a4;
    CHECK_ERR(getpeername(s, (SA *)&a4, &al), ENOTCONN);
    close(s);
    close(l);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);

    written_after_close();

    disconnected();

    listener_closed();

    client_gone_before_accept();

    return 0;
}
