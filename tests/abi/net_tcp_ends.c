/* TCP whose other end is closed: what a large write says. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PIECE (1 << 20)
#define PIECES 256

static void connected(int *client, int *server)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    CHECK(bind(listener, (void *)&address, length) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (void *)&address, &length) == 0);
    *client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(*client, (void *)&address, length) == 0);
    CHECK((*server = accept(listener, NULL, NULL)) >= 0);
    close(listener);
}

/* The reset comes while the write goes on: it is cut short, and the next one fails. */
static void large_write(void)
{
    static char piece[PIECE];
    struct iovec all[PIECES];
    int client, server;
    for (int i = 0; i < PIECES; i++)
        all[i] = (struct iovec){piece, PIECE};
    connected(&client, &server);
    close(server);
    ssize_t some = writev(client, all, PIECES);
    CHECK(some > 0 && some < (ssize_t)PIECES * PIECE);
    CHECK_ERR(writev(client, all, PIECES), EPIPE);
    close(client);

    connected(&client, &server);
    CHECK(shutdown(server, SHUT_RDWR) == 0);
    some = writev(client, all, PIECES);
    CHECK(some > 0 && some < (ssize_t)PIECES * PIECE);
    CHECK_ERR(writev(client, all, PIECES), EPIPE);
    close(client), close(server);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    if (!(parted() && far_.swapped)) /* so much is written here alone */
        large_write();
    return 0;
}
