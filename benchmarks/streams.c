/* TCP between two hosts, without libraries: `streams serve PORT`, and
 *
 *     streams out|in ADDRESS PORT MIB      seconds for one stream each way
 *     streams rounds ADDRESS PORT NUMBER   seconds for connections that end at once
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 17 };
struct order {
    char kind; /* 'o': count what comes; 'i': send so many bytes; 'c': close */
    uint64_t bytes;
} __attribute__((packed));
static char piece[PIECE];

static int fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t take_all(int fd)
{
    uint64_t total = 0;
    ssize_t got;
    while ((got = read(fd, piece, PIECE)) > 0)
        total += got;
    return got < 0 ? fail("read") : total;
}

static void give(int fd, uint64_t bytes)
{
    while (bytes) {
        ssize_t sent = write(fd, piece, bytes < PIECE ? bytes : PIECE);
        if (sent < 0)
            fail("write");
        bytes -= sent;
    }
}

static void answer(int fd)
{
    struct order order;
    if (recv(fd, &order, sizeof order, MSG_WAITALL) != sizeof order)
        return;
    if (order.kind == 'o') {
        uint64_t total = take_all(fd);
        if (write(fd, &total, sizeof total) < 0)
            fail("write");
    } else if (order.kind == 'i') {
        give(fd, order.bytes);
    }
}

static void serve(int port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&at, sizeof at) || listen(fd, 512))
        fail("listen");
    puts("ready");
    fflush(stdout);
    for (;;) {
        int got = accept(fd, NULL, NULL);
        if (got < 0)
            fail("accept");
        answer(got);
        close(got);
    }
}

static int ask(const char *address, int port, char kind, uint64_t bytes)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct order order = {kind, bytes};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, address, &to.sin_addr);
    if (connect(fd, (void *)&to, sizeof to))
        fail("connect");
    if (write(fd, &order, sizeof order) != sizeof order)
        fail("write");
    return fd;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "serve"))
        serve(atoi(argv[2]));
    if (argc != 5)
        return 2;
    struct timespec from, to;
    uint64_t amount = strtoull(argv[4], NULL, 10), total = 0;
    int port = atoi(argv[3]), is_rounds = argv[1][0] == 'r';
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (is_rounds) {
        for (uint64_t i = 0; i < amount; i++) {
            int fd = ask(argv[2], port, 'c', 0);
            total += take_all(fd) == 0;
            close(fd);
        }
    } else {
        int fd = ask(argv[2], port, argv[1][0], amount << 20);
        if (argv[1][0] == 'o') {
            give(fd, amount << 20);
            shutdown(fd, SHUT_WR);
            if (recv(fd, &total, sizeof total, MSG_WAITALL) != sizeof total)
                fail("recv");
        } else {
            total = take_all(fd);
        }
        close(fd);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (total != (is_rounds ? amount : amount << 20))
        return 3;
    printf("%.6f\n", to.tv_sec - from.tv_sec + (to.tv_nsec - from.tv_nsec) / 1e9);
    return 0;
}
