/* Three sockets bind one port, one after the other, with all combinations of SO_REUSEADDR and
   SO_REUSEPORT: what the third one may do depends on the order of the two before. */
#define _GNU_SOURCE
#include "abi.h"
#include "net.h"

/* A row for each pair of options of the first two, 0 to 3 (SO_REUSEADDR 1, SO_REUSEPORT 2), a
   letter for each of the third's: `-`: the second one is refused, `b`: the third one is. */
static const char *const same_owner = "---- ---- ---- ---- "
                                      "---- b.b. ---- b... "
                                      "---- ---- bb.. bb.. "
                                      "---- b.b. bb.. b... ";

static const char *const another_owner_first = "---- ---- ---- ---- "
                                               "---- b.b. ---- b... "
                                               "---- ---- ---- ---- "
                                               "---- b.b. ---- b... ";

static const char *const six_datagrams = "---- ---- ---- ---- "
                                         "---- b.b. ---- b.b. "
                                         "---- ---- bb.. bb.. "
                                         "---- b.b. bb.. b... ";

static int made(int family, int kind, int options, uid_t owner)
{
    int fd;
    CHECK(seteuid(owner) == 0);
    fd = socket(family, kind, 0);
    CHECK(seteuid(0) == 0);
    if (options & 1)
        set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (options & 2)
        set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    return fd;
}

static int bind_any(int fd, int family, int at)
{
    struct sockaddr_in6 six = {AF_INET6, htons(at)};
    struct sockaddr_in four = {AF_INET, htons(at)};
    return family == AF_INET ? bind(fd, (SA *)&four, sizeof four) : bind(fd, (SA *)&six, sizeof six);
}

static void table(int family, int kind, uid_t owner, const char *wanted)
{
    char got[81] = "";
    for (int pair = 0; pair < 16; pair++) {
        for (int third = 0; third < 4; third++) {
            int a = made(family, kind, pair / 4, owner), b = made(family, kind, pair % 4, 0);
            int c = made(family, kind, third, 0);
            CHECK(bind_any(a, family, 0) == 0);
            char result = '-';
            if (bind_any(b, family, port(a)) == 0)
                result = bind_any(c, family, port(a)) == 0 ? '.' : 'b';
            got[pair * 5 + third] = result;
            close(a), close(b), close(c);
        }
        got[pair * 5 + 4] = ' ';
    }
    if (strcmp(got, wanted)) {
        fprintf(stderr, "family %d kind %d owner %d:\n%s\n%s\n", family, kind, owner, got, wanted);
        exit(1);
    }
}

int main(void)
{
    table(AF_INET, SOCK_STREAM, 0, same_owner);
    table(AF_INET6, SOCK_STREAM, 0, same_owner);
    table(AF_INET, SOCK_DGRAM, 0, same_owner);
    table(AF_INET, SOCK_STREAM, 1000, another_owner_first);
    table(AF_INET, SOCK_DGRAM, 1000, another_owner_first);
    table(AF_INET6, SOCK_DGRAM, 0, six_datagrams);
    return 0;
}
