/* Socket calls with everything wrong, accept without room, TCP_DEFER_ACCEPT, SO_REUSEPORT, port
 * ranges, sockets as files. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/sendfile.h>
#define BAD ((void *)8)
static char buf[100];
static socklen_t n;

static void everything_wrong(void)
{
    int file = open("/dev/null", O_RDWR), s = socket(2, 1, 0);
    int fds[] = {-1, file};
    for (int i = 0; i < 2; i++) {
        int f = fds[i];
        CHECK(RESULT(bind(f, BAD, -1)) == (i ? -ENOTSOCK : -EBADF));
        CHECK(RESULT(connect(f, BAD, -1)) == (i ? -EINVAL : -EBADF));
        CHECK(RESULT(listen(f, -1)) == (i ? -ENOTSOCK : -EBADF));
        CHECK(RESULT(accept(f, BAD, BAD)) == (i ? -ENOTSOCK : -EBADF));
        CHECK(RESULT(accept4(f, BAD, BAD, 1)) == (i ? -EINVAL : -EBADF));
        CHECK(RESULT(getsockname(f, BAD, BAD)) == (i ? -ENOTSOCK : -EBADF));
        CHECK(RESULT(getpeername(f, BAD, BAD)) == (i ? -ENOTSOCK : -EBADF));
        CHECK(RESULT(shutdown(f, 77)) == (i ? -ENOTSOCK : -EBADF));
        CHECK(RESULT(setsockopt(f, 1, 2, BAD, -1)) == (i ? -ENOTSOCK : -EBADF));
        CHECK(RESULT(getsockopt(f, 1, 2, BAD, BAD)) == (i ? -ENOTSOCK : -EBADF));
        CHECK(RESULT(sendto(f, BAD, 9, -1, BAD, -1)) == (i ? -ENOTSOCK : -EBADF));
        CHECK(RESULT(recvfrom(f, BAD, 9, -1, BAD, BAD)) == (i ? -ENOTSOCK : -EBADF));
        CHECK_ERR(sendmsg(f, BAD, -1), EINVAL);
        CHECK_ERR(recvmsg(f, BAD, -1), EINVAL);
        CHECK_ERR(sendmmsg(f, BAD, 2, -1), EINVAL);
        CHECK_ERR(recvmmsg(f, BAD, 2, 0, BAD), EFAULT);
    }
    CHECK_ERR(bind(s, BAD, -1), EINVAL);
    CHECK_ERR(bind(s, BAD, 16), EFAULT);
    CHECK_ERR(bind(s, 0, 0), EINVAL);
    CHECK_ERR(bind(s, BAD, 129), EINVAL);
    CHECK_ERR(connect(s, BAD, -1), EINVAL);
    CHECK_ERR(connect(s, BAD, 16), EFAULT);
    CHECK_ERR(getsockname(s, BAD, BAD), EFAULT);
    n = 16;
    CHECK_ERR(getsockname(s, BAD, &n), EFAULT);
    n = -1;
    CHECK_ERR(getsockname(s, BAD, &n), EINVAL);
    n = 0;
    CHECK(getsockname(s, BAD, &n) == 0);
    CHECK((int)n == 16);
    n = 3;
    CHECK(getsockname(s, (SA *)buf, &n) == 0);
    CHECK((int)n == 16);
    n = 100;
    CHECK(getsockname(s, (SA *)buf, &n) == 0);
    CHECK((int)n == 16);
    n = -1;
    CHECK_ERR(getpeername(s, BAD, &n), ENOTCONN);
    CHECK_ERR(accept(s, BAD, BAD), EINVAL);
    CHECK_ERR(accept4(s, 0, 0, 1), EINVAL);
    CHECK_ERR(sendto(s, "x", 1, 0, BAD, 16), EFAULT);
    CHECK_ERR(sendto(s, "x", 1, 0, (SA *)buf, -1), EINVAL);
    CHECK_ERR(sendto(s, "x", 1, 0, (SA *)buf, 200), EINVAL);
    CHECK_ERR(recvfrom(s, BAD, 1, 0, BAD, BAD), ENOTCONN);
    CHECK_ERR(setsockopt(s, 1, 2, BAD, -1), EINVAL);
    CHECK_ERR(setsockopt(s, 1, 2, BAD, 2), EINVAL);
    CHECK_ERR(socketpair(2, 1, 0, BAD), EFAULT);
    CHECK_ERR(socketpair(1, 1, 0, BAD), EFAULT);
    CHECK_ERR(socketpair(1, 77, 0, BAD), EINVAL);
    CHECK_ERR(socketpair(-1, 1, 0, BAD), EFAULT);
    close(s);
    close(file);
}

/* What is looked at first: flags, the family, the type. */
static void families(void)
{
    CHECK_ERR(socket(-1, SOCK_STREAM, 0), EAFNOSUPPORT);
    CHECK_ERR(socket(200, 15, 0), EAFNOSUPPORT);
    CHECK_ERR(socket(200, SOCK_STREAM | 0x40, 0), EINVAL);
    CHECK_ERR(socket(AF_UNSPEC, 15, 0), EINVAL);
    CHECK_ERR(socket(AF_UNSPEC, SOCK_STREAM, 0), EAFNOSUPPORT);
    CHECK_ERR(socketpair(200, 15, 0, (int[2]){0}), EAFNOSUPPORT);
}

static void accepting(void)
{
    int l = listener(5), c[4];
    for (int i = 0; i < 4; i++) {
        c[i] = socket(2, 1, 0);
        connect_to(c[i], port(l));
    }
    CHECK_ERR(accept(l, BAD, BAD), EFAULT);
    n = 16;
    CHECK_ERR(accept(l, BAD, &n), EFAULT);
    n = -1;
    CHECK_ERR(accept(l, (SA *)buf, &n), EINVAL);
    n = 4;
    CHECK(accept(l, (SA *)buf, &n) > 0);
    CHECK((int)n == 16);
    struct rlimit r, o;
    for (int i = 0; i < 4; i++)
        close(c[i]);
    fcntl(l, F_SETFL, O_NONBLOCK);
    CHECK_ERR(accept(l, 0, 0), EAGAIN);
    int d = socket(2, 1, 0);
    connect_to(d, port(l));
    getrlimit(RLIMIT_NOFILE, &o);
    r = o;
    r.rlim_cur = dup(0);
    close(r.rlim_cur);
    setrlimit(RLIMIT_NOFILE, &r);
    CHECK_ERR(accept(l, 0, 0), EMFILE);
    CHECK_ERR(socket(2, 1, 0), EMFILE);
    CHECK_ERR(socketpair(1, 1, 0, (int *)buf), EMFILE);
    setrlimit(RLIMIT_NOFILE, &o);
    CHECK(accept4(l, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK) > 0);
    close(l);
    close(d);
    int u = socket(2, 2, 0);
    CHECK_ERR(accept(u, BAD, BAD), EOPNOTSUPP);
    close(u);
}

static void deferred(void)
{
    int l = listener(5), c = socket(2, 1, 0), s;
    set_option(l, 6, TCP_DEFER_ACCEPT, 5);
    fcntl(l, F_SETFL, O_NONBLOCK);
    CHECK(connect_to(c, port(l)) == 0);
    CHECK(events(l) == 0);
    CHECK_ERR(accept(l, 0, 0), EAGAIN);
    CHECK(events(c) == POLLOUT);
    CHECK(send(c, "hi", 2, 0) == 2);
    wait_for(l, POLLIN);
    CHECK(events(l) == POLLIN);
    s = accept(l, 0, 0);
    CHECK(s > 0);
    CHECK(recv(s, buf, 9, 0) == 2);
    close(s);
    close(c);
    close(l);
}

static void reused(void)
{
    int l[3], c[30], p = 0, n = 0, hit = 0;
    for (int i = 0; i < 3; i++) {
        l[i] = other_socket(2, SOCK_STREAM | SOCK_NONBLOCK, 0);
        set_option(l[i], 1, SO_REUSEPORT, 1);
        CHECK(bind_to(l[i], p) == 0);
        p = port(l[i]);
        CHECK(listen(l[i], 40) == 0);
    }
    for (int i = 0; i < 30; i++) {
        c[i] = socket(2, 1, 0);
        connect_to(c[i], p);
    }
    for (int i = 0; i < 3; i++) {
        int k = 0;
        while (accept(l[i], 0, 0) >= 0)
            k++;
        n += k;
        hit += k > 0;
    }
    CHECK(n == 30);
    CHECK(hit > 1);

    int u[3];
    p = n = hit = 0;
    for (int i = 0; i < 3; i++) {
        u[i] = other_socket(2, SOCK_DGRAM, 0);
        set_option(u[i], 1, SO_REUSEPORT, 1);
        CHECK(bind_to(u[i], p) == 0);
        p = port(u[i]);
    }
    for (int i = 0; i < 30; i++) {
        int s = socket(2, 2, 0);
        connect_to(s, p);
        send(s, "x", 1, 0);
        close(s);
    }
    for (int i = 0; i < 3; i++) {
        int k = 0;
        while (recv(u[i], buf, 9, MSG_DONTWAIT) >= 0)
            k++;
        n += k;
        hit += k > 0;
    }
    CHECK(n == 30);
    CHECK(hit > 1);
}

static void ephemeral(void)
{
    int s = socket(2, 1, 0), d;
    CHECK(bind_to(s, 0) == 0);
    CHECK(port(s) >= 32768 && port(s) <= 60999);
    d = socket(2, 1, 0);
    CHECK_ERR(bind_to(d, port(s)), EADDRINUSE);
    close(s);
    CHECK(bind_to(d, 0) == 0);
    close(d);
    int range = 0x90009000;
    /* 36864 alone */ s = socket(2, 1, 0);
    CHECK(setsockopt(s, 0, 51, &range, 4) == 0);
    CHECK(bind_to(s, 0) == 0);
    CHECK(port(s) == 36864);
    d = socket(2, 1, 0);
    setsockopt(d, 0, 51, &range, 4);
    CHECK_ERR(bind_to(d, 0), EADDRINUSE);
    close(s);
    close(d);
    s = socket(2, 1, 0);
    set_option(s, 0, IP_BIND_ADDRESS_NO_PORT, 1);
    CHECK(bind_to(s, 0) == 0);
    CHECK(port(s) == 0);
    CHECK(listen(s, 1) == 0);
    CHECK(port(s) > 0);
    close(s);
}

static void files(void)
{
    int c, s;
    make_pair(&c, &s);
    CHECK_ERR(lseek(c, 0, 0), ESPIPE);
    CHECK_ERR(pread(c, buf, 1, 0), ESPIPE);
    CHECK_ERR(pwrite(c, buf, 1, 0), ESPIPE);
    CHECK_ERR(ftruncate(c, 0), EINVAL);
    CHECK_ERR(fsync(c), EINVAL);
    CHECK_ERR(fallocate(c, 0, 0, 1), ENODEV);
    struct iovec v[2] = {{"ab", 2}, {"cd", 2}}, w[2] = {{buf, 3}, {buf + 3, 9}};
    CHECK(writev(c, v, 2) == 4);
    wait_for(s, POLLIN);
    CHECK(readv(s, w, 2) == 4);
    CHECK(memcmp(buf, "abcd", 4) == 0);
    int f = open("file", O_RDWR | O_CREAT, 0600);
    write(f, "filedata", 8);
    lseek(f, 0, 0);
    CHECK(sendfile(c, f, 0, 20) == 8);
    wait_for(s, POLLIN);
    CHECK(read(s, buf, 99) == 8);
    CHECK_ERR(sendfile(f, s, 0, 20), EINVAL);
    int p[2];
    pipe(p);
    CHECK(write(c, "spliced", 7) == 7);
    wait_for(s, POLLIN);
    CHECK(splice(s, 0, p[1], 0, 99, 0) == 7);
    CHECK(read(p[0], buf, 99) == 7);
    write(p[1], "back", 4);
    CHECK(splice(p[0], 0, c, 0, 99, 0) == 4);
    wait_for(s, POLLIN);
    CHECK(read(s, buf, 99) == 4);
    unlink("file");
    int a = dup(c);
    close(c);
    CHECK(send(a, "dup", 3, 0) == 3);
    wait_for(s, POLLIN);
    CHECK(recv(s, buf, 9, 0) == 3);
    CHECK(fcntl(a, F_GETFL) == 2);
    CHECK(fcntl(s, F_SETFL, O_NONBLOCK | O_APPEND) == 0);
    CHECK_ERR(read(s, buf, 1), EAGAIN);
    CHECK(readv(s, w, 0) == 0);
    CHECK(writev(a, v, 0) == 0);
    close(a);
    close(s);
}

int main(void)
{
    families();
    signal(SIGPIPE, SIG_IGN);
    deferred();
    reused();
    if (parted()) /* the others are about one end */
        return 0;
    everything_wrong();
    accepting();
    ephemeral();
    files();
    return 0;
}
