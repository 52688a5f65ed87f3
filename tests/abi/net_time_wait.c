/* Who holds a TCP port after a connection: TIME_WAIT, FIN_WAIT2 without a socket; one connection
   between two addresses; what /proc/net counts. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

static int client, server, fd_listens;

/* A connection of which some ends have SO_REUSEADDR. */
static void connected(int client_reuses, int server_reuses)
{
    fd_listens = other_socket(AF_INET, SOCK_STREAM, 0);
    set_option(fd_listens, SOL_SOCKET, SO_REUSEADDR, server_reuses);
    CHECK(bind_to(fd_listens, 0) == 0 && listen(fd_listens, 5) == 0);
    client = socket(AF_INET, SOCK_STREAM, 0);
    set_option(client, SOL_SOCKET, SO_REUSEADDR, client_reuses);
    CHECK(connect_to(client, port(fd_listens)) == 0);
    CHECK((server = accept(fd_listens, NULL, NULL)) >= 0);
}

/* Whether a new socket may have a port. */
static int bindable(int wanted, int reuses)
{
    int fd = socket_at(wanted, AF_INET, SOCK_STREAM, 0);
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, reuses);
    int result = RESULT(bind_to(fd, wanted));
    close(fd);
    return result;
}

/* A port that nobody holds any more, once the other end has said so. */
static int is_given_back(int port)
{
    int tries = parted() ? 5000 : 1;
    while (bindable(port, 0) && --tries)
        usleep(1000);
    return tries > 0;
}

static void first_fin(void)
{
    for (int both = 0; both < 2; both++) {
        connected(both, both);
        int p = port(client), l = port(server);
        close(fd_listens);
        close(client);
        CHECK(bindable(p, 0) == -EADDRINUSE); /* FIN_WAIT2 */
        CHECK(bindable(p, 1) == (both ? 0 : -EADDRINUSE));
        close(server);
        CHECK(bindable(p, 0) == -EADDRINUSE); /* TIME_WAIT */
        CHECK(bindable(p, 1) == (both ? 0 : -EADDRINUSE));
        CHECK(is_given_back(l));

        connected(both, both);
        p = port(client), l = port(server);
        close(fd_listens);
        close(server);
        wait_for(client, POLLIN);
        close(client);
        CHECK(is_given_back(p));
        CHECK(bindable(l, 0) == -EADDRINUSE);
        CHECK(bindable(l, 1) == (both ? 0 : -EADDRINUSE));
    }
}

static void other_addresses(void)
{
    connected(0, 0);
    int p = port(client), fd = socket(AF_INET, SOCK_STREAM, 0);
    close(client), close(server), close(fd_listens);
    struct sockaddr_in a = loopback(p);
    a.sin_addr.s_addr = 0;
    CHECK_ERR(bind(fd, (SA *)&a, sizeof a), EADDRINUSE);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    CHECK(bind(fd, (SA *)&a, sizeof a) == 0);
    close(fd);
}

static void shut_down(void)
{
    connected(0, 0);
    int p = port(client), l = port(server);
    close(fd_listens);
    shutdown(client, SHUT_WR);
    wait_for(server, POLLIN);
    close(server);
    wait_for(client, POLLHUP);
    CHECK(bindable(p, 0) == -EADDRINUSE);
    close(client);
    CHECK(bindable(p, 0) == -EADDRINUSE);
    CHECK(is_given_back(l));
}

static void resets(void)
{
    struct linger none = {1, 0};
    connected(0, 0);
    int p = port(client), l = port(server);
    close(fd_listens);
    CHECK(setsockopt(client, SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0);
    close(client);
    wait_for(server, POLLHUP);
    close(server);
    CHECK(is_given_back(p) && is_given_back(l));

    connected(0, 0); /* bytes that were not read */
    p = port(client);
    CHECK(write(server, "x", 1) == 1);
    wait_for(client, POLLIN);
    close(client);
    wait_for(server, POLLHUP);
    CHECK(is_given_back(p));
    close(server), close(fd_listens);

    connected(0, 0); /* bytes for nobody */
    p = port(client);
    close(client);
    CHECK(bindable(p, 0) == -EADDRINUSE);
    wait_for(server, POLLIN);
    CHECK(write(server, "x", 1) == 1);
    wait_for(server, POLLHUP);
    CHECK(is_given_back(p));
    close(server), close(fd_listens);
}

static void to_itself(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind_to(fd, 0) == 0);
    int p = port(fd);
    CHECK(connect_to(fd, p) == 0);
    close(fd);
    CHECK(bindable(p, 0) == -EADDRINUSE);
}

static void one_connection(void)
{
    connected(1, 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0), l = port(fd_listens);
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK(bind_to(fd, port(client)) == 0);
    CHECK_ERR(connect_to(fd, l), EADDRNOTAVAIL);
    CHECK_ERR(connect_to(fd, l), EADDRNOTAVAIL);
    int other = listener(1);
    CHECK(connect_to(fd, port(other)) == 0);
    close(fd), close(other);
    close(client), close(server), close(fd_listens);
}

/* A column of a protocol in /proc/net/snmp or netstat, or of its sum. */
static long counted(const char *table, const char *protocol, const char *name)
{
    static char names[8192], values[8192];
    FILE *f = fopen(table, "r");
    long result = -1;
    while (f && fgets(names, sizeof names, f) && fgets(values, sizeof values, f)) {
        char *n, *v, *a = strtok_r(names, " \n", &n), *b = strtok_r(values, " \n", &v);
        CHECK(strcmp(a, b) == 0);
        if (strcmp(a, protocol))
            continue;
        while ((a = strtok_r(NULL, " \n", &n)) && (b = strtok_r(NULL, " \n", &v)))
            if (strcmp(a, name) == 0)
                result = atol(b);
        CHECK(!a && !strtok_r(NULL, " \n", &v));
    }
    fclose(f);
    return result;
}

static void counters(void)
{
    const char *snmp = "/proc/net/snmp", *netstat = "/proc/net/netstat";
    long resets = counted(snmp, "Tcp:", "OutRsts"), fails = counted(snmp, "Tcp:", "AttemptFails"),
         ends = counted(snmp, "Tcp:", "EstabResets");
    int fd = socket(AF_INET, SOCK_STREAM, 0), none = listener(1), p = port(none);
    close(none);
    CHECK_ERR(connect_to(fd, p), ECONNREFUSED);
    close(fd);
    CHECK(counted(snmp, "Tcp:", "OutRsts") > resets);
    CHECK(counted(snmp, "Tcp:", "AttemptFails") > fails);
    struct linger now = {1, 0};
    connected(0, 0);
    long open = counted(snmp, "Tcp:", "CurrEstab");
    CHECK(open >= 2);
    setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(client);
    wait_for(server, POLLHUP);
    CHECK(counted(snmp, "Tcp:", "EstabResets") >= ends + 2);
    close(server), close(fd_listens);
    CHECK(counted(netstat, "TcpExt:", "TCPOrigDataSent") >= 0);
    CHECK(counted(netstat, "TcpExt:", "TCPSynRetrans") >= 0);
    CHECK(counted(netstat, "IpExt:", "InOctets") >= 0);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    first_fin();
    other_addresses();
    shut_down();
    resets();
    to_itself();
    one_connection();
    if (!parted()) /* they are of both ends */
        counters();
    return 0;
}
