/* IPC namespaces: unshare(CLONE_NEWIPC), clone(CLONE_NEWIPC). */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char before[64], after[64], name[64];
static int segment, key;

static int in_child(void *unused) {
    CHECK_ERR(semget(key, 1, 0), ENOENT);
    CHECK_ERR(shmget(key, 1, 0), ENOENT);
    CHECK_ERR(mq_open(name, O_RDWR), ENOENT);
    CHECK(semget(key, 1, IPC_CREAT | 0600) >= 0);
    return 5;
}

static int lines(const char *path) {
    char line[256];
    int count = 0;
    FILE *f = fopen(path, "r");
    while (fgets(line, sizeof line, f)) count++;
    fclose(f);
    return count;
}

static int number(const char *path)
{
    char line[32] = "";
    FILE *f = fopen(path, "r");
    CHECK(f && fgets(line, sizeof line, f));
    fclose(f);
    return atoi(line);
}

static int put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY), size = strlen(text);
    CHECK(fd >= 0);
    int done = write(fd, text, size) == size;
    close(fd);
    return done;
}

/* Limits of System V objects and queues belong to a namespace, and to root of its users. */
static void limits(void)
{
    struct stat st;
    int status;
    CHECK(put("proc/sys/kernel/msgmax", "5000") && put("proc/sys/fs/mqueue/queues_max", "0"));
    CHECK(put("proc/sys/kernel/sem", "1 32000 500 32000"));
    CHECK_ERR(semget(IPC_PRIVATE, 2, 0600), EINVAL);
    CHECK(number("proc/sys/kernel/sem") == 1);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(unshare(CLONE_NEWIPC) == 0 && number("proc/sys/kernel/msgmax") == 8192);
        CHECK(number("proc/sys/fs/mqueue/queues_max") == 256);
        CHECK(semget(IPC_PRIVATE, 2, 0600) >= 0);
        CHECK(put("proc/sys/kernel/msgmax", "4000"));
        CHECK(setgid(1000) == 0 && setuid(1000) == 0);
        CHECK_ERR(open("proc/sys/kernel/msgmax", O_WRONLY), EACCES);
        CHECK(unshare(CLONE_NEWUSER) == 0);
        CHECK_ERR(open("proc/sys/kernel/msgmax", O_WRONLY), EACCES);
        CHECK(unshare(CLONE_NEWIPC) == 0 && number("proc/sys/kernel/msgmax") == 8192);
        CHECK_ERR(open("proc/sys/kernel/msgmax", O_WRONLY), EACCES); /* nobody is root there yet */
        exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(number("proc/sys/kernel/msgmax") == 5000);
    CHECK(number("proc/sys/fs/mqueue/queues_max") == 0);
}

static void become_root(void)
{
    FILE *map = fopen("proc/self/setgroups", "w");
    CHECK(map && fputs("deny", map) >= 0 && fclose(map) == 0);
    map = fopen("proc/self/uid_map", "w");
    CHECK(map && fputs("0 1000 1", map) >= 0 && fclose(map) == 0);
    map = fopen("proc/self/gid_map", "w");
    CHECK(map && fputs("0 1000 1", map) >= 0 && fclose(map) == 0);
}

/* Root of a user namespace writes those of its own IPC namespace, and no other one. */
static void own_limits(void)
{
    struct stat st;
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(setgid(1000) == 0 && setuid(1000) == 0 && prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
        CHECK(unshare(CLONE_NEWUSER) == 0);
        become_root();
        CHECK_ERR(open("proc/sys/kernel/msgmax", O_WRONLY), EACCES);
        CHECK(stat("proc/sys/kernel/msgmax", &st) == 0 && st.st_uid == 65534);
        CHECK(unshare(CLONE_NEWIPC) == 0);
        CHECK(stat("proc/sys/kernel/msgmax", &st) == 0 && st.st_uid == 0 && st.st_gid == 0);
        CHECK(stat("proc/sys/kernel/msg_next_id", &st) == 0 && st.st_uid == 0);
        CHECK(put("proc/sys/kernel/msgmax", "3000") && number("proc/sys/kernel/msgmax") == 3000);
        CHECK(put("proc/sys/fs/mqueue/msg_max", "7"));
        CHECK_ERR(open("proc/sys/kernel/hostname", O_WRONLY), EACCES);
        exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* kernel.*_next_id, of a namespace and through a proc of its own: it counts once. */
static void next_ids(void)
{
    CHECK(unshare(CLONE_NEWIPC | CLONE_NEWNS) == 0);
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mkdir("proc", 0755) == 0 && mount("proc", "proc", "proc", 0, NULL) == 0);
    CHECK(number("proc/sys/kernel/msg_next_id") == -1);
    CHECK(put("proc/sys/kernel/msg_next_id", "70000"));
    CHECK(number("proc/sys/kernel/msg_next_id") == 70000);
    CHECK(msgget(IPC_PRIVATE, 0600) == 70000);
    CHECK(number("proc/sys/kernel/msg_next_id") == -1);
    CHECK(put("proc/sys/kernel/msg_next_id", "70000"));
    CHECK(msgget(IPC_PRIVATE, 0600) == 70001);
    CHECK(put("proc/sys/kernel/shm_next_id", "5") && put("proc/sys/kernel/sem_next_id", "6"));
    CHECK(shmget(IPC_PRIVATE, 1, 0600) == 5 && semget(IPC_PRIVATE, 1, 0600) == 6);
    CHECK(!put("proc/sys/kernel/msg_next_id", "-2") && errno == EINVAL);
    CHECK(umount("proc") == 0 && rmdir("proc") == 0);
    _exit(0);
    limits();
    own_limits();
}

int main(void) {
    int status;
    key = 0x56000000 | getpid();
    sprintf(name, "/ns-%d", getpid());
    CHECK(readlink("/proc/self/ns/ipc", before, 63) > 0);
    char *stack = malloc(65536);
    segment = shmget(key, 4096, IPC_CREAT | 0600);
    int set = semget(key, 1, IPC_CREAT | 0600), queue = msgget(key, IPC_CREAT | 0600);
    mqd_t mq = mq_open(name, O_CREAT | O_RDWR, 0600, 0);
    CHECK(segment >= 0 && set >= 0 && queue >= 0 && mq >= 0);
    int *map = shmat(segment, 0, 0);
    *map = 42;

    CHECK_ERR(clone(in_child, stack + 65536, CLONE_NEWIPC | CLONE_SYSVSEM | SIGCHLD, 0), EINVAL);
    pid_t child = clone(in_child, stack + 65536, CLONE_NEWIPC | SIGCHLD, 0);
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 5 << 8);
    CHECK(semget(key, 1, 0) == set);

    child = fork();
    if (!child) {
        struct sembuf up = {0, 3, SEM_UNDO};
        struct shmid_ds ds;
        CHECK(semop(set, &up, 1) == 0);
        CHECK(unshare(CLONE_NEWIPC) == 0);
        CHECK(readlink("/proc/self/ns/ipc", after, 63) > 0 && strcmp(before, after));
        CHECK(lines("/proc/sysvipc/shm") == 1 && lines("/proc/sysvipc/sem") == 1);
        CHECK_ERR(shmctl(segment, IPC_STAT, &ds), EINVAL);
        CHECK_ERR(msgget(key, 0), ENOENT);
        CHECK(*map == 42 && shmdt(map) == 0); /* what is attached stays so */
        int mine = semget(key, 1, IPC_CREAT | IPC_EXCL | 0600);
        CHECK(mine >= 0 && lines("/proc/sysvipc/sem") == 2);
        CHECK(mq_send(mq, "x", 1, 0) == 0); /* and what is open */
        CHECK_ERR(mq_unlink(name), ENOENT);
        mqd_t other = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, 0);
        CHECK(other >= 0);
        if (!fork()) {
            CHECK(semget(key, 1, 0) == mine && mq_open(name, O_RDWR) >= 0);
            setresuid(1000, 1000, 1000);
            CHECK_ERR(unshare(CLONE_NEWIPC), EPERM);
            _exit(0);
        }
        CHECK(wait(&status) > 0 && status == 0);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(semctl(set, 0, GETVAL) == 0); /* undone when it left */
    char text[8192];
    CHECK(mq_receive(mq, text, sizeof text, 0) == 1);
    CHECK(mq_unlink(name) == 0 && shmdt(map) == 0);
    CHECK(shmctl(segment, IPC_RMID, 0) == 0 && semctl(set, 0, IPC_RMID) == 0);
    CHECK(msgctl(queue, IPC_RMID, 0) == 0);
    if (!fork())
        next_ids();
    CHECK(wait(&status) > 0 && status == 0);
    return 0;
}
