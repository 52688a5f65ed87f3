/* The inode of a socket: its mode is that of the name it is bound to, its owner owns the port. */
#define _GNU_SOURCE
#include "abi.h"
#include "net_own.h"
#include "net_unix.h"

#include <sys/stat.h>

static struct stat of_file(int fd)
{
    struct stat found;
    CHECK(fstat(fd, &found) == 0);
    return found;
}

/* The mode of a name that a socket of this mode is bound to. */
static int bound_mode(int kind, int mode, int mask)
{
    struct stat found;
    int fd = socket(AF_UNIX, kind, 0);
    umask(mask);
    CHECK(fd >= 0 && fchmod(fd, mode) == 0);
    CHECK(bind_path(fd, "moded") == 0);
    umask(022);
    CHECK(stat("moded", &found) == 0 && S_ISSOCK(found.st_mode));
    CHECK((of_file(fd).st_mode & 07777) == mode);
    CHECK(fchmod(fd, 0123) == 0);  // the name is a file of its own from now on
    struct stat later;
    CHECK(stat("moded", &later) == 0 && later.st_mode == found.st_mode);
    CHECK(unlink("moded") == 0 && close(fd) == 0);
    return found.st_mode & 07777;
}

static void names(void)
{
    static const int kinds[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    for (int i = 0; i < 3; i++) {
        CHECK(bound_mode(kinds[i], 0777, 022) == 0755);
        CHECK(bound_mode(kinds[i], 0600, 022) == 0600);
        CHECK(bound_mode(kinds[i], 0666, 0) == 0666);
        CHECK(bound_mode(kinds[i], 0, 0) == 0);
        CHECK(bound_mode(kinds[i], 07777, 0077) == 07700);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(fchmod(fd, 06777) == 0 && fchown(fd, 1000, 2000) == 0);
    CHECK(of_file(fd).st_mode == (S_IFSOCK | 0777) && of_file(fd).st_uid == 1000);
    CHECK(bind_path(fd, "owned") == 0);
    struct stat found;
    CHECK(stat("owned", &found) == 0 && found.st_uid == 0 && found.st_gid == 0);
    CHECK(unlink("owned") == 0);
    seteuid(500);
    CHECK_ERR(fchmod(fd, 0600), EPERM);
    CHECK_ERR(fchown(fd, 500, -1), EPERM);
    seteuid(0);
    close(fd);
}

static void times(void)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct timespec both[2] = {{11, 12}, {13, 14}}, one[2] = {{0, UTIME_OMIT}, {15, 16}};
    CHECK(futimens(fd, both) == 0);
    CHECK(of_file(fd).st_atim.tv_sec == 11 && of_file(fd).st_atim.tv_nsec == 12);
    CHECK(of_file(fd).st_mtim.tv_sec == 13 && of_file(fd).st_mtim.tv_nsec == 14);
    CHECK(futimens(fd, one) == 0);
    CHECK(of_file(fd).st_atim.tv_sec == 11 && of_file(fd).st_mtim.tv_sec == 15);
    CHECK(of_file(fd).st_ctim.tv_sec > 1000);
    CHECK_ERR(ftruncate(fd, 0), EINVAL);
    close(fd);
}

/* A connection belongs to who accepts it. */
static void accepted(void)
{
    int listens = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind_path(listens, "accepts") == 0 && listen(listens, 5) == 0);
    CHECK(chmod("accepts", 0777) == 0);
    setegid(51), seteuid(1001);
    CHECK(connect_path(client, "accepts") == 0);
    seteuid(0), setegid(0);
    CHECK(fchmod(listens, 0600) == 0 && fchown(listens, 7, 8) == 0);
    setegid(52), seteuid(1002);
    int server = accept(listens, NULL, NULL);
    seteuid(0), setegid(0);
    CHECK(of_file(server).st_uid == 1002 && of_file(server).st_gid == 52);
    CHECK(of_file(server).st_mode == (S_IFSOCK | 0777));
    CHECK(of_file(client).st_uid == 0 && of_file(listens).st_uid == 7);
    close(server), close(client), close(listens);
    unlink("accepts");
}

/* The owner of the socket in a state at a port of our own, as /proc/net/tcp has it; -1: none. */
static int owner_in_table(int state, int at)
{
    char line[512], local[64], remote[64], shown[16];
    int uid, found = -1;
    FILE *table = fopen("proc/net/tcp", "r");
    CHECK(table != NULL);
    while (fgets(line, sizeof line, table)) {
        if (sscanf(line, "%*s %63s %63s %15s %*s %*s %*s %d", local, remote, shown, &uid) != 4)
            continue;
        if (strtol(shown, NULL, 16) == state && strtol(strchr(local, ':') + 1, NULL, 16) == at)
            found = uid;
    }
    fclose(table);
    return found;
}

static void ports(void)
{
    int listens = listener(5), client = socket(AF_INET, SOCK_STREAM, 0), at = port(listens);
    CHECK(owner_in_table(TCP_LISTEN, at) == 0);
    CHECK(fchown(listens, 77, -1) == 0);
    CHECK(owner_in_table(TCP_LISTEN, at) == 77);
    seteuid(1001);
    CHECK(connect_to(client, at) == 0);
    CHECK(owner_in_table(TCP_ESTABLISHED, at) == 77);
    seteuid(0), seteuid(1002);
    int server = accept(listens, NULL, NULL);
    seteuid(0);
    CHECK(of_file(server).st_uid == 1002);
    CHECK(owner_in_table(TCP_ESTABLISHED, at) == 1002);
    close(server), close(client), close(listens);

    int first = socket(AF_INET, SOCK_DGRAM, 0), second = socket(AF_INET, SOCK_DGRAM, 0);
    set_option(first, SOL_SOCKET, SO_REUSEPORT, 1);
    set_option(second, SOL_SOCKET, SO_REUSEPORT, 1);
    CHECK(bind_to(first, 0) == 0 && fchown(first, 99, -1) == 0);
    CHECK_ERR(bind_to(second, port(first)), EADDRINUSE);
    CHECK(fchown(second, 99, -1) == 0);
    CHECK(bind_to(second, port(first)) == 0);
    close(first), close(second);
}

int main(void)
{
    own_network();
    names();
    times();
    accepted();
    ports();
    return 0;
}
