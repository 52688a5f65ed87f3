/* Ports that are looked for, when there are few: bind(2) to port 0 and connect(2). */
#define _GNU_SOURCE
#include "abi.h"
#include "net.h"
#include "net_own.h"

#define FIRST 40000
#define COUNT 4

static int set_range(const char *text)
{
    int fd = open("proc/sys/net/ipv4/ip_local_port_range", O_WRONLY);
    CHECK(fd >= 0);
    int result = RESULT(write(fd, text, strlen(text)));
    close(fd);
    return result;
}

static void alone(void)
{
    char text[40] = {0};
    own_network();
    CHECK(set_range("5 4") == -EINVAL);
    CHECK(set_range("0 4") == -EINVAL);
    CHECK(set_range("40000 70000") == -EINVAL);
    CHECK(set_range("40000 40003") == 11);
    int fd = open("proc/sys/net/ipv4/ip_local_port_range", O_RDONLY);
    CHECK(read(fd, text, sizeof text) == 12 && strcmp(text, "40000\t40003\n") == 0);
    close(fd);
}

/* As many sockets as there are ports; the last one gets none, or one that is taken. */
static void all_bound(int kind, int last)
{
    int fds[COUNT + 1], seen = 0;
    for (int i = 0; i <= COUNT; i++) {
        fds[i] = socket(AF_INET, kind, 0);
        set_option(fds[i], SOL_SOCKET, SO_REUSEADDR, 1);
        CHECK(RESULT(bind_to(fds[i], 0)) == (i < COUNT ? 0 : last));
        if (i < COUNT)
            seen |= 1 << (port(fds[i]) - FIRST);
    }
    if (kind == SOCK_STREAM) {
        CHECK(seen == (1 << COUNT) - 1);
        CHECK_ERR(connect_to(fds[COUNT], 7), EADDRNOTAVAIL);
    }
    for (int i = 0; i <= COUNT; i++)
        close(fds[i]);
}

/* A port that connect(2) found serves for every other place, too. */
static void shared(void)
{
    int places[2], fds[2][COUNT], fd;
    for (int i = 0; i < 2; i++) {
        places[i] = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(bind_to(places[i], 5000 + i) == 0 && listen(places[i], 9) == 0);
        for (int j = 0; j < COUNT; j++) {
            fds[i][j] = socket(AF_INET, SOCK_STREAM, 0);
            CHECK(connect_to(fds[i][j], 5000 + i) == 0);
        }
        fd = socket(AF_INET, SOCK_STREAM, 0);
        CHECK_ERR(connect_to(fd, 5000 + i), EADDRNOTAVAIL);
        CHECK_ERR(bind_to(fd, 0), EADDRINUSE);
        close(fd);
    }
    close(fds[0][0]);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERR(connect_to(fd, 5000), EADDRNOTAVAIL); /* FIN_WAIT2 holds the way there */
    close(fd);
}

int main(void)
{
    alone();
    all_bound(SOCK_STREAM, -EADDRINUSE);
    all_bound(SOCK_DGRAM, 0);
    shared();
    CHECK(umount("proc") == 0 && rmdir("proc") == 0);
    return 0;
}
