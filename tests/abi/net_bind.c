/* SO_REUSEADDR and SO_REUSEPORT: who may bind and listen where. */
#define _GNU_SOURCE
#include "abi.h"
#include "net.h"

/* Of a pair of sockets with some of SO_REUSEADDR (1) and SO_REUSEPORT (2), one bound to the
   loopback or to the wildcard: whether the other one may bind the same port (b: no) and listen (l:
   no). */
static const char *const streams_bound = "bbbbbbbbbbbbbbbb"
                                         "bbbb....bbbb...."
                                         "bbbbbbbb........"
                                         "bbbb............";

static const char *const streams_listening = "bbbbbbbbbbbbbbbb"
                                             "bbbbbbbbbbbbbbbb"
                                             "bbbbbbbb........"
                                             "bbbbbbbb........";

static const char *const datagrams = "bbbbbbbbbbbbbbbb"
                                     "bbbb....bbbb...."
                                     "bbbbbbbb........"
                                     "bbbb............";

static void reuse(int fd, int bits)
{
    if (bits & 1)
        set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bits & 2)
        set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
}

static char second_bind(int kind, int listens, int first, int second, int wild)
{
    int a = socket(AF_INET, kind, 0), c = socket(AF_INET, kind, 0);
    struct sockaddr_in address = loopback(0);
    if (wild & 1)
        address.sin_addr.s_addr = 0;
    reuse(a, first);
    reuse(c, second);
    bind(a, (SA *)&address, sizeof address);
    if (listens)
        listen(a, 1);
    address = loopback(port(a));
    if (wild & 2)
        address.sin_addr.s_addr = 0;
    char result = '.';
    if (bind(c, (SA *)&address, sizeof address))
        result = 'b';
    else if (kind == SOCK_STREAM && listen(c, 1))
        result = 'l';
    close(a);
    close(c);
    return result;
}

static void matrix(int kind, int listens, const char *wanted)
{
    for (int i = 0; i < 64; i++)
        if (second_bind(kind, listens, i / 16, i / 4 % 4, i % 4) != wanted[i]) {
            fprintf(stderr, "kind %d, listens %d, combination %d is not %c\n", kind, listens, i,
                    wanted[i]);
            exit(1);
        }
}

int main(void)
{
    matrix(SOCK_STREAM, 0, streams_bound);
    matrix(SOCK_STREAM, 1, streams_listening);
    matrix(SOCK_DGRAM, 0, datagrams);
    return 0;
}
