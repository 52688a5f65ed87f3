/* Namespaces of networks and of IPC that a program has made, and used: sockets on a loopback
 * interface, System V objects. Between making and looking lie many calls: tests/e2e/test_snapshots.py
 * stops it at one of those. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include "ns.h"

static key_t key;
static char label[16];
/* Of this process's own: natively they are the host's. */

struct message {
    long kind;
    char text[8];
};

static void many_calls(void)
{
    for (int i = 0; i < 500; i++)
        CHECK(syscall(SYS_getpgid, 0) >= 0);
}

static struct sockaddr_in at(int port)
{
    struct sockaddr_in made = {.sin_family = AF_INET, .sin_port = htons(port)};
    made.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return made;
}

static int bound(int kind, int port)
{
    struct sockaddr_in here = at(port);
    int fd = socket(AF_INET, kind, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&here, sizeof here) == 0);
    return fd;
}

static int connected(int kind, int port)
{
    struct sockaddr_in there = at(port);
    int fd = socket(AF_INET, kind, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&there, sizeof there) == 0);
    return fd;
}

static int abstract(int connects)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    memcpy(name.sun_path + 1, label, sizeof label);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    int (*call)(int, const struct sockaddr *, socklen_t) = connects ? connect : bind;
    return call(fd, (struct sockaddr *)&name, sizeof(sa_family_t) + 1 + sizeof label) ? -errno : fd;
}

static short flags_of(const char *name)
{
    struct ifreq asked = {0};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    strcpy(asked.ifr_name, name);
    CHECK(ioctl(fd, SIOCGIFFLAGS, &asked) == 0 && close(fd) == 0);
    return asked.ifr_flags;
}

static void bring_up(void)
{
    struct ifreq asked = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(ioctl(fd, SIOCSIFFLAGS, &asked) == 0 && close(fd) == 0);
}

static void heard(int fd, const char *text)
{
    char found[16] = {0};
    CHECK(recv(fd, found, sizeof found, 0) == (ssize_t)strlen(text) && !strcmp(found, text));
}

/* Objects by the same keys as in the first namespace. */
static int in_others(void)
{
    CHECK(unshare(CLONE_NEWNET | CLONE_NEWIPC) == 0);
    CHECK(!(flags_of("lo") & IFF_UP));
    bring_up();
    int listener = bound(SOCK_STREAM, 5000), datagrams = bound(SOCK_DGRAM, 5000);
    CHECK(listen(listener, 5) == 0);
    int client = connected(SOCK_STREAM, 5000), sender = connected(SOCK_DGRAM, 5000);
    int server = accept(listener, 0, 0), waits = connected(SOCK_STREAM, 5000);
    CHECK(server >= 0 && send(client, "there", 5, 0) == 5 && send(sender, "packet", 6, 0) == 6);
    int named = abstract(0);
    CHECK(named >= 0);
    int segment = shmget(key, 8192, IPC_CREAT | 0600), set = semget(key, 2, IPC_CREAT | 0600);
    int queue = msgget(key, IPC_CREAT | 0600);
    char *memory = shmat(segment, 0, 0);
    CHECK(memory != (void *)-1 && set >= 0 && queue >= 0);
    strcpy(memory, "inside");
    struct message message = {1, "inside"};
    CHECK(msgsnd(queue, &message, 8, 0) == 0 && semctl(set, 1, SETVAL, 7) == 0);
    pid_t undoes = fork();
    if (!undoes) {
        struct sembuf less = {1, -3, SEM_UNDO};
        CHECK(semop(set, &less, 1) == 0);
        while (semctl(set, 0, GETVAL) == 0)
            CHECK(syscall(SYS_getpgid, 0) >= 0 && usleep(1000) == 0);
        _exit(0);
    }
    while (semctl(set, 1, GETVAL) == 7)
        CHECK(usleep(1000) == 0);

    many_calls();

    CHECK(flags_of("lo") & IFF_UP);
    heard(server, "there");
    heard(datagrams, "packet");
    CHECK(send(server, "back", 4, 0) == 4);
    heard(client, "back");
    int late = accept(listener, 0, 0);
    CHECK(late >= 0 && send(waits, "late", 4, 0) == 4);
    heard(late, "late");
    int more = connected(SOCK_STREAM, 5000);
    CHECK(more >= 0 && send(sender, "again", 5, 0) == 5);
    heard(datagrams, "again");
    int other = abstract(1);
    CHECK(other >= 0 && send(other, "name", 4, 0) == 4);
    heard(named, "name");
    CHECK(!strcmp(memory, "inside") && shmget(key, 0, 0) == segment);
    char *second = shmat(segment, 0, 0);
    CHECK(!strcmp(second, "inside"));
    second[0] = 'I';
    CHECK(!strcmp(memory, "Inside"));
    memset(&message, 0, sizeof message);
    CHECK(msgrcv(msgget(key, 0), &message, 8, 0, 0) == 8 && !strcmp(message.text, "inside"));
    CHECK(semget(key, 0, 0) == set && semctl(set, 1, GETVAL) == 4);
    CHECK(semctl(set, 0, SETVAL, 1) == 0 && status_of(undoes) == 0);
    CHECK(semctl(set, 1, GETVAL) == 7);
    return 0;
}

int main(void)
{
    key = 0x5eed0000 | (getpid() & 0xffff);
    snprintf(label, sizeof label, "kept-%d", getpid());
    int set = semget(key, 2, IPC_CREAT | 0600), segment = shmget(key, 4096, IPC_CREAT | 0600);
    char *memory = shmat(segment, 0, 0);
    CHECK(set >= 0 && memory != (void *)-1 && semctl(set, 1, SETVAL, 9) == 0);
    strcpy(memory, "outside");
    int named = abstract(0);
    CHECK(named >= 0);
    pid_t child = fork();
    if (!child)
        return in_others();
    CHECK(status_of(child) == 0);
    CHECK(!strcmp(memory, "outside") && semctl(set, 1, GETVAL) == 9);
    CHECK_ERR(msgget(key, 0), ENOENT);
    int other = abstract(1);
    CHECK(other >= 0 && send(other, "here", 4, 0) == 4);
    heard(named, "here");
    CHECK(shmctl(segment, IPC_RMID, 0) == 0 && semctl(set, 0, IPC_RMID) == 0);
    return 0;
}
