/* Unix sockets that are only in each other's queues are closed; those that can be had are not.
 *
 * What a lost socket carried along is a pipe's only writer: its reader sees the end. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char control[1024], data[8];

static struct msghdr message(int n)
{
    static struct iovec one = {data, 1};
    return (struct msghdr){.msg_iov = &one, .msg_iovlen = 1, .msg_control = control,
                           .msg_controllen = CMSG_SPACE(n * sizeof(int))};
}

static void send_fds(int by, int n, const int *fds)
{
    struct msghdr m = message(n);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){CMSG_LEN(n * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    CHECK(sendmsg(by, &m, 0) == 1);
}

static void send_fd(int by, int fd)
{
    send_fds(by, 1, &fd);
}

static int receive_fd(int from, int flags)
{
    int fd;
    struct msghdr m = message(1);
    CHECK(recvmsg(from, &m, flags) == 1 && m.msg_controllen >= CMSG_LEN(sizeof fd));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    return fd;
}

static void pair(int ends[2])
{
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
}

static int is_open(int reader)
{
    struct pollfd p = {reader, POLLIN, 0};
    return poll(&p, 1, 0) == 0;
}

/* Blocks for good where the writer lives. */
static void ends(int reader)
{
    CHECK(read(reader, data, 1) == 0);
    close(reader);
}

static void alone(void)
{
    int s[2], p[2];
    CHECK(pipe(p) == 0);
    pair(s);
    send_fd(s[0], p[1]);
    close(p[1]);
    send_fd(s[0], s[1]); /* in its own queue */
    close(s[1]);
    CHECK(is_open(p[0]));
    close(s[0]);
    ends(p[0]);
}

static void circle_of_three(void)
{
    int s[3][2], p[2];
    CHECK(pipe(p) == 0);
    for (int i = 0; i < 3; i++)
        pair(s[i]);
    for (int i = 0; i < 3; i++)
        send_fd(s[i][0], s[(i + 1) % 3][1]);
    send_fd(s[1][0], p[1]);
    close(p[1]);
    for (int i = 0; i < 3; i++)
        close(s[i][0]);
    close(s[2][1]);
    close(s[1][1]);
    CHECK(is_open(p[0]));
    int second = receive_fd(s[0][1], MSG_PEEK); /* a peek gives one, too */
    close(s[0][1]);
    CHECK(is_open(p[0]));
    int third = receive_fd(second, 0);
    CHECK(receive_fd(second, MSG_PEEK) >= 0); /* the pipe; stays open here */
    close(second);
    close(third);
    int same = dup(p[0]);
    close(p[0]);
    CHECK(is_open(same));
    close(same);
}

static void held_from_outside(void)
{
    int a[2], b[2], out[2], p[2];
    CHECK(pipe(p) == 0);
    pair(a);
    pair(b);
    pair(out);
    send_fd(a[0], b[1]);
    send_fd(b[0], a[1]);
    send_fd(b[0], p[1]);
    send_fd(out[0], a[1]); /* and in a queue that can be read */
    close(a[0]), close(a[1]), close(b[0]), close(b[1]), close(p[1]);
    int again[2];
    pair(again);
    close(again[0]), close(again[1]);
    CHECK(is_open(p[0]));
    int got = receive_fd(out[1], 0), other = receive_fd(got, 0);
    close(receive_fd(other, 0));
    close(got);
    int writer = receive_fd(other, 0);
    CHECK(write(writer, "x", 1) == 1 && read(p[0], data, 1) == 1);
    close(writer);
    close(other);
    ends(p[0]);
    close(out[0]), close(out[1]);
}

/* The queue of a connection that nobody has accepted is its listener's. */
static void not_accepted(void)
{
    struct sockaddr_un name = {AF_UNIX, "\0garbage of tests"};
    int p[2], s[2], by = socket(AF_UNIX, SOCK_STREAM, 0), listener = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(pipe(p) == 0);
    CHECK(bind(listener, (void *)&name, sizeof name) == 0 && listen(listener, 5) == 0);
    CHECK(connect(by, (void *)&name, sizeof name) == 0);
    int both[2] = {listener, p[1]};
    send_fds(by, 2, both);
    pair(s);
    send_fd(s[0], listener);
    close(listener), close(by), close(p[1]);
    CHECK(is_open(p[0]));
    listener = receive_fd(s[1], 0);
    int accepted = accept(listener, NULL, NULL);
    CHECK(accepted >= 0);
    close(listener);
    CHECK(is_open(p[0]));
    close(accepted);
    ends(p[0]);
    close(s[0]), close(s[1]);
}

static void lost_listener(void)
{
    struct sockaddr_un name = {AF_UNIX, "\0garbage of tests"};
    int p[2], by = socket(AF_UNIX, SOCK_STREAM, 0), listener = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(pipe(p) == 0);
    CHECK(bind(listener, (void *)&name, sizeof name) == 0 && listen(listener, 5) == 0);
    CHECK(connect(by, (void *)&name, sizeof name) == 0);
    int both[2] = {listener, p[1]};
    send_fds(by, 2, both);
    close(listener), close(p[1]);
    CHECK(is_open(p[0]));
    close(by);
    ends(p[0]);
}

/* A long row, each in the queue of the next, whose last one goes; and many circles at once. */
static void many(void)
{
    enum { MANY = 700 };
    int p[2], last, s[2];
    CHECK(pipe(p) == 0);
    last = p[1];
    for (int i = 0; i < MANY; i++) {
        pair(s);
        send_fd(s[0], last);
        close(last);
        close(s[0]);
        last = s[1];
    }
    CHECK(is_open(p[0]));
    close(last);
    ends(p[0]);

    CHECK(pipe(p) == 0);
    for (int i = 0; i < MANY; i++) {
        pair(s);
        send_fd(s[0], s[1]);
        send_fd(s[0], p[1]);
        close(s[1]);
        close(s[0]);
    }
    close(p[1]);
    ends(p[0]);
}

int main(void)
{
    struct rlimit files = {4096, 4096};
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    alone();
    circle_of_three();
    held_from_outside();
    not_accepted();
    lost_listener();
    many();
    return 0;
}
