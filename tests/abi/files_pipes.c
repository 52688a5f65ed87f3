/* Pipes of packets (O_DIRECT): how many fit, what splice(2) and tee(2) make of them. pipe(7) */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static char buf[1 << 16];

static void pair(int *ends, int flags)
{
    CHECK(pipe2(ends, flags | O_NONBLOCK) == 0);
}

static void close_both(int *ends) { CHECK(close(ends[0]) == 0 && close(ends[1]) == 0); }

static void packets(int fd, int count)
{
    for (int i = 0; i < count; i++)
        CHECK(write(fd, "abcdefgh", 3 + i % 3) == 3 + i % 3);
}

static void expect(int fd, int count)
{
    for (int i = 0; i < count; i++)
        CHECK(read(fd, buf, sizeof buf) == 3 + i % 3 && buf[0] == 'a');
    CHECK_ERR(read(fd, buf, sizeof buf), EAGAIN);
}

static int can_write(int fd)
{
    struct pollfd p = {fd, POLLOUT};
    return poll(&p, 1, 0);
}

/* Each packet takes a page of the pipe. */
static void full(void)
{
    int ends[2], room;
    pair(ends, O_DIRECT);
    CHECK(fcntl(ends[1], F_GETPIPE_SZ) == 65536 && can_write(ends[1]) == 1);
    packets(ends[1], 16);
    CHECK_ERR(write(ends[1], "x", 1), EAGAIN);
    CHECK(can_write(ends[1]) == 0);
    CHECK(fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0);
    CHECK_ERR(write(ends[1], "x", 1), EAGAIN);
    CHECK_ERR(fcntl(ends[1], F_SETPIPE_SZ, 32768), EBUSY);
    CHECK(ioctl(ends[0], FIONREAD, &room) == 0 && room == 63);
    CHECK(fcntl(ends[1], F_SETPIPE_SZ, 131072) == 131072 && can_write(ends[1]) == 1);
    CHECK(fcntl(ends[1], F_SETFL, O_NONBLOCK | O_DIRECT) == 0);
    CHECK(write(ends[1], buf, 8192) == 8192);
    CHECK(read(ends[0], buf, 2) == 2); /* the rest of it is lost */
    for (int i = 1; i < 16; i++)
        CHECK(read(ends[0], buf, sizeof buf) == 3 + i % 3);
    CHECK(read(ends[0], buf, sizeof buf) == 4096 && read(ends[0], buf, 1) == 1);
    CHECK_ERR(read(ends[0], buf, 1), EAGAIN);
    CHECK(fcntl(ends[1], F_SETPIPE_SZ, 1) == 4096);
    close_both(ends);
}

/* They stay packets in another pipe. */
static void copied(void)
{
    int from[2], to[2], other[2];
    pair(from, O_DIRECT), pair(to, 0), pair(other, 0);
    packets(from[1], 6);
    CHECK(tee(from[0], other[1], 1000, 0) == 24);
    CHECK(splice(from[0], NULL, to[1], NULL, 1000, 0) == 24);
    CHECK_ERR(splice(from[0], NULL, to[1], NULL, 1000, SPLICE_F_NONBLOCK), EAGAIN);
    expect(other[0], 6);
    expect(to[0], 6);
    packets(from[1], 2);
    CHECK(splice(from[0], NULL, to[1], NULL, 2, 0) == 2); /* a part of the first one */
    CHECK(read(to[0], buf, 9) == 2 && read(from[0], buf, 9) == 1 && read(from[0], buf, 9) == 4);
    packets(from[1], 3);
    CHECK(fcntl(to[1], F_SETPIPE_SZ, 4096) == 4096 && write(to[1], "x", 1) == 1);
    CHECK_ERR(splice(from[0], NULL, to[1], NULL, 100, SPLICE_F_NONBLOCK), EAGAIN);
    expect(from[0], 3);
    close_both(from), close_both(to), close_both(other);
}

/* What a file does not take stays, packet by packet. */
static void not_taken(void)
{
    int from[2], ends[2], kept = open("kept", O_CREAT | O_RDWR, 0600);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 && close(ends[1]) == 0);
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    pair(from, O_DIRECT);
    packets(from[1], 3);
    CHECK_ERR(splice(from[0], NULL, ends[0], NULL, 100, 0), EPIPE);
    expect(from[0], 3);
    packets(from[1], 3);
    CHECK(splice(from[0], NULL, kept, NULL, 5, 0) == 5);
    CHECK(read(from[0], buf, 99) == 2 && read(from[0], buf, 99) == 5);
    CHECK(close(ends[0]) == 0 && close(kept) == 0);
    close_both(from);
}

int main(void)
{
    full();
    copied();
    not_taken();
    return 0;
}
