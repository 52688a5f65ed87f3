/* AF_UNIX: names as inodes and abstract ones, connecting by them, wrong addresses. */
#define _GNU_SOURCE
#include "abi.h"
#include "net_unix.h"

static char b[400000];

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    int c, s;
    char buf[100];

    for (int kind = 1; kind <= 5; kind++) {
        if (kind == 3 || kind == 4)
            continue;

        c = socket(AF_UNIX, kind, 0);
        EACH(events(c), (POLLOUT | POLLHUP), POLLOUT, (POLLOUT | POLLHUP));
        CHECK_ERR(send(c, "x", 1, 0), ENOTCONN);
        EACH(recv(c, buf, 1, MSG_DONTWAIT), -EINVAL, -EAGAIN, -ENOTCONN);
        EACH(recv(c, buf, 0, MSG_DONTWAIT), -EINVAL, -EAGAIN, -ENOTCONN);
        CHECK(shutdown(c, SHUT_WR) == 0);
        CHECK_ERR(shutdown(c, 9), EINVAL);
        EACH(send(c, "x", 1, 0), -ENOTCONN, -EPIPE, -ENOTCONN);
        EACH(events(c), (POLLOUT | POLLHUP), POLLOUT, (POLLOUT | POLLHUP));
        CHECK(shutdown(c, SHUT_RD) == 0);
        EACH(recv(c, buf, 1, MSG_DONTWAIT), -EINVAL, -EAGAIN, -ENOTCONN);
        EACH(recv(c, buf, 1, 0), -EINVAL, 0, -ENOTCONN);
        CHECK(events(c) == (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
        close(c);

        c = socket(AF_UNIX, kind, 0);
        EACH(listen(c, 1), -EINVAL, -EOPNOTSUPP, -EINVAL);
        EACH(accept(c, 0, 0), -EINVAL, -EOPNOTSUPP, -EINVAL);
        CHECK(own_name(c) == 0);
        CHECK((int)name_size == 2);
        CHECK_ERR(peer_name(c), ENOTCONN);
        CHECK_ERR(connect_path(c, "nope"), ENOENT);
        CHECK_ERR(connect_path(c, "/"), ECONNREFUSED);
        CHECK_ERR(connect_path(c, ""), ECONNREFUSED);
        CHECK(bind_path(c, "") == 0);
        CHECK((int)name_size == 110);
        CHECK(own_name(c) == 0);
        CHECK((int)name_size == 110);
        CHECK_ERR(bind_path(c, "x"), EINVAL);
        CHECK_ERR(access("x", 0), ENOENT);
        close(c);

        c = socket(AF_UNIX, kind, 0);
        CHECK(bind_path(c, "p1") == 0);
        CHECK_ERR(bind_path(c, "p2"), EINVAL);
        CHECK_ERR(access("p2", 0), ENOENT);
        CHECK(own_name(c) == 0);
        CHECK((int)name_size == 5);
        s = socket(AF_UNIX, kind, 0);
        CHECK_ERR(bind_path(s, "p1"), EADDRINUSE);
        EACH(connect_path(s, "p1"), -ECONNREFUSED, 0, -ECONNREFUSED);
        EACH(listen(c, 2), 0, -EOPNOTSUPP, 0);
        EACH(events(c), 0, POLLOUT, 0);
        CHECK(connect_path(s, "p1") == 0);
        CHECK(events(s) == POLLOUT);
        EACH(connect_path(s, "p1"), -EISCONN, 0, -EISCONN);
        EACH(listen(s, 1), -EINVAL, -EOPNOTSUPP, -EINVAL);
        EACH(option(c, 1, SO_ACCEPTCONN), 1, 0, 1);
        EACH(recv(c, buf, 1, MSG_DONTWAIT), -EINVAL, -EAGAIN, -ENOTCONN);
        CHECK_ERR(send(c, buf, 1, MSG_DONTWAIT), ENOTCONN);
        EACH(queued(c, FIONREAD), -EINVAL, 0, -EINVAL);
        CHECK(queued(c, TIOCOUTQ) == 0);
        CHECK(peer_name(s) == 0);
        CHECK((int)name_size == 5);
        EACH(events(c), POLLIN, POLLOUT, POLLIN);
        EACH(send_to_path(s, "p1"), -EISCONN, 1, 1);
        CHECK(send(s, "hello", 5, 0) == 5);
        close(s);

        s = socket(AF_UNIX, kind == 1 ? 2 : 1, 0);
        CHECK_ERR(connect_path(s, "p1"), EPROTOTYPE);
        close(s);
        int fd = open("reg", O_CREAT | O_RDWR, 0600);
        s = socket(AF_UNIX, kind, 0);
        CHECK_ERR(connect_path(s, "reg"), ECONNREFUSED);
        CHECK_ERR(connect_path(s, "reg/x"), ENOTDIR);
        CHECK_ERR(connect_path(s, "a/b"), ENOENT);
        CHECK_ERR(bind_path(s, "reg/x"), ENOTDIR);
        CHECK_ERR(bind_path(s, "a/b"), ENOENT);
        CHECK_ERR(open("p1", O_RDWR), ENXIO);
        close(c);
        CHECK_ERR(connect_path(s, "p1"), ECONNREFUSED);
        unlink("p1");
        unlink("p2");
        unlink("x");
        unlink("reg");
        close(s);
        close(fd);

        c = socket(AF_UNIX, kind, 0);
        CHECK(abstract(c, "name", 0) == 0);
        CHECK_ERR(abstract(c, "name", 0), EINVAL);
        s = socket(AF_UNIX, kind, 0);
        CHECK_ERR(abstract(s, "name", 0), EADDRINUSE);
        CHECK(own_name(c) == 0);
        CHECK((int)name_size == 7);
        EACH(abstract(s, "name", 1), -ECONNREFUSED, 0, -ECONNREFUSED);
        EACH(listen(c, 1), 0, -EOPNOTSUPP, 0);
        CHECK(abstract(s, "name", 1) == 0);
        CHECK_ERR(abstract(s, "other", 1), ECONNREFUSED);
        close(c);
        EACH(events(s), (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP), POLLOUT,
             (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
        EACH(recv(s, buf, 1, MSG_DONTWAIT), -ECONNRESET, -EAGAIN, -ECONNRESET);
        EACH(recv(s, buf, 1, MSG_DONTWAIT), 0, -EAGAIN, 0);
        EACH(send(s, buf, 1, MSG_DONTWAIT), -EPIPE, -ECONNREFUSED, -EPIPE);
        EACH(send(s, buf, 1, MSG_DONTWAIT), -EPIPE, -ENOTCONN, -EPIPE);
        EACH(peer_name(s), 0, -ENOTCONN, 0);
        close(s);

        {
            struct sockaddr_un a = path_address("q");
            c = socket(AF_UNIX, kind, 0);
            CHECK_ERR(bind(c, (SA *)&a, 1), EINVAL);
            CHECK_ERR(bind(c, (SA *)&a, 200), EINVAL);
            CHECK_ERR(bind(c, (SA *)&a, -1), EINVAL);
            CHECK_ERR(connect(c, (SA *)&a, 1), EINVAL);
            CHECK_ERR(connect(c, (SA *)&a, 2), EINVAL);
            a.sun_family = AF_INET;
            CHECK_ERR(bind(c, (SA *)&a, sizeof a), EINVAL);
            CHECK_ERR(connect(c, (SA *)&a, sizeof a), EINVAL);
            a.sun_family = 0;
            CHECK_ERR(bind(c, (SA *)&a, 2), EINVAL);
            EACH(connect(c, (SA *)&a, 2), -EINVAL, 0, -EINVAL);
            memset(&a, 'a', sizeof a);
            a.sun_family = 1;
            CHECK(bind(c, (SA *)&a, 110) == 0);
            CHECK(own_name(c) == 0);
            CHECK((int)name_size == 111);
            CHECK_ERR(bind(c, (SA *)&a, 111), EINVAL);
            close(c);
            memset(a.sun_path, 'a', 108);
            char z[109] = {0};
            memset(z, 'a', 108);
            CHECK(unlink(z) == 0);
        }
    }
    return 0;
}
