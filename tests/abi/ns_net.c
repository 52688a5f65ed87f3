/* Network namespaces: a loopback, ports and abstract names of their own. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include "ns.h"

static struct sockaddr_in at(int port)
{
    return (struct sockaddr_in){AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}};
}

static int flags_of_lo(int sock)
{
    struct ifreq request = {"lo"};
    CHECK(ioctl(sock, SIOCGIFFLAGS, &request) == 0);
    return request.ifr_flags;
}

static int count(const char *path, const char *what)
{
    char text[20000];
    int found = 0;
    read_text(path, text, sizeof text);
    for (char *p = text; (p = strstr(p, what)); p++) found++;
    return found;
}

static int listener(int *port)
{
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in addr = at(*port);
    socklen_t size = sizeof addr;
    CHECK(sock >= 0 && bind(sock, (void *)&addr, size) == 0 && listen(sock, 5) == 0);
    CHECK(getsockname(sock, (void *)&addr, &size) == 0);
    *port = ntohs(addr.sin_port);
    return sock;
}

int main(void)
{
    struct sockaddr_un name = {AF_UNIX, "\0ns-net-test"};
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + 12;
    sprintf(name.sun_path + 1, "ns-net-%d", getpid());
    char before[64] = {0}, after[64] = {0}, text[64];
    int pair[2];
    CHECK(unshare(CLONE_NEWNET) == 0); /* nothing of the host's in what follows */
    struct ifreq request = {"lo", .ifr_flags = IFF_UP};
    int outer = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(ioctl(outer, SIOCSIFFLAGS, &request) == 0);
    CHECK(readlink("/proc/self/ns/net", before, 63) > 0);
    int saved = open("/proc/self/ns/net", O_RDONLY), port = 0;
    CHECK(ioctl(saved, NS_GET_NSTYPE) == CLONE_NEWNET);
    int one = listener(&port);
    int unix1 = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(bind(unix1, (void *)&name, length) == 0);
    CHECK(count("/proc/net/tcp", " 0A ") == 1);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    pid_t child = fork();
    if (!child) {
        CHECK(unshare(CLONE_NEWNET) == 0);
        CHECK(readlink("/proc/self/ns/net", after, 63) > 0 && strcmp(before, after));
        CHECK(count("/proc/net/dev", ":") == 1 && count("/proc/net/tcp", " 0A ") == 0);
        int sock = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in addr = at(port);
        CHECK(!(flags_of_lo(sock) & IFF_UP));
        CHECK_ERR(connect(sock, (void *)&addr, sizeof addr), ENETUNREACH);
        CHECK(ioctl(sock, SIOCSIFFLAGS, &request) == 0 && flags_of_lo(sock) & IFF_UP);
        CHECK_ERR(connect(sock, (void *)&addr, sizeof addr), ECONNREFUSED);
        int mine = listener(&port); /* the port is free here */
        sock = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(connect(sock, (void *)&addr, sizeof addr) == 0);
        int unix2 = socket(AF_UNIX, SOCK_DGRAM, 0);
        CHECK_ERR(connect(unix2, (void *)&name, length), ECONNREFUSED);
        CHECK(bind(unix2, (void *)&name, length) == 0);
        /* a socket stays where it was made */
        CHECK(flags_of_lo(outer) & IFF_UP);
        CHECK(setns(saved, CLONE_NEWNET) == 0);
        CHECK(readlink("/proc/self/ns/net", after, 63) > 0 && !strcmp(before, after));
        CHECK(count("/proc/net/tcp", " 0A ") == 1);
        CHECK_ERR(bind(socket(AF_UNIX, SOCK_DGRAM, 0), (void *)&name, length), EADDRINUSE);
        CHECK(write(pair[1], "x", 1) == 1 && read(pair[1], text, 1) == 1);
        CHECK(accept(mine, 0, 0) >= 0); /* a connection of the other one */
        _exit(0);
    }
    CHECK(read(pair[0], text, 1) == 1);
    CHECK(write(pair[0], "x", 1) == 1 && status_of(child) == 0);
    CHECK_ERR(setns(saved, CLONE_NEWPID), EINVAL);
    CHECK_ERR(setns(99, 0), EBADF);
    CHECK_ERR(setns(outer, 0), EINVAL);
    /* a bind mount keeps it alive */
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(close(open("kept", O_CREAT | O_WRONLY, 0600)) == 0);
    child = fork();
    if (!child) {
        CHECK(unshare(CLONE_NEWNET) == 0);
        int sock = socket(AF_INET, SOCK_DGRAM, 0);
        CHECK(ioctl(sock, SIOCSIFFLAGS, &request) == 0);
        CHECK(mount("/proc/self/ns/net", "kept", 0, MS_BIND, 0) == 0);
        _exit(0);
    }
    CHECK(status_of(child) == 0);
    int kept = open("kept", O_RDONLY);
    struct stat a, b;
    CHECK(fstat(kept, &a) == 0 && fstat(saved, &b) == 0 && a.st_ino != b.st_ino);
    CHECK(a.st_dev == b.st_dev);
    IN_CHILD({
        CHECK(setns(kept, CLONE_NEWNET) == 0);
        int sock = socket(AF_INET, SOCK_DGRAM, 0);
        CHECK(flags_of_lo(sock) & IFF_UP); /* as it was left */
    });
    close(kept);
    CHECK(umount("kept") == 0);
    /* who has no rights there */
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK_ERR(unshare(CLONE_NEWNET), EPERM);
        CHECK_ERR(setns(saved, 0), EPERM);
        CHECK(unshare(CLONE_NEWUSER) == 0);
        CHECK_ERR(setns(saved, 0), EPERM);
        CHECK_ERR(ioctl(outer, SIOCSIFFLAGS, &request), EPERM);
    });
    return 0;
}
