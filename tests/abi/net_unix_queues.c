/* AF_UNIX: backlogs, datagrams to names, full queues, arguments of socket(2). */
#define _GNU_SOURCE
#include "abi.h"
#include "net_unix.h"

static char b[400000];

static void backlog(void)
{
    int l, s;
    char buf[100];

    l = socket(AF_UNIX, 1, 0);
    bind_path(l, "bl");
    listen(l, 1);
    int q[5];
    for (int i = 0; i < 4; i++) {
        q[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        CHECK(RESULT(connect_path(q[i], "bl")) == (i < 2 ? 0 : -EAGAIN));
    }
    CHECK(events(q[0]) == POLLOUT);
    CHECK(send(q[0], "x", 1, 0) == 1);
    close(q[0]);
    s = accept(l, (SA *)&name, (name_size = sizeof name, &name_size));
    CHECK(s > 0);
    CHECK((int)name_size == 2);
    CHECK(recv(s, buf, 9, 0) == 1);
    CHECK(recv(s, buf, 9, 0) == 0);
    CHECK(connect_path(q[2], "bl") == 0);
    set_timeout(q[3], SO_SNDTIMEO, 10);
    fcntl(q[3], F_SETFL, 0);
    CHECK_ERR(connect_path(q[3], "bl"), EAGAIN);
    CHECK(shutdown(l, SHUT_RD) == 0);
    CHECK_ERR(connect_path(q[3], "bl"), ECONNREFUSED);
    CHECK(accept4(l, 0, 0, SOCK_NONBLOCK) > 0);
    CHECK(events(l) == (POLLIN | POLLRDHUP));
    fcntl(l, F_SETFL, O_NONBLOCK);
    CHECK(accept(l, 0, 0) > 0);
    CHECK_ERR(accept(l, 0, 0), EAGAIN);
    unlink("bl");
    close(l);
}

static void datagrams(void)
{
    char buf[100];

    {
        int a = socket(AF_UNIX, 2, 0), d = socket(AF_UNIX, 2, 0), e = socket(AF_UNIX, 2, 0);
        bind_path(a, "da");
        bind_path(d, "dd");
        CHECK(connect_path(a, "dd") == 0);
        CHECK_ERR(send_to_path(e, "da"), EPERM);
        CHECK_ERR(connect_path(e, "da"), EPERM);
        CHECK(send_to_path(d, "da") == 1);
        CHECK(recvfrom(a, buf, 9, 0, (SA *)&name, (name_size = sizeof name, &name_size)) == 1);
        CHECK((int)name_size == 5);
        CHECK(send_to_path(e, "dd") == 1);
        CHECK(recvfrom(d, buf, 9, 0, (SA *)&name, (name_size = sizeof name, &name_size)) == 1);
        CHECK((int)name_size == 0);
        CHECK_ERR(send_to_path(e, "nope"), ENOENT);
        CHECK_ERR(send_to_path(e, "/"), ECONNREFUSED);
        CHECK_ERR(sendto(e, "x", 1, 0, (SA *)&name, 1), EINVAL);
        CHECK_ERR(sendto(e, "x", 1, 0, (SA *)&name, 2), EINVAL);
        for (int i = 0; i < 14; i++) {
            name = path_address("dd");
            CHECK(RESULT(sendto(e, "m", 1, MSG_DONTWAIT, (SA *)&name, sizeof name)) ==
                  (i < 11 ? 1 : -EAGAIN));
        }
        CHECK(events(e) == POLLOUT);
        CHECK(connect_path(e, "dd") == 0);
        CHECK(events(e) == 0);
        recv(d, buf, 1, 0);
        CHECK(events(e) == POLLOUT);
        close(d);
        CHECK_ERR(send(a, "x", 1, 0), ECONNREFUSED);
        CHECK_ERR(send(a, "x", 1, 0), ENOTCONN);
        CHECK(events(a) == POLLOUT);
        CHECK_ERR(send(e, "x", 1, 0), ECONNREFUSED);
        CHECK_ERR(send(e, "x", 1, 0), ENOTCONN);
        {
            SA u = {0};
            CHECK(connect(a, &u, 2) == 0);
            CHECK_ERR(send(a, "x", 1, 0), ENOTCONN);
        }
        unlink("da");
        unlink("dd");
    }
}

static void arguments(void)
{
    int f[2];

    CHECK(socket(AF_UNIX, 1, 1) > 0);
    CHECK_ERR(socket(AF_UNIX, 1, 2), EPROTONOSUPPORT);
    CHECK(socket(AF_UNIX, 3, 0) > 0);
    CHECK_ERR(socket(AF_UNIX, 4, 0), ESOCKTNOSUPPORT);
    CHECK_ERR(socket(AF_UNIX, 6, 0), ESOCKTNOSUPPORT);
    CHECK_ERR(socket(AF_UNIX, 11, 0), EINVAL);
    CHECK_ERR(socket(AF_UNIX, 1 | 0x100000, 0), EINVAL);
    CHECK_ERR(socket(99, 1, 0), EAFNOSUPPORT);
    CHECK_ERR(socket(-1, 1, 0), EAFNOSUPPORT);
    CHECK_ERR(socket(0, 1, 0), EAFNOSUPPORT);
    CHECK_ERR(socketpair(AF_INET, 1, 0, f), EOPNOTSUPP);
    CHECK_ERR(socketpair(AF_UNIX, 1, 0, (void *)8), EFAULT);
    CHECK_ERR(socketpair(99, 1, 0, f), EAFNOSUPPORT);
    CHECK_ERR(socketpair(AF_INET, 99, 0, f), EINVAL);
    CHECK_ERR(socketpair(AF_INET, 1, 99, f), EPROTONOSUPPORT);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);

    backlog();
    datagrams();
    arguments();
    return 0;
}
